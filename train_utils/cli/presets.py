"""Presets: the recipes, as defaults of train.py's flags. Flags that are given override them.

Their class weights are in train_utils/class_weights.py.
"""

PRESET = None  # as the default of a flag: it is that of the preset

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
    "align_corners": True,
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
BEST = {  # what best and scenes keep; the rest is planned
    "augment": "affine",
    "base_size": 0,
    "jitter": 0.25,
    "bilinear": False,
    "align_corners": False,
    "epochs": 40,
    "optimizer": "adamw",
    "lr": 1e-3,
    "momentum": 0.9,
    "weight_decay": 1e-2,
    "clip_grad": 5.0,
    "dice": True,
    "batch_dice": True,
    "border_weight": 0.0,
    "elastic": 0.0,
}
# The flags whose values are planned from the data, see recipe.py. Until then they are None, and so
# are two that depend on the steps: crops of each image and the warm-up.
PLANNED = ("crop_size", "batch_size", "accumulate", "base_c", "scale", "rotate", "mirror")
PLANNED_BEST = BEST | dict.fromkeys((*PLANNED, "crops", "warmup_epochs"))
WARMUP_WITH_CROPS = 4.0  # epochs of a planned recipe, where --crops gives the length of an epoch
FAST = BEST | {
    "scale": [0.85, 1.2],
    "rotate": 180.0,
    "crop_size": 96,
    "crops": 124,
    "base_c": 16,
    "batch_size": 2,
    "lr": 2e-3,
    "epochs": 4,
    "warmup_epochs": 0.4,
}
# The recipe of Ronneberger et al. 2015, sections 3 and 3.1: large tiles one at a time, SGD with
# momentum 0.99, cross entropy alone with the border weight, and elastic deformation of 10 px. The
# paper gives no learning rate and no number of steps: these are ours, as are the schedule, the
# clipping and the range of scales. It also balances the classes. We do not: with the border weight
# on top, no cell was found at p > 0.5 on held-out training slices of ISBI 2012.
ORIGINAL = BEST | {
    "model": "unet_original",
    "scale": [0.85, 1.2],
    "rotate": 180.0,
    "crop_size": 444,
    "crops": 15,
    "base_c": 16,
    "batch_size": 1,
    "optimizer": "sgd",
    "lr": 3e-3,
    "momentum": 0.99,
    "weight_decay": 0.0,
    "warmup_epochs": 4.0,
    "dice": False,
    "border_weight": 10.0,
    "elastic": 10.0,
}
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
# The presets that are planned, and the orientation of their images, see train_utils/plan.py.
PLANNED_PRESETS = {"best": "free", "scenes": "upright"}

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
