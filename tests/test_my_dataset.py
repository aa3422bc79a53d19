"""The dataset: what an item is, how masks become targets, the cache, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from my_dataset import (
    IGNORE,
    DriveDataset,
    Sample,
    SegmentationDataset,
    open_dataset,
)
from tests.pictures import COLOURS, FIELD, MASK_KINDS, SIZE, TRUTH, palette_picture, two_valued
from tests.small import error_of
from train_utils.data.class_table import ClassTable
from transforms import eval_preset

TARGET = torch.from_numpy(np.where(FIELD, TRUTH, IGNORE).astype(np.uint8))


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


# --- the item ------------------------------------------------------------------------------------


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


def test_without_roi_mask_every_pixel_is_valid(tmp_path):
    sample = write_sample(tmp_path)
    _, target = item(Sample("one", sample.image, sample.label))
    assert torch.equal(target, torch.from_numpy(TRUTH.astype(np.uint8)))


def test_a_dataset_of_other_samples_is_read_in_the_same_way(tmp_path):
    table = ClassTable(("a", "b"), (None, None), {0: 0, 200: 1})
    sample = write_sample(tmp_path, label=two_valued(TRUTH, 0, 200))
    dataset = SegmentationDataset([], table, channels=1, size=(12, 16), max_pixels=48)
    other = dataset.with_samples([sample])
    image, target = other[0]
    assert image.shape == (1, 12, 16) and target.unique().tolist() == [0, 1, 255]
    assert other.max_pixels == 48 and other.classes == table and other.cached_bytes == 0


# --- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_a_label_of_any_two_values_is_read_alike(tmp_path, kind):
    assert torch.equal(item(write_sample(tmp_path, label=MASK_KINDS[kind](TRUTH)))[1], TARGET)


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_an_roi_mask_of_any_two_values_is_read_alike(tmp_path, kind):
    assert torch.equal(item(write_sample(tmp_path, roi=MASK_KINDS[kind](FIELD)))[1], TARGET)


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
    values = 5 * np.arange(48, dtype=np.uint8).reshape(SIZE)
    message = error_of(item, write_sample(tmp_path, label=Image.fromarray(values)))
    assert "holds 48: 0 (1 pixels), 5 (1 pixels)" in message
    assert "…" in message and "45 (1" not in message


def test_one_strange_value_is_refused(tmp_path):
    sample = write_sample(tmp_path, label=two_valued(TRUTH, 7, 7))
    message = error_of(item, sample)
    assert f"{sample.label}: " in message and "7 (48 pixels)" in message


def test_a_colour_picture_is_no_mask(tmp_path):
    sample = write_sample(tmp_path, label=Image.fromarray(COLOURS))
    message = error_of(item, sample)
    assert str(sample.label) in message and "colour" in message


def test_a_mask_of_fractions_is_refused(tmp_path):
    fractions = Image.fromarray(np.where(TRUTH, 0.9, 0.1).astype(np.float32))
    sample = write_sample(tmp_path, label=fractions, suffix=".tif")
    message = error_of(item, sample)
    assert str(sample.label) in message and "fractions" in message


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


def test_the_encodings_of_the_labels_are_counted_with_an_example(tmp_path):
    samples = []
    for i, (low, high) in enumerate([(0, 255), (3, 253), (0, 255)]):
        (tmp_path / str(i)).mkdir()
        samples.append(write_sample(tmp_path / str(i), label=two_valued(TRUTH, low, high)))
    dataset = SegmentationDataset(samples)
    dataset.count_pixels()
    assert dataset.encodings == {"0/255": (2, samples[0].label), "3/253": (1, samples[1].label)}


# --- images --------------------------------------------------------------------------------------


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
    picture = palette_picture(TRUTH, ((10, 20, 30), (200, 100, 50)))
    image, _ = item(write_sample(tmp_path, image=picture))
    expected = np.where(TRUTH[..., None], (200, 100, 50), (10, 20, 30))
    assert np.array_equal(image.permute(1, 2, 0), expected)


def save_rotated(picture, path):
    """Stores the picture rotated by 90°, with the EXIF orientation (6) that undoes it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def test_exif_orientation_is_applied_to_image_and_masks(tmp_path):
    sample = write_sample(tmp_path)
    for path in (sample.image, sample.label, sample.roi):
        save_rotated(Image.open(path), path)
        assert Image.open(path).size == SIZE  # (width, height): rotated in the file
    image, target = item(sample)
    assert np.array_equal(image.permute(1, 2, 0), COLOURS)
    assert torch.equal(target, TARGET)


