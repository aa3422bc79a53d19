"""TIFF stacks as volumes, also those of ImageJ and OME whose pages are channels of slices."""

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from .errors import UserError

DESCRIPTION = 270  # the tag of TIFF with the text that ImageJ and OME describe the pages by
AXES = {"C": "channels", "Z": "slices", "T": "frames"}  # and their names in ImageJ's text


def read_tiff(path: Path) -> np.ndarray:
    """The numbers [C, D, H, W] of a stack: one page for each slice; colours are channels.

    With a description of ImageJ or OME the pages are channels, slices or times, as it says.
    UserError for pages of several sizes, for several times of several slices, and where pages are
    missing.
    """
    description = ""
    with Image.open(path) as file:
        if file.format == "TIFF":  # not another format under its name
            description = str(file.tag_v2.get(DESCRIPTION, ""))
        pages = [np.asarray(page) for page in ImageSequence.Iterator(file)]
    if len({page.shape for page in pages}) > 1:
        raise UserError(f"{path}: its pages differ in size; a stack has slices of one size")
    stack = np.stack(pages)
    if stack.ndim == 4:
        return stack.transpose(3, 0, 1, 2)
    sizes, order = page_axes(description)
    if not sizes:
        return stack[None]
    named = sizes["C"] * sizes["Z"] * sizes["T"]
    text = f"{sizes['C']} channels, {sizes['Z']} slices and {sizes['T']} times"
    if named != len(pages):
        raise UserError(
            f"{path}: its description names {text}, but it has {len(pages)} pages that can be "
            "read; save it again, without OME or ImageJ's large-file format, or as .npy"
        )
    if sizes["Z"] > 1 and sizes["T"] > 1:
        raise UserError(f"{path}: holds {text}; save the volume of each time as a file of its own")
    stack = stack.reshape(*(sizes[axis] for axis in reversed(order)), *pages[0].shape)
    axes = [2 - order.index(axis) for axis in "CZT"]
    stack = stack.transpose(*axes, 3, 4)
    return stack.reshape(sizes["C"], -1, *pages[0].shape)


def page_axes(description: str) -> tuple[dict[str, int], str]:
    """({"C", "Z", "T": numbers of channels, slices and times}, the axes, the fastest one first).

    ({}, "") for a description by another program.
    """
    if description.startswith("ImageJ="):
        found = dict(re.findall(r"^(\w+)=(\d+)\s*$", description, re.MULTILINE))
        sizes = {axis: int(found.get(name, 1)) for axis, name in AXES.items()}
        if sizes == dict.fromkeys(AXES, 1):
            sizes["Z"] = int(found.get("images", 1))
        return sizes, "CZT"
    order = re.search(r'DimensionOrder="XY([CZT]{3})"', description)
    if "<OME" not in description or not order:
        return {}, ""
    found = dict(re.findall(r'\bSize([CZT])="(\d+)"', description))
    return {axis: int(found.get(axis, 1)) for axis in AXES}, order[1]
