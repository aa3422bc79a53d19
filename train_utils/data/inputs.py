"""The inputs of predict.py: which files, the names of their outputs, ROI masks and labels."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.errors import UserError
from src.image_io import stem_of
from train_utils.data.file_kinds import IMAGES, INSTANCES, FileKind
from train_utils.data.folders import matching_files
from train_utils.data.samples import IMAGE_ENDINGS, LABEL_ENDINGS, match_key
from train_utils.data.text_lines import read_lines
from train_utils.distributed_utils import log

RECORD = "predictions.json"  # in the folder of the outputs: what they were made with and of


@dataclass(frozen=True)
class Input:
    """An image or a volume to segment.

    name: what its outputs are called, without an ending, relative to the output folder, such as
    "x" or "sub/x". No two inputs of a call have the same name.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class Job:
    """An input, and the ROI mask and label that belong to it, if there are any."""

    input: Input
    roi_path: Path | None
    label_path: Path | None


def find_inputs(
    source: str, recursive: bool, output: str | Path, kind: FileKind = IMAGES
) -> list[Input]:
    """The images that `source` names, sorted, each once.

    source: an image, a folder, a pattern such as 'a/*.tif', a text file (.txt) with a path on each
        line, or "-" for such lines on standard input. Paths in a text file are relative to the
        working directory, or else to the text file.
    recursive: whether a folder means its sub-folders too. Symbolic links to folders are followed;
        hidden sub-folders are left out.
    kind: images or volumes.
    output: folder of the outputs. Where several folders are searched, images in the folder of an
        earlier call are left out: they are outputs.

    Sub-folders below the folder that all images have in common become part of the names. Images of
    the same name, such as x.png and x.jpg, keep their suffix in it.

    UserError if there are no images, if a listed file is missing, if outputs would be written to a
    folder of the inputs, or if a file is not of the kind.
    """
    paths = find_paths(source, recursive, Path(output), kind)
    path_of = {os.path.abspath(path): path for path in paths}
    places = sorted(Path(place) for place in path_of)
    parent = Path(os.path.abspath(source))
    if not parent.is_dir():
        parent = os.path.commonpath([place.parent for place in places])
    names = unique_names([place.relative_to(parent) for place in places])
    inputs = [Input(path_of[str(place)], name) for place, name in zip(places, names, strict=True)]
    check_output(inputs, Path(output))
    if kind.check:
        for path in paths:
            kind.check(path)
    return inputs


def find_jobs(
    inputs: Sequence[Input],
    roi_mask: str,
    labels: str,
    kind: FileKind = IMAGES,
    instances: bool = False,
) -> list[Job]:
    """The inputs, each with its ROI mask and label, if there are any.

    roi_mask, labels: files or folders, "" for none; see find_partners().
    kind: of the inputs, ROI masks and labels.
    instances: whether labels are ids of objects: images, .npy files, or folders of masks.
    """
    roi_paths = label_paths = [None] * len(inputs)
    if roi_mask:
        roi_paths = find_partners(roi_mask, inputs, "--roi-mask", kind)
    if labels:
        if Path(labels).is_file() and len(inputs) > 1:
            raise UserError(
                f"--labels {labels}: is one file, for {len(inputs)} {kind.noun}; give the folder "
                "that holds a label for each"
            )
        label_kind = INSTANCES if instances else kind
        label_paths = find_partners(labels, inputs, "--labels", label_kind)
    return [Job(*files) for files in zip(inputs, roi_paths, label_paths, strict=True)]


# --- which images --------------------------------------------------------------------------------


def find_paths(source: str, recursive: bool, output: Path, kind: FileKind) -> list[Path]:
    """The paths that `source` names, see find_inputs(); not empty."""
    path = Path(source)
    if source == "-":
        return listed_files(lines_of_standard_input(), "standard input", [Path()])
    if path.is_dir():
        return files_of_folder(path, recursive, output, kind)
    if path.suffix.lower() == ".txt" and path.is_file():
        return listed_files(read_lines(path), str(path), [Path(), path.parent])
    if path.exists():
        return [path]
    return files_of_pattern(source, output, kind)


def files_of_folder(folder: Path, recursive: bool, output: Path, kind: FileKind) -> list[Path]:
    """The files of a folder, and with `recursive` those below it."""
    if recursive:
        paths = without_outputs(kind.below(folder), output)
    else:
        paths = kind.list_files(folder)
    if paths:
        return paths
    remedy = f"it must hold files with one of {', '.join(kind.suffixes)}"
    if not recursive and kind.below(folder):
        remedy = "there are some in its sub-folders: add --recursive"
    raise UserError(f"--input {folder}: the folder has no {kind.noun}; {remedy}")


def files_of_pattern(pattern: str, output: Path, kind: FileKind) -> list[Path]:
    """The files that match a pattern; ** stands for any sub-folders.

    Where it names more than one folder, those of earlier calls are left out.
    """
    folder, name = os.path.split(pattern)
    in_folder = os.path.join(glob.escape(folder), name)  # whose own name may hold brackets
    paths = matching_files(pattern) or matching_files(in_folder)
    if glob.has_magic(folder) or name == "**":
        paths = without_outputs(paths, output)
    if not paths:
        raise UserError(
            f"--input {pattern}: no {kind.noun} there; name a file, a folder of {kind.noun}, a "
            "pattern in quotes, a text file of paths (.txt), or - for paths on standard input"
        )
    return paths


