"""From an image to probabilities: the one forward pass that evaluate() and predict.py share."""

import torch
import torch.nn as nn
import torch.nn.functional as F

MIN_SIDE = 32  # every architecture of MODELS takes images of at least 32×32 pixels


@torch.no_grad()
def predict_probs(model, image, amp_dtype=None):
    """Probabilities of a batch of whole images.

    Args:
        model: network in eval mode that maps [N, C, H, W] to {"out": [N, K, H, W] logits}.
        image: normalised float images [N, C, H, W] on the model's device, any size ≥ 1.
        amp_dtype: torch.bfloat16 or torch.float16 for autocast, None for the model's own precision.

    Returns [N, K, H, W] float32 probabilities that add up to 1 over K.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, [0, max(MIN_SIDE - width, 0), 0, max(MIN_SIDE - height, 0)], mode="replicate")
    padded = padded.contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
        logits = model(padded)["out"]
    return logits[..., :height, :width].float().softmax(dim=1)


class Ensemble(nn.Module):
    """A model whose probabilities are the mean of several models'.

    Shape: image [N, C, H, W] → {"out": [N, K, H, W] logarithms of the mean probabilities}, whose softmax is that mean.
    """

    def __init__(self, models):
        super().__init__()
        self.models = nn.ModuleList(models)

    @property
    def in_channels(self):
        return self.models[0].in_channels

    def forward(self, image):
        return {"out": (sum(softmax_of(model, image) for model in self.models) / len(self.models)).log()}


class Flips(nn.Module):
    """A model whose probabilities are the mean of `model`'s over the image and its horizontal, vertical and double
    mirror images, each flipped back. Shape: as Ensemble's."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    @property
    def in_channels(self):
        return self.model.in_channels

    def forward(self, image):
        flips = ((), (-1,), (-2,), (-2, -1))
        return {"out": (sum(softmax_of(self.model, image.flip(axes)).flip(axes) for axes in flips) / len(flips)).log()}


def softmax_of(model, image):
    """float32 [N, K, H, W], in any precision of the model."""
    return model(image)["out"].float().softmax(dim=1)


def decide(probs, threshold=0.5):
    """Class ids [N, H, W] uint8 from probabilities [N, K, H, W].

    Two classes: class 1 where its probability exceeds `threshold`. More: the most probable class.
    """
    if probs.shape[1] == 2:
        return (probs[:, 1] > threshold).byte()
    return probs.argmax(dim=1).byte()
