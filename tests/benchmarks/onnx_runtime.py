"""Segments a folder with ONNX Runtime and a file of predict.py --export, without PyTorch.

python -m tests.benchmarks.onnx_runtime --weights FILE.onnx --input DIR --output DIR
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def predict(args: argparse.Namespace) -> None:
    """One image after the other; writes x_mask.png of 0 and 255."""
    session = onnxruntime.InferenceSession(args.weights, providers=["CPUExecutionProvider"])
    output = Path(args.output)
    output.mkdir(exist_ok=True)
    for path in sorted(Path(args.input).iterdir()):
        image = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
        batch = image.transpose(2, 0, 1)[None]
        (probabilities,) = session.run(None, {"image": batch})
        mask = np.where(probabilities[0, 1] > 0.5, 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(output / f"{path.stem}_mask.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("--weights", "--input", "--output"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    predict(parser.parse_args())
