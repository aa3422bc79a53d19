"""Presets: the recipes, as defaults of train.py's flags. Flags that are given override them."""

PRESET = None  # as the default of a flag: it is the preset's
PLAN = None  # as the default of a preset: it is planned from the data, see recipe.py

CLASSIC = {  # the tutorials' recipe, unchanged
    "augment": "resize",
    "base_size": 565,
    "scale": [0.5, 1.2],
    "crop_size": 480,
    "crops": 1,
    "rotate": 0.0,
    "jitter": 0.0,
    "base_c": 32,
    "bilinear": True,
    "epochs": 200,
    "batch_size": 4,
    "optimizer": "sgd",
    "lr": 0.01,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "warmup_epochs": 1.0,
    "clip_grad": 0.0,
    "dice": True,
    "batch_dice": False,
    "border_weight": 0.0,
    "elastic": 0.0,
}
BEST = {
    "augment": "affine",
    "base_size": 0,
    "scale": [0.85, 1.2],
    "crop_size": 288,
    "crops": 15,
    "rotate": 180.0,
    "jitter": 0.25,
    "base_c": 16,
    "bilinear": False,
    "epochs": 40,
    "batch_size": 2,
    "optimizer": "adamw",
    "lr": 1e-3,
    "momentum": 0.9,
    "weight_decay": 1e-2,
    "warmup_epochs": 4.0,
    "clip_grad": 5.0,
    "dice": True,
    "batch_dice": True,
    "border_weight": 0.0,
    "elastic": 0.0,
}
FAST = {**BEST, "crop_size": 96, "crops": 124, "lr": 2e-3, "epochs": 4, "warmup_epochs": 0.4}
# The recipe of Ronneberger et al. 2015, sections 3 and 3.1: large tiles one at a time, SGD with
# momentum 0.99, cross entropy alone with the border weight, and elastic deformation of 10 px. The
# paper gives no learning rate and no number of steps: these are ours, as are the schedule, the
# clipping and the range of scales. It also balances the classes. We do not: with the border weight
# on top, no cell was found at p > 0.5 on held-out training slices of ISBI 2012.
ORIGINAL = {
    **BEST,
    "model": "unet_original",
    "crop_size": 444,
    "batch_size": 1,
    "optimizer": "sgd",
    "lr": 3e-3,
    "momentum": 0.99,
    "weight_decay": 0.0,
    "dice": False,
    "border_weight": 10.0,
    "elastic": 10.0,
}
# The flags whose default is planned from the data. With --crops the warm-up is that of BEST.
PLANNED = ("crop_size", "batch_size", "accumulate", "base_c", "scale", "rotate", "mirror")
PLANNED_BEST = {**BEST, **dict.fromkeys((*PLANNED, "crops", "warmup_epochs"), PLAN)}
# What unet_3d and volumes change of the planned recipe; see also train_utils/volume_plan.py.
VOLUMES = {
    "dataset": "volumes",
    "model": "unet_3d",
    "in_channels": 1,
    "base_c": 16,
    "lr": 2e-3,
}
PRESETS = {
    "best": PLANNED_BEST,
    "scenes": PLANNED_BEST,
    "classic": CLASSIC,
    "fast": FAST,
    "original": ORIGINAL,
}
# The presets that are planned, and for which kind of images, see train_utils/plan.py.
PRESET_KINDS = {"best": "free", "scenes": "scenes"}
# The default preset of a dataset whose row names this kind.
PRESET_OF_KIND = {kind: preset for preset, kind in PRESET_KINDS.items()}

# What `--class-weights preset` means for two classes. With more classes it means no weights. A
# planned preset has the plan's weights.
PRESET_CLASS_WEIGHTS = {
    "best": [1.0, 1.25],
    "scenes": [1.0, 1.25],
    "classic": [1.0, 2.0],
    "fast": [1.0, 1.25],
    "original": "none",
}

# What --demo changes: the run then takes one minute on two CPU cores, three without bf16.
DEMO = {
    "data_path": "demo_data",
    "epochs": 10,
    "crops": 8,
    "crop_size": 192,
    "batch_size": 4,
    "lr": 3e-3,
    "warmup_epochs": 1.0,
}

# The same for volumes.
DEMO_VOLUMES = {
    "data_path": "demo_volumes",
    "epochs": 6,
    "crops": 4,
    "crop_size": 32,
    "base_c": 8,
    "lr": 4e-3,
    "warmup_epochs": 1.0,
}

MODEL_OPTIONS_OF_PRESETS = ("base_c", "bilinear")  # those of the plain U-Net, no other model's


def preset_defaults(preset: str, model: str) -> dict:
    """The defaults of a preset's flags. Width and upsampling are for the model unet alone."""
    values = PRESETS[preset]
    if model == "unet":
        return values
    return {name: values[name] for name in values if name not in MODEL_OPTIONS_OF_PRESETS}


def resolve_class_weights(
    choice: str | list[float], preset: str, num_classes: int
) -> str | list[float]:
    """ "none", "auto" or a list of weights, from the value of --class-weights."""
    if choice != "preset":
        return choice
    return PRESET_CLASS_WEIGHTS[preset] if num_classes == 2 else "none"
