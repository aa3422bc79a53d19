"""Labels with one id an object: what is read, what is refused, and what is said about them."""

import numpy as np
import pytest
from PIL import Image

from tests.small import error_of
from train_utils.data.instance_labels import (
    IdFacts,
    describe_ids,
    instance_files,
    looks_like_instances,
    read_instances,
)

# Four objects: 1 and 2 touch at a side, 2 and 3 at a corner.
IDS = np.zeros((12, 16), np.int32)
IDS[1:5, 1:5], IDS[1:5, 5:9], IDS[5:8, 9:12], IDS[9:11, 1:4] = 1, 2, 3, 4


def save(path, array):
    """Writes an image or a .npy file; returns its path."""
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def save_masks(folder, masks):
    """Writes {name: bool [H, W]} as masks of 0 and 255; returns the folder."""
    folder.mkdir()
    for name, mask in masks.items():
        save(folder / name, mask.astype(np.uint8) * 255)
    return folder


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("a.png", np.uint8),
        ("a.png", np.uint16),
        ("a.tif", np.uint16),
        ("a.tif", np.int32),
        ("a.npy", np.uint16),
        ("a.npy", np.int64),
        ("a.npy", np.bool_),
    ],
)
def test_ids_are_read_from_every_file_of_whole_numbers(tmp_path, name, dtype):
    ids = read_instances(save(tmp_path / name, IDS.astype(dtype)))
    assert ids.dtype == np.int32 and np.array_equal(ids, IDS.astype(dtype))


def test_the_largest_id_is_65535(tmp_path):
    path = save(tmp_path / "a.png", IDS.astype(np.uint16) * 16383 + (IDS > 3) * np.uint16(3))
    assert read_instances(path).max() == 65535


def test_ids_of_a_palette_are_its_indices(tmp_path):
    image = Image.fromarray(IDS.astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0])
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_instances(tmp_path / "a.png"), IDS)


def test_a_folder_of_masks_is_numbered_by_name_and_the_later_one_wins(tmp_path):
    over = IDS == 1
    over[1:5, 4] = over[1:5, 5] = True  # the last column of 1 and the first one of 2
    masks = {"c.png": IDS == 3, "b.png": over, "a.png": IDS == 2, ".d.png": IDS == 4}
    ids = read_instances(save_masks(tmp_path / "x", masks))
    expected = np.array([0, 2, 1, 3, 0])[IDS]
    expected[over] = 2
    assert ids.dtype == np.int32 and np.array_equal(ids, expected)


def test_a_folder_of_masks_of_two_sizes_is_refused(tmp_path):
    masks = {"a.png": IDS == 1, "b.png": (IDS == 2)[:5]}
    message = error_of(read_instances, save_masks(tmp_path / "x", masks))
    assert "b.png" in message and "16×5" in message and "a.png" in message and "16×12" in message


def test_a_mask_of_many_values_is_refused_by_its_own_name(tmp_path):
    folder = save_masks(tmp_path / "x", {"a.png": IDS == 1})
    save(folder / "b.png", IDS.astype(np.uint8) * 50)
    assert str(folder / "b.png") in error_of(read_instances, folder)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    message = error_of(read_instances, tmp_path / "x")
    assert str(tmp_path / "x") in message and "one mask an object" in message


RGB = np.stack([IDS, IDS, IDS * 2], 2).astype(np.uint8)


@pytest.mark.parametrize(
    "name, array, words",
    [
        ("a.tif", IDS.astype(np.float32), "floating-point"),
        ("a.npy", IDS.astype(np.float64), "float64"),
        ("a.npy", IDS * 20_000, "80000"),
        ("a.npy", IDS * -1, "-4"),
        ("a.npy", IDS.astype(np.uint64) << 61, str(4 << 61)),
        ("a.tif", IDS * 20_000, "80000"),
        ("a.tif", IDS * -1, "-4"),
        ("a.png", RGB, "colour"),
        ("a.npy", RGB, "(12, 16, 3)"),
        ("a.npy", IDS[None], "(1, 12, 16)"),
        ("a.npy", IDS.astype(complex), "complex128"),
        ("a.npy", IDS[:0], "(0, 16)"),
    ],
)
def test_other_numbers_are_refused_with_the_file_and_the_value(tmp_path, name, array, words):
    path = save(tmp_path / name, array)
    message = error_of(read_instances, path)
    assert message.startswith(f"{path}: ") and words in message
    assert "save" in message or "renumber" in message


