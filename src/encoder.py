"""Encoders from torchvision: their stages and their ImageNet weights."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from .errors import UserError

# Of pixels in 0–1: the normalization that torchvision's ImageNet weights were trained with.
IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


class Stages(nn.Sequential):
    """The layers up to the last of `indices` in sequence; returns the outputs at all `indices`.

    The weights are named by the index of their layer, as in the tutorials' code.

    Shape: [N, C, H, W] → list of feature maps, one per index.
    """

    def __init__(self, layers: Iterable[nn.Module], indices: list[int]) -> None:
        super().__init__(*list(layers)[: indices[-1] + 1])
        self.indices = indices

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for index, layer in enumerate(self):
            x = layer(x)
            if index in self.indices:
                outputs.append(x)
        return outputs


def load_imagenet_weights(features: nn.Module, weights: WeightsEnum) -> None:
    """Loads ImageNet weights into the whole `features` of a torchvision classifier.

    torchvision downloads the file once, into the folder of torch.hub. Raises UserError with the
    file's name if it cannot be downloaded, cannot be read, or belongs to another network.
    """
    state = read_features(weights)
    try:
        features.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"{weights_path(weights)}: holds the weights of another network than {weights.url}; "
            "delete it"
        ) from error


def read_features(weights: WeightsEnum) -> dict[str, Tensor]:
    """The state_dict of a classifier's `features`; errors as for load_imagenet_weights()."""
    path = weights_path(weights)
    try:
        state = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except Exception as error:  # damaged bytes make the unpickler raise anything
        if path.exists():
            raise UserError(
                f"{path}: cannot be read as ImageNet weights ({error}); delete it, or replace it "
                f"by {weights.url}"
            ) from error
        raise UserError(
            f"the ImageNet weights {path.name} could not be downloaded ({error}); download "
            f"{weights.url} elsewhere and copy it to {path.parent}"
        ) from error
    prefix = "features."
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def weights_path(weights: WeightsEnum) -> Path:
    """Where torch.hub keeps the downloaded file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name


def adapt_first_conv(conv: nn.Conv2d, in_channels: int, pretrained: bool) -> nn.Conv2d:
    """The first convolution of an encoder for images of `in_channels` channels.

    `conv` itself if it has that number of channels, otherwise a new convolution. For a single
    channel a pretrained one gets the sums of the RGB filters: its output for a grey image is that
    of `conv` for three equal channels. Raises UserError for ImageNet weights and any other number.
    """
    if in_channels == conv.in_channels:
        return conv
    if pretrained and in_channels != 1:
        raise UserError(
            f"ImageNet weights fit images of 3 channels or of 1, not of {in_channels}; "
            "train without them"
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
