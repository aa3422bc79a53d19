"""UNet++: nested U-Nets of depth 1 to 4 that share one encoder."""

import torch
from torch import Tensor, nn

from .blocks import DoubleConv, OutConv, check_image_size, pad_to

DEPTH = 4  # number of poolings of the whole network


class UNetPlusPlus(nn.Module):
    """UNet++ (Zhou et al. 2018, arXiv:1807.10165, and 2019, arXiv:1912.05074).

    Node X(i, j) is number j on the skip of level i, equation 1 of the papers:

        X(i, 0) = H(pooled X(i−1, 0))        X(i, j) = H([X(i, 0), …, X(i, j−1), U(X(i+1, j−1))])

    H is a double convolution and U a 2×2 transposed convolution. X(0, L) is the result of the
    U-Net of depth L.

    Args:
        in_channels: channels of the image.
        num_classes: number of classes, including the background.
        base_c: channels of level 0; each level below doubles them, 32 to 512 in the papers.
        deep_supervision: X(0, 1) to X(0, 4) each have a head, and in training mode the first three
            give "aux1" to "aux3". Otherwise only X(0, 4) has a head.
        norm, bias: BatchNorm and bias of the 3×3 convolutions, as for UNet.

    Shape: image [N, in_channels, H, W] → {"out": [N, num_classes, H, W] logits, "aux1": …}, all of
        the same shape, for any H, W ≥ 16. Raises ValueError for a smaller image.

    train_utils.criterion multiplies the loss of each "aux" entry by 0.5, so the whole network has
    40 % of the loss and each pruned one 20 %. The papers weight all four equally; here the output
    that is used by default has the largest weight. The weights sum to 2.5, which makes the steps
    of SGD on the shared encoder larger, but not those of AdamW.
    """

    paper = "Zhou et al. 2018, arXiv:1807.10165; 2019, arXiv:1912.05074"
    dims = 2
    margin = 0
    min_training_side = 16
    training_bytes = 260

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        base_c: int = 32,
        deep_supervision: bool = True,
        norm: bool = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.base_c = base_c
        self.depth = DEPTH  # in eval mode; see prune()
        self.pool = nn.MaxPool2d(2)
        self.nodes = nn.ModuleDict()
        self.ups = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        widths = [base_c * 2**i for i in range(DEPTH + 1)]
        for i, width in enumerate(widths):
            above = in_channels if i == 0 else widths[i - 1]
            self.nodes[f"{i}_0"] = DoubleConv(above, width, norm=norm, bias=bias)
            for j in range(1, DEPTH + 1 - i):
                inputs = (j + 1) * width  # j earlier nodes of the level, and the upsampled one
                self.nodes[f"{i}_{j}"] = DoubleConv(inputs, width, norm=norm, bias=bias)
                self.ups[f"{i}_{j}"] = nn.ConvTranspose2d(widths[i + 1], width, 2, stride=2)
        depths = range(1, DEPTH + 1) if deep_supervision else [DEPTH]
        for depth in depths:
            self.heads[str(depth)] = OutConv(base_c, num_classes)
        self.outputs = len(self.heads)

    def prune(self, level: int) -> None:
        """Makes eval mode compute only the UNet++ of depth `level`, 1 to 4; training is unchanged.

        Raises ValueError for a depth without a head.
        """
        if str(level) not in self.heads:
            raise ValueError(
                f"depth {level} has no output to prune to; there are {', '.join(self.heads)} "
                "(the others need training with deep supervision)"
            )
        self.depth = level

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        check_image_size(self, image)
        depth = DEPTH if self.training else self.depth
        levels = [[self.nodes["0_0"](image)]]  # levels[i][j] is X(i, j)
        for i in range(1, depth + 1):
            levels.append([self.nodes[f"{i}_0"](self.pool(levels[i - 1][0]))])
        for j in range(1, depth + 1):
            for i in range(depth + 1 - j):
                upsampled = self.ups[f"{i}_{j}"](levels[i + 1][j - 1])
                upsampled = pad_to(upsampled, levels[i][0].shape[-2:])
                joined = torch.cat([*levels[i], upsampled], dim=1)
                levels[i].append(self.nodes[f"{i}_{j}"](joined))
        logits = {"out": self.heads[str(depth)](levels[0][depth])}
        if self.training:
            for level, head in self.heads.items():
                if int(level) < depth:
                    logits[f"aux{level}"] = head(levels[0][int(level)])
        return logits