def test_a_rotated_image_with_masks_that_are_not_is_refused(tmp_path):
    sample = write_sample(tmp_path)
    sideways = Image.fromarray(COLOURS).transpose(Image.Transpose.ROTATE_270)
    save_rotated(sideways, sample.image)
    # Only the EXIF orientation tells them apart.
    assert Image.open(sample.image).size == Image.open(sample.label).size
    message = error_of(item, sample)
    assert str(sample.label) in message and "EXIF" in message


# --- the cache -----------------------------------------------------------------------------------


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


# --- pixels and batches --------------------------------------------------------------------------


def test_count_pixels_counts_those_of_all_samples(tmp_path):
    sample = write_sample(tmp_path)
    samples = [sample, Sample("no ROI", sample.image, sample.label)]
    counts = SegmentationDataset(samples).count_pixels()
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
    for (height, width), image, target in zip(sizes, images, targets, strict=True):
        assert (image[:, :height, :width] == 0.5).all() and image.sum() == 0.5 * 3 * height * width
        assert (target[:height, :width] == 1).all() and (target == 255).sum() == 30 - height * width


def test_collate_does_not_change_items_of_one_size():
    batch = [(torch.randn(3, 4, 5), torch.randint(0, 2, (4, 5))) for _ in range(3)]
    images, targets = SegmentationDataset.collate_fn(batch)
    assert torch.equal(images, torch.stack([image for image, _ in batch]))
    assert torch.equal(targets, torch.stack([target for _, target in batch]))


# --- a dataset of a run --------------------------------------------------------------------------


def test_a_dataset_is_opened_with_its_pixels_and_described(tmp_path, capsys):
    sample = write_sample(tmp_path)
    identity = eval_preset([0.0] * 3, [1.0] * 3)
    dataset, pixels = open_dataset([sample], "training", identity, for_training=True, cache=False)
    assert torch.equal(pixels, dataset.count_pixels())
    assert torch.equal(dataset[0][1], TARGET.long()) and dataset.cached_bytes == 0
    share = 100 * (TRUTH & FIELD).sum() / FIELD.sum()
    out = capsys.readouterr().out
    assert f"training: 1 image (one), {FIELD.sum()} valid pixels: " in out
    assert f"{share:.1f} % foreground" in out
    assert f"1 label read as 0/255, such as {sample.label}" in out


def test_training_labels_without_foreground_are_refused(tmp_path):
    sample = write_sample(tmp_path, label=two_valued(TRUTH, 0, 0))
    message = error_of(open_dataset, [sample], "training", for_training=True)
    assert "no pixel of the training images is foreground" in message
    assert str(sample.label) in message and "hold nothing but background" in message
    assert "python my_dataset.py check" in message
    _, pixels = open_dataset([sample], "validation")  # other images may have none
    assert pixels[1] == 0 and pixels[0] == FIELD.sum()


def test_foreground_outside_the_roi_alone_is_none(tmp_path):
    sample = write_sample(tmp_path, roi=two_valued(~TRUTH, 0, 255))
    message = error_of(open_dataset, [sample], "training", for_training=True)
    assert "no pixel of the training images is foreground" in message


@pytest.mark.parametrize("for_training", [True, False])
def test_labels_that_are_all_ignored_are_refused(tmp_path, for_training):
    table = ClassTable(("a", "b"), (None, None), {0: 0, 1: 1, 9: IGNORE})
    sample = write_sample(tmp_path, label=two_valued(TRUTH, 9, 9))
    message = error_of(
        open_dataset, [sample], "validation", for_training=for_training, classes=table
    )
    assert "every pixel of the validation images is ignored" in message
    assert str(sample.label) in message and "class table" in message
