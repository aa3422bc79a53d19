"""Writes a network for use without this repository: ONNX (.onnx) or torch.export (.pt2).

The input is float32 [N, C, H, W], RGB in 0–1: what most ONNX tools give, and unlike uint8 it fits
16-bit images too. Normalization and softmax are in the graph. The output is the probability of each
class, float32 [N, K, H, W]. With onnxruntime:

    session = onnxruntime.InferenceSession("model.onnx")
    entries = session.get_modelmeta().custom_metadata_map
    description = {name: json.loads(text) for name, text in entries.items()}
    image = np.asarray(Image.open("image.png").convert("RGB"), np.float32) / 255
    batch = image.transpose(2, 0, 1)[None]
    (probabilities,) = session.run(None, {"image": batch})
    mask = probabilities[0].argmax(0)
    vessels = probabilities[0, 1] > description["threshold"]  # where there are two classes

and with PyTorch, under torch.no_grad():

    files = {"description.json": ""}
    network = torch.export.load("model.pt2", extra_files=files).module()
    probabilities = network(torch.from_numpy(batch))

Batch, height and width are free, but for unet_original: its loop over tiles depends on the image,
so the network of valid convolutions is written, for tiles of 572 × 572 px (figure 1 of the paper).
It gives the middle 388 × 388 px, those of predict.py where they start at multiples of 16 px.
"""

import io
import json
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import UserError
from .unet_original import UNetOriginal

FORMAT = 1
REMEDY = "try the other format, .onnx or .pt2, or update PyTorch"
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4  # largest difference of a probability between the file and PyTorch

# At a side of 32 px a level of MobileNetV3 has one pixel: torch.export takes that for a constant.
MIN_SIDE = 33
TILE = 572  # of unet_original
EXAMPLE = (2, 75, 91)  # batch, height and width that are traced
CHECKED = [(1, 33, 33), (3, 64, 64), (1, 65, 97), (2, 127, 48), (1, 96, 160), (3, 91, 75)]

# What users of the file need of a checkpoint.
ENTRIES = ("model_name", "class_names", "class_ids", "class_colours", "threshold", "mean", "std")
ENTRIES += ("resize",)

Run = Callable[[np.ndarray], np.ndarray]  # images → probabilities


class ExportedNetwork(nn.Module):
    """Images in 0–1 [N, C, H, W] → probabilities [N, K, H, W]: normalization, model, softmax."""

    def __init__(self, model: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        normalized = (image - self.mean) / self.std
        if isinstance(self.model, UNetOriginal):
            logits = self.model.valid(normalized)
        else:
            logits = self.model(normalized)["out"]
        return logits.softmax(dim=1)


@torch.no_grad()
def export_model(model: nn.Module, checkpoint: dict, path: str | Path) -> None:
    """Writes model.onnx or model.pt2, by the suffix of `path`, in one file of float32 weights.

    describe() is its metadata: in ONNX as JSON texts, in .pt2 as description.json. The file is
    compared with PyTorch at CHECKED sizes before it gets its name; an earlier file of that name
    stays if anything fails.

    Args:
        model: in eval mode on the CPU: one of src.MODELS, or Ensemble or Flips of them.
        checkpoint: that of the model, see train_utils.checkpoint.
        path: the file to write.

    Raises UserError for another suffix, missing packages, a model that cannot be exported, a full
    disk, and a file whose probabilities differ from PyTorch's by more than TOLERANCE.
    """
    path = Path(path)
    check_exportable(model, path)
    network = ExportedNetwork(model, checkpoint["mean"], checkpoint["std"]).eval()
    description = describe(model, checkpoint)
    trace, save, load = FORMATS[path.suffix]
    try:
        program = trace(network)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]  # the rest is for developers
        raise UserError(
            f"{path}: PyTorch {torch.__version__} cannot export this network for images of any "
            f"size ({reason}); {REMEDY}"
        ) from error
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        save(program, description, temporary)
        check_probabilities(network, partial(load, temporary), path)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's zip writer: RuntimeError for a full disk
        raise UserError(
            f"{path}: cannot be written ({error}); free some space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_exportable(model: nn.Module, path: Path) -> None:
    """UserError for what can be refused before any work."""
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: ends in {path.suffix!r}; export to a .onnx or a .pt2 file")
    if path.suffix == ".onnx":
        missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
        if missing:
            raise UserError(
                f"{path}: {', '.join(missing)} missing; to write and check ONNX files run "
                f"pip install {' '.join(ONNX_PACKAGES)}"
            )
    if any(getattr(part, "dims", 2) == 3 for part in model.modules()):
        raise UserError(f"{path}: networks for volumes are not exported yet")
    parts = [part for part in model.modules() if isinstance(part, UNetOriginal)]
    if parts and not isinstance(model, UNetOriginal):
        raise UserError(
            f"{path}: unet_original works tile by tile, which no exported graph does; export it "
            "alone, without flips and other members"
        )


def describe(model: nn.Module, checkpoint: dict) -> dict:
    """The metadata: what goes in and comes out, and the ENTRIES of the checkpoint.

    fixed_side: the only side of unet_original. margin: pixels that the output lacks at each border.
    """
    tiled = isinstance(model, UNetOriginal)
    channels = kind_of(len(checkpoint["mean"]))
    return {
        "format": FORMAT,
        "input": f"image: float32 [batch, channels, height, width], {channels}",
        "input_range": [0, 1],
        "output": "probabilities: float32 [batch, classes, height, width]",
        "minimum_side": TILE if tiled else MIN_SIDE,
        "fixed_side": TILE if tiled else None,
        "margin": UNetOriginal.margin if tiled else 0,
        **{name: checkpoint[name] for name in ENTRIES},
    }


def kind_of(channels: int) -> str:
    """What an image of so many channels is, for the metadata."""
    if channels == 1:
        return "grey"
    if channels == 3:
        return "RGB"
    return f"{channels} channels as in the files"


# --- formats --------------------------------------------------------------------------------------


def trace_onnx(network: ExportedNetwork) -> torch.onnx.ONNXProgram:
    """The network as ONNX, by the exporter on torch.export: the older one is deprecated."""
    example, axes = example_and_axes(network)
    return torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_shapes={"image": axes},
        verbose=False,
    )


