"""Tiles: they cover the image, their weights add up to 1, and their predictions agree with those
of the whole image."""

import re

import pytest
import torch
from torch import nn

import predict
from src import UNet, UNet3D, build_model
from src.errors import UserError
from src.inference import Ensemble, Flips, predict_probs, predict_strips
from src.tiles import (
    ALIGN,
    TileGrid,
    Tiling,
    blend_weights,
    context_of,
    cut,
    default_tile,
)
from tests.small import fill_statistics
from tests.test_models import SMALL

CPU = torch.device("cpu")


def predict_in_tiles(model, image, tiling):
    """[K, H, W] of an image [C, H, W]; also checks that the strips follow each other."""
    parts, bottom = [], 0
    for rows, probs in predict_strips(model, image, CPU, tiling=tiling):
        assert rows.start == bottom and probs.shape[1] == rows.stop - rows.start
        bottom = rows.stop
        parts.append(probs.clone())
    assert bottom == image.shape[1]
    return torch.cat(parts, dim=1)


def far_from_cuts(grid, pixels):
    """bool [H, W]: at least so many pixels from every cut of every tile."""
    far = torch.ones(grid.sides, dtype=torch.bool)
    for dim, (windows, side) in enumerate(zip(grid.windows, grid.sides, strict=True)):
        position = torch.arange(side)
        near = torch.zeros(side, dtype=torch.bool)
        for start, stop in windows:
            if start > 0:
                near |= (position >= start) & (position < start + pixels)
            if stop < side:
                near |= (position < stop) & (position >= stop - pixels)
        far &= ~near.view(-1, 1) if dim == 0 else ~near
    return far


