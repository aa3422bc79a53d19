"""The criterion follows its definition, for any number of classes, ignored id and precision."""

import pytest
import torch
import torch.nn.functional as F

from train_utils import criterion, dice_loss


def random_sample(num_classes, ignore_index, seed=0, size=(2, 5, 4)):
    """Logits [N, K, H, W] and a target [N, H, W] of which about a fifth is ignored."""
    torch.manual_seed(seed)
    target = torch.randint(num_classes, size)
    target[torch.rand(size) < 0.2] = ignore_index
    return 2 * torch.randn(size[0], num_classes, *size[1:]), target


def slow_criterion(logits, target, weight, ignore_index, pixel_weight=None, epsilon=1e-6):
    """The definition, pixel by pixel, in float64.

    Weighted cross entropy + 1 − Dice, averaged over images and classes.
    """
    num_images, num_classes, height, width = logits.shape
    weight = [1.0] * num_classes if weight is None else weight.tolist()
    pixel_weight = torch.ones(target.shape) if pixel_weight is None else pixel_weight
    entropy, weights, dice = 0, 0, 0
    for n in range(num_images):
        both, prob_sum, truth_sum = [0] * num_classes, [0] * num_classes, [0] * num_classes
        for y in range(height):
            for x in range(width):
                label = target[n, y, x].item()
                if label == ignore_index:
                    continue
                probs = logits[n, :, y, x].double().softmax(0)
                own_weight = weight[label] * pixel_weight[n, y, x].double()
                entropy = entropy - own_weight * probs[label].log()
                weights += own_weight
                for c in range(num_classes):
                    both[c] = both[c] + probs[c] * (label == c)
                    prob_sum[c] = prob_sum[c] + probs[c]
                    truth_sum[c] += label == c
        for c in range(num_classes):
            dice = dice + (2 * both[c] + epsilon) / (prob_sum[c] + truth_sum[c] + epsilon)
    return entropy / weights + 1 - dice / (num_images * num_classes)


def value_and_gradient(function, logits, *args, **kwargs):
    logits = logits.clone().requires_grad_()
    value = function(logits, *args, **kwargs)
    value.backward()
    return value.detach(), logits.grad


def sure_of(ids, num_classes, strength=20.0):
    """Logits that predict `ids` [N, H, W]."""
    return strength * F.one_hot(ids, num_classes).movedim(-1, 1).float()


@pytest.mark.parametrize("weights", ["none", "classes", "pixels", "both"])
@pytest.mark.parametrize("ignore_index", [255, -100, 0, 1])
@pytest.mark.parametrize("num_classes", [2, 3, 11])
def test_value_and_gradient_are_those_of_the_definition(num_classes, ignore_index, weights):
    logits, target = random_sample(num_classes, ignore_index)
    weight = torch.rand(num_classes) + 0.5 if weights in ("classes", "both") else None
    pixel_weight = 3 * torch.rand(target.shape) if weights in ("pixels", "both") else None
    options = {"ignore_index": ignore_index, "pixel_weight": pixel_weight}
    value, gradient = value_and_gradient(
        lambda out: criterion({"out": out}, target, weight, num_classes, **options), logits
    )
    expected, expected_gradient = value_and_gradient(
        slow_criterion, logits, target, weight, **options
    )
    torch.testing.assert_close(value.double(), expected.double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=0)


@pytest.mark.parametrize("ignore_index", [255, 0, 1])
def test_predictions_of_ignored_pixels_do_not_matter(ignore_index):
    logits, target = random_sample(3, ignore_index)
    other = torch.where((target == ignore_index)[:, None], 100 * torch.randn_like(logits), logits)
    losses = [
        criterion({"out": out}, target, num_classes=3, ignore_index=ignore_index)
        for out in (logits, other)
    ]
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0])], ids=["plain", "weighted"])
def test_a_batch_of_ignored_pixels_has_loss_and_gradient_0(weight):
    logits, target = random_sample(2, 255)
    value, gradient = value_and_gradient(
        lambda out: criterion({"out": out}, torch.full_like(target, 255), weight, ignore_index=255),
        logits,
    )
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_an_ignored_image_adds_no_gradient_and_a_perfect_dice():
    logits, target = random_sample(2, 255)
    target[0] = 255
    value, gradient = value_and_gradient(
        lambda out: criterion({"out": out}, target, ignore_index=255), logits
    )
    alone, _ = value_and_gradient(
        lambda out: criterion({"out": out}, target[1:], ignore_index=255), logits[1:]
    )
    entropy = criterion({"out": logits[1:]}, target[1:], dice=False, ignore_index=255)
    torch.testing.assert_close(value, entropy + (alone - entropy) / 2)
    assert torch.equal(gradient[0], torch.zeros_like(gradient[0])) and gradient.isfinite().all()


