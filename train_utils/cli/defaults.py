"""From the command line to the settings of a run: parse once, resolve the defaults once, check."""

import argparse
from pathlib import Path

from src import MODELS
from src.encoder import IMAGENET_MEAN, IMAGENET_STD
from train_utils import checkpoint as checkpoints
from train_utils.class_weights import resolve_class_weights
from train_utils.cli.check_dimensions import check_dimensions
from train_utils.cli.check_flags import check_flags
from train_utils.cli.flags import train_flags
from train_utils.cli.model_flags import check_model_flags
from train_utils.cli.parser import LOCAL, MODEL, Parser
from train_utils.cli.presets import (
    DEMO,
    DEMO_VOLUMES,
    PRESETS,
    VOLUMES,
    preset_defaults,
)
from train_utils.distributed_utils import broadcast_from_rank_zero


class CommandLine:
    """The command line of train.py or train_multi_GPU.py.

    Args:
        prog: name of the script, for its messages.
        description: first text of `--help`.
        datasets: the table DATASETS of my_dataset.py.
    """

    def __init__(self, prog: str, description: str, datasets: dict) -> None:
        self.prog, self.description, self.datasets = prog, description, datasets
        self.groups = train_flags(datasets)
        self.flags = {each.dest: each for group in self.groups.values() for each in group}
        self.base = {name: each.default for name, each in self.flags.items()}

    def parser(self, defaults: dict) -> Parser:
        """The parser, whose `--help` shows these defaults."""
        parser = Parser(
            prog=self.prog, usage="%(prog)s [flags]", description=self.description, add_help=False
        )
        # Not argparse's own --help: the defaults in it depend on the other flags.
        parser.add_argument(
            "-h",
            "--help",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show this text and exit",
        )
        for title, flags in self.groups.items():
            parser.add_flags(title, flags, defaults)
        return parser

    def parse(self, argv: list[str] | None = None) -> dict:
        """{name: value} of the flags that are given on the command line, and no others."""
        given = vars(self.parser(self.base).parse_args(argv))
        if given.pop("help", False):
            parser = self.parser(self.defaults(given, {}))
            parser.print_help()
            parser.exit()
        return given

    def defaults(self, given: dict, saved: dict) -> dict:
        """The default of every flag. Lowest precedence first: built-in, preset, dataset, demo,
        checkpoint. The dataset also chooses the preset. None: planned from the data.

        saved: the settings of the run that is resumed, evaluated or started from.
        """
        volumes = self.volume_defaults(saved | given)
        row = self.datasets[(self.base | volumes | saved | given)["dataset"]]
        preset = {"preset": row["preset"]}
        recipe = PRESETS[(self.base | preset | saved | given)["preset"]]
        model = {"model": recipe["model"]} if "model" in recipe else {}
        chosen = self.base | preset | model | volumes | saved | given
        demo = DEMO_VOLUMES if volumes else DEMO
        return (
            self.base
            | preset
            | model
            | preset_defaults(chosen["preset"], chosen["model"])
            | volumes
            | normalization_defaults(row, chosen["in_channels"], chosen["pretrain_backbone"])
            | (demo if chosen["demo"] else {})
            | ({"crops": None} if given.keys() & {"steps", "minutes"} else {})
            | saved
        )

    def volume_defaults(self, chosen: dict) -> dict:
        """VOLUMES if the model or the dataset that is chosen is of volumes, else {}."""
        model, dataset = chosen.get("model"), chosen.get("dataset")
        if model in MODELS and MODELS[model].dims == 3:
            return VOLUMES
        if dataset in self.datasets and self.datasets[dataset]["dims"] == 3:
            return VOLUMES
        return {}

    def resolve(self, given: dict) -> argparse.Namespace:
        """All settings of the run. Exits with code 2 if flags conflict or cannot be met."""
        parser = self.parser(self.base)
        if given.get("weights") and given.get("resume") not in (None, "", "auto"):
            parser.error("--resume FILE continues with the weights of that file; omit --weights")
        given = given | {"resume": broadcast_from_rank_zero(lambda: self.resume_path(given))}
        saved = broadcast_from_rank_zero(lambda: self.saved_settings(given))
        self.check_saved(parser, given, saved)
        args = argparse.Namespace(**self.defaults(given, saved) | given)
        check_dimensions(parser, args, given, self.datasets[args.dataset]["dims"])
        check_flags(parser, args, given)
        check_model_flags(parser, args, given)
        return args

    def resume_path(self, given: dict) -> str:
        """The file to resume from, "" for none: `--resume auto` may start a new run."""
        chosen = self.base | given
        if chosen["resume"] != "auto":
            return chosen["resume"]
        path = Path(chosen["output_dir"]) / "last_model.pth"
        if path.exists():
            return str(path)
        print(f"--resume auto: there is no {path}, so this is a new run", flush=True)
        return ""

    def saved_settings(self, given: dict) -> dict:
        """The flags that are inherited from the file of `--resume` or the first of `--weights`."""
        if given["resume"]:
            path = given["resume"]
            checkpoint = checkpoints.load_described(path)
            checkpoints.check_not_stripped(checkpoint, "--resume", path)
        elif given.get("weights"):
            path = given["weights"][0]
            checkpoint = checkpoints.load(path)
        else:
            return {}
        same_run = bool(given["resume"] or given.get("test_only"))
        saved = self.inherited(checkpoint, same_run)
        if given["resume"]:
            saved["output_dir"] = str(Path(path).parent)
        split_file = Path(path).parent / "split.json"
        if same_run and split_file.is_file():
            # With --test-only on another --data-path the saved split does not apply.
            if not given.get("test_only") or same_data(self.base | saved, given):
                saved["split_file"] = str(split_file)
        return saved

    def inherited(self, checkpoint: dict, same_run: bool) -> dict:
        """The flags of a checkpoint that a later run takes: all of the run's, or the model's."""
        args = checkpoint.get("args", {})
        if not isinstance(args, dict):  # the tutorials' files hold a Namespace of other flags
            args = {}
        args = {"align_corners": True} | args  # the tutorials' weights, and files without the flag
        # In the training images, where no flag gave them.
        found = ("mean", "std", "spacing", "label_kind")
        values = args | {name: checkpoint[name] for name in found if name in checkpoint}
        if checkpoint.get("recipe"):
            values |= checkpoint["recipe"]
        elif "class_weights" in values:  # a run from before recipes were planned
            values["class_weights"] = resolve_class_weights(
                values["class_weights"],
                values.get("preset", "best"),
                len(checkpoint["class_names"]),
            )
        saved = {}
        for name, each in self.flags.items():
            wanted = each.inherit != LOCAL if same_run else each.inherit == MODEL
            if wanted and name in values:
                saved[name] = values[name]
        return saved

    def check_saved(self, parser: Parser, given: dict, saved: dict) -> None:
        """Exits if --preset differs from the resumed run's, or its model or dataset is unknown."""
        if given["resume"] and given.get("preset", saved.get("preset")) != saved.get("preset"):
            parser.error(f"--resume continues with the preset of its run, {saved.get('preset')}")
        if given["resume"] and "crops" in given and saved.get("steps") and not saved.get("crops"):
            parser.error("--crops: the length of this run is in steps; --steps makes it longer")
        for name, table in (("model", MODELS), ("dataset", self.datasets)):
            if saved.get(name, self.base[name]) not in table and name not in given:
                parser.error(
                    f"--{name} {saved[name]}, as the checkpoint says: this version has only "
                    f"{', '.join(sorted(table))}"
                )


def normalization_defaults(row: dict, in_channels: int, pretrained: bool | None) -> dict:
    """Mean and std of a dataset's row, or ImageNet's; none for another number of channels."""
    mean, std = row["mean"], row["std"]
    if pretrained:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    if mean is None or len(mean) != in_channels:
        return {}
    return {"mean": mean, "std": std}


def same_data(saved: dict, given: dict) -> bool:
    """Whether the command line names the data of the saved run."""
    dataset = given.get("dataset", saved["dataset"])
    data_path = given.get("data_path", saved["data_path"])
    same_folder = Path(data_path).resolve() == Path(saved["data_path"]).resolve()
    return dataset == saved["dataset"] and same_folder


def parse_args(
    argv: list[str] | None, prog: str, description: str, datasets: dict
) -> argparse.Namespace:
    """All settings of a run from its command line."""
    command_line = CommandLine(prog, description, datasets)
    return command_line.resolve(command_line.parse(argv))
