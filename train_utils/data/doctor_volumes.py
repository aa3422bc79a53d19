"""The label doctor for volumes: checks every file and reports what training would read from it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from src.errors import UserError
from src.image_io import IGNORE
from src.volume_io import describe_header, read_volume
from src.volumes import Geometry, resampled_shape, size_text
from train_utils.data.class_table import ClassTable
from train_utils.data.doctor import Report
from train_utils.data.doctor_summary import digest, list_paths, most_common, new_counts
from train_utils.data.problems import Problem, problem_of
from train_utils.data.samples import DatasetFiles, Sample
from train_utils.data.volumes import SPARSE, doubtful_255, read_roi, read_target
from train_utils.plurals import counted

OTHER_SCALE = 10  # times the median range: intensities on another scale


@dataclass
class VolumeFinding:
    """What the files of one sample hold; None for what cannot be read."""

    sample: Sample
    geometry: Geometry | None = None
    header: str = ""  # dtype and orientation of the image
    label_header: str = ""
    intensities: tuple[float, float] | None = None  # 1st and 99th percentile
    digest: str = ""  # of the image
    counts: np.ndarray | None = None  # int64 [256]: voxels of each class, and ignored ones
    encoding: str = ""
    errors: list[Problem] = field(default_factory=list)


def check_volumes(files: DatasetFiles, table: ClassTable, channels: int = 1) -> Report:
    """Reads every file once, decoding labels with `table`, and returns a report."""
    report = Report(errors=list(files.problems))
    report.lines += ["class table:", *(f"  {line}" for line in table.describe())]
    findings = []
    for split, samples in files.splits.items():
        found = [check_sample(sample, table, channels) for sample in samples]
        report.lines += describe_split(split, found, table)
        findings += found
    for finding in findings:
        report.errors += finding.errors
    report.errors += check_duplicates(findings) + check_encodings(findings)
    report.warnings += check_spacings(findings) + check_intensities(findings)
    report.warnings += check_classes(findings, table) + check_255(findings)
    return report


def check_sample(sample: Sample, table: ClassTable, channels: int) -> VolumeFinding:
    """Reads image, label and ROI of one sample; one error hides those that follow from it."""
    finding = VolumeFinding(sample)
    try:
        image, geometry = read_volume(sample.image, channels)
        finding.geometry, finding.digest = geometry, digest(image)
        finding.header = describe_header(sample.image)
        finding.intensities = tuple(np.percentile(image[0], (1, 99)).tolist())
        if sample.label:
            target, finding.encoding = read_target(sample.label, table, sample.image, geometry)
            if sample.roi:
                target[~read_roi(sample.roi, sample.image, geometry)] = IGNORE
            finding.counts = np.bincount(target.ravel(), minlength=256)
            finding.label_header = describe_header(sample.label)
    except UserError as error:
        finding.errors.append(problem_of(error, sample.image))
    return finding


# --- text of the report ---------------------------------------------------------------------------


def describe_split(split: str, findings: list[VolumeFinding], table: ClassTable) -> list[str]:
    """The lines about one split."""
    read = [finding for finding in findings if finding.geometry]
    labels = [finding for finding in read if finding.counts is not None]
    sizes = Counter(size_text(finding.geometry.shape) for finding in read)
    spacings = Counter(spacing_text(finding.geometry.spacing) for finding in read)
    lines = [
        "",
        f"{split}: {counted(len(findings), 'samples')}, {counted(len(labels), 'labels')} that "
        "can be read",
        f"  sizes (D×H×W): {most_common(sizes)}",
        f"  voxels: {most_common(spacings)}",
        f"  images: {most_common(Counter(finding.header for finding in read))}",
    ]
    if read:
        low, high = np.median([finding.intensities for finding in read], axis=0)
        lines.append(
            f"  intensities (1st to 99th percentile, median volume): {low:.4g} to {high:.4g}"
        )
    if not labels:
        return lines
    lines.append(f"  labels: {most_common(Counter(each.label_header for each in labels))}")
    lines.append(f"  labels are read as: {most_common(Counter(each.encoding for each in labels))}")
    return lines + describe_classes(labels, table)


def spacing_text(spacing: Sequence[float] | None) -> str:
    """ "1×1×2.5 mm", or that the file does not say."""
    if spacing is None:
        return "size not stored"
    return "×".join(f"{size:.3g}" for size in spacing) + " mm"


def describe_classes(labels: list[VolumeFinding], table: ClassTable) -> list[str]:
    """The lines about the shares of the classes."""
    voxels, volumes = new_counts(), new_counts()
    for finding in labels:
        voxels += finding.counts
        volumes += finding.counts > 0
    valid, lines = max(1, voxels[:IGNORE].sum()), []
    for index, name in enumerate(table.names):
        share = 100 * voxels[index] / valid
        lines.append(
            f"  {name:<16}{share:8.3f} % of the valid voxels, "
            f"in {counted(volumes[index], 'volumes')}"
        )
    ignored = 100 * voxels[IGNORE] / max(1, voxels.sum())
    lines.append(f"  {'ignored':<16}{ignored:8.3f} % of all voxels")
    return lines


# --- checks that need several samples -------------------------------------------------------------


def check_spacings(findings: list[VolumeFinding]) -> list[str]:
    """Warnings about volumes that will be resampled."""
    known = [each for each in findings if each.geometry and each.geometry.spacing]
    if not known:
        return []
    median = np.median([each.geometry.spacing for each in known], axis=0).tolist()
    other = [
        each.sample.image
        for each in known
        if resampled_shape(each.geometry.shape, each.geometry.spacing, median)
    ]
    if not other:
        return []
    return [
        f"{counted(len(other), 'volumes')} with other voxels than the median, "
        f"{spacing_text(median)}, will be resampled to it: {list_paths(other)}"
    ]


def check_intensities(findings: list[VolumeFinding]) -> list[str]:
    """Warnings about volumes whose intensities are on another scale than the others'."""
    read = [each for each in findings if each.intensities]
    if not read:
        return []
    ranges = np.array([high - low for low, high in (each.intensities for each in read)])
    median = max(float(np.median(ranges)), 1e-12)
    constant = [each.sample.image for each, size in zip(read, ranges, strict=True) if size == 0]
    other = [
        each.sample.image
        for each, size in zip(read, ranges, strict=True)
        if size > OTHER_SCALE * median or 0 < size < median / OTHER_SCALE
    ]
    warnings = []
    if constant:
        warnings.append(
            f"{counted(len(constant), 'volumes')} with nearly one value: {list_paths(constant)}"
        )
    if other:
        warnings.append(
            f"{counted(len(other), 'volumes')} with intensities on a scale more than "
            f"{OTHER_SCALE} times from the median's (each volume is normalized by itself): "
            f"{list_paths(other)}"
        )
    return warnings


