"""Channel means and standard deviations of the training images' pixels inside the ROI, for train.py's --mean and --std."""

import torch

from my_dataset import DATASETS, IGNORE, BinaryDataset, DataError
from train_utils.cli import Parser, run_script


def parse_args(argv=None):
    parser = Parser(prog="compute_mean_std.py", description=__doc__)
    parser.add_argument("--data-path", default="./", help="folder that holds DRIVE/ (default: here)")
    parser.add_argument("--dataset", default="drive", choices=sorted(DATASETS))
    return parser.parse_args(argv)


def channel_sums(image, inside):
    """(number of pixels, Σx [C], Σx² [C]) in float64 over the pixels `inside` [H, W] of image uint8 [C, H, W], x in 0–1."""
    values = image[:, inside].double() / 255
    return values.shape[1], values.sum(1), (values**2).sum(1)


def mean_and_std(count, total, squares):
    """Mean and standard deviation [C] of the population behind the sums."""
    mean = total / count
    return mean, (squares / count - mean**2).clamp_min(0).sqrt()


def statistics(dataset):
    """{"pooled": (mean, std), "per image": (mean, std)} in one pass, each [C] in float64.

    Pooled: of all pixels inside the ROI together. Per image: each image's mean and std, averaged over the images; such
    averages are the constants of the tutorials. An image of a large ROI weighs more in the former only.
    """
    sums, per_image = None, []
    for i in range(len(dataset)):
        image, target = dataset.read(i)
        one = channel_sums(image, target != IGNORE)
        sums = one if sums is None else tuple(a + b for a, b in zip(sums, one))
        per_image.append(torch.stack(mean_and_std(*one)))
    return {"pooled": mean_and_std(*sums), "per image": tuple(torch.stack(per_image).mean(0))}


def main(args):
    cases = DATASETS[args.dataset]["list_cases"](args.data_path, train=True)
    found = statistics(BinaryDataset(cases, cache=False))
    flags = {}
    for kind, (mean, std) in found.items():
        flags[kind] = [" ".join(f"{value:.3f}" for value in values.tolist()) for values in (mean, std)]
    print(f"{len(cases)} training images, pixels inside the ROI, scaled to 0-1, channels R G B")
    print("pooled over all pixels:       mean {}   std {}".format(*flags["pooled"]))
    print("mean over images of each's:   mean {}   std {}".format(*flags["per image"]))
    print("use them:  python train.py --mean {} --std {}".format(*flags["pooled"]))


if __name__ == "__main__":
    run_script(lambda: main(parse_args()), "compute_mean_std.py", (DataError,))
