"""Encoders from torchvision: their stages, and their ImageNet weights."""

from pathlib import Path

import torch
import torch.nn as nn

IMAGENET_MEAN = [
    0.485,
    0.456,
    0.406,
]  # of pixels in 0–1, what torchvision's ImageNet weights were trained with
IMAGENET_STD = [0.229, 0.224, 0.225]


class Stages(nn.Sequential):
    """The layers up to the last of `indices`, in a row: [N, C, H, W] → the outputs of the layers of these indices.

    The names of the weights are the layers' own indices, as with the tutorials' wrapper of the same layers.
    """

    def __init__(self, layers, indices):
        super().__init__(*list(layers)[: indices[-1] + 1])
        self.indices = indices

    def forward(self, x):
        outputs = []
        for index, layer in enumerate(self):
            x = layer(x)
            if index in self.indices:
                outputs.append(x)
        return outputs


def imagenet_features(weights):
    """The state_dict of the `features` of a torchvision classifier, from a member of its weights enum.

    torchvision downloads the file once, into torch.hub's folder. FileNotFoundError that names the file, its source and this
    folder if that fails; OSError if the file there cannot be read.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except Exception as error:  # damaged bytes make the unpickler raise anything
        if path.exists():
            raise OSError(
                f"{path}: holds no ImageNet weights that can be read ({error}); delete it, or replace it by "
                f"{weights.url}"
            ) from error
        raise FileNotFoundError(
            f"the ImageNet weights {path.name} could not be downloaded ({error}); fetch "
            f"{weights.url} elsewhere and place it in {path.parent}"
        ) from error
    return {
        name.removeprefix("features."): value
        for name, value in state.items()
        if name.startswith("features.")
    }


def load_features(features, weights):
    """Loads the ImageNet weights into the whole `features`; OSError naming the file if they are of another network."""
    state = imagenet_features(weights)
    try:
        features.load_state_dict(state)
    except RuntimeError as error:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise OSError(
            f"{path}: holds the weights of another network than {weights.url}; delete it"
        ) from error


def for_channels(conv, in_channels, pretrained):
    """The first convolution of an encoder for images of `in_channels` channels: the same one for 3, else a new one.

    A pretrained one for a single channel has the sums of the RGB filters, so that it answers to a grey image as the
    old one does to it in three equal channels. ValueError for another number: nothing says what its channels mean.
    """
    if in_channels == conv.in_channels:
        return conv
    if pretrained and in_channels != 1:
        raise ValueError(
            f"ImageNet weights fit images of 3 channels or of 1, not of {in_channels}; train without them"
        )
    new = nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        bias=conv.bias is not None,
    )
    if pretrained:
        new.weight.data = conv.weight.data.sum(dim=1, keepdim=True)
        if conv.bias is not None:
            new.bias.data = conv.bias.data
    return new
