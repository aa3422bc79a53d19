"""--demo: its data, and what to run next."""

import argparse
from pathlib import Path

from src import MODELS
from train_utils.data.demo import make_demo
from train_utils.data.demo_volumes import make_demo as make_demo_volumes

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
    """Creates the data in --data-path, of images or volumes as the model takes them.

    UserError if that fails.
    """
    if MODELS[args.model].dims == 3:
        make_demo_volumes(args.data_path)
    else:
        make_demo(args.data_path)


def next_steps(args: argparse.Namespace) -> str:
    """The commands to try after the demo."""
    text = NEXT_STEPS_VOLUMES if MODELS[args.model].dims == 3 else NEXT_STEPS
    return text.format(folder=Path(args.output_dir), data=args.data_path)
