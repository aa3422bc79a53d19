"""A trained network that is ready for images or volumes of any size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .device import to_device
from .image_io import resize_image
from .inference import predict_probs, predict_strips, prepared
from .tiles import Tiling


@dataclass(frozen=True)
class Predictor:
    """A model, and how it is applied to images or volumes.

    model: on the device, in eval mode.
    device: where it computes.
    amp_dtype: dtype of autocast, None for full precision.
    prepare: from uint8 images [N, C, H, W] on the device to the float images that the model takes;
        None: they are such images, or volumes [N, C, D, H, W].
    size: (height, width) that the model was trained at and sees images at; None: their own.
    tiling: how large images are cut into tiles. Images that are resized are not.
    """

    model: nn.Module
    device: torch.device
    amp_dtype: torch.dtype | None
    prepare: Callable[[Tensor], Tensor] | None = None
    size: Sequence[int] | None = None
    tiling: Tiling = Tiling()

    def is_cut(self, image: Tensor) -> bool:
        """Whether the image [C, H, W] is predicted in tiles."""
        return self.size is None and len(self.tiling.grid(self.model, image.shape)) > 1

    def predict_untiled(self, images: Sequence[Tensor]) -> Tensor:
        """Probabilities float32 [N, K, H, W] of images [C, H, W] of one size."""
        seen = images
        if self.size is not None:
            seen = [resize_image(image, self.size) for image in images]
        batch = prepared(to_device(torch.stack(list(seen)), self.device), self.prepare)
        probs = predict_probs(self.model, batch, self.amp_dtype)
        if self.size is not None:
            probs = F.interpolate(probs, images[0].shape[1:], mode="bilinear")
        return probs

    def predict_strips(
        self, image: Tensor, after_tiles: Callable[[int, int], None] | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """(rows, probabilities [K, h, W]) of an image [C, H, W]; see src.inference.

        Of a volume [C, D, H, W]: (slices, probabilities [K, d, H, W]).
        """
        return predict_strips(
            self.model,
            image,
            self.device,
            self.amp_dtype,
            self.tiling,
            self.prepare,
            after_tiles,
        )
