"""BatchNorm folded into the convolution before it, for faster inference."""

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Folds each BatchNorm that follows a convolution into the convolution's weights, in place.

    In eval mode BatchNorm is a linear map with fixed numbers. So with the factor f = γ / √(σ² + ε)
    of each channel, a convolution with the weights w · f and the bias (b − μ) · f + β gives the
    same result. Only rounding differs. An Identity takes the place of the BatchNorm.

    Folded are neighbours in an nn.Sequential. A BatchNorm before its convolution, as at the start
    of a pre-activation residual unit, stays.

    Args:
        model: in eval mode. It cannot be trained afterwards, and its state_dict is no longer that
            of its class.

    Returns the model.
    """
    for layers in model.modules():
        if isinstance(layers, nn.Sequential):
            fold_neighbours(layers)
    return model


def fold_neighbours(layers: nn.Sequential) -> None:
    """Folds each BatchNorm among the layers that directly follows a convolution."""
    for index, (layer, following) in enumerate(pairwise(list(layers))):
        if isinstance(layer, CONVOLUTIONS) and isinstance(following, BATCH_NORMS):
            layers[index] = fuse_conv_bn_eval(layer, following)
            layers[index + 1] = nn.Identity()
