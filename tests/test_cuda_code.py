"""The code that runs on a GPU, checked on a machine without one.

No tensor is on a wrong device, and no value is read back, which would wait for the device.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from src import MODELS, build_model
from src.blocks import centre_crop
from src.device import to_device
from src.inference import decide, predict_probs, predict_strips
from src.tiles import Tiling
from train_utils import criterion
from train_utils.metrics import SegmentationCounts, count_values, pair_counts
from train_utils.tolerant_metrics import near_counts
from train_utils.volume_crops import RandomVolumeCrops
from transforms import Normalize, RandomAffineCrops, cut_boxes

CUDA = torch.device("cuda")
IMAGE_MODELS = sorted(name for name, model in MODELS.items() if model.dims == 2)

pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available")


@pytest.fixture(autouse=True)
def pinned_memory_without_a_gpu(monkeypatch):
    """PyTorch pins memory through the driver of a GPU; tensors stay as they are without one."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)


def test_the_mode_sees_what_a_gpu_would_wait_for():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.zeros(3, device=CUDA).sum().item()
    with FakeTensorMode(), pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=CUDA) + torch.zeros(3)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_crops_forward_and_loss_stay_on_the_device(name):
    size = (584, 565)
    margin = MODELS[name].margin
    crops = RandomAffineCrops([0.7, 0.4, 0.2], [0.1] * 3, 288, margin=margin, elastic=10)
    boxes, parameters = crops.random_crops(torch.tensor([size] * 2), size, torch.Generator())
    with FakeTensorMode(allow_non_fake_inputs=True):
        with CUDA:
            model = build_model(name, in_channels=3, num_classes=2).train()
        images = torch.empty(2, 3, *size, dtype=torch.uint8, device=CUDA)
        targets = torch.empty(2, *size, dtype=torch.uint8, device=CUDA)
        weights = torch.empty(2, *size, device=CUDA)
        images, targets, weights = (cut_boxes(each, boxes) for each in (images, targets, weights))
        parameters = to_device(parameters, CUDA)
        image, target, weight = crops.resample(images, targets, parameters, [weights])
        assert image.device.type == target.device.type == "cuda"
        assert image.dtype is torch.float32 and target.dtype is torch.int64
        with torch.autocast("cuda", dtype=torch.bfloat16):
            output = model(image)
        size = output["out"].shape[-2:]
        target, weight = centre_crop(target, size), centre_crop(weight, size)
        class_weights = torch.empty(2, device=CUDA)
        for batch_dice in (True, False):
            options = {"batch_dice": batch_dice, "pixel_weight": weight}
            loss = criterion(output, target, class_weights, 2, ignore_index=255, **options)
            assert loss.dtype is torch.float32 and loss.device.type == "cuda"


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_prediction_stays_on_the_device(name):
    with FakeTensorMode(allow_non_fake_inputs=True):
        with CUDA:
            model = build_model(name, in_channels=3, num_classes=2).eval()
        probs = predict_probs(model, torch.empty(1, 3, 584, 565, device=CUDA), torch.bfloat16)
        assert probs.shape == (1, 2, 584, 565) and probs.dtype is torch.float32
        assert decide(probs).device.type == "cuda"


@pytest.mark.parametrize(
    "name, sides", [*((name, (300, 280)) for name in IMAGE_MODELS), ("unet_3d", (40, 24, 24))]
)
def test_tiles_stay_on_the_device(name, sides):
    with FakeTensorMode(allow_non_fake_inputs=True):
        with CUDA:
            model = build_model(name, in_channels=3, num_classes=2).eval()
        tiling, image = Tiling(32 if len(sides) == 3 else 224), torch.empty(3, *sides)
        strips = list(predict_strips(model, image, CUDA, torch.bfloat16, tiling))
        assert len(strips) > 1
        for _, probs in strips:
            assert decide(probs[None]).device.type == "cuda" and probs.dtype is torch.float32
    assert sum(rows.stop - rows.start for rows, _ in strips) == sides[0]


def test_mean_and_std_are_copied_from_pinned_memory(monkeypatch):
    """From other memory the copy would wait for the GPU."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    with FakeTensorMode():
        image = torch.empty(2, 3, 64, 72, device=CUDA)
        image, _ = Normalize([0.5] * 3, [0.1] * 3)(image, torch.zeros(0))
    assert image.device.type == "cuda" and len(pinned) == 2


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0)], ids=str)
def test_volumes_stay_on_the_device(spacing):
    with FakeTensorMode(allow_non_fake_inputs=True):
        with CUDA:
            model = build_model("unet_3d", in_channels=2, num_classes=3, spacing=spacing).train()
        crops = RandomVolumeCrops((32, 40, 32), spacing)
        images = torch.empty(2, 2, 40, 50, 36, device=CUDA)
        targets = torch.empty(2, 40, 50, 36, dtype=torch.uint8, device=CUDA)
        sizes = torch.tensor([[40, 50, 36]] * 2)
        image, target = crops(images, targets, sizes, torch.Generator())
        assert image.device.type == target.device.type == "cuda"
        with torch.autocast("cuda", dtype=torch.bfloat16):
            output = model(image)
        loss = criterion(output, target, torch.empty(3, device=CUDA), 3, ignore_index=255)
        assert loss.device.type == "cuda"
        probs = predict_probs(model.eval(), images, torch.bfloat16)
        assert probs.shape == (2, 3, 40, 50, 36) and decide(probs).device.type == "cuda"


@pytest.mark.parametrize("num_classes", [2, 11])
def test_counts_stay_on_the_device(num_classes):
    with FakeTensorMode():
        target, pred = torch.empty(2, 64, 72, dtype=torch.uint8, device=CUDA).unbind()
        counts, wrong = pair_counts(target, pred, num_classes, 255)
        near = near_counts(target, pred, 1, 2)
        bins = count_values(torch.empty(64, 72, dtype=torch.int64, device=CUDA), 131_073)
        images = [SegmentationCounts(num_classes, tolerance=2) for _ in range(2)]
        for image in images:
            image._add_histograms(target, torch.empty(num_classes, 64, 72, device=CUDA))
            image._add_near(target, pred)
        total = SegmentationCounts(num_classes, tolerance=2) + images[0] + images[1]
    assert {total._histograms.device.type, total._near.device.type} == {"cuda"}
    assert counts.shape == (num_classes**2,) and bins.shape == (131_073,)
    assert {each.device.type for each in (counts, wrong, near, bins)} == {"cuda"}
