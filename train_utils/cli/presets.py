"""Recipes of training: defaults of train.py's flags that say how to train. Flags on the command line override them."""

CLASSIC = {  # the tutorials', to the letter
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
    "weight_decay": 1e-4,
    "warmup_epochs": 1.0,
    "clip_grad": 0.0,
    "class_weights": [1.0, 2.0],
    "batch_dice": False,
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
    "weight_decay": 1e-2,
    "warmup_epochs": 4.0,
    "clip_grad": 5.0,
    "class_weights": [1.0, 1.25],
    "batch_dice": True,
}
FAST = {**BEST, "crop_size": 96, "crops": 124, "lr": 2e-3, "epochs": 4, "warmup_epochs": 0.4}
PRESETS = {"best": BEST, "classic": CLASSIC, "fast": FAST}

# What --demo changes of them: well under two minutes on two CPU cores.
DEMO = {
    "data_path": "demo_data",
    "epochs": 10,
    "crops": 8,
    "crop_size": 192,
    "batch_size": 4,
    "lr": 3e-3,
    "warmup_epochs": 1.0,
}
