"""The memory of a training step is that of the architecture."""

from contextlib import nullcontext

import pytest
import torch

from src import MODELS, build_model
from src.memory import LiveBytes
from train_utils.dice_coefficient_loss import criterion
from train_utils.training_memory import ModelNeeds, fitting_batch, pixel_bytes, step_bytes

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
@pytest.mark.parametrize("classes", [2, 30, 200])
def test_the_estimate_is_a_little_more_than_a_training_step_takes(name, classes, monkeypatch):
    """Counted on the meta device, without computing: activations, gradients, weights, the loss."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())  # not on meta
    options, sides = CROPS[name]
    with torch.device("meta"):
        model = build_model(name.split(",")[0], in_channels=3, num_classes=classes, **options)
        images = torch.empty(2, 3, *sides)
        with LiveBytes() as live:
            logits = model.train()(images)
            target = torch.zeros(2, *logits["out"].shape[2:]).long()
            loss = criterion(logits, target, num_classes=classes, batch_dice=True)
            loss.backward()
    needs = ModelNeeds(model.training_bytes, outputs=getattr(model, "outputs", 1))
    bytes_each = pixel_bytes(needs, model.base_c, 3, classes)
    estimate = step_bytes(sides, 2, bytes_each)
    # With valid convolutions the loss is of fewer pixels than the crop has.
    least = 0.65 if classes == 2 else 0.25
    assert least * estimate < live.peak < estimate


def test_a_step_takes_the_pixels_of_its_crops():
    assert step_bytes(10, 3, 7) == step_bytes((10, 10), 3, 7) == 3 * 100 * 7
    assert step_bytes([2, 3, 4], 1, 5) == 120


@pytest.mark.parametrize("side, batch", [(100, 8), (200, 5), (1000, 1)])
def test_a_batch_is_made_smaller_until_it_fits(side, batch):
    """2 GB of the small memory class are for the activations."""
    assert fitting_batch(side, 8, 10_000, "small") == batch
