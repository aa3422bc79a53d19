"""The layouts of data sets: which files are an image, its label and its ROI mask, and which split they belong to.

Each lister returns a DatasetFiles. What does not fit together is told as problems, so that the label doctor can go on and
name them all; training refuses a dataset with problems.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from src.errors import UserError
from src.image_io import image_files, stem_of

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
IMAGE_FOLDERS, LABEL_FOLDERS, ROI_FOLDERS = (
    ("images",),
    ("masks", "labels", "annotations"),
    ("roi", "rois", "fov"),
)

# What names carry beside the picture's own: x.jpg belongs to x_mask.png, 21_training.tif to 21_manual1.gif.
IMAGE_ENDINGS = r"(_training|_test|_image|_img|_sat)$"
LABEL_ENDINGS = (
    r"(_training_mask|_test_mask|_mask|_masks|_label|_labels|_labelids|_manual1|_1stho|_gt|_seg|_segmentation"
    r"|_annotation|_l|_p|_roi|_fov)$"
)


@dataclass(frozen=True)
class Sample:
    """One image to learn from or to judge: paths of the image, its label, its ROI mask, and the label of a second observer,
    who is scored beside the model (None where there is none)."""

    name: str
    image: Path
    label: Path | None = None
    roi: Path | None = None
    second: Path | None = None


@dataclass
class DatasetFiles:
    """splits: {"train", "val", "test": samples} where the layout splits them, else {"all": samples}; problems: sentences."""

    splits: dict = field(default_factory=dict)
    problems: list = field(default_factory=list)

    def add(self, split, samples, problems):
        self.splits[split] = samples
        self.problems += problems


# --- pairing ----------------------------------------------------------------------------------------------------------


def key_of(path, endings=None):
    """The name without suffix, in lower case, and without one of the endings."""
    stem = stem_of(path).lower()
    return re.sub(endings, "", stem) if endings else stem


def pair(images, labels, rois, label_folder, roi_folder=None, judged=True):
    """(samples, problems) of files by name: equal names belong together, else equal names without their endings.

    judged: whether an image without label is a problem. If there are ROI masks, each image needs one.
    """
    exact, loose, problems = {}, {}, []
    for image in images:
        if key_of(image) in exact:
            problems.append(
                f"{exact[key_of(image)]} and {image} are two files for one image; keep one of them"
            )
        exact.setdefault(key_of(image), image)
        loose.setdefault(key_of(image, IMAGE_ENDINGS), image)
    partners = []
    for files, folder, wanted, what in (
        (labels, label_folder, judged, "label"),
        (rois, roi_folder, bool(rois), "ROI mask"),
    ):
        found = {}
        for path in files:
            short = key_of(path, LABEL_ENDINGS)
            image = exact.get(key_of(path)) or exact.get(short) or loose.get(short)
            if image is None:
                problems.append(f"{path} has no image")
            elif image in found:
                problems.append(
                    f"{found[image]} and {path} are two files for one image; keep one of them"
                )
            found.setdefault(image, path)
        problems += [
            f"{image} has no {what} in {folder}"
            for image in exact.values()
            if wanted and image not in found
        ]
        partners.append(found)
    return [
        Sample(stem_of(image), image, *(found.get(image) for found in partners))
        for image in exact.values()
    ], problems


def first_folder(root, names):
    """The folder below `root` that has one of the names, None if there is none; UserError if there are several."""
    found = [root / name for name in names if (root / name).is_dir()]
    if len(found) > 1:
        raise UserError(f"{found[0]} and {found[1]} are both there; keep one, or rename the other")
    return found[0] if found else None


def inside(root, *names):
    """The data set's own folder: root/name for the first of the names that is there, else root itself."""
    root = Path(root)
    return next((root / name for name in names if (root / name).is_dir()), root)


# --- layouts ----------------------------------------------------------------------------------------------------------

DRIVE_TREE = """\
<data-path>/DRIVE/
    training/images/21_training.tif   1st_manual/21_manual1.gif   mask/21_training_mask.gif
    test/images/01_test.tif           1st_manual/01_manual1.gif   mask/01_test_mask.gif   (1st_manual is optional here)"""


def drive(root):
    """root/DRIVE/training and root/DRIVE/test (Staal et al. 2004); files belong together by number."""
    dataset = DatasetFiles()
    for split, train in (("train", True), ("test", False)):
        dataset.add(split, *drive_split(root, train))
    return dataset