def save_onnx(program: torch.onnx.ONNXProgram, description: dict, path: Path) -> None:
    """Writes one file, with the description as JSON texts in its metadata."""
    for name, value in description.items():
        program.model.metadata_props[name] = json.dumps(value)
    program.save(path, external_data=False)


def load_onnx(path: Path) -> Run:
    """onnxruntime's function of the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})[0]


def trace_pt2(network: ExportedNetwork) -> torch.export.ExportedProgram:
    """The network as PyTorch's operators. RuntimeError if these depend on the size of images."""
    example, axes = example_and_axes(network)
    dims = {}
    for axis, name in axes.items():
        smallest = 1 if name == "batch" else MIN_SIDE
        dims[axis] = torch.export.Dim(name, min=smallest)
    pools = [part for part in network.modules() if isinstance(part, nn.MaxPool2d)]
    hooks = [pool.register_forward_pre_hook(crop_to_even) for pool in pools]
    try:
        return torch.export.export(network, (example,), dynamic_shapes={"image": dims})
    finally:
        for hook in hooks:
            hook.remove()


def crop_to_even(pool: nn.MaxPool2d, inputs: tuple[Tensor]) -> Tensor:
    """The features without the last row or column that pooling would ignore: before PyTorch 2.15 a
    traced pooling is for odd or for even sides alone."""
    height, width = inputs[0].shape[-2:]
    return F.pad(inputs[0], [0, width // 2 * 2 - width, 0, height // 2 * 2 - height])


def save_pt2(program: torch.export.ExportedProgram, description: dict, path: Path) -> None:
    """Writes one file, with the description as its extra file description.json."""
    # In memory first: on a full disk torch's zip writer may abort the process. By a path, PyTorch
    # warns of a suffix other than .pt2.
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"description.json": json.dumps(description)})
    path.write_bytes(file.getbuffer())


def load_pt2(path: Path) -> Run:
    """PyTorch's function of the file."""
    network = torch.export.load(path).module()
    return lambda images: network(torch.from_numpy(images)).numpy()


FORMATS = {
    ".onnx": (trace_onnx, save_onnx, load_onnx),
    ".pt2": (trace_pt2, save_pt2, load_pt2),
}


def example_and_axes(network: ExportedNetwork) -> tuple[Tensor, dict[int, str]]:
    """The batch of images that is traced, and its axes that may have any length."""
    batch, height, width = EXAMPLE
    axes = {0: "batch", 2: "height", 3: "width"}
    if isinstance(network.model, UNetOriginal):
        height, width, axes = TILE, TILE, {0: "batch"}
    return torch.zeros(batch, network.mean.numel(), height, width), axes


def check_probabilities(network: ExportedNetwork, load: Callable[[], Run], path: Path) -> None:
    """UserError if the function that load() gives is not the network's. path: for messages."""
    shapes = CHECKED
    if isinstance(network.model, UNetOriginal):
        shapes = [(1, TILE, TILE), (3, TILE, TILE)]
    generator = torch.Generator().manual_seed(0)
    difference, where = 0.0, "as it is loaded"
    try:
        run = load()
        for batch, height, width in shapes:
            where = f"on {batch} images of {height}×{width} px"
            image = torch.rand(batch, network.mean.numel(), height, width, generator=generator)
            difference = np.abs(run(image.numpy()) - network(image).numpy()).max()
            if not difference <= TOLERANCE:  # NaN is a difference
                break
    except Exception as error:  # each runtime has exceptions of its own
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: the exported network fails {where} ({reason}) and was not kept; {REMEDY}"
        ) from error
    if not difference <= TOLERANCE:
        raise UserError(
            f"{path}: probabilities of the exported network differ by {difference:.2g} from "
            f"PyTorch's {where}, so it was not kept; {REMEDY}"
        )
