"""Published datasets: their layouts (see layouts.py), and CamVid's class table."""

import re
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

from src.errors import UserError
from src.image_io import IGNORE, image_files, stem_of
from train_utils.data.class_table import ClassTable
from train_utils.data.layouts import ROI_FOLDERS, SPLITS, first_folder, optional_files
from train_utils.data.problems import Problem, refuse_problems
from train_utils.data.samples import DatasetFiles, Sample, pair
from train_utils.data.wrong_files import refuse_inner_folder


def dataset_folder(root: str | Path, *names: str) -> Path:
    """The folder in `root` that has one of the names (the first that exists), else root itself."""
    for name in names:
        if (Path(root) / name).is_dir():
            return Path(root) / name
    return Path(root)


# --- DRIVE ---------------------------------------------------------------------------------------

DRIVE_TREE = """\
<data-path>/DRIVE/
    training/images/21_training.tif
    training/1st_manual/21_manual1.gif
    training/mask/21_training_mask.gif
    test/images/01_test.tif
    test/1st_manual/01_manual1.gif   (1st_manual is optional here)
    test/mask/01_test_mask.gif"""


def drive(root: str | Path) -> DatasetFiles:
    """root/DRIVE/training and root/DRIVE/test (Staal et al. 2004); files are paired by number."""
    dataset = DatasetFiles()
    dataset.add("train", *drive_split(root, train=True))
    dataset.add("test", *drive_split(root, train=False))
    return dataset


def drive_split(root: str | Path, train: bool) -> tuple[list[Sample], list[str]]:
    """(samples sorted by name, problems) of one split; UserError if its folder is missing.

    A test split without 1st_manual has samples without labels. A second observer's labels
    (2nd_manual/21_manual2.gif) are optional in both splits.
    """
    folder = Path(root) / "DRIVE" / ("training" if train else "test")
    images, problems = files_by_number(folder / "images")
    if not images:
        refuse_inner_folder(Path(root), ["DRIVE"])
        raise UserError(
            f"{folder / 'images'}: no images there; "
            f"--data-path must name the folder that holds this tree:\n{DRIVE_TREE}\n"
            "Get DRIVE from its authors (README.md says where), or try --demo without any data"
        )
    labels, label_problems = files_by_number(folder / "1st_manual")
    rois, roi_problems = files_by_number(folder / "mask")
    seconds, second_problems = files_by_number(folder / "2nd_manual")
    problems += label_problems + roi_problems + second_problems
    problems += missing_numbers("ROI mask", images, rois, folder / "mask")
    labels_required = train or bool(labels)
    if labels_required:
        problems += missing_numbers("label", images, labels, folder / "1st_manual")
    problems += missing_numbers("image", labels, images, folder / "images")
    problems += missing_numbers("image", rois, images, folder / "images")
    samples = [
        Sample(path.stem, path, labels.get(number), rois.get(number), seconds.get(number))
        for number, path in images.items()
    ]
    return samples, problems


def list_drive(root: str | Path, train: bool) -> list[Sample]:
    """The samples of root/DRIVE/training or root/DRIVE/test, sorted by name.

    UserError for files without partner.
    """
    samples, problems = drive_split(root, train)
    refuse_problems(problems)
    return samples