def drive_split(root, train):
    """(samples sorted by name, problems) of one split. A test split without 1st_manual has samples without label.

    A second observer's labels, 2nd_manual/21_manual2.gif, are optional everywhere. UserError if the folder is missing.
    """
    folder = Path(root) / "DRIVE" / ("training" if train else "test")
    images, twice = files_by_number(folder / "images")
    if not images:
        raise UserError(
            f"{folder / 'images'}: no images there; --data-path must name the folder that holds this tree:\n"
            f"{DRIVE_TREE}\nGet DRIVE from its authors (README.md says where), or try --demo without any data"
        )
    (labels, label_twice), (rois, roi_twice), (seconds, second_twice) = (
        files_by_number(folder / name) for name in ("1st_manual", "mask", "2nd_manual")
    )
    judged = train or bool(labels)
    problems = twice + label_twice + roi_twice + second_twice
    problems += [
        f"{path} has no ROI mask in {folder / 'mask'}"
        for number, path in images.items()
        if number not in rois
    ]
    problems += [
        f"{path} has no label in {folder / '1st_manual'}"
        for number, path in images.items()
        if judged and number not in labels
    ]
    problems += [
        f"{path} has no image in {folder / 'images'}"
        for partners in (labels, rois)
        for number, path in partners.items()
        if number not in images
    ]
    return [
        Sample(path.stem, path, labels.get(number), rois.get(number), seconds.get(number))
        for number, path in images.items()
    ], problems


def files_by_number(folder):
    """({text before the first "_" of the name: path} for the images in `folder`, sorted, problems)."""
    found, problems = {}, []
    for path in image_files(folder):
        number = path.stem.split("_")[0]
        if number in found:
            problems.append(
                f"{found[number]} and {path} are two files for one number; keep one of them"
            )
        found.setdefault(number, path)
    return found, problems


def camvid(root):
    """CamVid as SegNet's tutorial ships it (train/ + trainannot/) or renamed (train/ + train_labels/), with val and test.

    `root` is that folder or holds it as CamVid/. UserError if there is no train/.
    """
    folder, dataset = inside(root, "CamVid", "camvid"), DatasetFiles()
    for split in SPLITS:
        labels = first_folder(
            folder,
            [split + ending for ending in ("annot", "_annot", "_labels", "labels", "_masks")],
        )
        images = image_files(folder / split)
        if images:
            wanted = labels or folder / f"{split}annot"
            dataset.add(
                split,
                *pair(
                    images,
                    image_files(wanted),
                    [],
                    wanted,
                    judged=split != "test" or labels is not None,
                ),
            )
    if "train" not in dataset.splits:
        raise UserError(
            f"{folder / 'train'}: no images there; --data-path must name the folder that holds CamVid/ with "
            "train/, trainannot/ (or train_labels/), val/, valannot/, and test/, testannot/ if there"
        )
    return dataset


def folder(root):
    """Any images/ + masks/ (+ roi/): flat, or with train/, val/ and test/ above or below them.

    masks/ may be called labels/ or annotations/. Files belong together by name, see pair(). A test split may lack masks.
    """
    root, dataset = Path(root), DatasetFiles()
    places = {
        "all": {
            kind: first_folder(root, names)
            for kind, names in (
                ("images", IMAGE_FOLDERS),
                ("labels", LABEL_FOLDERS),
                ("rois", ROI_FOLDERS),
            )
        }
    }
    for split, names in SPLITS.items():
        above = first_folder(root, names)
        below = {
            kind: first_folder(place, names) if place else None
            for kind, place in places["all"].items()
        }
        if above and first_folder(above, IMAGE_FOLDERS):
            places[split] = {
                "images": first_folder(above, IMAGE_FOLDERS),
                "labels": first_folder(above, LABEL_FOLDERS),
                "rois": first_folder(above, ROI_FOLDERS),
            }
        elif below["images"]:
            places[split] = below
    if "train" in places:
        del places["all"]
    for split, place in places.items():
        images = image_files(place["images"]) if place["images"] else []
        if images:
            wanted = place["labels"] or place["images"].with_name("masks")
            rois = image_files(place["rois"]) if place["rois"] else []
            dataset.add(
                split,
                *pair(
                    images,
                    image_files(wanted),
                    rois,
                    wanted,
                    place["rois"],
                    judged=split != "test" or place["labels"] is not None,
                ),
            )
    if (
        "all" in dataset.splits and len(dataset.splits) > 1
    ):  # beside a test or validation of its own it is for training
        dataset.splits["train"] = dataset.splits.pop("all")
    if not dataset.splits.keys() & {"all", "train"}:
        raise UserError(
            f"{root / 'images'}: no images there; --data-path must name a folder with images/ and masks/ (and "
            "roi/ where not every pixel counts), or with train/images/, train/masks/ and so for val and test"
        )
    return dataset


def from_list(root):
    """A text file of image and label paths, or a folder with train.txt, and val.txt and test.txt if there.

    A line is image, label and ROI mask (the last two may be missing), separated by tabs, commas or, in lines without
    either, blanks. Paths start from the folder of the text file. Lines that begin with # are passed over.
    """
    root, dataset = Path(root), DatasetFiles()
    files = {"all": root} if root.is_file() else {split: root / f"{split}.txt" for split in SPLITS}
    for split, file in files.items():
        if file.is_file():
            dataset.add(split, *read_list(file, judged=split != "test"))
    if not dataset.splits.keys() & {"all", "train"}:
        raise UserError(
            f"{root}: --dataset list wants --data-path to name a text file with a line of image and label paths "
            "for each image, or a folder with train.txt (and val.txt, test.txt)"
        )
    return dataset


