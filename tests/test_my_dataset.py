"""The data sets: what an item is, which files belong together, how masks of every kind are read, what is refused."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from my_dataset import (
    DATASETS,
    IGNORE,
    DriveDataset,
    Sample,
    SegmentationDataset,
    fold,
    hold_out,
    list_drive,
    read_binary,
    read_image,
)
from src.errors import UserError
from transforms import eval_preset

SIZE = (6, 8)
TRUTH = np.zeros(SIZE, bool)
TRUTH[1:4, 2:7] = True
FIELD = np.ones(SIZE, bool)
FIELD[:, 0] = FIELD[5] = False
COLOURS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
TARGET = torch.from_numpy(np.where(FIELD, TRUTH, IGNORE).astype(np.uint8))


def two_valued(mask, low, high):
    """A grey picture of the two values, of 16 bits where they need it."""
    return Image.fromarray(np.where(mask, high, low).astype(np.uint8 if high < 256 else np.uint16))


def palette_picture(mask, colours=((0, 0, 0), (255, 255, 255))):
    """A picture of indices 0 and 1, which stand for the two colours."""
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def write_sample(folder, image=None, label=None, roi=None, suffix=".png"):
    """A Sample of three files from PIL pictures; by default COLOURS, TRUTH and FIELD."""
    pictures = {
        "image": image or Image.fromarray(COLOURS),
        "label": label or two_valued(TRUTH, 0, 255),
        "roi": roi or two_valued(FIELD, 0, 255),
    }
    paths = {}
    for what, picture in pictures.items():
        paths[what] = folder / f"{what}{suffix}"
        picture.save(paths[what])
    return Sample("one", **paths)


def item(sample, **options):
    return SegmentationDataset([sample], **options)[0]


def write_drive(root, split="training", numbers=(21, 22), labels=True):
    """A DRIVE tree of tiny pictures; the picture of number n is n everywhere. Returns the split's folder."""
    folder = root / "DRIVE" / split
    for number in numbers:
        files = {
            f"images/{number:02d}_{split}.tif": Image.new("RGB", (8, 6), (number,) * 3),
            f"mask/{number:02d}_{split}_mask.gif": two_valued(FIELD, 0, 255),
        }
        if labels:
            files[f"1st_manual/{number:02d}_manual1.gif"] = two_valued(TRUTH, 0, 255)
        for name, picture in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / name)
    return folder


