"""Tests of every model for images: sizes, channels, classes, training, inference, predict.py."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.ops import SqueezeExcitation

import predict
from src import MODELS, build_model, default_options
from src.blocks import centre_crop
from src.inference import decide, predict_probs
from src.unet_original import valid_input_side
from tests.small import fill_statistics
from train_utils import checkpoint as checkpoints
from train_utils import criterion
from transforms import eval_preset

# Options that make each model small. A new row of MODELS needs an entry here, {} if it has none.
# test_unet_3d.py tests the one for volumes.
SMALL = {
    "attention_unet": {"base_c": 4},
    "mobilenetv3_unet": {},
    "resunet": {"base_c": 4},
    "unet": {"base_c": 4},
    "unet_original": {"base_c": 4},
    "unet_plus_plus": {"base_c": 4},
    "vgg16_unet": {},
}
EACH = pytest.mark.parametrize("name", sorted(SMALL))


def small(name, in_channels=3, num_classes=2):
    torch.manual_seed(0)
    return build_model(name, in_channels=in_channels, num_classes=num_classes, **SMALL[name])


def random_image(*size, num_images=1, in_channels=3):
    return torch.randn(num_images, in_channels, *size, generator=torch.Generator().manual_seed(1))


def training_batch(name):
    """Two small images, and targets that a model can learn."""
    side = max(MODELS[name].min_training_side, 48) + 16
    image = random_image(side, side, num_images=2)
    return image, (image.mean(1) > 0).long()


def loss_of(model, image, target):
    torch.manual_seed(2)  # of dropout
    outputs = model(image)
    return criterion(outputs, centre_crop(target, outputs["out"].shape[-2:]))


def test_every_model_is_tested():
    assert SMALL.keys() == {name for name, model in MODELS.items() if model.dims == 2}


@EACH
def test_a_model_has_documented_arguments_and_a_paper(name):
    assert {"in_channels", "num_classes"} <= default_options(name).keys()
    assert all(
        parameter.default is not inspect.Parameter.empty or parameter.name == "num_classes"
        for parameter in inspect.signature(MODELS[name]).parameters.values()
    )
    assert "20" in MODELS[name].paper and "arXiv:" in MODELS[name].paper


@EACH
def test_margin_and_min_training_side_describe_the_training_output(name):
    model = small(name).train()
    side = max(model.min_training_side, 48)
    valid = valid_input_side(side) if model.margin else side
    output = model(random_image(side, side, num_images=2))["out"]
    assert output.shape[-2:] == (valid - 2 * model.margin,) * 2
    smallest = model.min_training_side
    model(random_image(smallest, smallest, num_images=2))


@EACH
@pytest.mark.parametrize(
    "size, in_channels, num_classes",
    [((32, 32), 3, 2), ((33, 47), 1, 5), ((70, 37), 4, 3)],
    ids=str,
)
def test_logits_have_the_size_of_a_single_image(name, size, in_channels, num_classes):
    model = small(name, in_channels, num_classes).eval()
    with torch.no_grad():
        outputs = model(random_image(*size, in_channels=in_channels))
    assert (model.in_channels, model.num_classes) == (in_channels, num_classes)
    assert list(outputs) == ["out"] and outputs["out"].shape == (1, num_classes, *size)
    assert outputs["out"].dtype == torch.float32 and outputs["out"].isfinite().all()


ODD = {  # options, side that is halved at every level, odd side, and rows far from the cut
    "unet": ({"base_c": 4, "bilinear": False}, 288, 277, 128),
    "unet_plus_plus": ({"base_c": 4}, 288, 277, 128),
    "resunet": ({"base_c": 4}, 288, 277, 128),
    "attention_unet": ({"base_c": 4, "bilinear": False}, 288, 277, 128),
    "mobilenetv3_unet": ({"align_corners": False}, 1024, 1013, 320),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_side_moves_nothing(name):
    """A side is halved and rounded, down by pooling and up by a stride, and doubled again."""
    options, even, odd, far = ODD[name]
    torch.manual_seed(0)
    model = build_model(name, in_channels=3, num_classes=2, **options)
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            module.avgpool = nn.Identity()  # the average depends on all pixels
    image = torch.rand(1, 3, even, even)
    fill_statistics(model, image)
    with torch.no_grad():
        whole, part = model(image)["out"], model(image[..., :odd, :odd])["out"]
    torch.testing.assert_close(part[..., :far, :far], whole[..., :far, :far], rtol=0, atol=1e-4)
    assert (part[..., far:, far:] - whole[..., far:odd, far:odd]).abs().max() > 1e-4


@EACH
def test_eval_mode_is_deterministic_and_treats_each_image_alone(name):
    model, image = small(name).eval(), random_image(40, 48, num_images=2)
    with torch.no_grad():
        first, again, alone = model(image)["out"], model(image)["out"], model(image[1:])["out"]
    assert torch.equal(first, again)
    torch.testing.assert_close(first[1:], alone, atol=1e-4, rtol=1e-4)


@EACH
def test_a_step_lowers_the_loss_and_the_gradient_reaches_every_parameter(name):
    model, (image, target) = small(name).train(), training_batch(name)
    loss = loss_of(model, image, target)
    loss.backward()
    without = [
        key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert without == []
    # A small step, whatever the gradient.
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.03)
    assert norm.isfinite()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert loss_of(model, image, target) < loss


@EACH
def test_bfloat16_is_close_to_float32(name):
    model, image = small(name).eval(), random_image(40, 48)
    exact, mixed = predict_probs(model, image), predict_probs(model, image, torch.bfloat16)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, atol=0.03, rtol=0)
    assert not torch.equal(mixed, exact)


@EACH
def test_a_checkpoint_goes_through_predict(name, tmp_path):
    model = small(name).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (41, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.2, 0.2]
    checkpoints.save(
        tmp_path / "model.pth",
        {
            "model": model.state_dict(),
            "model_name": name,
            "model_kwargs": {"in_channels": 3, "num_classes": 2, **SMALL[name]},
            "class_names": ["background", "vessel"],
            "mean": mean,
            "std": std,
            "threshold": 0.5,
        },
    )
    argv = [
        "--weights",
        tmp_path / "model.pth",
        "--input",
        tmp_path / "image.png",
        "--output",
        tmp_path / "out",
        "--device",
        "cpu",
        "--no-amp",
    ]
    predict.main(predict.parse_args([str(arg) for arg in argv]))
    image, _ = eval_preset(mean, std)(
        torch.from_numpy(pixels).permute(2, 0, 1), torch.zeros(41, 50)
    )
    expected = decide(predict_probs(model, image[None]))[0].numpy() * 255
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "image_mask.png")), expected)


@EACH
def test_a_compiled_model_computes_the_same(name):
    model, image = small(name).eval(), random_image(40, 48)
    with torch.no_grad():
        expected = model(image)["out"]
        # In place, as train.py does. This backend traces the model, but does not generate code.
        model.compile(backend="eager")
        torch.testing.assert_close(model(image)["out"], expected, atol=1e-5, rtol=1e-5)