def test_files_that_cannot_be_read_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"masks": IDS}]), allow_pickle=True)
    (tmp_path / "short.npy").write_bytes(save(tmp_path / "a.npy", IDS).read_bytes()[:200])
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.png").write_text("no image")
    np.savez(tmp_path / "a.npz", IDS)
    (tmp_path / "a.npz").rename(tmp_path / "archive.npy")
    names = "objects.npy short.npy empty.npy archive.npy text.png none.npy none.png"
    for name in names.split():
        assert name in error_of(read_instances, tmp_path / name)


@pytest.mark.parametrize("name", ["a.npy", "a.png"])
def test_the_limit_on_pixels_applies(tmp_path, name):
    path = save(tmp_path / name, IDS.astype(np.uint8))
    assert "--max-pixels 192" in error_of(read_instances, path, 191)
    assert read_instances(path, 192).shape == IDS.shape


def test_labels_in_a_folder_are_listed(tmp_path):
    for name in ("b.png", "a.npy", ".c.png", "notes.txt", "x.csv"):
        (tmp_path / name).touch()
    for name in ("d", ".e"):
        (tmp_path / name).mkdir()
    assert [path.name for path in instance_files(tmp_path)] == ["a.npy", "b.png", "d"]
    assert instance_files(tmp_path / "none") == []


def test_what_ids_say_about_their_objects():
    assert describe_ids(IDS) == IdFacts(objects=4, touching=3, scattered=[])


@pytest.mark.parametrize("turned", [False, True])
def test_objects_touch_at_either_corner(turned):
    ids = np.array([[1, 0], [0, 2]])
    assert describe_ids(ids[:, ::-1] if turned else ids).touching == 2


def test_an_id_in_two_places_is_reported_not_refused(tmp_path):
    ids = np.where(IDS == 4, 2, IDS)
    ids[8, 12] = 3  # touches the corner of object 3: the same place
    read = read_instances(save(tmp_path / "a.png", ids.astype(np.uint8)))
    assert describe_ids(read) == IdFacts(objects=3, touching=3, scattered=[2])


def test_an_image_without_objects():
    assert describe_ids(np.zeros_like(IDS)) == IdFacts(0, 0, [])


def many(count=20):
    """int32 [40, 40]: `count` objects in a grid."""
    ids = np.zeros((40, 40), np.int32)
    for index in range(count):
        ids[index // 5 * 8 : index // 5 * 8 + 6, index % 5 * 8 : index % 5 * 8 + 8] = index + 1
    return ids


def holed(ids, number):
    """The ids with a pixel missing inside this many objects."""
    ids = ids.copy()
    for index in range(1, number + 1):
        row, column = np.argwhere(ids == index)[0] + 2
        ids[row, column] = 0
    return ids


def without(ids, *removed):
    """The ids without these objects."""
    return np.where(np.isin(ids, removed), 0, ids)


NOISE = np.random.default_rng(0).integers(0, 5, (40, 40))
# Three diagonal lines, whose pixels touch at corners alone.
LINES = np.kron(np.diag([1, 2, 3]), np.eye(4, dtype=int))
INSTANCES = [
    LINES,
    LINES[:, ::-1],
    IDS,
    many(),
    holed(many(), 2),
    without(many(), 7, 11),
    np.where(many() == 9, 8, many()),
]
CLASSES = [
    IDS > 0,
    np.where(IDS > 2, 0, IDS),  # two objects
    (IDS > 0) * 255,
    IDS * 60,
    IDS + 1,  # no background
    many() % 4,  # three classes in several places each
    np.where(many() == 20, 255, many()),
    NOISE,
    many() * 10_000,
]


@pytest.mark.parametrize("ids", INSTANCES, ids=range(len(INSTANCES)))
def test_ids_of_objects_are_recognized(ids):
    assert looks_like_instances(ids)


@pytest.mark.parametrize("ids", CLASSES, ids=range(len(CLASSES)))
def test_labels_of_classes_are_not_taken_for_objects(ids):
    assert not looks_like_instances(np.asarray(ids, np.int32))


def test_real_cells_are_recognized(drive_root):
    files = instance_files(drive_root / "DSB2018" / "instances")
    if not files:
        pytest.skip("SEG_DATA holds no DSB2018")
    labels = [read_instances(path) for path in files]
    assert len(labels) == 40 and all(looks_like_instances(ids) for ids in labels)
    facts = [describe_ids(ids) for ids in labels]
    assert [each.objects for each in facts] == [len(np.unique(ids)) - 1 for ids in labels]
    assert not any(each.scattered for each in facts)
    assert sum(each.touching for each in facts) > 100