def error_of(function, *args, **kwargs):
    """The message of the UserError that the call raises."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


# --- the item ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train, count", [(True, 5), (False, 2)])
def test_item_is_a_uint8_image_and_target_as_the_files_hold_them(tiny_root, train, count):
    dataset = DriveDataset(tiny_root, train)
    assert len(dataset) == count
    for i, sample in enumerate(dataset.samples):
        image, target = dataset[i]
        assert image.dtype == target.dtype == torch.uint8
        assert np.array_equal(image.permute(1, 2, 0), np.asarray(Image.open(sample.image)))
        label, roi = (np.asarray(Image.open(path)) > 0 for path in (sample.label, sample.roi))
        assert np.array_equal(target, np.where(roi, label, 255))
        assert target.unique().tolist() == [0, 1, 255]


def test_transforms_get_the_pair_and_make_the_item(tiny_root):
    dataset = DriveDataset(tiny_root, train=True, transforms=eval_preset([0.5] * 3, [0.25] * 3))
    image, target = dataset[0]
    raw_image, raw_target = dataset.read(0)
    torch.testing.assert_close(image, (raw_image / 255 - 0.5) / 0.25)
    assert torch.equal(target, raw_target.long()) and target.dtype == torch.int64


def test_without_roi_mask_every_pixel_counts(tmp_path):
    sample = write_sample(tmp_path)
    _, target = item(Sample("one", sample.image, sample.label))
    assert torch.equal(target, torch.from_numpy(TRUTH.astype(np.uint8)))


# --- masks ------------------------------------------------------------------------------------------------------------

MASK_KINDS = {
    "0/1": lambda mask: two_valued(mask, 0, 1),
    "0/254": lambda mask: two_valued(mask, 0, 254),
    "0/200": lambda mask: two_valued(mask, 0, 200),
    "0/255": lambda mask: two_valued(mask, 0, 255),
    "3/253": lambda mask: two_valued(mask, 3, 253),
    "0/65535": lambda mask: two_valued(mask, 0, 65535),
    "mode 1": lambda mask: Image.fromarray(mask),
    "palette": palette_picture,
    "palette of 3/253": lambda mask: palette_picture(mask, ((4, 2, 4), (252, 254, 252))),
    "palette of dark colours": lambda mask: palette_picture(mask, ((200, 0, 0), (1, 2, 3))),
    "RGB": lambda mask: two_valued(mask, 0, 255).convert("RGB"),
    "RGBA": lambda mask: two_valued(mask, 0, 255).convert("RGBA"),
    "LA": lambda mask: two_valued(mask, 0, 255).convert("LA"),
}


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_a_label_of_any_two_values_is_read_alike(tmp_path, kind):
    assert torch.equal(item(write_sample(tmp_path, label=MASK_KINDS[kind](TRUTH)))[1], TARGET)


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_an_roi_mask_of_any_two_values_is_read_alike(tmp_path, kind):
    assert torch.equal(item(write_sample(tmp_path, roi=MASK_KINDS[kind](FIELD)))[1], TARGET)


@pytest.mark.parametrize("kind", ["0/255", "3/253", "mode 1", "palette of 3/253"])
def test_gif_masks_are_read_alike(tmp_path, kind):
    path = tmp_path / "mask.gif"
    MASK_KINDS[kind](TRUTH).save(path)
    assert np.array_equal(read_binary(path, "label")[0], TRUTH)


@pytest.mark.parametrize("value, vessel", [(0, False), (1, True), (255, True)])
def test_a_label_of_one_value_is_one_class(tmp_path, value, vessel):
    _, target = item(write_sample(tmp_path, label=two_valued(TRUTH, value, value)))
    assert set(target[torch.from_numpy(FIELD)].tolist()) == {int(vessel)}


@pytest.mark.parametrize("what", ["label", "roi"])
def test_more_than_two_values_are_refused_with_file_and_values(tmp_path, what):
    greys = np.where(TRUTH, 255, 0).astype(np.uint8)
    greys[0, :3] = 128
    sample = write_sample(tmp_path, **{what: Image.fromarray(greys)})
    message = error_of(item, sample)
    assert str(getattr(sample, what)) in message
    for part in ("0 (30 pixels)", "128 (3 pixels)", "255 (15 pixels)", "two values"):
        assert part in message


def test_of_many_values_the_first_are_named(tmp_path):
    sample = write_sample(
        tmp_path, label=Image.fromarray(np.arange(48, dtype=np.uint8).reshape(SIZE))
    )
    message = error_of(item, sample)
    assert (
        "holds 48: 0 (1 pixels), 1 (1 pixels)" in message
        and "…" in message
        and "9 (1" not in message
    )


def test_one_strange_value_is_refused(tmp_path):
    sample = write_sample(tmp_path, label=two_valued(TRUTH, 7, 7))
    assert f"{sample.label}: " in error_of(item, sample) and "7 (48 pixels)" in error_of(
        item, sample
    )


def test_a_colour_picture_is_no_mask(tmp_path):
    sample = write_sample(tmp_path, label=Image.fromarray(COLOURS))
    message = error_of(item, sample)
    assert str(sample.label) in message and "colour" in message


def test_a_mask_of_fractions_is_refused(tmp_path):
    fractions = Image.fromarray(np.where(TRUTH, 0.9, 0.1).astype(np.float32))
    sample = write_sample(tmp_path, label=fractions, suffix=".tif")
    assert str(sample.label) in error_of(item, sample)


@pytest.mark.parametrize("what", ["label", "roi"])
def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path, what):
    sample = write_sample(tmp_path, **{what: two_valued(TRUTH.T, 0, 255)})
    message = error_of(item, sample)
    for part in (str(getattr(sample, what)), str(sample.image), "6×8", "8×6"):
        assert part in message


def test_an_empty_roi_mask_is_refused(tmp_path):
    sample = write_sample(tmp_path, roi=two_valued(FIELD, 0, 0))
    message = error_of(item, sample)
    assert str(sample.roi) in message and "empty" in message


def test_the_values_of_the_labels_are_noted_with_an_example(tmp_path):
    samples = []
    for i, (low, high) in enumerate([(0, 255), (3, 253), (0, 255)]):
        (tmp_path / str(i)).mkdir()
        samples.append(write_sample(tmp_path / str(i), label=two_valued(TRUTH, low, high)))
    dataset = SegmentationDataset(samples)
    dataset.count_pixels()
    assert dataset.encodings == {"0/255": [2, samples[0].label], "3/253": [1, samples[1].label]}


# --- images -----------------------------------------------------------------------------------------------------------


def test_a_grey_image_has_three_equal_channels(tmp_path):
    image, _ = item(write_sample(tmp_path, image=Image.fromarray(COLOURS[..., 0])))
    assert np.array_equal(image, np.stack([COLOURS[..., 0]] * 3))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_is_dropped(tmp_path, mode):
    picture = Image.fromarray(COLOURS).convert(mode)
    picture.putalpha(Image.fromarray(COLOURS[..., 1]))
    image, _ = item(write_sample(tmp_path, image=picture))
    plain = Image.fromarray(COLOURS).convert("RGB" if mode == "RGBA" else "L").convert("RGB")
    assert np.array_equal(image.permute(1, 2, 0), plain)


def test_a_palette_image_has_its_colours(tmp_path):
    image, _ = item(
        write_sample(tmp_path, image=palette_picture(TRUTH, ((10, 20, 30), (200, 100, 50))))
    )
    assert np.array_equal(
        image.permute(1, 2, 0), np.where(TRUTH[..., None], (200, 100, 50), (10, 20, 30))
    )


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_16_bit_image_is_scaled_not_clipped(tmp_path, suffix):
    values = np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE)
    sample = write_sample(tmp_path, image=Image.fromarray(values), suffix=suffix)
    image = read_image(sample.image)
    assert image.shape == (3, *SIZE) and image.dtype == torch.uint8
    assert np.abs(image[0].numpy() - values / 257).max() <= 1
    assert image[0, 0, 0] == 0 and image[0, -1, -1] == 255 and image.unique().numel() == 48


@pytest.mark.parametrize(
    "values",
    [np.full(SIZE, 70000, np.int32), np.full(SIZE, -1, np.int32), np.full(SIZE, 0.5, np.float32)],
    ids=["70000", "-1", "float"],
)
def test_an_image_of_other_numbers_is_refused(tmp_path, values):
    path = tmp_path / "image.tif"
    Image.fromarray(values).save(path)
    message = error_of(read_image, path)
    assert str(path) in message and "8 or 16 bits" in message


def save_rotated(picture, path):
    """Stores the picture turned by 90°, with the EXIF note (orientation 6) that says how to turn it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def test_exif_orientation_is_applied_to_image_and_masks(tmp_path):
    sample = write_sample(tmp_path)
    for path in (sample.image, sample.label, sample.roi):
        save_rotated(Image.open(path), path)
        assert Image.open(path).size == SIZE  # (width, height): lies on its side in the file
    image, target = item(sample)
    assert np.array_equal(image.permute(1, 2, 0), COLOURS)
    assert torch.equal(target, TARGET)


