"""An epoch of training does what its arguments say; scores do not depend on the batch size."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from my_dataset import SegmentationDataset
from src import UNet
from src.image_io import IGNORE
from src.inference import predict_probs
from src.tiles import Tiling
from train_utils import (
    ConfusionMatrix,
    NonFiniteLossError,
    create_lr_scheduler,
    criterion,
    evaluate,
    train_one_epoch,
)
from train_utils.tolerant_metrics import near_counts

CPU = torch.device("cpu")
CONSTANT = {"total_steps": 10**9, "warmup_steps": 0}  # a schedule whose factor stays 1


class Tiny(nn.Module):
    """Two convolutions without BatchNorm, so that a batch's gradient is the mean of its images'."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, image):
        return {"out": self.last(self.first(image).tanh())}


class Linear(nn.Module):
    """Passes on values that are not finite, which Tiny's tanh would hide."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, image):
        return {"out": self.conv(image)}


class Pointwise(nn.Module):
    """Predicts class 1 where the first channel is positive, whatever surrounds the pixel."""

    def forward(self, image):
        return {"out": torch.cat([-image[:, :1], image[:, :1]], dim=1)}


def tiny(seed=0):
    torch.manual_seed(seed)
    return Tiny()


def make_items(count, size=(8, 10)):
    """[(image, target)] that a model can learn, every pixel valid."""
    torch.manual_seed(1)
    images = torch.randn(count, 3, *size)
    return [(image, (image.mean(0) > 0).long()) for image in images]


def make_loader(items, batch_size):
    return DataLoader(items, batch_size, collate_fn=SegmentationDataset.collate_fn)


def constant_rate(optimizer):
    """A scheduler whose factor stays 1."""
    return create_lr_scheduler(optimizer, 1, 1, saved_schedule=CONSTANT)


def run_epoch(model, loader, lr=0.1, momentum=0.9, **options):
    """train_one_epoch at a constant rate; returns its (loss, lr)."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    scheduler = constant_rate(optimizer)
    return train_one_epoch(model, optimizer, loader, CPU, 0, 2, scheduler, **options)


def batch_losses(model, loader):
    with torch.no_grad():
        return [
            criterion(model(image), target, ignore_index=255).item() for image, target in loader
        ]


# --- training ------------------------------------------------------------------------------------


