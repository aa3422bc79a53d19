"""From flags to values: the model's description, crops, and what is logged of the data."""

from types import SimpleNamespace

import pytest
from PIL import Image

from my_dataset import SegmentationDataset, list_samples
from src.volumes import size_text
from tests.made import write_folder
from tests.small import error_of
from tests.tiny import parse
from train_utils.cli import values
from train_utils.data.class_table import BINARY
from train_utils.data.samples import Sample


def recipe(**changes):
    """What the crops take of a Recipe."""
    fields = {"crop_size": 32, "scale": [0.8, 1.2], "rotate": 20.0, "mirror": "both"}
    return SimpleNamespace(**fields | changes)


def test_a_model_is_described_by_the_flags_and_the_data():
    args = parse("--base-c", 4, "--resize", 64, 72)
    description = values.describe_model(args, BINARY, [0.5], [0.2], None)
    assert description.model_name == "unet" and description.model_kwargs["base_c"] == 4
    assert description.model_kwargs["num_classes"] == 2
    assert (description.mean, description.std) == ([0.5], [0.2])
    assert description.resize == [64, 72] and description.spacing is None


def test_volumes_have_their_spacing_in_the_model_and_beside_it():
    args = parse("--model", "unet_3d", "--data-path", "volumes")
    description = values.describe_model(args, BINARY, None, None, [3.0, 1.0, 1.0])
    assert description.model_kwargs["spacing"] == description.spacing == [3.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "mirror, of_images, of_volumes",
    [
        ("none", [0, 0], [0, 0, 0]),
        ("horizontal", [0, 0.5], [0, 0, 0.5]),
        ("both", [0.5, 0.5], [0.5, 0.5, 0.5]),
    ],
)
def test_mirror_is_the_probability_of_a_flip_of_each_axis(mirror, of_images, of_volumes):
    options = values.crop_options(parse(), recipe(mirror=mirror))
    assert options["flip_probs"] == of_images
    assert options["crop_size"] == 32 and options["scale"] == [0.8, 1.2]
    assert values.flip_probs(mirror, dims=3) == of_volumes


def test_crops_of_volumes_fit_the_model():
    args = parse("--model", "unet_3d", "--data-path", "volumes", "--base-c", 2)
    crops = values.make_volume_crops(args, recipe(crop_size=[24, 32, 32]), 2, [1.0, 1.0, 1.0])
    assert size_text(crops.crop_size) == "24×32×32"
    wrong = recipe(crop_size=[3, 32, 32])
    message = error_of(values.make_volume_crops, args, wrong, 2, [1.0, 1.0, 1.0])
    assert message.startswith("--crop-size: ")


def test_images_that_are_read_again_are_named_with_the_limit(tmp_path, capsys):
    samples = list_samples("folder", write_folder(tmp_path, count=2))["all"]
    dataset = SegmentationDataset(samples)
    dataset.count_pixels()
    values.log_uncached(parse(), dataset)
    assert capsys.readouterr().out == ""
    dataset = SegmentationDataset(samples, cache=1000)
    dataset.count_pixels()
    values.log_uncached(parse("--cache-limit", 0.001), dataset)
    assert "exceed --cache-limit 0.001 GB: they are read from files" in capsys.readouterr().out
    values.log_uncached(parse("--no-cache"), dataset)
    assert capsys.readouterr().out == ""


def test_what_weighs_the_pixels_is_logged(tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    sample = Sample("a", tmp_path / "a.png", instances=tmp_path / "a.png")
    args = parse()
    values.log_pixel_weights(args, [sample], values.pixel_weight_options(args, [sample]), "classes")
    assert capsys.readouterr().out == ""
    args = parse("--border-weight", 10)
    values.log_pixel_weights(args, [sample], values.pixel_weight_options(args, [sample]), "classes")
    printed = capsys.readouterr().out
    assert "border weight 10, sigma 5 px" in printed and "regions of class 1" in printed
    assert "instances/ is not read" in printed
