"""Data sets: lists of samples (image, label, region of interest), the one class that reads them, and the DATASETS table.

An item is (image uint8 [C, H, W], target uint8 [H, W]). A target pixel that is not to be judged is IGNORE from here
on, and nothing after this file needs to know why. How files are decoded, labels read and layouts listed is in readers/.

`python my_dataset.py check --dataset NAME --data-path DIR` looks at a data set and says what it found.
"""

import numpy as np
import torch
from torch.utils.data import Dataset

from src.errors import UserError
from src.image_io import (
    IGNORE,
    IMAGE_SUFFIXES,
    image_files,
    read_binary,
    read_image,
    resize_image,
    resize_target,
)
from train_utils.data import layouts
from train_utils.data.class_table import (
    BINARY,
    CAMVID,
    ClassTable,
    contradiction,
    find_table,
    read_label,
    two_classes,
)
from train_utils.data.layouts import Sample
from train_utils.data.splits import fold, hold_out

__all__ = [
    "BINARY",
    "CAMVID",
    "DATASETS",
    "IGNORE",
    "IMAGE_SUFFIXES",
    "Sample",
    "ClassTable",
    "UserError",
    "DriveDataset",
    "SegmentationDataset",
    "find_table",
    "fold",
    "hold_out",
    "image_files",
    "list_samples",
    "list_drive",
    "read_binary",
    "read_image",
    "resize_image",
]


class SegmentationDataset(Dataset):
    """Samples of any data set. Item: (image, target), as `transforms` makes them from the pair of the file's head.

    Args:
        samples: list of Sample, each with a label. Pixels outside the ROI mask become IGNORE.
        classes: the ClassTable that the labels are read by.
        transforms: callable on (image, target), or None.
        cache: decoded images to keep in memory after the first read: all (True), none (False), or as many as fit into
            this number of bytes.
        channels: of the image, see read_image.
        size: (height, width) that images and targets are resized to when they are read; None: their own.
        max_pixels: largest image that is decoded; None: Pillow's limit.
    """

    def __init__(
        self,
        samples,
        classes=BINARY,
        transforms=None,
        cache=True,
        channels=3,
        size=None,
        max_pixels=None,
    ):
        self.samples, self.classes, self.transforms = list(samples), classes, transforms
        self.channels, self.size, self.max_pixels = channels, size, max_pixels
        self.cache_limit = float("inf") if cache is True else int(cache)
        self._cache, self.cached_bytes = {}, 0
        self.sizes = {}  # index → (height, width) of the samples read so far
        self.encodings = {}  # how the labels read so far said their classes → [how many, example path]

    def with_samples(self, samples):
        """Other samples, read in the same way, as they are and without memory."""
        return SegmentationDataset(
            samples, self.classes, None, False, self.channels, self.size, self.max_pixels
        )

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        image, target = (
            tensor.clone() for tensor in self.read(index)
        )  # the cached ones must not change
        return self.transforms(image, target) if self.transforms else (image, target)

    def read(self, index):
        """Sample `index` before the transforms, from memory if it was kept there. Not to be changed in place."""
        if index in self._cache:
            return self._cache[index]
        pair = self._decode(index)
        size = sum(tensor.nbytes for tensor in pair)
        if self.cached_bytes + size <= self.cache_limit:
            self._cache[index] = pair
            self.cached_bytes += size
        return pair

    def _decode(self, index):
        sample = self.samples[index]
        if sample.label is None:
            raise UserError(f"{sample.image}: has no label to learn from or to judge by")
        image = read_image(sample.image, self.channels, self.max_pixels)
        label, encoding = read_label(sample.label, self.classes, self.max_pixels)
        roi = (
            read_binary(sample.roi, "ROI mask", self.max_pixels)[0]
            if sample.roi
            else np.ones_like(label)
        )
        for path, mask in ((sample.label, label), (sample.roi, roi)):
            if mask.shape != tuple(image.shape[1:]):
                raise UserError(
                    f"{path}: is {mask.shape[1]}×{mask.shape[0]} pixels, but its image {sample.image} is "
                    f"{image.shape[2]}×{image.shape[1]}; they must be equal (check the EXIF orientation)"
                )
        if not roi.any():
            raise UserError(
                f"{sample.roi}: the ROI mask is empty, so no pixel of {sample.image} would count; redraw it"
            )
        if index not in self.sizes:
            self.encodings.setdefault(encoding, [0, sample.label])[0] += 1
        target = torch.from_numpy(np.where(roi, label, IGNORE).astype(np.uint8))
        if self.size:
            image, target = resize_image(image, self.size), resize_target(target, self.size)
        self.sizes[index] = tuple(target.shape)
        return image, target

    def count_pixels(self):
        """Reads every sample, which finds bad files before training does, and counts its pixels.

        Returns int64 [256]: pixels of each class id; entry IGNORE counts those that are not judged.
        """
        pixels = sum(
            torch.bincount(self.read(i)[1].flatten(), minlength=256) for i in range(len(self))
        )
        if self.classes.any_pair and contradiction(self.encodings):
            raise UserError(contradiction(self.encodings))
        return pixels

    def describe(self, pixels):
        """What count_pixels() found, in words: how many images, the classes' shares, and how the labels say them."""
        judged = max(1, int(pixels[:IGNORE].sum()))
        shares = ", ".join(
            f"{100 * int(count) / judged:.1f} % {name}"
            for count, name in zip(pixels, self.classes.names)
        )
        names = self.samples[0].name + (f" to {self.samples[-1].name}" if len(self) > 1 else "")
        lines = [
            f"{len(self)} images ({names}), {int(pixels[:IGNORE].sum()):,} pixels inside the ROI: {shares}"
        ]
        for encoding, (count, path) in self.encodings.items():
            lines.append(f"  {count} labels are read as {encoding}, such as {path}")
            if self.classes.any_pair and encoding.count("/") and encoding not in ("0/255", "0/1"):
                lines[-1] += ": the larger value is read as class 1"
        if len(self.encodings) > 1 and not self.classes.any_pair:
            lines.append(
                "  warning: labels of several encodings; see whether each is meant (python my_dataset.py check)"
            )
        return "\n".join(lines)

    def fits_in_memory(self):
        """Whether all samples, which must have been read, are in memory and would keep the limit when padded to one size."""
        height, width = (max(size[axis] for size in self.sizes.values()) for axis in (0, 1))
        return (
            len(self._cache) == len(self)
            and len(self) * (self.channels + 1) * height * width <= self.cache_limit
        )

    def stack(self):
        """All samples before the transforms: images uint8 [M, C, H, W], targets uint8 [M, H, W] (padded as collate_fn does)
        and sizes int64 [M, 2], the height and width of each without the padding."""
        return self.collate_with_sizes([self.read(i) for i in range(len(self))])

    @staticmethod
    def collate_fn(batch):
        """[(image [C, h, w], target [h, w])] → images [N, C, H, W] and targets [N, H, W] at the largest H and W.

        What is added at the right and below is 0 in the images and IGNORE in the targets.
        """
        images, targets = zip(*batch)
        return pad_and_stack(images, fill=0), pad_and_stack(targets, fill=IGNORE)

    @staticmethod
    def collate_with_sizes(batch):
        """collate_fn's images and targets, and int64 [N, 2], the height and width of each without the padding."""
        return *SegmentationDataset.collate_fn(batch), torch.tensor(
            [target.shape for _, target in batch]
        )


