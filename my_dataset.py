"""Data sets: lists of cases (image, label, region of interest) and the one class that reads them.

An item is (image uint8 [3, H, W], target uint8 [H, W]). A target pixel that is not to be judged is IGNORE from here
on, and nothing after this file needs to know why.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset

IGNORE = 255  # a target pixel that no loss, metric or statistic counts
IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff"}


class DataError(ValueError):
    """Input data that cannot be used; the message names the file, what was found, and the remedy."""


@dataclass(frozen=True)
class Case:
    """One image to learn from or to judge: paths of the image, its label, its ROI mask, and the label of a second observer,
    who is scored beside the model (None where there is none)."""

    name: str
    image: Path
    label: Path | None = None
    roi: Path | None = None
    second: Path | None = None


# --- reading files ----------------------------------------------------------------------------------------------------

def open_image(path):
    """Decodes the file as a PIL image, EXIF orientation applied; DataError if it is not one or is cut short."""
    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error}); replace or remove it") from None


def read_image(path):
    """The image as uint8 [3, H, W]: grey becomes three equal channels, 16 bits are scaled to 8, alpha is dropped."""
    image = open_image(path)
    if image.mode.startswith("I"):  # Pillow's convert() would clip 16-bit values at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{path}: holds values {values.min()} to {values.max()}; save it with 8 or 16 bits")
        if image.mode == "I" and values.max() <= 255:  # 8 bits in a 32-bit file
            values = values * 257
        return torch.from_numpy((values // 257).astype(np.uint8)).expand(3, -1, -1).contiguous()
    if image.mode == "F":
        raise DataError(f"{path}: holds floating-point values; save it with 8 or 16 bits a channel")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def read_values(path):
    """The numbers a label file stores, [H, W]: palette indices (never palette colours), 0/1 for mode "1"."""
    image = open_image(path)
    if image.mode == "F":
        raise DataError(f"{path}: holds fractions; a mask holds whole numbers, 0 and 255")
    values = np.asarray(image).astype(np.int64)
    if values.ndim == 3:
        values, *others = (values[..., i] for i, band in enumerate(image.getbands()) if band not in ("A", "a"))
        if any((other != values).any() for other in others):
            raise DataError(f"{path}: is a colour picture; a mask has one channel with two values, 0 and 255")
    return values


def read_binary(path, what):
    """A two-valued mask as bool [H, W], the larger value being True, and the sorted list of values found.

    0/255, 0/1 and any other pair (DRIVE's second observer: 3/253) are read alike; a file with one value is all False
    for 0 and all True for 1 or 255. DataError for anything else, naming `what` the mask is ("label", "ROI mask").
    """
    values = read_values(path)
    found, counts = np.unique(values, return_counts=True)
    if len(found) > 2 or (len(found) == 1 and found[0] not in (0, 1, 255)):
        listing = ", ".join(f"{value} ({count} pixels)" for value, count in zip(found[:8], counts[:8]))
        raise DataError(f"{path}: a {what} holds two values, 0 and 255 or 0 and 1; this one holds {len(found)}: {listing}"
                        f"{', …' if len(found) > 8 else ''}; redraw or threshold it, and save it as PNG, not as JPEG")
    mask = values == found[-1] if len(found) == 2 else values > 0
    return mask, found.tolist()


# --- listing cases ----------------------------------------------------------------------------------------------------

DRIVE_TREE = """\
<data-path>/DRIVE/
    training/images/21_training.tif   1st_manual/21_manual1.gif   mask/21_training_mask.gif
    test/images/01_test.tif           1st_manual/01_manual1.gif   mask/01_test_mask.gif   (1st_manual is optional here)"""


def list_drive(root, train):
    """The cases of root/DRIVE/training or root/DRIVE/test, sorted by name.

    Files belong together by number (21_training.tif, 21_manual1.gif, 21_training_mask.gif). A test split without
    1st_manual has cases without label; a second observer's, 2nd_manual/21_manual2.gif, are optional everywhere. DataError if
    the folder is missing or a file has no partner.
    """
    folder = Path(root) / "DRIVE" / ("training" if train else "test")
    images = files_by_number(folder / "images")
    if not images:
        raise DataError(f"{folder / 'images'}: no images there; --data-path must name the folder that holds this tree:\n"
                        f"{DRIVE_TREE}\nGet DRIVE from its authors (README.md says where), or try --demo without any data")
    labels, rois, seconds = (files_by_number(folder / name) for name in ("1st_manual", "mask", "2nd_manual"))
    judged = train or bool(labels)
    problems = [f"{path} has no ROI mask in {folder / 'mask'}" for number, path in images.items() if number not in rois]
    problems += [f"{path} has no label in {folder / '1st_manual'}"
                 for number, path in images.items() if judged and number not in labels]
    problems += [f"{path} has no image in {folder / 'images'}"
                 for partners in (labels, rois) for number, path in partners.items() if number not in images]
    if problems:
        raise DataError("files without partner (add what is missing, or take the file away): " + "; ".join(problems))
    return [Case(path.stem, path, labels.get(number), rois[number], seconds.get(number)) for number, path in images.items()]


def files_by_number(folder):
    """{text before the first "_" of the name: path} for the images in `folder`, sorted; {} if there is no folder."""
    if not folder.is_dir():
        return {}
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")
    by_number = {path.stem.split("_")[0]: path for path in files}
    if len(by_number) < len(files):
        doubled = sorted(str(path) for path in files if path not in by_number.values())
        raise DataError(f"two files for one number: {', '.join(doubled)} and another; keep one of them")
    return by_number


def hold_out(cases, fraction=0.2):
    """(training, validation): the last fifth of the sorted cases validates; of DRIVE's 21–40 these are 37–40."""
    count = max(1, round(len(cases) * fraction))
    if len(cases) <= count:
        raise DataError(f"{len(cases)} training image(s) cannot be split into training and validation; use --val none")
    return cases[:-count], cases[-count:]


def fold(cases, folds, k):
    """(training, validation) of cross-validation: fold k in 0 … folds−1 validates on every folds-th case from k on."""
    if not (2 <= folds <= len(cases) and 0 <= k < folds):
        raise DataError(f"fold {k} of {folds} cannot be cut from {len(cases)} training images; "
                        f"use 2 to {len(cases)} folds, numbered from 0")
    return [case for i, case in enumerate(cases) if i % folds != k], cases[k::folds]


# --- the data set -----------------------------------------------------------------------------------------------------

class BinaryDataset(Dataset):
    """Cases with two-valued labels. Item: (image, target), as `transforms` makes them from the pair of the file's head.

    Args:
        cases: list of Case, each with a label. Pixels outside the ROI mask become IGNORE.
        transforms: callable on (image, target), or None.
        cache: keep decoded images in memory after the first read.
    """

    def __init__(self, cases, transforms=None, cache=True):
        self.cases, self.transforms = list(cases), transforms
        self._cache = {} if cache else None
        self.label_values = {}  # {(0, 255): example path}: what the labels read so far held

    def __len__(self):
        return len(self.cases)

    def __getitem__(self, index):
        image, target = (tensor.clone() for tensor in self.read(index))  # the cached ones must not change
        return self.transforms(image, target) if self.transforms else (image, target)

    def read(self, index):
        """Case `index` before the transforms, from memory if it was read before. Not to be changed in place."""
        if self._cache is None:
            return self._decode(self.cases[index])
        if index not in self._cache:
            self._cache[index] = self._decode(self.cases[index])
        return self._cache[index]

    def _decode(self, case):
        if case.label is None:
            raise DataError(f"{case.image}: has no label to learn from or to judge by")
        image = read_image(case.image)
        label, values = read_binary(case.label, "label")
        roi, _ = read_binary(case.roi, "ROI mask") if case.roi else (np.ones_like(label), None)
        for path, mask in ((case.label, label), (case.roi, roi)):
            if mask.shape != tuple(image.shape[1:]):
                raise DataError(f"{path}: is {mask.shape[1]}×{mask.shape[0]} pixels, but its image {case.image} is "
                                f"{image.shape[2]}×{image.shape[1]}; they must be equal (check the EXIF orientation)")
        if not roi.any():
            raise DataError(f"{case.roi}: the ROI mask is empty, so no pixel of {case.image} would count; redraw it")
        self.label_values.setdefault(tuple(values), case.label)
        return image, torch.from_numpy(np.where(roi, label, IGNORE).astype(np.uint8))

    def count_pixels(self):
        """Reads every case, which finds bad files before training does, and counts its pixels.

        Returns int64 [256]: pixels of each class id; entry IGNORE counts those that are not judged.
        """
        return sum(torch.bincount(self.read(i)[1].flatten(), minlength=256) for i in range(len(self)))

    def stack(self):
        """All cases before the transforms: images uint8 [M, 3, H, W], targets uint8 [M, H, W] (padded as collate_fn does) and
        sizes int64 [M, 2], the height and width of each without the padding."""
        pairs = [self.read(i) for i in range(len(self))]
        return *self.collate_fn(pairs), torch.tensor([target.shape for _, target in pairs])

    @staticmethod
    def collate_fn(batch):
        """[(image [C, h, w], target [h, w])] → images [N, C, H, W] and targets [N, H, W] at the largest H and W.

        What is added at the right and below is 0 in the images and IGNORE in the targets.
        """
        images, targets = zip(*batch)
        return pad_and_stack(images, fill=0), pad_and_stack(targets, fill=IGNORE)


def pad_and_stack(tensors, fill):
    """Stacks tensors [..., h, w] of different h and w, each padded at the right and below with `fill`."""
    height, width = max(t.shape[-2] for t in tensors), max(t.shape[-1] for t in tensors)
    batch = tensors[0].new_full((len(tensors), *tensors[0].shape[:-2], height, width), fill)
    for row, tensor in zip(batch, tensors):
        row[..., :tensor.shape[-2], :tensor.shape[-1]] = tensor
    return batch


class DriveDataset(BinaryDataset):
    """DRIVE retinal vessels (Staal et al. 2004): target 0 background, 1 vessel, 255 outside the ROI mask.

    Reads root/DRIVE/training or root/DRIVE/test; DataError names what is missing or unusable.
    """

    def __init__(self, root, train, transforms=None, cache=True):
        super().__init__(list_drive(root, train), transforms, cache)


# One row a data set: how to list its cases, what its classes are, and what its pixels look like. DRIVE's mean and std
# are the tutorials' (means over the training images of each image's statistics inside the ROI, of pixels in 0–1):
# weights trained with them expect them. compute_mean_std.py prints these and the pooled ones.
DATASETS = {
    "drive": {
        "list_cases": list_drive,
        "class_names": ["background", "vessel"],
        "mean": [0.709, 0.381, 0.224],
        "std": [0.127, 0.079, 0.043],
    },
}
