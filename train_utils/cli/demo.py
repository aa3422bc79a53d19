"""--demo: its data, and what to run next."""

import argparse
from pathlib import Path

from src import MODELS
from src.errors import UserError
from train_utils.data.demo_drive import refuse_other_files, write_demo_drive
from train_utils.data.demo_volumes import write_demo_volumes

NEXT_STEPS = """
next:
  python predict.py --weights {folder}/best_model.pth --input {data}/DRIVE/test/images \\
         --roi-mask {data}/DRIVE/test/mask --overlay
  python train.py --data-path FOLDER_THAT_HOLDS_DRIVE      (README.md says where to get DRIVE)"""

NEXT_STEPS_VOLUMES = """
next:
  python predict.py --weights {folder}/best_model.pth --input {data}/images
  python train.py --model unet_3d --data-path FOLDER       (imagesTr/ and labelsTr/ of NIfTI)"""


def make_data(args: argparse.Namespace) -> None:
    """Writes the demo's dataset to --data-path, unless it is there: images or volumes.

    UserError if that fails, or if the folder holds anything but an earlier demo.
    """
    root = Path(args.data_path)
    try:
        if MODELS[args.model].dims == 3:
            write_demo_volumes(root)
            print(f"the demo's volumes are in {root}", flush=True)
        else:
            refuse_other_files(root)
            print(f"the demo's images are in {root / 'DRIVE'}", flush=True)
            write_demo_drive(root)
    except OSError as error:
        raise UserError(f"--demo: {error}") from error


def next_steps(args: argparse.Namespace) -> str:
    """The commands to try after the demo."""
    text = NEXT_STEPS_VOLUMES if MODELS[args.model].dims == 3 else NEXT_STEPS
    return text.format(folder=Path(args.output_dir), data=args.data_path)