def check_encodings(findings: list[VolumeFinding]) -> list[str]:
    """An error if 255 means two things."""
    encodings = Counter(each.encoding for each in findings if each.counts is not None)
    if "0/255" in encodings and SPARSE in encodings:
        return ["some labels store a class as 255, others mark unlabelled voxels with it"]
    return []


def check_255(findings: list[VolumeFinding]) -> list[str]:
    """A warning if it is not clear what 255 means."""
    encodings = {}
    for finding in findings:
        if finding.counts is not None:
            encodings.setdefault(finding.encoding, [0, finding.sample.label])[0] += 1
    doubt = doubtful_255(encodings)
    return [doubt.removeprefix("warning: ")] if doubt else []


def check_duplicates(findings: list[VolumeFinding]) -> list[Problem]:
    """Errors about volumes that are there twice."""
    groups = defaultdict(list)
    for finding in findings:
        if finding.digest:
            groups[finding.digest].append(finding.sample.image)
    return [
        Problem(f"the same volume twice: {list_paths(group)}", "twice", group[0].name)
        for group in groups.values()
        if len(group) > 1
    ]


def check_classes(findings: list[VolumeFinding], table: ClassTable) -> list[str]:
    """Warnings about labels without foreground."""
    empty = []
    for finding in findings:
        if finding.counts is not None and not finding.counts[1 : len(table.names)].any():
            empty.append(finding.sample.label)
    if not empty:
        return []
    return [f"{counted(len(empty), 'labels')} without foreground: {list_paths(empty)}"]