def pad_and_stack(tensors, fill):
    """Stacks tensors [..., h, w] of different h and w, each padded at the right and below with `fill`."""
    height, width = max(t.shape[-2] for t in tensors), max(t.shape[-1] for t in tensors)
    batch = tensors[0].new_full((len(tensors), *tensors[0].shape[:-2], height, width), fill)
    for row, tensor in zip(batch, tensors):
        row[..., : tensor.shape[-2], : tensor.shape[-1]] = tensor
    return batch


class DriveDataset(SegmentationDataset):
    """DRIVE retinal vessels (Staal et al. 2004): target 0 background, 1 vessel, 255 outside the ROI mask.

    Reads root/DRIVE/training or root/DRIVE/test; UserError names what is missing or unusable.
    """

    def __init__(self, root, train, transforms=None, cache=True):
        super().__init__(list_drive(root, train), DATASETS["drive"]["classes"], transforms, cache)


def list_drive(root, train):
    """The samples of root/DRIVE/training or root/DRIVE/test, sorted by name; UserError for files without partner."""
    return refuse_problems(*layouts.drive_split(root, train))


def list_samples(dataset, root):
    """{"train", "val", "test": samples}, or {"all": samples}, of a row of DATASETS; UserError for files without partner."""
    found = DATASETS[dataset]["layout"](root)
    return refuse_problems(found.splits, found.problems)


def refuse_problems(found, problems, shown=12):
    if problems:
        more = f"; and {len(problems) - shown} more" if len(problems) > shown else ""
        raise UserError(
            "files that do not fit together (add what is missing, or take the file away): "
            + "; ".join(problems[:shown])
            + more
        )
    return found


# One row a data set: how to list its samples, what its classes are (a class table in a file takes their place), and what its
# pixels look like. mean and std that are None are counted from the training images. ordered: held-out
# samples are the last ones, not drawn, since neighbours belong together. DRIVE's numbers are the tutorials' (means over
# the training images of each image's statistics inside the ROI, of pixels in 0–1): weights trained with them expect
# them. compute_mean_std.py prints these and the pooled ones.
COUNTED = {"mean": None, "std": None}
DATASETS = {
    "drive": {
        "layout": layouts.drive,
        "classes": two_classes("vessel"),
        "ordered": True,
        "mean": [0.709, 0.381, 0.224],
        "std": [0.127, 0.079, 0.043],
    },
    "camvid": {"layout": layouts.camvid, "classes": CAMVID, "ordered": False, **COUNTED},
    "folder": {"layout": layouts.folder, "classes": BINARY, "ordered": False, **COUNTED},
    "list": {"layout": layouts.from_list, "classes": BINARY, "ordered": False, **COUNTED},
    "chase_db1": {
        "layout": layouts.chase_db1,
        "classes": two_classes("vessel"),
        "ordered": True,
        **COUNTED,
    },
    "stare": {
        "layout": layouts.stare,
        "classes": two_classes("vessel"),
        "ordered": False,
        **COUNTED,
    },
    "hrf": {"layout": layouts.hrf, "classes": two_classes("vessel"), "ordered": True, **COUNTED},
}


if __name__ == "__main__":
    from train_utils.cli.check import main  # needs train_utils, which a data set does not

    main(DATASETS)
