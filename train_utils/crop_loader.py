"""Training batches of a small data set: all decoded images lie on the training device, and crops are cut there."""

import torch


class CropLoader:
    """What a DataLoader is to train_one_epoch, without workers: an iterable of (images, targets) with a length.

    Args:
        images, targets: uint8 [M, 3, H, W] and [M, H, W], padded to one size, on the training device.
        sizes: int64 [M, 2], height and width of each image without the padding.
        batches: EpochBatches, the images that each batch is cut from.
        crops: transforms.RandomAffineCrops.
        seed: of the parameters of the crops. They depend on it, the epoch and the rank alone, so that a resumed run
            repeats them.
    """

    def __init__(self, images, targets, sizes, batches, crops, seed):
        self.images, self.targets, self.sizes = images, targets, sizes
        self.batches, self.crops, self.seed = batches, crops, seed

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.batches.epoch) * 4099 + self.batches.rank)
        for batch in self.batches:
            chosen = torch.tensor(batch)
            there = chosen.to(self.images.device)
            yield self.crops(self.images[there], self.targets[there], self.sizes[chosen], generator)
