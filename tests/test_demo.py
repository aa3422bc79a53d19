"""The demo dataset has DRIVE's layout, is deterministic, and never overwrites a user's data."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from src.errors import UserError
from tests.tiny import parse
from train_utils.cli.demo import make_data, next_steps
from train_utils.data.demo_drive import sample_paths, write_demo_drive

SIZE = (96, 104)


def write(root, **changes):
    """Writes a small demo dataset to root and returns its DRIVE folder."""
    options = {"num_training": 3, "num_test": 2, "size": SIZE, **changes}
    return write_demo_drive(root, **options) / "DRIVE"


def samples(folder):
    """Yields (image, label, mask) of each sample as stored, without converting the mode."""
    for split in ("training", "test"):
        for image in sorted((folder / split / "images").iterdir()):
            number = image.name[:2]
            label = folder / split / "1st_manual" / f"{number}_manual1.gif"
            mask = folder / split / "mask" / f"{number}_{split}_mask.gif"
            yield tuple(np.asarray(Image.open(path)) for path in (image, label, mask))


def digests(folder):
    """{relative path: digest of the file's bytes}."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    return write_demo_drive(tmp_path_factory.mktemp("full"), num_training=2, num_test=1) / "DRIVE"


def test_layout_is_that_of_drive(demo):
    expected = ["demo.txt"]
    for split, numbers in (("training", ("21", "22", "23")), ("test", ("01", "02"))):
        for n in numbers:
            expected += [
                f"{split}/images/{n}_{split}.tif",
                f"{split}/1st_manual/{n}_manual1.gif",
                f"{split}/mask/{n}_{split}_mask.gif",
            ]
    assert sorted(digests(demo)) == sorted(expected)


def test_returns_root_as_path(tmp_path):
    assert write_demo_drive(str(tmp_path), num_training=1, num_test=0, size=(64, 64)) == tmp_path


def test_shapes_and_values(demo):
    for image, label, mask in samples(demo):
        assert image.shape == (*SIZE, 3) and image.dtype == np.uint8
        assert label.shape == mask.shape == SIZE
        assert set(np.unique(label)) == set(np.unique(mask)) == {0, 255}


def test_files_keep_0_and_255_when_converted_to_grey(demo):
    for path in sorted(demo.rglob("*.gif")):
        assert set(np.unique(np.asarray(Image.open(path).convert("L")))) == {0, 255}


def test_vessels_lie_inside_the_field_of_view(demo):
    for image, label, mask in samples(demo):
        assert not label[mask == 0].any()
        assert image[mask == 0].mean() < 10 < 60 < image[mask > 0].mean()


@pytest.mark.parametrize("size", [(64, 64), (160, 100), SIZE])
def test_vessel_share_is_plausible_in_small_images(tmp_path, size):
    for _, label, mask in samples(write(tmp_path, num_training=1, num_test=1, size=size)):
        assert 0.03 < (label[mask > 0] > 0).mean() < 0.20


def test_vessel_share_at_the_default_size_is_about_that_of_drive(full_size):
    for _, label, mask in samples(full_size):
        assert 0.08 < (label[mask > 0] > 0).mean() < 0.15


def test_vessels_are_darker_than_their_surroundings_in_green(full_size):
    for image, label, mask in samples(full_size):
        green, vessel = image[..., 1].astype(float), label > 0
        near = np.zeros_like(vessel)
        for down in range(-6, 7, 3):
            for right in range(-6, 7, 3):
                near |= np.roll(vessel, (down, right), axis=(0, 1))
        near &= ~vessel & (mask > 0)
        assert green[vessel].mean() < green[near].mean() - 4


def test_another_folder_gets_the_same_bytes(demo, tmp_path):
    assert digests(write(tmp_path)) == digests(demo)


def test_an_image_depends_only_on_seed_number_and_size(demo, tmp_path):
    first = "training/images/21_training.tif"
    more = digests(write(tmp_path / "more", num_training=4, num_test=0))
    other = digests(write(tmp_path / "other", num_training=1, num_test=0, seed=1))
    assert more[first] == digests(demo)[first] != other[first]


def test_different_numbers_give_different_images(demo):
    found = [digest for name, digest in digests(demo).items() if not name.endswith("mask.gif")]
    assert len(set(found)) == len(found)


def test_a_complete_dataset_is_not_written_again(tmp_path):
    folder = write(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_dataset_of_other_parameters_is_left_untouched(tmp_path):
    before = digests(write(tmp_path))
    with pytest.raises(FileExistsError, match="num_training=3"):
        write(tmp_path, num_training=1)
    assert digests(tmp_path / "DRIVE") == before


def test_an_interrupted_dataset_is_completed(demo, tmp_path, monkeypatch):
    save, saved = Image.Image.save, []

    def save_four(self, path, **options):
        if len(saved) == 4:
            raise KeyboardInterrupt
        saved.append(path)
        save(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", save_four)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path)
    assert digests(write(tmp_path)) == digests(demo)


def test_a_missing_file_is_written_again(demo, tmp_path):
    (write(tmp_path) / "test" / "mask" / "02_test_mask.gif").unlink()
    assert digests(write(tmp_path)) == digests(demo)


def test_refuses_a_folder_of_other_files(tmp_path):
    real = tmp_path / "DRIVE" / "training" / "images" / "21_training.tif"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"real data")
    before = digests(tmp_path)
    with pytest.raises(FileExistsError, match="DRIVE"):
        write(tmp_path)
    assert digests(tmp_path) == before


def test_the_demo_of_the_script_refuses_in_one_sentence(tmp_path):
    (tmp_path / "DRIVE").mkdir()
    (tmp_path / "DRIVE" / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="--demo: .*left untouched"):
        make_data(parse("--demo", "--data-path", tmp_path))


def test_the_demo_of_the_script_keeps_out_of_a_folder_of_images(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="--demo: .*left untouched"):
        make_data(parse("--demo", "--data-path", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["images"] and not capsys.readouterr().out


def test_the_demo_of_the_script_accepts_its_own_earlier_data(tmp_path):
    folder = tmp_path / "DRIVE"
    folder.mkdir()
    complete = "synthetic demo set: num_training=20 num_test=8 size=(292, 282) seed=0\n"
    for number in (*range(1, 9), *range(21, 41)):
        split = "test" if number < 9 else "training"
        for path in sample_paths(folder, split, number):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (folder / "demo.txt").write_text(complete)
    (tmp_path / ".DS_Store").touch()
    before = digests(tmp_path)
    make_data(parse("--demo", "--data-path", tmp_path))
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    "changes",
    [{"size": (63, 96)}, {"num_training": -1}, {"num_test": -1}, {"num_test": 21}, {"seed": -1}],
)
def test_refuses_parameters_out_of_range(tmp_path, changes):
    with pytest.raises(ValueError, match="num_test"):
        write(tmp_path, **changes)
    assert not (tmp_path / "DRIVE").exists()


def test_the_next_commands_name_the_folders_of_the_run(tmp_path):
    args = parse("--demo", "--data-path", tmp_path / "data", "--output-dir", tmp_path / "out/")
    text = next_steps(args)
    assert f"--weights {tmp_path}/out/best_model.pth" in text
    assert f"--input {tmp_path}/data/DRIVE/test/images" in text
    volumes = next_steps(parse("--demo", "--model", "unet_3d", "--data-path", tmp_path))
    assert f"--input {tmp_path}/images" in volumes and "DRIVE" not in volumes


def test_the_demo_has_its_own_dataset(capsys):
    for flags in (["--dataset", "camvid"], ["--dataset", "folder", "--data-path", "mine"]):
        with pytest.raises(SystemExit):
            parse("--demo", *flags)
        assert "--demo makes its own data; leave out --dataset" in capsys.readouterr().err
    assert parse("--demo", "--dataset", "drive").dataset == "drive"
    assert parse("--demo", "--dataset", "volumes").model == "unet_3d"
