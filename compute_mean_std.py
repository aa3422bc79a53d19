"""Channel means and standard deviations of the training images' pixels inside the ROI, for train.py's --mean and --std."""

from my_dataset import DATASETS, SegmentationDataset, find_table, list_samples
from train_utils.cli.parser import Parser, number, run_script
from train_utils.data.splits import read_split, samples_by_name
from train_utils.data.statistics import statistics


def parse_args(argv=None):
    parser = Parser(prog="compute_mean_std.py", description=__doc__)
    parser.add_argument(
        "--data-path", default="./", help="folder that holds the data set (default: here)"
    )
    parser.add_argument("--dataset", default="drive", choices=sorted(DATASETS))
    parser.add_argument(
        "--classes", default="", metavar="FILE", help="class table of the labels, see train.py"
    )
    parser.add_argument(
        "--split-file",
        default="",
        metavar="FILE",
        help="split.json of a run: count its training images alone",
    )
    parser.add_argument(
        "--in-channels",
        type=number(int, minimum=1),
        default=3,
        help="1: grey, 3: colours, or the files' own number",
    )
    parser.add_argument(
        "--max-pixels", type=number(int, minimum=1), help="largest image that is decoded"
    )
    return parser.parse_args(argv)


def main(args):
    splits = list_samples(args.dataset, args.data_path)
    samples = splits.get("train") or splits["all"]
    if args.split_file:
        samples = samples_by_name(splits, read_split(args.split_file))[0]
    classes = find_table(args.data_path, args.classes, DATASETS[args.dataset]["classes"])
    found = statistics(
        SegmentationDataset(
            samples, classes, cache=False, channels=args.in_channels, max_pixels=args.max_pixels
        )
    )
    flags = {}
    for kind, (mean, std) in found.items():
        flags[kind] = [
            " ".join(f"{value:.3f}" for value in values.tolist()) for values in (mean, std)
        ]
    channels = {1: "grey", 3: "channels R G B"}.get(
        args.in_channels, f"{args.in_channels} channels"
    )
    kind = (
        "training images"
        if args.split_file or "all" not in splits
        else "images, not split yet (--split-file does)"
    )
    print(f"{len(samples)} {kind}, pixels inside the ROI, scaled to 0-1, {channels}")
    print("pooled over all pixels:       mean {}   std {}".format(*flags["pooled"]))
    print("mean over images of each's:   mean {}   std {}".format(*flags["per image"]))
    print("use them:  python train.py --mean {} --std {}".format(*flags["pooled"]))


if __name__ == "__main__":
    run_script(lambda: main(parse_args()), "compute_mean_std.py")