# --- windows and weights --------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 31, 100, 101, 224, 225, 500, 997, 10_000])
@pytest.mark.parametrize("tile, overlap", [(64, 0), (96, 32), (128, 16), (224, 192), (1024, 128)])
def test_windows_cover_the_side(side, tile, overlap):
    tile = (tile - overlap) // ALIGN * ALIGN + overlap  # as Tiling makes it
    windows = cut(side, tile, overlap)
    starts, stops = zip(*windows, strict=True)
    assert starts[0] == 0 and stops[-1] == side
    assert all(start % ALIGN == 0 for start in starts)
    assert all(stop - start <= tile for start, stop in windows)
    assert all(a - b == overlap for a, b in zip(stops[:-1], starts[1:], strict=True))
    fewest = 1 if side <= tile else -(-(side - overlap) // (tile - overlap))
    assert len(windows) <= fewest


def test_windows_by_hand():
    # 700 − 64 px in steps of at most 320: two steps of 318 px, rounded up to 320.
    assert cut(700, 384, 64) == [(0, 384), (320, 700)]
    # 1,377 − 32 px in seven steps of 192.1 px: 992 and 1,184 are 960.7 and 1,152.9, rounded up.
    assert cut(1377, 256, 32)[-2:] == [(992, 1216), (1184, 1377)]


@pytest.mark.parametrize("tile, overlap, align", [(256, 32, 32), (512, 32, 32), (64, 8, 8)])
def test_no_window_is_a_narrow_strip(tile, overlap, align):
    for side in range(tile + 1, 20 * tile, 7):
        lengths = [stop - start for start, stop in cut(side, tile, overlap, align)]
        assert min(lengths) > (tile + overlap) / 2 - align
    assert cut(384, 384, 64) == [(0, 384)]


@pytest.mark.parametrize("context", [0, 96])
def test_weights_add_up_to_one(context):
    windows = cut(1500, 448, 192)
    total = torch.zeros(1500)
    weights = blend_weights(windows, 1500, context)
    for (start, stop), weight in zip(windows, weights, strict=True):
        assert weight.dtype == torch.float32 and weight.min() >= 0
        total[start:stop] += weight
    torch.testing.assert_close(total, torch.ones(1500))


def test_blending_prefers_the_tile_whose_centre_is_nearer():
    windows = [(0, 128), (96, 224)]
    left, right = blend_weights(windows, 224)
    assert (left[:96] == 1).all() and (right[32:] == 1).all()
    overlap = left[96:]
    assert (overlap[1:] <= overlap[:-1]).all() and overlap[0] > 0.999 and overlap[-1] < 0.001
    torch.testing.assert_close(overlap, right[:32].flip(0))


def test_with_a_context_each_pixel_belongs_to_one_tile():
    windows = cut(1500, 448, 192)
    for weight in blend_weights(windows, 1500, 96):
        assert set(weight.unique().tolist()) <= {0.0, 1.0}


# --- tiles against the whole image ----------------------------------------------------------------


class Pointwise(nn.Module):
    """Classifies each pixel, or voxel, by its own value."""

    def forward(self, image):
        return {"out": torch.cat([image[:, :1], -image[:, :1]], dim=1)}


@pytest.mark.parametrize("sides", [(200, 333), (64, 64), (33, 500)], ids=str)
def test_tiles_are_put_in_their_places(sides):
    image = torch.randn(1, *sides)
    probs = predict_in_tiles(Pointwise(), image, Tiling(96, 32))
    torch.testing.assert_close(probs, predict_probs(Pointwise(), image[None])[0])


def test_volumes_are_cut_in_three_dimensions():
    image = torch.randn(1, 70, 100, 65)
    grid = Tiling(64, 32).grid(Pointwise(), image.shape)
    assert [len(windows) for windows in grid.windows] == [2, 3, 2] and len(grid) == 12
    probs = predict_in_tiles(Pointwise(), image, Tiling(64, 32))
    torch.testing.assert_close(probs[0], torch.sigmoid(2 * image[0]))


@pytest.mark.parametrize(
    "name, options, pixels",
    [
        ("unet", {"bilinear": False}, 96),
        ("unet", {"bilinear": True, "align_corners": False}, 112),
        ("attention_unet", {}, 96),
        ("unet_plus_plus", {}, 96),
        ("resunet", {}, 96),
    ],
    ids=str,
)
def test_tiles_agree_with_the_whole_image_far_from_cuts(name, options, pixels):
    """Four poolings see 92 px, and bilinear upsampling 16 px more at the lowest level; at odd sizes
    too."""
    torch.manual_seed(0)
    model = build_model(name, in_channels=1, num_classes=2, base_c=2, **options)
    image, tiling = torch.randn(1, 517, 389), Tiling(320, 64)
    fill_statistics(model, image[None, :, :512, :384])
    far = far_from_cuts(tiling.grid(model, image.shape), pixels)
    assert 0.2 < far.float().mean() < 0.8
    difference = predict_in_tiles(model, image, tiling) - predict_probs(model, image[None])[0]
    assert difference[:, far].abs().max() < 1e-4
    assert 0 < difference.abs().mean() < 0.01


@pytest.mark.parametrize("name", sorted(SMALL))
def test_no_seams_are_seen(name):
    """Across a cut, probabilities change by no more than 1.1 times what they change there when the
    whole image is predicted at once."""
    torch.manual_seed(0)
    model = build_model(name, in_channels=3, num_classes=2, **SMALL[name]).eval()
    image, tiling = torch.randn(3, 300, 64), Tiling(224, 32)
    windows = tiling.grid(model, image.shape).windows[0]
    cuts = [start for start, _ in windows[1:]] + [stop for _, stop in windows[:-1]]
    whole = predict_probs(model, image[None])[0]
    steps = [
        (probs[:, cuts] - probs[:, [cut - 1 for cut in cuts]]).abs().mean()
        for probs in (predict_in_tiles(model, image, tiling), whole)
    ]
    assert len(cuts) >= 2 and steps[0] <= 1.1 * steps[1]


def test_tiles_of_valid_convolutions_are_exact():
    torch.manual_seed(0)
    model = build_model("unet_original", in_channels=1, num_classes=2, base_c=2).eval()
    image = torch.randn(1, 301, 250)
    tiling = Tiling(256, 0)
    assert context_of(model) == 96 and len(tiling.grid(model, image.shape)) > 1
    whole = predict_probs(model, image[None])[0]
    torch.testing.assert_close(predict_in_tiles(model, image, tiling), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_architecture_predicts_in_tiles(name):
    """Probabilities that add up to 1, also where the result depends on the tile's size."""
    torch.manual_seed(0)
    model = build_model(name, in_channels=3, num_classes=3, **SMALL[name]).eval()
    tile = 224 if name == "unet_original" else 96
    image = torch.randn(3, tile + 40, 64)
    probs = predict_in_tiles(model, image, Tiling(tile, 32))
    torch.testing.assert_close(probs.sum(0), torch.ones(tile + 40, 64))


def test_an_ensemble_and_flips_predict_in_tiles():
    torch.manual_seed(0)
    models = [build_model("unet_original", num_classes=2, base_c=2).eval(), UNet(1, 2, base_c=2)]
    model = Flips(Ensemble(models[:1])).eval()
    assert context_of(model) == 96
    probs = predict_in_tiles(model, torch.randn(1, 280, 64), Tiling(256, 0))
    torch.testing.assert_close(probs.sum(0), torch.ones(280, 64))
    assert context_of(Ensemble(models)) == 96


def test_prepare_is_applied_to_each_tile():
    image = torch.randint(0, 256, (1, 150, 150), dtype=torch.uint8)
    tiled = predict_strips(
        Pointwise(), image, CPU, tiling=Tiling(64, 0), prepare=lambda tiles: tiles.float() / 255
    )
    probs = torch.cat([part.clone() for _, part in tiled], dim=1)
    torch.testing.assert_close(probs, predict_probs(Pointwise(), image[None].float() / 255)[0])


def test_small_tiles_go_in_batches():
    sizes = []

    class Recorder(Pointwise):
        def forward(self, image):
            sizes.append(tuple(image.shape))
            return super().forward(image)

    predict_in_tiles(Recorder(), torch.randn(1, 320, 320), Tiling(64, 0))
    assert sizes == [(5, 1, 64, 64)] * 5


def test_progress_ends_with_the_number_of_tiles():
    seen = []
    strips = predict_strips(
        Pointwise(),
        torch.randn(1, 200, 200),
        CPU,
        tiling=Tiling(96, 0),
        after_tiles=lambda done, total: seen.append((done, total)),
    )
    list(strips)
    assert seen[-1] == (9, 9) and seen == sorted(seen)


# --- when an image is cut -------------------------------------------------------------------------


def test_images_are_cut_by_their_memory_alone():
    model = UNet(3, 2, base_c=16)
    assert len(Tiling().grid(model, (3, 1024, 1024))) == 1
    assert len(Tiling().grid(model, (3, 2336, 3504))) == 1
    assert len(Tiling().grid(model, (3, 10_000, 10_000))) == 121
    assert len(Tiling(0).grid(model, (3, 10_000, 10_000))) == 1
    assert default_tile(model, (3, 10_000, 10_000)) == 1024
    assert default_tile(UNet(3, 2, base_c=64), (3, 10_000, 10_000)) < 1024


def test_a_default_tile_overlaps_by_a_sixteenth():
    windows = Tiling().grid(UNet(3, 2, base_c=16), (3, 10_000, 10_000)).windows[0]
    assert windows[0][1] - windows[1][0] == 64


def test_a_default_tile_of_a_volume_overlaps_by_an_eighth():
    windows = Tiling(96).grid(UNet3D(1, 3, base_c=4), (1, 200, 200, 200)).windows[0]
    assert windows[0][1] - windows[1][0] == 16  # 12, rounded up to a multiple of 8


def test_the_advice_for_full_memory_names_tiles_below_the_default_ones():
    pattern = r"a smaller --tile, such as (\d+) for images or (\d+) for volumes"
    image, volume = re.search(pattern, predict.OUT_OF_MEMORY_REMEDY).groups()
    assert int(image) < default_tile(UNet(3, 2), (3, 10_000, 10_000))
    assert int(volume) < default_tile(UNet3D(1, 3), (1, 1000, 1000, 1000))


@pytest.mark.parametrize(
    "name, tile, overlap, least", [("unet", 64, 64, 96), ("unet_original", 200, 0, 224)]
)
def test_a_tile_that_is_too_small_is_refused(name, tile, overlap, least):
    model = build_model(name, in_channels=1, num_classes=2, base_c=2)
    with pytest.raises(UserError, match=f"--tile {tile}: .* must be at least {least}"):
        Tiling(tile, overlap).grid(model, (1, 500, 500))
    Tiling(least, overlap).grid(model, (1, 500, 500))


def test_a_grid_of_one_tile_is_the_image():
    grid = TileGrid((50, 70), (64, 96), 32)
    assert len(grid) == 1 and grid.windows == [[(0, 50)], [(0, 70)]]