def read_list(file, judged):
    """(samples, problems) of one list file."""
    samples, problems, names = [], [], set()
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        parts = (
            line.split("\t") if "\t" in line else line.split(",") if "," in line else line.split()
        )
        paths = [file.parent / part.strip() if part.strip() else None for part in parts]
        if len(paths) > 3 or paths[0] is None:
            problems.append(
                f"{file}, line {number}: holds {len(paths)} paths; it takes an image, its label and its ROI "
                "mask (put tabs between paths that hold blanks)"
            )
            continue
        paths += [None] * (3 - len(paths))
        problems += [
            f"{file}, line {number}: there is no {path}"
            for path in paths
            if path and not path.is_file()
        ]
        if judged and not paths[1]:
            problems.append(f"{file}, line {number}: {paths[0]} has no label")
        if paths[0] in {sample.image for sample in samples}:
            problems.append(f"{file}, line {number}: {paths[0]} is listed twice")
        name = (
            parts[0].strip() if stem_of(paths[0]) in names else stem_of(paths[0])
        )  # x/001.png and y/001.png
        names.add(name)
        samples.append(Sample(name, *paths))
    if not samples and not problems:
        raise UserError(f"{file}: lists no images; a line is an image and its label")
    return samples, problems


def chase_db1(root):
    """CHASE_DB1 (Fraz et al. 2012), 28 images: Image_01L.jpg with Image_01L_1stHO.png in one folder.

    The usual split: the first 20 train, the last 8 (four children, both eyes of each) are the test. The set has no ROI
    masks; where a folder roi/ holds some, they count.
    """
    folder = inside(root, "CHASE_DB1", "CHASEDB1", "CHASE")
    files = image_files(folder)
    images = [path for path in files if re.fullmatch(r"image_\d\d[lr]", path.stem.lower())]
    labels = [path for path in files if path.stem.lower().endswith("_1stho")]
    if not images:
        raise UserError(
            f"{folder}: no images there; --data-path must name the folder that holds CHASE_DB1/ with "
            "Image_01L.jpg, Image_01L_1stHO.png and so on"
        )
    rois = first_folder(folder, ROI_FOLDERS)
    samples, problems = pair(images, labels, image_files(rois) if rois else [], folder, rois)
    return DatasetFiles(
        {"train": samples[:20], "test": samples[20:]} if len(samples) > 20 else {"all": samples},
        problems,
    )


def stare(root):
    """STARE (Hoover et al. 2000), 20 images: im0001.ppm and, in labels-ah/, im0001.ah.ppm, each also as .ppm.gz.

    There is no official split (papers leave one out): --folds, or seeded fractions. ROI masks as for CHASE_DB1.
    """
    folder = inside(root, "STARE", "stare")
    labels_folder = first_folder(folder, ("labels-ah", "labels"))
    source = first_folder(folder, ("stare-images", "images")) or folder
    images = [path for path in image_files(source) if re.fullmatch(r"im\d{4}", stem_of(path))]
    labels = [
        path for path in image_files(labels_folder or folder) if stem_of(path).endswith(".ah")
    ]
    if not images:
        raise UserError(
            f"{source}: no images there; --data-path must name the folder that holds STARE/ with "
            "stare-images/im0001.ppm and labels-ah/im0001.ah.ppm"
        )
    rois = first_folder(folder, ROI_FOLDERS)
    labels = {stem_of(path).removesuffix(".ah"): path for path in labels}
    problems = [
        f"{path} has no label in {labels_folder or folder}"
        for path in images
        if stem_of(path) not in labels
    ]
    problems += [
        f"{path} has no image"
        for name, path in labels.items()
        if name not in {stem_of(image) for image in images}
    ]
    samples, roi_problems = pair(
        images, [], image_files(rois) if rois else [], folder, rois, judged=False
    )
    samples = [
        Sample(sample.name, sample.image, labels.get(sample.name), sample.roi) for sample in samples
    ]
    return DatasetFiles({"all": samples}, problems + roi_problems)


def hrf(root):
    """HRF (Budai et al. 2013), 45 images: images/01_dr.JPG, manual1/01_dr.tif, mask/01_dr_mask.tif.

    Of each of the three groups (dr: diabetic retinopathy, g: glaucoma, h: healthy) the first five train and the last ten
    are the test, as is commonly done (Orlando et al. 2017).
    """
    folder = inside(root, "HRF", "hrf")
    images, labels, rois = (image_files(folder / name) for name in ("images", "manual1", "mask"))
    if not images:
        raise UserError(
            f"{folder / 'images'}: no images there; --data-path must name the folder that holds HRF/ with "
            "images/01_dr.JPG, manual1/01_dr.tif and mask/01_dr_mask.tif"
        )
    samples, problems = pair(images, labels, rois, folder / "manual1", folder / "mask")
    first = [sample for sample in samples if re.match(r"0[1-5]_", sample.name)]
    return DatasetFiles(
        {"train": first, "test": [sample for sample in samples if sample not in first]}, problems
    )
