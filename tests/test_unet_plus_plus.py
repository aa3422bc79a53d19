"""UNet++ has the papers' nodes and parameters, a loss at each depth, and pruning changes no node
that remains."""

import pytest
import torch
import torch.nn.functional as F

from src import UNetPlusPlus
from src.errors import UserError
from train_utils import criterion
from train_utils.model_loading import prune


def parameters(**kwargs):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in UNetPlusPlus(**kwargs).parameters())


def small(**kwargs):
    torch.manual_seed(0)
    return UNetPlusPlus(**{"in_channels": 3, "num_classes": 2, "base_c": 4, **kwargs})


def random_image(height=37, width=53):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_parameter_count_is_that_of_the_paper(deep_supervision):
    # Zhou et al. 2018, table 3: 9.04M with and without deep supervision, for one class and no norm.
    count = parameters(in_channels=3, num_classes=1, deep_supervision=deep_supervision, norm=False)
    assert round(count / 1e6, 2) == 9.04


def test_parameter_count_with_batch_norm():
    # The paper's network has 9,042,276. A second class adds 33 to each of four heads. In each of 15
    # nodes two BatchNorms with scale and shift replace two biases: 2 · width more.
    nodes_of_width = {32: 5, 64: 4, 128: 3, 256: 2, 512: 1}
    norms = 2 * sum(nodes * width for width, nodes in nodes_of_width.items())
    assert parameters(in_channels=3) == 9_042_276 + 4 * 33 + norms == 9_046_056


def test_widths_and_dense_skips():
    with torch.device("meta"):
        nodes = UNetPlusPlus().nodes
    assert len(nodes) == 15
    for i, width in enumerate((32, 64, 128, 256, 512)):  # table 1 of Zhou et al. 2018
        for j in range(5 - i):
            convs = [layer for layer in nodes[f"{i}_{j}"] if isinstance(layer, torch.nn.Conv2d)]
            assert [conv.out_channels for conv in convs] == [width, width]
            if j > 0:  # j earlier nodes of the level and the upsampled one
                assert convs[0].in_channels == (j + 1) * width


@torch.no_grad()
def test_every_depth_is_the_papers_recursion():
    # Without norm, training and eval mode compute the same.
    model, image = small(norm=False).train(), random_image(32, 48)

    def node(i, j):
        if i == j == 0:
            return model.nodes["0_0"](image)
        if j == 0:
            return model.nodes[f"{i}_0"](F.max_pool2d(node(i - 1, 0), 2))
        deeper = model.ups[f"{i}_{j}"](node(i + 1, j - 1))
        return model.nodes[f"{i}_{j}"](torch.cat([*(node(i, k) for k in range(j)), deeper], 1))

    outputs = model(image)
    assert list(outputs) == ["out", "aux1", "aux2", "aux3"]
    for level, name in ((1, "aux1"), (2, "aux2"), (3, "aux3"), (4, "out")):
        expected = model.heads[str(level)](node(0, level))
        torch.testing.assert_close(outputs[name], expected)
        model.prune(level)
        model.eval()
        assert list(model(image)) == ["out"]
        torch.testing.assert_close(model(image)["out"], expected)


@pytest.mark.parametrize("level, nodes", [(1, 3), (2, 6), (3, 10), (4, 15)])
def test_a_pruned_model_computes_only_the_remaining_nodes(level, nodes):
    model, used = small().eval(), []
    model.prune(level)
    for name, node in model.nodes.items():
        node.register_forward_hook(lambda module, args, output, name=name: used.append(name))
    model(random_image())
    assert len(used) == nodes and all(sum(map(int, name.split("_"))) <= level for name in used)


def test_training_after_pruning_uses_all_levels():
    model = small()
    model.prune(1)
    assert list(model.train()(random_image())) == ["out", "aux1", "aux2", "aux3"]


def test_the_loss_weights_the_whole_network_with_1_and_each_other_head_with_half():
    model, image = small().train(), random_image()
    target = (image.mean(1) > 0).long()
    outputs = model(image)
    parts = {name: criterion({"out": logits}, target) for name, logits in outputs.items()}
    expected = parts["out"] + 0.5 * (parts["aux1"] + parts["aux2"] + parts["aux3"])
    torch.testing.assert_close(criterion(outputs, target), expected)


def test_without_deep_supervision_there_is_one_head_and_no_pruning():
    model = small(deep_supervision=False)
    assert list(model.train()(random_image())) == ["out"]
    with pytest.raises(ValueError, match="depth 2 .*there are 4 .*deep supervision"):
        model.prune(2)
    with pytest.raises(UserError, match="m.pth: --prune 2: depth 2"):
        prune(model, 2, "m.pth")
    model.prune(4)


def test_image_below_16_pixels_is_refused():
    with pytest.raises(ValueError, match=r"UNetPlusPlus.*16×16.*\(15, 16\)"):
        small()(torch.zeros(1, 3, 15, 16))
