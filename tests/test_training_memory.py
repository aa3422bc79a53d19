"""The memory of a training step is that of the architecture."""

import pytest
import torch

from src import MODELS, build_model
from src.memory import LiveBytes
from train_utils.training_memory import fitting_batch, pixel_bytes, step_bytes

# Options and sides of the crops that are counted. With valid convolutions large crops take the most
# for each pixel, because small ones lose more of it to the margin.
CROPS = {
    "attention_unet": ({"base_c": 8}, (96, 96)),
    "mobilenetv3_unet": ({}, (256, 256)),
    "resunet": ({"base_c": 8}, (96, 96)),
    "unet": ({"base_c": 16, "bilinear": False}, (288, 288)),
    "unet_original": ({"base_c": 8}, (1020, 1020)),
    "unet_plus_plus": ({"base_c": 8}, (96, 96)),
    "vgg16_unet": ({}, (512, 512)),
    "unet_3d": ({"base_c": 8}, (64, 64, 64)),
    "unet_3d, long voxels": ({"base_c": 8, "spacing": (4.0, 1.0, 1.0)}, (16, 96, 96)),
    "unet_3d, unpadded": ({"base_c": 8, "padded": False}, (220, 220, 220)),
}


def test_every_model_is_counted():
    assert {name.split(",")[0] for name in CROPS} == MODELS.keys()


@pytest.mark.parametrize("name", CROPS)
def test_the_estimate_is_a_little_more_than_a_training_step_takes(name):
    """Counted on the meta device, without computing: activations, gradients, weights."""
    options, sides = CROPS[name]
    with torch.device("meta"):
        model = build_model(name.split(",")[0], in_channels=3, num_classes=2, **options)
        images = torch.empty(2, 3, *sides)
        with LiveBytes() as live:
            logits = model.train()(images)
            target = torch.zeros(2, *logits["out"].shape[2:]).long()
            loss = sum(torch.nn.functional.cross_entropy(each, target) for each in logits.values())
            loss.backward()
    estimate = step_bytes(sides, 2, pixel_bytes(model.training_bytes, model.base_c, 3))
    assert 0.65 * estimate < live.peak < estimate


def test_a_step_takes_the_pixels_of_its_crops():
    assert step_bytes(10, 3, 7) == step_bytes((10, 10), 3, 7) == 3 * 100 * 7
    assert step_bytes([2, 3, 4], 1, 5) == 120


@pytest.mark.parametrize("side, batch", [(100, 8), (200, 5), (1000, 1)])
def test_a_batch_is_made_smaller_until_it_fits(side, batch):
    """2 GB of the small memory class are for the activations."""
    assert fitting_batch(side, 8, 10_000, "small") == batch