def test_epochs_lower_the_loss_and_return_the_rate_of_the_last_step():
    model, loader = tiny().eval(), make_loader(make_items(6), 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = create_lr_scheduler(optimizer, len(loader), 4)
    results = [
        train_one_epoch(model, optimizer, loader, CPU, epoch, 2, scheduler) for epoch in range(4)
    ]
    losses, rates = zip(*results, strict=True)
    assert model.training
    assert losses[-1] < losses[0]
    assert rates[0] == pytest.approx(0.5 * (1e-3 + 0.999 * 2 / 3))
    assert rates[1:] == pytest.approx([0.5 * (1 - step / 9) ** 0.9 for step in (2, 5, 8)])
    assert scheduler.last_epoch == 12


def test_loss_is_the_mean_over_images_with_a_smaller_last_batch():
    model, loader = tiny(), make_loader(make_items(5), 2)
    losses = batch_losses(model, loader)
    loss, lr = run_epoch(model, loader, lr=1e-30)  # the weights stay what they are
    assert loss == pytest.approx((2 * losses[0] + 2 * losses[1] + losses[2]) / 5, abs=1e-6)
    assert lr == pytest.approx(1e-30, rel=1e-6)


class Valid(nn.Module):
    """As with valid convolutions: no output for a border.

    Of 2 pixels above and at the left, and of 3 below and at the right.
    """

    def __init__(self):
        super().__init__()
        self.inner = tiny()

    def forward(self, image):
        return {name: logits[..., 2:-3, 2:-3] for name, logits in self.inner(image).items()}


def test_only_the_centre_of_the_target_that_the_output_covers_is_used():
    model, items = Valid(), make_items(3, size=(12, 15))
    centre = [(image, target[2:-3, 2:-3]) for image, target in items]
    losses = [criterion(model(image[None]), target[None]).item() for image, target in centre]
    for _, target in items:  # what is outside does not matter
        target[:2], target[-3:], target[:, :2], target[:, -3:] = 1, 0, 0, 1
    loss, _ = run_epoch(model, make_loader(items, 1), lr=1e-30)
    assert loss == pytest.approx(sum(losses) / 3, abs=1e-6)


@pytest.mark.parametrize("print_freq", [1, 3, 1000])
def test_how_often_the_loss_is_logged_changes_nothing(print_freq):
    results = []
    for freq in (10, print_freq):
        model = tiny()
        result = run_epoch(model, make_loader(make_items(7), 1), print_freq=freq)
        results.append((result, model.first.weight))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize(
    "count, batch_size, accumulate", [(8, 2, 2), (6, 1, 4), (12, 2, 3), (4, 2, 5)]
)
@pytest.mark.parametrize("clip_grad", [None, 0.05])
def test_accumulated_small_batches_are_one_large_batch(count, batch_size, accumulate, clip_grad):
    small, large = tiny(), tiny()
    items = make_items(count)
    loss_small, _ = run_epoch(
        small, make_loader(items, batch_size), accumulate=accumulate, clip_grad=clip_grad
    )
    loss_large, _ = run_epoch(
        large, make_loader(items, batch_size * accumulate), clip_grad=clip_grad
    )
    assert loss_small == pytest.approx(loss_large, abs=1e-5)
    for a, b in zip(small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("accumulate, steps", [(1, 5), (2, 3), (3, 2), (5, 1), (9, 1)])
def test_the_schedule_counts_optimizer_steps(accumulate, steps):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = constant_rate(optimizer)
    loader = make_loader(make_items(5), 1)
    train_one_epoch(model, optimizer, loader, CPU, 0, 2, scheduler, accumulate=accumulate)
    assert scheduler.last_epoch == steps
    # No gradient is left for the next epoch.
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_are_clipped_to_the_norm():
    model = tiny()
    before = copy.deepcopy(model)
    run_epoch(model, make_loader(make_items(4), 4), lr=1.0, momentum=0, clip_grad=0.01)
    pairs = zip(model.parameters(), before.parameters(), strict=True)
    moved = [(a - b).flatten() for a, b in pairs]
    assert torch.cat(moved).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_class_weights_of_a_partial_and_the_ignored_id_reach_the_criterion():
    items = [(image, target.masked_fill(image[0] > 1, 7)) for image, target in make_items(2)]
    model, loader, weight = tiny(), make_loader(items, 2), torch.tensor([1.0, 5.0])
    image, target = next(iter(loader))
    expected = criterion(model(image), target, weight, ignore_index=7).item()
    weighted = partial(criterion, loss_weight=weight)
    loss, _ = run_epoch(model, loader, lr=1e-30, loss=weighted, ignore_index=7)
    assert loss == pytest.approx(expected, abs=1e-6)


def test_any_function_can_be_the_loss_and_gets_the_weights_of_the_pixels():
    seen = []

    def mean_logit(output, target, num_classes, ignore_index, pixel_weight):
        seen.append((target.shape, num_classes, ignore_index, pixel_weight))
        return output["out"].mean()

    model, (image, target) = tiny(), make_items(1)[0]
    batch, weight = (image[None], target[None]), torch.rand(1, 8, 10)
    loss, _ = run_epoch(model, [batch, (*batch, weight)], lr=1e-30, loss=mean_logit)
    assert loss == pytest.approx(model(image[None])["out"].mean().item(), abs=1e-6)
    assert seen[0] == ((1, 8, 10), 2, 255, None)
    assert torch.equal(seen[1][-1], weight)


def test_a_batch_without_valid_pixels_trains_nothing_and_is_no_error():
    items = [(image, torch.full_like(target, 255)) for image, target in make_items(2)]
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    loss, _ = run_epoch(model, make_loader(items, 2))
    assert loss == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bfloat16_trains_about_as_float32_does():
    exact, rough = tiny(), tiny()
    loader = make_loader(make_items(4), 2)
    losses = [run_epoch(exact, loader)[0], run_epoch(rough, loader, amp_dtype=torch.bfloat16)[0]]
    assert losses[1] == pytest.approx(losses[0], abs=0.01)
    assert rough.first.weight.dtype == torch.float32
    torch.testing.assert_close(rough.first.weight, exact.first.weight, atol=0.01, rtol=0)


@pytest.mark.parametrize("clip_grad", [None, 0.05])
def test_a_gradient_scaler_does_not_change_the_steps(clip_grad):
    plain, scaled = tiny(), tiny()
    loader = make_loader(make_items(4), 2)
    run_epoch(plain, loader, clip_grad=clip_grad)
    run_epoch(
        scaled, loader, clip_grad=clip_grad, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0)
    )
    torch.testing.assert_close(scaled.first.weight, plain.first.weight, atol=1e-6, rtol=0)


@pytest.mark.parametrize("print_freq", [1, 3, 4, 1000])
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("bad_batch", [0, 2, 3, 6])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_batch_as_the_log_counts(
    print_freq, accumulate, bad_batch, value
):
    items = make_items(7)
    items[bad_batch][0][0, 0, 0] = value
    with pytest.raises(NonFiniteLossError) as caught:
        run_epoch(Linear(), make_loader(items, 1), print_freq=print_freq, accumulate=accumulate)
    assert caught.value.batch == bad_batch
    assert str(caught.value).endswith(f" in batch {bad_batch + 1}")


def test_weights_that_the_last_step_spoiled_are_found():
    """An infinite gradient behind a finite loss: nothing but the weights shows it."""
    model, seen = Linear(), []

    def spoil_the_second(gradient):
        seen.append(gradient)
        return gradient * (math.inf if len(seen) == 2 else 1)

    next(model.parameters()).register_hook(spoil_the_second)
    with pytest.raises(NonFiniteLossError, match="the weights became NaN or infinite in batch 2"):
        run_epoch(model, make_loader(make_items(2), 1))


def test_spoiled_statistics_are_found_too():
    model = UNet(3, 2, base_c=2)
    model.in_conv[1].running_var.fill_(math.inf)
    with pytest.raises(NonFiniteLossError, match="the weights became NaN or infinite in batch 1"):
        run_epoch(model, make_loader(make_items(1, (32, 32)), 1))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_function_is_called_after_every_batch(accumulate):
    calls = []
    loader = make_loader(make_items(5), 1)
    run_epoch(tiny(), loader, accumulate=accumulate, after_batch=lambda: calls.append(0))
    assert len(calls) == 5


def test_a_loader_without_batches_is_refused_in_words():
    loader = DataLoader(make_items(3), batch_size=4, drop_last=True)
    with pytest.raises(ValueError, match="batch"):
        run_epoch(tiny(), loader)


# --- evaluation ----------------------------------------------------------------------------------


def varied_items():
    """[(image, target)] of different sizes, with ignored pixels.

    The fourth has class 1 neither in the target nor in the prediction.
    """
    torch.manual_seed(2)
    items = []
    for size in ((33, 40), (40, 35), (50, 33), (36, 36), (41, 60)):
        image = torch.randn(3, *size)
        target = ((image[0] + 0.8 * torch.randn(size)) > 0).long()
        target[torch.rand(size) < 0.2] = 255
        items.append((image, target))
    items[3] = (-items[3][0].abs(), torch.zeros_like(items[3][1]))
    return items


def dice_by_hand(image, target):
    valid = target != 255
    pred, truth = (image[0] > 0) & valid, target == 1
    return 2 * (pred & truth).sum().item() / (pred.sum() + truth.sum()).item()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_dice_is_the_mean_over_images_whatever_the_batch_size(batch_size):
    items = varied_items()
    counts, dice = evaluate(Pointwise(), make_loader(items, batch_size), CPU, 2)
    expected = [dice_by_hand(*item) for i, item in enumerate(items) if i != 3]
    assert dice == pytest.approx(sum(expected) / 4, abs=1e-12)
    valid = sum(int((target != 255).sum()) for _, target in items)
    right = sum(
        int((((image[0] > 0) == target) & (target != 255)).sum()) for image, target in items
    )
    assert counts.mat.sum() == valid and counts.mat.diag().sum() == right
    assert counts.compute()[0].item() == pytest.approx(right / valid)


def test_the_result_is_a_confusion_matrix_counted_by_hand():
    # Of six valid pixels: background 3 right, 1 taken for class 1; class 1 once right, once not.
    first = torch.tensor([[-1.0, -1, 1, 1]])
    second = torch.tensor([[-1.0, -1, -1, 1]])
    items = [
        (first.expand(3, -1, -1), torch.tensor([[0, 0, 0, 1]])),
        (second.expand(3, -1, -1), torch.tensor([[0, 1, 255, 255]])),
    ]
    counts, dice = evaluate(Pointwise(), make_loader(items, 2), CPU, 2)
    assert isinstance(counts, ConfusionMatrix)
    assert counts.mat.tolist() == [[3, 1], [1, 1]]
    assert counts.image_mats.tolist() == [[[2, 1], [0, 1]], [[1, 0], [1, 0]]]
    assert dice == pytest.approx((2 / 3 + 0) / 2)
    accuracy, recall, iou = counts.compute()
    assert accuracy.item() == pytest.approx(4 / 6)
    assert recall.tolist() == pytest.approx([3 / 4, 1 / 2])
    assert iou.tolist() == pytest.approx([3 / 5, 1 / 3])
    assert str(counts) == (
        "global correct: 66.7\n"
        "average row correct: ['75.0', '50.0']\n"
        "IoU: ['60.0', '33.3']\n"
        "mean IoU: 46.7"
    )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_callback_gets_the_probabilities_of_each_image_in_order(batch_size):
    items, found = varied_items(), []
    loader = make_loader(items, batch_size)
    evaluate(Pointwise(), loader, CPU, 2, callback=found.append)
    for (image, _), probs in zip(items, found, strict=True):
        assert probs.shape == (2, *image.shape[1:])
        torch.testing.assert_close(probs[1], torch.sigmoid(2 * image[0]))


def test_tiles_change_no_count_of_a_pointwise_model():
    items = make_items(2, (70, 100))
    whole, tiled = (
        evaluate(Pointwise(), make_loader(items, 1), CPU, 2, tolerance=1, tiling=tiling)[0]
        for tiling in (None, Tiling(64, 0))
    )
    assert torch.equal(whole.image_mats, tiled.image_mats)
    assert torch.equal(whole.near, tiled.near)
    found = []
    evaluate(Pointwise(), make_loader(items, 1), CPU, 2, callback=found.append, tiling=Tiling(64))
    assert [probs.shape for probs in found] == [(2, 70, 100)] * 2


def test_another_id_can_be_ignored_and_matches_have_a_tolerance():
    items = [(image, target.masked_fill(target == 255, 7)) for image, target in varied_items()]
    counts, _ = evaluate(Pointwise(), make_loader(items, 1), CPU, 2, ignore_index=7, tolerance=2)
    expected = sum(
        near_counts(target, (image[0] > 0).long(), 1, 2, ignore_index=7) for image, target in items
    )
    assert counts.near.tolist() == [expected.tolist()] and counts.tolerance == 2
    assert counts.mat.sum() == sum(int((target != 7).sum()) for _, target in items)


def test_counts_of_every_batch_size_are_the_same_image_by_image():
    items = varied_items()
    single, triple = (
        evaluate(Pointwise(), make_loader(items, batch_size), CPU, 2)[0] for batch_size in (1, 3)
    )
    assert torch.equal(single.image_mats, triple.image_mats)
    assert torch.equal(single.histograms, triple.histograms)


# The padding of a batch must not change the images of a network with large receptive fields.
def test_a_unets_dice_does_not_depend_on_the_batch_size():
    torch.manual_seed(0)
    model, items = UNet(3, 2, base_c=8), varied_items()
    for _ in range(4):  # so that it tells the classes apart
        run_epoch(model, make_loader(items, 1), lr=0.05)
    single, batched = (evaluate(model, make_loader(items, size), CPU, 2)[0] for size in (1, 5))
    changed = (single.image_mats - batched.image_mats).abs().sum((1, 2)) // 2
    assert changed.max() <= 1  # a pixel at 0.5 may round to either side


def test_a_single_image_has_no_padding():
    """Rows that are 0 and ignored may be its own: black outside the ROI, with a mean of 0."""
    torch.manual_seed(0)
    image, target = torch.rand(3, 48, 48), torch.randint(2, (48, 48))
    image[:, 40:], target[40:] = 0, IGNORE
    model = UNet(3, 2, base_c=4).eval()
    probs = []
    evaluate(model, make_loader([(image, target)], 1), CPU, 2, callback=probs.append)
    torch.testing.assert_close(probs[0], predict_probs(model, image[None])[0])


def test_a_perfect_prediction_beats_a_wrong_one():
    items = [
        (torch.where(target == 1, 1.0, -1.0).expand(3, -1, -1), target)
        for _, target in varied_items()
    ]
    reversed_items = [(-image, target) for image, target in items]
    assert evaluate(Pointwise(), make_loader(items, 2), CPU, 2)[1] == 1
    assert evaluate(Pointwise(), make_loader(reversed_items, 2), CPU, 2)[1] == 0


def test_dice_is_nan_if_no_image_holds_the_class():
    item = varied_items()[3]
    counts, dice = evaluate(Pointwise(), make_loader([item, item], 2), CPU, 2)
    assert math.isnan(dice) and counts.mat.tolist() == [[2 * 36 * 36, 0], [0, 0]]


def test_labels_that_the_model_does_not_know_are_refused():
    image, target = make_items(1)[0]
    with pytest.raises(ValueError, match=r"class ids \[3\]"):
        evaluate(Pointwise(), make_loader([(image, target.masked_fill(target == 1, 3))], 1), CPU, 2)


def test_evaluation_neither_trains_the_model_nor_leaves_it_in_training_mode():
    torch.manual_seed(0)
    model = UNet(3, 2, base_c=2).train()
    before = copy.deepcopy(model.state_dict())
    evaluate(model, make_loader(varied_items()[:2], 2), "cpu", 2)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bfloat16_scores_about_as_float32_does():
    torch.manual_seed(0)
    model, loader = UNet(3, 2, base_c=4), make_loader(varied_items(), 1)
    exact, rough = (
        evaluate(model, loader, CPU, 2, amp_dtype=dtype)[0].mat for dtype in (None, torch.bfloat16)
    )
    assert (exact - rough).abs().sum() < 0.05 * exact.sum()