def test_a_rotated_image_with_masks_that_are_not_is_refused(tmp_path):
    sample = write_sample(tmp_path)
    sideways = Image.fromarray(COLOURS).transpose(Image.Transpose.ROTATE_270)
    save_rotated(sideways, sample.image)
    assert (
        Image.open(sample.image).size == Image.open(sample.label).size
    )  # only the EXIF note tells them apart
    message = error_of(item, sample)
    assert str(sample.label) in message and "EXIF" in message


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".gif", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_a_truncated_image_is_refused_by_name(tmp_path, suffix, share):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(
        path
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = error_of(read_image, path)
    assert str(path) in message and "cannot be read" in message


def test_a_text_file_and_a_missing_file_are_refused_by_name(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    assert "text.png: cannot be read as an image" in error_of(read_image, tmp_path / "text.png")
    assert "none.png: there is no such file" in error_of(read_image, tmp_path / "none.png")


# --- the listing ------------------------------------------------------------------------------------------------------


def test_files_are_paired_by_number_and_sorted(tmp_path):
    folder = write_drive(tmp_path, numbers=(40, 21, 33))
    (folder / "1st_manual" / "33_manual1.gif").rename(
        folder / "1st_manual" / "33_a_better_label.GIF"
    )
    (folder / "images" / "21_training.tif").rename(folder / "images" / "21_zoom.TIF")
    samples = list_drive(tmp_path, train=True)
    assert [sample.name for sample in samples] == ["21_zoom", "33_training", "40_training"]
    for sample, number in zip(samples, ("21", "33", "40")):
        assert {path.name[:2] for path in (sample.image, sample.label, sample.roi)} == {number}
    dataset = DriveDataset(tmp_path, train=True)
    assert [int(dataset[i][0].unique()) for i in range(3)] == [21, 33, 40]


def test_training_and_test_are_kept_apart(tmp_path):
    write_drive(tmp_path, "training", (21, 22))
    write_drive(tmp_path, "test", (1, 2, 3))
    assert [sample.name for sample in DriveDataset(tmp_path, train=True).samples] == [
        "21_training",
        "22_training",
    ]
    assert [sample.name for sample in DriveDataset(tmp_path, train=False).samples] == [
        "01_test",
        "02_test",
        "03_test",
    ]


def test_hidden_files_and_other_kinds_of_file_are_passed_over(tmp_path):
    folder = write_drive(tmp_path)
    for name in (
        "images/.21_training.tif",
        "images/Thumbs.db",
        "mask/readme.txt",
        "1st_manual/._21_manual1.gif",
    ):
        (folder / name).write_bytes(b"x")
    assert len(DriveDataset(tmp_path, train=True)) == 2


@pytest.mark.parametrize(
    "missing, what",
    [
        ("mask/22_training_mask.gif", "ROI mask"),
        ("1st_manual/22_manual1.gif", "label"),
        ("images/22_training.tif", "image"),
    ],
)
def test_what_has_no_partner_is_listed(tmp_path, missing, what):
    folder = write_drive(tmp_path, numbers=(21, 22, 23))
    (folder / missing).unlink()
    message = error_of(DriveDataset, tmp_path, train=True)
    assert f"no {what}" in message and "22_" in message
    assert "21_" not in message and "23_" not in message


def test_every_missing_partner_is_listed(tmp_path):
    folder = write_drive(tmp_path, numbers=(21, 22, 23))
    shutil.rmtree(folder / "1st_manual")
    (folder / "mask" / "23_training_mask.gif").unlink()
    message = error_of(list_drive, tmp_path, train=True)
    assert message.count("no label") == 3 and message.count("no ROI mask") == 1


def test_two_files_of_one_number_are_refused(tmp_path):
    folder = write_drive(tmp_path)
    shutil.copy(folder / "images" / "21_training.tif", folder / "images" / "21_training.png")
    message = error_of(list_drive, tmp_path, train=True)
    assert (
        "two files for one number" in message and str(folder / "images" / "21_training") in message
    )


def test_test_labels_are_optional(tmp_path):
    write_drive(tmp_path, "test", (1, 2), labels=False)
    dataset = DriveDataset(tmp_path, train=False)
    assert [sample.label for sample in dataset.samples] == [None, None]
    message = error_of(dataset.__getitem__, 0)
    assert str(dataset.samples[0].image) in message and "no label" in message


def test_some_test_labels_are_not_enough(tmp_path):
    folder = write_drive(tmp_path, "test", (1, 2))
    (folder / "1st_manual" / "01_manual1.gif").unlink()
    assert "01_test.tif has no label" in error_of(list_drive, tmp_path, train=False)


@pytest.mark.parametrize("existing", ["", "DRIVE", "DRIVE/training/images"])
def test_no_data_there_shows_the_tree_and_the_demo(tmp_path, existing):
    root = tmp_path / "data"
    if existing:
        (root / existing).mkdir(parents=True)
    message = error_of(DriveDataset, root, train=True)
    for part in (
        str(root / "DRIVE" / "training" / "images"),
        "--data-path",
        "21_manual1.gif",
        "21_training_mask.gif",
        "test/images",
        "--demo",
    ):
        assert part in message


# --- the cache --------------------------------------------------------------------------------------------------------


def test_the_second_read_does_not_touch_the_disk(tmp_path):
    sample = write_sample(tmp_path)
    dataset = SegmentationDataset([sample])
    first = dataset[0]
    for path in (sample.image, sample.label, sample.roi):
        path.unlink()
    again = dataset[0]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_without_cache_each_read_does(tmp_path):
    sample = write_sample(tmp_path)
    dataset = SegmentationDataset([sample], cache=False)
    dataset.count_pixels()
    sample.image.unlink()
    assert str(sample.image) in error_of(dataset.__getitem__, 0)


@pytest.mark.parametrize(
    "transforms", [None, lambda image, target: (image, target)], ids=["none", "identity"]
)
def test_a_changed_item_does_not_change_what_is_cached(tmp_path, transforms):
    dataset = SegmentationDataset([write_sample(tmp_path)], transforms=transforms)
    image, target = dataset[0]
    image.zero_()
    target.zero_()
    again_image, again_target = dataset[0]
    assert np.array_equal(again_image.permute(1, 2, 0), COLOURS)
    assert torch.equal(again_target, TARGET)


# --- counting, batches, splits ----------------------------------------------------------------------------------------


def test_count_pixels_counts_those_of_all_cases(tmp_path):
    sample = write_sample(tmp_path)
    counts = SegmentationDataset(
        [sample, Sample("no ROI", sample.image, sample.label)]
    ).count_pixels()
    inside = int((TRUTH & FIELD).sum())
    assert counts.shape == (256,)
    assert counts[1] == inside + TRUTH.sum()
    assert counts[0] == FIELD.sum() - inside + (~TRUTH).sum()
    assert counts[IGNORE] == (~FIELD).sum() and counts.sum() == 2 * TRUTH.size


def test_collate_pads_images_with_0_and_targets_with_255_at_the_right_and_below():
    sizes = [(4, 6), (5, 3)]
    batch = [(torch.full((3, *size), 0.5), torch.ones(size, dtype=torch.int64)) for size in sizes]
    images, targets = DriveDataset.collate_fn(batch)
    assert images.shape == (2, 3, 5, 6) and targets.shape == (2, 5, 6)
    assert images.dtype == torch.float32 and targets.dtype == torch.int64
    for (height, width), image, target in zip(sizes, images, targets):
        assert (image[:, :height, :width] == 0.5).all() and image.sum() == 0.5 * 3 * height * width
        assert (target[:height, :width] == 1).all() and (target == 255).sum() == 30 - height * width


def test_collate_does_not_change_items_of_one_size():
    batch = [(torch.randn(3, 4, 5), torch.randint(0, 2, (4, 5))) for _ in range(3)]
    images, targets = SegmentationDataset.collate_fn(batch)
    assert torch.equal(images, torch.stack([image for image, _ in batch]))
    assert torch.equal(targets, torch.stack([target for _, target in batch]))


def test_of_21_to_40_the_last_four_validate():
    training, validation = hold_out(list(range(21, 41)))
    assert training == list(range(21, 37)) and validation == [37, 38, 39, 40]


@pytest.mark.parametrize("count, held_out", [(2, 1), (5, 1), (8, 2), (118, 24)])
def test_hold_out_leaves_both_parts_something(count, held_out):
    training, validation = hold_out(list(range(count)))
    assert training + validation == list(range(count)) and len(validation) == held_out


def test_a_single_case_cannot_be_split():
    assert "1 training image(s)" in error_of(hold_out, [1]) and "--val none" in error_of(
        hold_out, [1]
    )


@pytest.mark.parametrize("count, folds", [(20, 5), (20, 2), (7, 3), (4, 4)])
def test_folds_validate_every_case_once(count, folds):
    samples = list(range(count))
    validated = []
    for k in range(folds):
        training, validation = fold(samples, folds, k)
        assert sorted(training + validation) == samples and training == sorted(training)
        assert count // folds <= len(validation) <= count // folds + 1
        validated += validation
    assert sorted(validated) == samples


@pytest.mark.parametrize("folds, k", [(1, 0), (6, 0), (5, 5), (5, -1)])
def test_impossible_folds_are_refused(folds, k):
    assert f"fold {k} of {folds}" in error_of(fold, list(range(5)), folds, k)


def test_the_table_lists_drive_with_numbers_for_each_channel_and_class(tiny_root):
    row = DATASETS["drive"]
    assert len(row["layout"](tiny_root).splits["train"]) == 5
    assert len(row["mean"]) == len(row["std"]) == 3
    assert len(row["classes"].names) == 2


# --- the real data ----------------------------------------------------------------------------------------------------


# Counted once from the ROI mask files by numpy alone.
@pytest.mark.parametrize(
    "train, names, inside",
    [
        (True, [f"{number}_training" for number in range(21, 41)], 4_541_006),
        (False, [f"{number:02d}_test" for number in range(1, 21)], 4_538_143),
    ],
    ids=["training", "test"],
)
def test_drive_has_20_and_20_images_and_its_pixels_inside_the_roi(drive_root, train, names, inside):
    dataset = DriveDataset(drive_root, train, cache=False)
    assert [sample.name for sample in dataset.samples] == names
    pixels = dataset.count_pixels()
    assert pixels.sum() == 20 * 584 * 565
    assert pixels[:2].sum() == inside
    assert pixels[2:IGNORE].sum() == 0
    assert dataset.encodings.keys() == {"0/255"}


def test_the_second_observer_is_read_like_the_first(drive_root):
    for sample in DriveDataset(drive_root, train=False).samples[:3]:
        first, _ = read_binary(sample.label, "label")
        second, _ = read_binary(
            sample.label.parents[1] / "2nd_manual" / f"{sample.name[:2]}_manual2.gif", "label"
        )
        assert (
            2 * (first & second).sum() / (first.sum() + second.sum()) > 0.7
        )  # two people, not one and the negative


def test_8_bit_values_in_a_32_bit_file_stay_what_they_are(tmp_path):
    Image.fromarray(np.array([[0, 100], [200, 255]], np.int32)).save(tmp_path / "grey.tif")
    assert read_image(tmp_path / "grey.tif")[0].tolist() == [[0, 100], [200, 255]]