def without_outputs(paths: list[Path], output: Path) -> list[Path]:
    """The paths that are not in the folder of an earlier call, which holds RECORD.

    A folder that holds all paths leaves none out, and if none is left, all are inputs. Logs the
    folders that are left out, but for `output`.
    """
    places = [set(path.resolve().parents) for path in paths]
    folders = set().union(*places) - set.intersection(*places) if places else set()
    earlier = {folder for folder in folders if (folder / RECORD).is_file()}
    inputs = [path for path, parents in zip(paths, places, strict=True) if not parents & earlier]
    if not inputs:
        return paths
    for folder in sorted(earlier - {output.resolve()}):
        log(f"{folder}: is left out, it holds the outputs of an earlier call ({RECORD})")
    return inputs


def lines_of_standard_input() -> list[str]:
    """The lines of standard input; UserError if it is not text."""
    try:
        return sys.stdin.read().removeprefix("\ufeff").splitlines()  # a byte-order mark
    except UnicodeDecodeError:
        raise UserError(
            "standard input: is not text in UTF-8; give one path on each line"
        ) from None


def listed_files(lines: Iterable[str], place: str, folders: list[Path]) -> list[Path]:
    """The files named by the lines, each in the first of the folders that has it.

    Blank lines and lines that begin with # are skipped. place: where the lines are from.
    """
    paths = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = [folder / text for folder in folders if (folder / text).is_file()]
        if not found:
            raise UserError(
                f"{place}, line {number}: there is no file {text}; correct or remove the line"
            )
        paths.append(found[0])
    if not paths:
        raise UserError(f"{place}: holds no paths; give the path of an image on each line")
    return paths


# --- names of the outputs ------------------------------------------------------------------------


def unique_names(paths: list[Path]) -> list[str]:
    """A name for each path: its folder and stem, or its folder and file name where they clash."""
    short = {path: (path.parent / stem_of(path)).as_posix() for path in paths}
    long = set()  # a long name may clash with another file's short one, so look again
    while True:
        names = [path.as_posix() if path in long else short[path] for path in paths]
        counts = Counter(names)
        clashing = {path for path, name in zip(paths, names, strict=True) if counts[name] > 1}
        if clashing <= long:
            return names
        long |= clashing


def check_output(inputs: list[Input], output: Path) -> None:
    """UserError if an output would be written to a folder that holds an input."""
    inputs_of = {item.path.resolve().parent: item for item in inputs}
    for folder in output_folders(output, inputs):
        if folder.resolve() in inputs_of:
            raise UserError(
                f"--output {output}: {folder} is a folder of the inputs, where masks would be "
                f"taken for images ({inputs_of[folder.resolve()].path} is there); name another"
            )


def output_folders(output: str | Path, inputs: Iterable[Input]) -> list[Path]:
    """The folders that outputs are written to, sorted: `output` and what is needed below it."""
    output = Path(output)
    return sorted({output, *((output / item.name).parent for item in inputs)})


# --- ROI masks and labels ------------------------------------------------------------------------


def find_partners(
    source: str | Path, inputs: Sequence[Input], flag: str, kind: FileKind = IMAGES
) -> list[Path]:
    """The ROI mask or label of each input.

    source: one file for all, or a folder. There the file of image x is x.*, x_mask.*, or one with
        an ending that training accepts, see train_utils/data/samples.py. The file of sub/x is in
        the sub-folder sub if the folder has it.
    flag: the flag that gave the source, for messages.
    kind: of the files in a folder.

    UserError if the source does not exist, if an input has no file or several, or if two inputs
    have the same one.
    """
    source = Path(source)
    if not source.exists():
        raise UserError(f"{flag} {source}: there is no such file or folder")
    if not source.is_dir():
        return [source] * len(inputs)
    images_of = {}
    for item in inputs:
        folder = (source / item.name).parent
        if not folder.is_dir():
            folder = source
        images_of.setdefault(folder, []).append(item.path)
    partner_of = {}
    for folder, images in images_of.items():
        partner_of |= partners_in(kind.files_of(folder), images, f"{flag} {folder}")
    return [partner_of[item.path] for item in inputs]


def partners_in(files: list[Path], images: list[Path], place: str) -> dict[Path, Path]:
    """{image: the one of the files that belongs to it}; see find_partners()."""
    index = files_by_name(files, {match_key(image) for image in images})
    image_of = {}
    for image in images:
        partner = find_partner(index, image, place)
        if partner in image_of:
            raise UserError(
                f"{place}: {partner.name} would belong to {image_of[partner]} and to {image}; "
                "rename one of them, or use sub-folders as those of the inputs"
            )
        image_of[partner] = image
    return {image: partner for partner, image in image_of.items()}


def files_by_name(files: list[Path], names: set[str]) -> dict[str, list[Path]]:
    """{name of an image: files that may belong to it}.

    names: those of the images. A file with one of them belongs to that image alone.
    """
    index = {}
    for path in files:
        key = match_key(path)
        keys = {key}
        if key not in names:
            keys |= {key.removesuffix("_mask"), match_key(path, LABEL_ENDINGS)}
        for each in keys:
            index.setdefault(each, []).append(path)
    return index


def find_partner(index: dict[str, list[Path]], image: Path, place: str) -> Path:
    """The one file of files_by_name() that belongs to the image; UserError if there is no one."""
    found = []
    for name in (match_key(image), match_key(image, IMAGE_ENDINGS)):
        if not found:
            found = [path for path in index.get(name, []) if path.resolve() != image.resolve()]
    if len(found) != 1:
        names = ""
        if found:
            names = f" ({', '.join(path.name for path in found)})"
        raise UserError(
            f"{place}: {len(found)} files for {image.name}{names}; "
            f"one {stem_of(image)}_mask.* is needed"
        )
    return found[0]