def files_by_number(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """({number: path}, problems) of a folder's images, sorted; 21_training.tif has number "21"."""
    found, problems = {}, []
    for path in image_files(folder):
        number = path.stem.split("_")[0]
        if number in found:
            text = f"{found[number]} and {path} are two files for one number; keep one of them"
            problems.append(Problem(text, "two files", path.name))
        found.setdefault(number, path)
    return found, problems


def missing_numbers(
    what: str, files: dict[str, Path], found: Container[str], folder: Path
) -> list[Problem]:
    """The problems of files whose number is not among those in `folder`."""
    return [
        Problem(f"{path} has no {what} in {folder}", f"no {what}", path.name)
        for number, path in files.items()
        if number not in found
    ]


# --- CamVid --------------------------------------------------------------------------------------

# Class → its colours. The 11 classes of SegNet (Badrinarayanan et al. 2017) in its order, each with
# its colour there first. Then the 32 colours of the original labels (Brostow et al. 2009), grouped
# into the 11 classes as by Sturgess et al. 2009 and in MathWorks' CamVid example.
CAMVID_CLASSES = {
    "sky": [(128, 128, 128)],
    # Also bridge, wall, tunnel, archway.
    "building": [(128, 0, 0), (0, 128, 64), (64, 192, 0), (64, 0, 64), (192, 0, 128)],
    # Also traffic cone.
    "pole": [(192, 192, 128), (0, 0, 64)],
    # Also lane markings.
    "road": [(128, 64, 128), (128, 0, 192), (192, 0, 64)],
    # Also sidewalk, parking block, road shoulder.
    "pavement": [(60, 40, 222), (0, 0, 192), (64, 192, 128), (128, 128, 192)],
    # Also other vegetation.
    "tree": [(128, 128, 0), (192, 192, 0)],
    # Also text, traffic light.
    "sign": [(192, 128, 128), (128, 128, 64), (0, 64, 64)],
    "fence": [(64, 64, 128)],
    # Also pick-up, lorry, train, other.
    "car": [(64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)],
    # Also child, luggage, animal.
    "pedestrian": [(64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)],
    # Also motorcycle.
    "bicyclist": [(0, 128, 192), (192, 0, 192)],
}


def camvid_table() -> ClassTable:
    """The table that reads both SegNet's class ids, 11 being void, and the original colours."""
    numbers = {index: index for index in range(len(CAMVID_CLASSES))}
    numbers |= {11: IGNORE, 255: IGNORE}
    palette = {}
    for index, colours in enumerate(CAMVID_CLASSES.values()):
        palette |= dict.fromkeys(colours, index)
    palette[0, 0, 0] = IGNORE
    drawn_in = tuple(colours[0] for colours in CAMVID_CLASSES.values())
    return ClassTable(tuple(CAMVID_CLASSES), drawn_in, numbers, palette)


CAMVID = camvid_table()


def camvid(root: str | Path) -> DatasetFiles:
    """CamVid as in SegNet's tutorial (train/, trainannot/) or renamed (train/, train_labels/).

    The same for val and test. `root` is that folder, or holds it as CamVid/. UserError if there
    is no train/.
    """
    folder, dataset = dataset_folder(root, "CamVid", "camvid"), DatasetFiles()
    for split in SPLITS:
        images = image_files(folder / split)
        endings = ("annot", "_annot", "_labels", "labels", "_masks")
        labels = first_folder(folder, [split + ending for ending in endings])
        if images:
            labels_required = split != "test" or labels is not None
            labels = labels or folder / f"{split}annot"
            found = pair(images, image_files(labels), [], labels, labels_required=labels_required)
            dataset.add(split, *found)
    if "train" not in dataset.splits:
        raise UserError(
            f"{folder / 'train'}: no images there; --data-path must name the folder that holds "
            "CamVid/ with train/, trainannot/ (or train_labels/), val/, valannot/, and perhaps "
            "test/, testannot/"
        )
    return dataset


# --- CHASE_DB1, STARE, HRF -----------------------------------------------------------------------


def chase_db1(root: str | Path) -> DatasetFiles:
    """CHASE_DB1 (Fraz et al. 2012): 28 images, Image_01L.jpg beside Image_01L_1stHO.png.

    The usual split: the first 20 are for training, the last 8 (four children, both eyes of each)
    for test. The dataset comes without ROI masks; if there is a folder roi/, its masks are used.
    """
    folder = dataset_folder(root, "CHASE_DB1", "CHASEDB1", "CHASE")
    files = image_files(folder)
    images = [path for path in files if re.fullmatch(r"image_\d\d[lr]", path.stem.lower())]
    labels = [path for path in files if path.stem.lower().endswith("_1stho")]
    if not images:
        raise UserError(
            f"{folder}: no images there; --data-path must name the folder that holds CHASE_DB1/ "
            "with Image_01L.jpg, Image_01L_1stHO.png and so on"
        )
    rois = first_folder(folder, ROI_FOLDERS)
    samples, problems = pair(images, labels, optional_files(rois), folder, rois)
    if len(samples) > 20:
        return DatasetFiles({"train": samples[:20], "test": samples[20:]}, problems)
    return DatasetFiles({"all": samples}, problems)


def stare(root: str | Path) -> DatasetFiles:
    """STARE (Hoover et al. 2000): 20 images, im0001.ppm and labels-ah/im0001.ah.ppm (or .ppm.gz).

    It has no official split (papers use leave-one-out): use --folds or a random split. ROI masks
    as for CHASE_DB1.
    """
    folder = dataset_folder(root, "STARE", "stare")
    label_folder = first_folder(folder, ("labels-ah", "labels")) or folder
    image_folder = first_folder(folder, ("stare-images", "images")) or folder
    images = [path for path in image_files(image_folder) if re.fullmatch(r"im\d{4}", stem_of(path))]
    if not images:
        raise UserError(
            f"{image_folder}: no images there; --data-path must name the folder that holds STARE/ "
            "with stare-images/im0001.ppm and labels-ah/im0001.ah.ppm"
        )
    labels = {}
    for path in image_files(label_folder):
        if stem_of(path).endswith(".ah"):
            labels[stem_of(path).removesuffix(".ah")] = path
    images_by_name = {stem_of(path): path for path in images}
    problems = missing_numbers("label", images_by_name, labels, label_folder)
    problems += missing_numbers("image", labels, images_by_name, image_folder)
    rois = first_folder(folder, ROI_FOLDERS)
    samples, roi_problems = pair(
        images, [], optional_files(rois), folder, rois, labels_required=False
    )
    samples = [replace(sample, label=labels.get(sample.name)) for sample in samples]
    return DatasetFiles({"all": samples}, problems + roi_problems)


def hrf(root: str | Path) -> DatasetFiles:
    """HRF (Budai et al. 2013): 45 images, images/01_dr.JPG, manual1/01_dr.tif, mask/01_dr_mask.tif.

    In each of the three groups (dr: diabetic retinopathy, g: glaucoma, h: healthy) the first five
    are for training and the last ten for test, as is commonly done (Orlando et al. 2017).
    """
    folder = dataset_folder(root, "HRF", "hrf")
    images = image_files(folder / "images")
    labels = image_files(folder / "manual1")
    rois = image_files(folder / "mask")
    if not images:
        raise UserError(
            f"{folder / 'images'}: no images there; --data-path must name the folder that holds "
            "HRF/ with images/01_dr.JPG, manual1/01_dr.tif and mask/01_dr_mask.tif"
        )
    samples, problems = pair(images, labels, rois, folder / "manual1", folder / "mask")
    training = [sample for sample in samples if re.match(r"0[1-5]_", sample.name)]
    test = [sample for sample in samples if sample not in training]
    return DatasetFiles({"train": training, "test": test}, problems)
