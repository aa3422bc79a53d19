"""What a GPU computes: the CPU's results, the same bits after resuming, no waiting in a step.

Without a GPU the short checks run on the CPU, which shows that they work.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src import MODELS, build_model
from src.device import (
    count_devices,
    memory_format,
    pick_amp_dtype,
    use_deterministic_algorithms,
)
from src.inference import optimize_for_inference, predict_probs
from tests.processes import python
from tests.small import same_weights
from tests.tiny import AFFINE, parse, run_train
from tests.watch import stop_after
from train import make_optimizer
from train_utils import create_lr_scheduler, evaluate, train_one_epoch
from train_utils.checkpoint import load
from train_utils.volume_crops import RandomVolumeCrops
from transforms import RandomAffineCrops

ROOT = Path(__file__).parent.parent
GPUS = [name for name in ("cuda", "mps") if count_devices(name)]
DEVICES = GPUS or ["cpu"]
# Other tests train every model on the CPU; there two of them show that these checks work.
NAMES = sorted(MODELS) if GPUS else ["unet", "unet_3d"]
SMALL = {"vgg16_unet": {}, "mobilenetv3_unet": {}}  # the width of the others is base_c
ON_EACH = pytest.mark.parametrize("device", [torch.device(name) for name in DEVICES], ids=str)
CUDA = torch.device("cuda")
NEEDS_CUDA = pytest.mark.skipif(
    "cuda" not in GPUS, reason="needs a CUDA GPU; what the CPU can show other tests show"
)


def model_on(device, name="unet"):
    """A small model of this name with random weights."""
    torch.manual_seed(0)
    dims = MODELS[name].dims
    options = {"in_channels": 1 if dims == 3 else 3, "num_classes": 2}
    model = build_model(name, **options, **SMALL.get(name, {"base_c": 4}))
    return model.to(device, memory_format=memory_format(device, dims))


def batches(count, name="unet"):
    """Batches of two images or volumes on the CPU, with targets that a model can learn."""
    generator = torch.Generator().manual_seed(1)
    side = max(MODELS[name].min_training_side, 48) + 16
    shape = (2, 3, side, side) if MODELS[name].dims == 2 else (2, 1, 32, 32, 32)
    images = [torch.randn(shape, generator=generator) for _ in range(count)]
    return [(image, (image.mean(1) > 0).long()) for image in images]


def train_steps(model, device, loader, **options):
    """One epoch over the loader with SGD; its mean loss."""
    args = parse("--optimizer", "sgd", "--lr", 0.01)
    optimizer = make_optimizer(args, model)
    scheduler = create_lr_scheduler(optimizer, len(loader), 1, warmup=False)
    return train_one_epoch(model, optimizer, loader, device, 0, 2, scheduler, **options)[0]


@ON_EACH
@pytest.mark.parametrize("name", NAMES)
def test_every_model_trains_in_mixed_precision(name, device):
    model, amp_dtype = model_on(device, name), pick_amp_dtype(device)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    before = copy.deepcopy(model.state_dict())
    loss = train_steps(model, device, batches(2, name), amp_dtype=amp_dtype, scaler=scaler)
    after = model.state_dict()
    assert 0 < loss < 10
    assert any(not torch.equal(value, before[key]) for key, value in after.items())


@ON_EACH
@pytest.mark.filterwarnings("error")
def test_gradients_that_overflow_in_float16_cost_their_steps_alone(device):
    if device.type == "mps":
        pytest.skip("float16 is not used on MPS")
    model, loader = model_on(device), batches(8)
    before = copy.deepcopy(list(model.parameters()))
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**60, backoff_factor=2.0**-15)
    loss = train_steps(model, device, loader, amp_dtype=torch.float16, scaler=scaler)
    assert 0 < loss < 10 and scaler.get_scale() < 2.0**40
    changed = [not torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True)]
    assert any(changed)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@ON_EACH
def test_crops_equal_the_cpus(device):
    sizes = torch.tensor([(120, 140), (100, 130)])
    images = torch.randint(0, 256, (2, 3, 120, 140), dtype=torch.uint8)
    targets = torch.randint(0, 2, (2, 120, 140), dtype=torch.uint8)
    crops = RandomAffineCrops([0.7, 0.4, 0.2], [0.1] * 3, 64, elastic=4)
    expected = crops(images, targets, sizes, torch.Generator().manual_seed(3))
    found = crops(images.to(device), targets.to(device), sizes, torch.Generator().manual_seed(3))
    assert (found[0].cpu() - expected[0]).abs().mean() < 1e-3
    assert (found[1].cpu() != expected[1]).double().mean() < 1e-3


@ON_EACH
def test_crops_of_volumes_equal_the_cpus(device):
    sizes = torch.tensor([(24, 40, 36)] * 2)
    images, targets = torch.randn(2, 1, 24, 40, 36), torch.randint(0, 3, (2, 24, 40, 36)).byte()
    crops = RandomVolumeCrops((16, 24, 24), (1.0, 1.0, 1.0))
    expected = crops(images, targets, sizes, torch.Generator().manual_seed(3))
    found = crops(images.to(device), targets.to(device), sizes, torch.Generator().manual_seed(3))
    assert (found[0].cpu() - expected[0]).abs().mean() < 1e-3
    assert (found[1].cpu() != expected[1]).double().mean() < 1e-3


@ON_EACH
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_and_scores_equal_the_cpus(name, device):
    cpu, loader = torch.device("cpu"), batches(2, name)
    train_steps(model := model_on(cpu, name), cpu, loader)
    expected, _ = evaluate(model.eval(), loader, cpu, 2)
    expected_probs = predict_probs(model, loader[0][0])
    model = optimize_for_inference(model, device)
    found, _ = evaluate(model, loader, device, 2)
    probs = predict_probs(model, loader[0][0].to(device)).cpu()
    assert (probs - expected_probs).abs().max() < 0.02  # convolutions on CUDA multiply in TF32
    different = (found.image_mats.cpu() - expected.image_mats).abs().sum()
    assert different < 0.01 * expected.image_mats.sum()


@pytest.fixture
def any_algorithms():
    """Nondeterministic algorithms are allowed again after the test."""
    yield
    torch.use_deterministic_algorithms(False)


@NEEDS_CUDA
@pytest.mark.parametrize("preset", ["best", "classic"])  # bilinear upsampling, augment resize
def test_a_deterministic_run_resumes_with_the_same_bits(
    tiny_root, tmp_path, monkeypatch, any_algorithms, preset
):
    settings = (*AFFINE[:6], "--preset", preset, "--device", "cuda", "--deterministic")
    options = ("--epochs", 2, "--base-size", 96)
    straight = run_train(tiny_root, tmp_path / "straight", *options, settings=settings)
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_after(patch, stopped, 1)
        with pytest.raises(KeyboardInterrupt):
            run_train(tiny_root, stopped, *options, settings=settings)
    own = ("--resume", "auto", "--device", "cuda", "--deterministic")
    run_train(tiny_root, stopped, settings=own)
    first, second = (load(folder / "last_model.pth")["model"] for folder in (straight, stopped))
    assert same_weights(first, second)


@NEEDS_CUDA
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_trains_with_deterministic_algorithms(name, any_algorithms):
    use_deterministic_algorithms(CUDA)
    weights = []
    for _ in range(2):
        model = model_on(CUDA, name)
        train_steps(model, CUDA, batches(2, name), amp_dtype=pick_amp_dtype(CUDA))
        weights.append(model.state_dict())
    assert same_weights(*weights)


@NEEDS_CUDA
def test_torchrun_with_one_process_trains_like_train_py(tiny_root, tmp_path):
    folders = [tmp_path / name for name in ("alone", "torchrun")]
    options = ["--data-path", tiny_root, *AFFINE, "--device", "cuda", "--epochs", 1]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    for start, folder in zip((["train.py"], [*launch, "train_multi_GPU.py"]), folders, strict=True):
        argv = map(
            str, [sys.executable, *start, *options, "--deterministic", "--output-dir", folder]
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            list(argv), cwd=ROOT, text=True, capture_output=True, timeout=300, env=environment
        )
        assert done.returncode == 0, done.stderr
    first, second = (load(folder / "last_model.pth")["model"] for folder in folders)
    assert same_weights(first, second)


@NEEDS_CUDA
def test_a_training_step_does_not_wait_for_the_gpu():
    """Between the first step, which allocates, and the last, whose loss is logged."""
    loader = batches(6)
    loader = [(image.pin_memory(), target.pin_memory()) for image, target in loader]
    steps = 0

    def after_batch():
        nonlocal steps
        steps += 1
        torch.cuda.set_sync_debug_mode("error" if steps < len(loader) - 1 else "default")

    try:
        train_steps(model_on(CUDA), CUDA, loader, after_batch=after_batch, amp_dtype=torch.bfloat16)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps == len(loader)


@NEEDS_CUDA
def test_a_full_gpu_is_one_sentence(tiny_root, tmp_path):
    argv = ["train.py", "--data-path", str(tiny_root), "--output-dir", str(tmp_path)]
    argv += ["--device", "cuda", "--base-c", "64", "--batch-size", "8"]
    code = "import runpy, sys, torch; torch.cuda.set_per_process_memory_fraction(0.0005); "
    code += f"sys.argv = {argv}; runpy.run_path('train.py', run_name='__main__')"
    done = python("-c", code)
    assert done.returncode == 2
    assert "the GPU is out of memory" in done.stderr and "--batch-size" in done.stderr
    assert "Traceback" not in done.stderr
