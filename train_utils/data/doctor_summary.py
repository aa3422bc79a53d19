"""The label doctor's summary of all samples, and the checks that need several samples."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from src.image_io import IGNORE, stem_of
from train_utils.class_weights import plan_class_weights
from train_utils.data.doctor_instances import describe_objects, describe_weights
from train_utils.data.doctor_sample import Finding
from train_utils.data.labels import conflicting_encodings
from train_utils.data.problems import Problem
from train_utils.data.samples import TRAINING_SPLITS
from train_utils.data.statistics import add_sums, channel_sums, flag_values, mean_and_std
from train_utils.plurals import counted

MAX_LISTED = 8  # files or values that a line lists at most


class DatasetSummary:
    """Adds up what the samples of all splits hold. Attributes are dictionaries with a split as key.

    Args:
        names: of the classes.
    """

    def __init__(self, names: tuple[str, ...]):
        self.names = names
        self.pixels = defaultdict(new_counts)  # pixels of each class and of IGNORE
        self.images = defaultdict(new_counts)  # images in which each class occurs
        self.sizes = defaultdict(Counter)
        self.modes = defaultdict(Counter)
        self.encodings = defaultdict(Counter)
        self.roi_shares = defaultdict(list)
        self.objects = defaultdict(list)  # (count, touching, pixels) of labels with ids of objects
        self.weights = defaultdict(list)  # (lowest, highest, mean) of weight maps
        self.single_class = []  # warnings of labels that hold one class alone
        # These two have a digest of the content as key, and lists of (split, path).
        self.same_image = defaultdict(list)
        self.same_label = defaultdict(list)
        self.sums = None  # channel sums of the training images

    def add(self, finding: Finding) -> None:
        """Adds one sample."""
        split, sample = finding.split, finding.sample
        if finding.image is not None:
            height, width = finding.image.shape[1:]
            self.sizes[split][f"{width}×{height}"] += 1
            self.modes[split][finding.mode] += 1
            self.same_image[digest(finding.image.numpy())].append((split, sample.image))
        if finding.roi_share is not None:
            self.roi_shares[split].append(finding.roi_share)
        if finding.objects is not None:
            objects = finding.objects
            self.objects[split].append((objects.count, objects.touching, objects.pixels))
        if finding.weight is not None:
            weight = finding.weight
            self.weights[split].append((weight.min(), weight.max(), weight.mean()))
        if finding.target is not None:
            self.add_target(finding)

    def add_target(self, finding: Finding) -> None:
        """Adds the target of one sample, and its image to the channel sums."""
        split, label, target = finding.split, finding.label, finding.target
        counts = np.bincount(target.ravel(), minlength=256)
        self.pixels[split] += counts
        self.images[split] += counts > 0
        self.encodings[split][finding.encoding] += 1
        if np.count_nonzero(counts[:IGNORE]) < 2:
            if finding.objects is None:
                text = f"{label}: holds a single class"
                self.single_class.append(Problem(text, "single class", label.name))
        else:
            self.same_label[digest(target)].append((split, label))
        if finding.image is not None and split in TRAINING_SPLITS:
            valid = torch.from_numpy(target != IGNORE)
            self.sums = add_sums(self.sums, channel_sums(finding.image, valid))

    def training_pixels(self) -> np.ndarray:
        """int64 [256]: training pixels of each class and of IGNORE."""
        return sum(self.pixels.get(split, new_counts()) for split in TRAINING_SPLITS)

    # --- text of the report ----------------------------------------------------------------------

    def describe(self, split: str, num_samples: int) -> list[str]:
        """The lines about one split."""
        num_labels = sum(self.encodings[split].values())
        lines = [
            "",
            f"{split}: {counted(num_samples, 'samples')}, {counted(num_labels, 'labels')} that "
            "can be read",
            f"  image sizes: {most_common(self.sizes[split])}",
            f"  image modes: {most_common(self.modes[split])}",
            f"  labels are read as: {most_common(self.encodings[split])}",
        ]
        shares = self.roi_shares[split]
        if shares:
            smallest, largest = 100 * min(shares), 100 * max(shares)
            lines.append(f"  ROI masks cover {smallest:.1f} to {largest:.1f} % of an image")
        if self.objects[split]:
            lines += describe_objects(self.objects[split])
        if self.weights[split]:
            lines.append(describe_weights(self.weights[split]))
        return lines + self.describe_classes(split)

    def describe_classes(self, split: str) -> list[str]:
        """The lines about the shares of the classes in one split."""
        pixels, images = self.pixels[split], self.images[split]
        valid = max(1, pixels[:IGNORE].sum())
        lines = []
        for index, name in enumerate(self.names):
            share = 100 * pixels[index] / valid
            lines.append(
                f"  {name:<16}{share:8.3f} % of the valid pixels, "
                f"in {counted(images[index], 'images')}"
            )
        ignored = 100 * pixels[IGNORE] / max(1, pixels.sum())
        foreground = 100 * pixels[1 : len(self.names)].sum() / valid
        lines.append(f"  {'ignored':<16}{ignored:8.3f} % of all pixels")
        lines.append(f"  foreground (all but {self.names[0]}): {foreground:.3f} %")
        return lines

    def suggest_flags(self) -> list[str]:
        """The lines with mean, std and class weights of the training images, as flags."""
        if self.sums is None or not self.sums[0]:
            return []
        mean, std = flag_values(mean_and_std(*self.sums))
        pixels = self.training_pixels()[: len(self.names)].tolist()
        weights = ",".join(f"{value:.3g}" for value in plan_class_weights(pixels))
        source, planned = "the training images", "those of the plan"
        if "all" in self.pixels:
            source = "all images, which are not split yet"
            planned = "the plan takes those of the training images"
        return [
            "",
            f"suggested, from {source}: --mean {mean} --std {std}",
            f"  --class-weights {weights} ({planned})",
        ]

    # --- checks ----------------------------------------------------------------------------------

    def check_all(self) -> tuple[list[str], list[str]]:
        """(errors, warnings) that no single file shows, each a Problem or any string."""
        errors, warnings = self.check_duplicate_images()
        warnings += self.check_duplicate_labels()
        pairs = {}
        for split, found in self.encodings.items():
            for name, count in found.items():
                pairs[name] = (count, f"a label of {split}")
        conflict = conflicting_encodings(pairs)
        if conflict:
            errors.append(conflict)
        for split in self.pixels:
            warnings += self.check_split(split)
        warnings += self.single_class
        training = self.training_pixels()
        absent = [name for i, name in enumerate(self.names) if not training[i]]
        if absent and training.any():
            warnings.append(f"no training image has a pixel of: {', '.join(absent)}")
        return errors, warnings

    def check_duplicate_images(self) -> tuple[list[Problem], list[Problem]]:
        """(errors, warnings) about images with the same content: errors if in several splits."""
        errors, warnings = [], []
        for group in self.same_image.values():
            paths = list_paths(path for _, path in group)
            if len({split for split, _ in group}) > 1:
                text = f"the same picture in several splits makes scores too optimistic: {paths}"
                errors.append(Problem(text, "in several splits", group[0][1].name))
            elif len(group) > 1:
                text = f"the same picture twice: {paths}"
                warnings.append(Problem(text, "twice", group[0][1].name))
        return errors, warnings

    def check_duplicate_labels(self) -> list[Problem]:
        """Warnings about labels with the same content whose images differ."""
        duplicates = set()
        for group in self.same_image.values():
            if len(group) > 1:
                duplicates |= {stem_of(path) for _, path in group}
        warnings = []
        for group in self.same_label.values():
            stems = {stem_of(path) for _, path in group}
            if len(group) > 1 and not stems <= duplicates:
                paths = list_paths(path for _, path in group)
                text = (
                    "the same label for different pictures; check that it is no copy by mistake: "
                    f"{paths}"
                )
                warnings.append(Problem(text, "same label", group[0][1].name))
        return warnings

    def check_split(self, split: str) -> list[str]:
        """Warnings about encodings and classes of one split."""
        pixels, training = self.pixels[split], self.training_pixels()
        encodings = self.encodings[split]
        warnings = []
        if len(encodings) > 1:
            counts = ", ".join(f"{count} as {name}" for name, count in encodings.items())
            warnings.append(f"{split}: labels of several encodings: {counts}")
        new = [name for i, name in enumerate(self.names) if pixels[i] and not training[i]]
        if new:
            warnings.append(f"{split}: holds classes that no training image has: {', '.join(new)}")
        if len(self.names) == 2 and pixels[1] > pixels[0] and not self.objects[split]:
            share = 100 * pixels[1] / pixels[:2].sum()
            warnings.append(
                f"{split}: {self.names[1]} covers {share:.0f} % of the pixels; "
                "are the labels inverted?"
            )
        return warnings


def new_counts() -> np.ndarray:
    """int64 [256] of zeros, one for each class id."""
    return np.zeros(256, np.int64)


def digest(array: np.ndarray) -> str:
    """A hash of the array's shape and values."""
    content = repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(content).hexdigest()


def most_common(counter: Counter) -> str:
    """The most frequent values like "3 × RGB, 1 × L"; "none" if nothing was counted."""
    counts = [f"{count} × {value}" for value, count in counter.most_common(MAX_LISTED)]
    return ", ".join(counts) or "none"


def list_paths(paths: Iterable[Path]) -> str:
    """The first of the paths, with commas."""
    return ", ".join(str(path) for path in list(paths)[:MAX_LISTED])