def test_pixels_of_weight_0_alone_have_cross_entropy_0():
    logits, target = random_sample(2, 255)
    loss = criterion(
        {"out": logits}, torch.zeros_like(target), torch.tensor([0.0, 1.0]), dice=False
    )
    assert loss == 0


@pytest.mark.parametrize("num_classes", [2, 5])
def test_a_perfect_prediction_beats_an_unsure_one_and_that_a_wrong_one(num_classes):
    torch.manual_seed(0)
    target = torch.randint(num_classes, (2, 16, 16))
    predictions = [
        sure_of(target, num_classes),
        torch.zeros(2, num_classes, 16, 16),
        sure_of((target + 1) % num_classes, num_classes),
    ]
    perfect, unsure, wrong = (
        criterion({"out": out}, target, num_classes=num_classes).item() for out in predictions
    )
    assert perfect < 1e-4 < unsure < wrong
    assert dice_loss(predictions[2].softmax(1), target) > 0.99


def test_dice_by_hand():
    probs = torch.tensor([[0.9, 0.6, 0.2, 0.5]])  # of class 0; the last pixel is ignored
    probs = torch.stack([probs, 1 - probs], dim=1).view(1, 2, 1, 4)
    target = torch.tensor([[[0, 0, 1, 255]]])
    background, vessel = 2 * 1.5 / (1.7 + 2), 2 * 0.8 / (1.3 + 1)
    assert dice_loss(probs, target, 255).item() == pytest.approx(
        1 - (background + vessel) / 2, abs=1e-6
    )


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 3.0])], ids=["plain", "weighted"])
def test_without_dice_it_is_pytorchs_cross_entropy(weight):
    logits, target = random_sample(3, 255)
    loss = criterion({"out": logits}, target, weight, num_classes=3, dice=False, ignore_index=255)
    torch.testing.assert_close(loss, F.cross_entropy(logits, target, weight, ignore_index=255))


def test_a_second_output_has_half_the_weight():
    (logits, target), (aux, _) = random_sample(2, 255), random_sample(2, 255, seed=1)
    losses = [criterion({"out": out}, target, ignore_index=255) for out in (logits, aux)]
    both = criterion({"out": logits, "aux": aux}, target, ignore_index=255)
    torch.testing.assert_close(both, losses[0] + 0.5 * losses[1])


# 65,536 pixels of probability 1 add up to more than float16 holds (65,504).
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("under_autocast", [False, True], ids=["", "autocast"])
def test_the_loss_of_half_precision_logits_is_computed_in_float32(dtype, under_autocast):
    torch.manual_seed(0)
    target = torch.randint(2, (4, 256, 256))
    target[:2] = 0
    logits = (sure_of(target, 2, strength=8.0) + torch.randn(4, 2, 256, 256)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=under_autocast):
        loss, gradient = value_and_gradient(lambda out: criterion({"out": out}, target), logits)
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    torch.testing.assert_close(
        loss, criterion({"out": logits.float()}, target), atol=1e-6, rtol=1e-6
    )
    assert gradient.isfinite().all()


def test_neither_logits_nor_target_are_changed():
    logits, target = random_sample(3, 255)
    copies = logits.clone(), target.clone()
    criterion({"out": logits}, target, num_classes=3, ignore_index=255)
    assert torch.equal(logits, copies[0]) and torch.equal(target, copies[1])


def test_another_number_of_classes_is_refused():
    logits, target = random_sample(3, 255)
    with pytest.raises(ValueError, match="3 classes.*expects 2"):
        criterion({"out": logits}, target, ignore_index=255)


def test_batch_dice_is_one_dice_of_the_foreground_over_all_pixels_of_the_batch():
    logits, target = random_sample(3, ignore_index=255, size=(4, 5, 6))
    target[1] = 0  # an image without foreground
    probs, valid = logits.softmax(1), target != 255
    wanted = 0
    for c in (1, 2):
        p, t = probs[:, c][valid], (target == c)[valid].float()
        wanted += 2 * (p @ t) / (p.sum() + t.sum()) / 2
    torch.testing.assert_close(dice_loss(probs, target, 255, batch=True), 1 - wanted)
    together = criterion({"out": logits}, target, None, 3, ignore_index=255, batch_dice=True)
    torch.testing.assert_close(
        together,
        criterion({"out": logits}, target, None, 3, dice=False, ignore_index=255) + 1 - wanted,
    )
    # The same images as a single one.
    tall = [part.transpose(0, 1).reshape(1, -1, 20, 6) for part in (probs, target[:, None])]
    torch.testing.assert_close(dice_loss(tall[0], tall[1][:, 0], 255, batch=True), 1 - wanted)


def test_deterministic_algorithms_give_the_same_loss():
    logits, target = random_sample(3, 255)
    weight, pixel_weight = torch.rand(3), torch.rand(target.shape)
    losses = []
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            options = {"ignore_index": 255, "pixel_weight": pixel_weight}
            losses.append(criterion({"out": logits}, target, weight, 3, **options))
        finally:
            torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(*losses)
