"""UNet++: nested U-Nets of depth 1 to 4 that share one encoder."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from .blocks import DoubleConv, OutConv, check_side, pad_to

DEPTH = 4  # halvings of the whole network


class UNetPlusPlus(nn.Module):
    """UNet++ (Zhou et al. 2018, arXiv:1807.10165, and 2019, arXiv:1912.05074).

    Node X(i, j) is the j-th on the skip of level i, equation 1 of the papers:

        X(i, 0) = H(half of X(i−1, 0))        X(i, j) = H([X(i, 0), …, X(i, j−1), U(X(i+1, j−1))])

    H being a double convolution and U a 2×2 transposed convolution. X(0, L) is the result of the U-Net of depth L.

    Args:
        in_channels, num_classes: channels of the image; classes, the background included.
        base_c: channels of level 0; each level doubles them: 32 to 512 in the papers.
        deep_supervision: X(0, 1) to X(0, 4) each have a head; in training the first three give "aux1" to "aux3". Otherwise
            X(0, 4) alone has one.
        norm, bias: BatchNorm and bias of the 3×3 convolutions, as of UNet.

    Shape: image [N, in_channels, H, W] → {"out": [N, num_classes, H, W] logits, "aux…": the same}, for any H, W ≥ 16.
    Raises ValueError for a smaller image.

    Each entry beside "out" weighs 0.5 in train_utils.criterion: the whole network has 40 % of the loss, each pruned one
    20 %. The papers weigh all four alike; here the result that is used by default counts most. The weights add up to 2.5,
    which makes SGD's steps on the shared encoder larger, but not AdamW's.
    """

    paper = "Zhou et al. 2018, arXiv:1807.10165; 2019, arXiv:1912.05074"

    def __init__(
        self, in_channels=1, num_classes=2, base_c=32, deep_supervision=True, norm=True, bias=None
    ):
        super().__init__()
        self.in_channels, self.num_classes, self.base_c = in_channels, num_classes, base_c
        self.depth = DEPTH  # of what judges; see prune()
        widths = [base_c * 2**i for i in range(DEPTH + 1)]
        self.nodes, self.ups, self.heads = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for i in range(DEPTH + 1):
            for j in range(DEPTH + 1 - i):
                coming_in = ([in_channels] + widths)[i] if j == 0 else (j + 1) * widths[i]
                self.nodes[f"{i}_{j}"] = DoubleConv(coming_in, widths[i], norm=norm, bias=bias)
                if j:
                    self.ups[f"{i}_{j}"] = nn.ConvTranspose2d(
                        widths[i + 1], widths[i], kernel_size=2, stride=2
                    )
        for level in range(1, DEPTH + 1) if deep_supervision else [DEPTH]:
            self.heads[str(level)] = OutConv(base_c, num_classes)

    def prune(self, level):
        """From now on eval mode computes only the U-Net++ of depth `level`, 1 to 4. Training is not changed.

        Raises ValueError for a depth that has no head.
        """
        if str(level) not in self.heads:
            raise ValueError(
                f"depth {level} has no output to prune to; there are {', '.join(self.heads)} "
                "(the others need training with deep supervision)"
            )
        self.depth = level

    def forward(self, image):
        check_side(self, image, 16)
        depth = DEPTH if self.training else self.depth
        levels = []  # levels[i] = [X(i, 0), X(i, 1), …]
        for i in range(depth + 1):
            levels.append([self.nodes[f"{i}_0"](F.max_pool2d(levels[-1][0], 2) if i else image)])
        for j in range(1, depth + 1):
            for i in range(depth + 1 - j):
                deeper = pad_to(self.ups[f"{i}_{j}"](levels[i + 1][j - 1]), levels[i][0].shape[-2:])
                levels[i].append(self.nodes[f"{i}_{j}"](torch.cat([*levels[i], deeper], dim=1)))
        logits = {"out": self.heads[str(depth)](levels[0][depth])}
        if self.training:
            logits |= {
                f"aux{level}": self.heads[level](levels[0][int(level)])
                for level in self.heads
                if int(level) < depth
            }
        return logits
