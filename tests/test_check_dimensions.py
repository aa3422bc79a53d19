"""Models of images do not meet volumes, nor the reverse; other flags: test_train_volumes.py."""

import pytest

from tests.tiny import parse
from train_utils.checkpoint import save as save_checkpoint


def test_a_checkpoint_that_does_not_fit_the_dataset_is_named(tmp_path, capsys):
    for name, model, dataset, words in (
        ("volume.pth", "unet_3d", "folder", "is for volumes; give --dataset volumes"),
        ("image.pth", "unet", "volumes", "is for images; give a --dataset of images"),
    ):
        save_checkpoint(tmp_path / name, {"model": {}, "args": {"model": model}})
        for options in (["--test-only"], []):
            with pytest.raises(SystemExit):
                parse(*options, "--weights", tmp_path / name, "--dataset", dataset)
            assert f"the model of {tmp_path / name} {words}" in capsys.readouterr().err
