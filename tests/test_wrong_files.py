"""A folder that holds other files than it should: the message says what to give."""

import pytest

from my_dataset import list_samples
from tests.small import error_of


def touch(root, *names):
    """Creates empty files, since layouts read names alone. Returns root."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_volumes_among_images_name_the_model_for_volumes(tmp_path):
    for number, name in enumerate(("images/a.npy", "images/a.nii.gz", "train/images/a.npy")):
        message = error_of(list_samples, "folder", touch(tmp_path / str(number), name))
        assert "images: no images there, which end in .bmp, .gif" in message
        assert "for volumes give --model unet_3d, without --dataset folder" in message


def test_images_among_volumes_name_the_dataset_of_images(tmp_path):
    for number, name in enumerate(("images/a.png", "imagesTr/a.png")):
        message = error_of(list_samples, "volumes", touch(tmp_path / str(number), name))
        assert "no volumes there, which end in .nii, .nii.gz, .tif, .tiff, .npy" in message
        assert "for images give --dataset folder, without --model unet_3d" in message


def test_files_of_neither_kind_name_the_endings_alone(tmp_path):
    message = error_of(list_samples, "folder", touch(tmp_path, "images/a.xyz"))
    assert ".png" in message and "save each image as one of these" in message


def test_a_missing_folder_names_the_layout(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / ".hidden").touch()
    for root in (tmp_path, tmp_path / "missing"):
        message = error_of(list_samples, "folder", root)
        assert f"{root / 'images'}: no images there; --data-path must name a folder" in message


@pytest.mark.parametrize(
    "dataset, file, inner",
    [
        ("drive", "DRIVE/training/images/21_training.tif", "DRIVE"),
        ("folder", "images/a.png", "images"),
        ("folder", "images/train/a.png", "images"),
        ("volumes", "images/a.npy", "images"),
        ("volumes", "imagesTr/a.nii.gz", "imagesTr"),
    ],
)
def test_a_data_path_one_level_too_deep_names_the_folder_above(tmp_path, dataset, file, inner):
    root = touch(tmp_path, file)
    message = error_of(list_samples, dataset, root / inner)
    assert f"{root / inner}: is the folder {inner}/ itself" in message
    assert message.endswith(f"must name the folder that contains it: {root}")
    assert "itself" not in error_of(list_samples, dataset, root / "missing" / inner)


def test_a_folder_that_is_called_images_may_hold_a_dataset(tmp_path):
    root = touch(tmp_path / "images", "images/a.png", "masks/a.png")
    assert len(list_samples("folder", root)["all"]) == 1
