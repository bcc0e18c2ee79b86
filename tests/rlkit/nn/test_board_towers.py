"""The towers of board networks: as deep as written, fused and packed as plain, attention by hand."""

import math

import pytest
import torch
from test_board_network import BACKBONES, boards, build
from torch import nn

from rlkit.bf16 import onednn_has_bf16
from rlkit.nn.board import BoardTransformer, PlainTower, ResidualBlock, global_pool, pack_
from rlkit.nn.transformer import Attention, rotary, rotate


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.slow
def test_gradients_are_the_slopes(backbone, masked):
    """What is done in place destroys nothing that a gradient needs."""
    network = build(backbone, planes=2).double()
    mask = torch.tensor([[True, True, False]] * 2)[None] if masked else None
    planes = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: network.tower(x, mask), planes)


def test_towers_of_convolutions_are_as_deep_as_each_other():
    resnet, alphago = (build(name, blocks=5).tower for name in ("resnet", "alphago"))
    kernels = [[m.kernel_size for m in tower.modules() if isinstance(m, nn.Conv2d)] for tower in (resnet, alphago)]
    assert kernels == [[(3, 3)] * 11, [(5, 5)] + [(3, 3)] * 10]


def test_a_new_residual_tower_is_its_first_convolution():
    tower = build(blocks=3, opinionated=False).tower
    planes = boards(2, 4, 4)
    torch.testing.assert_close(tower(planes), tower.conv(planes.float()).relu())


@pytest.mark.parametrize("pooled", [False, True])
def test_residual_block_as_it_is_written(pooled):
    block = ResidualBlock(4, pooled)
    nn.init.normal_(block.conv2.weight)
    x = torch.randn(2, 4, 3, 3)
    y = block.conv1(x).relu()
    if pooled:
        y = y + block.pooled(global_pool(y))[:, :, None, None]
    expected = (x + block.conv2(y)).relu()
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("backbone", ["resnet", "alphago"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 5), (9, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_convolutions_say_the_same(backbone, height, width, dtype):
    network = build(backbone, channels=16, blocks=2, size=9).to(dtype)
    planes = boards(3, height, width)
    with_gradient = network(planes)
    with torch.no_grad():
        fused = network(planes)
        masked = network(planes, torch.ones(3, height, width, dtype=torch.bool))
    tolerance = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03}
    for name, tensor in with_gradient.items():
        assert tensor.requires_grad
        torch.testing.assert_close(fused[name], tensor.detach(), **tolerance)
        torch.testing.assert_close(masked[name], tensor.detach(), **tolerance)


def test_plain_tower_keeps_the_signals_size():
    tower = build("alphago", channels=64, blocks=6).tower
    x = tower(torch.randn(8, 3, 9, 9))
    assert 0.1 < x.std() < 10


def test_rotary_by_hand():
    cos, sin = rotary(torch.tensor([[2, 5]]), features=8, base=100)
    turns = torch.tensor([2.0, 0.2, 5.0, 0.5])  # two pairs turn with the row, two with the column
    torch.testing.assert_close(cos, turns.cos().repeat(2)[None])
    torch.testing.assert_close(sin, torch.cat([-turns.sin(), turns.sin()])[None])
    quarter = rotary(torch.tensor([[math.pi / 2]]), features=2, base=100)
    torch.testing.assert_close(rotate(torch.tensor([[3.0, 1.0]]), quarter), torch.tensor([[-1.0, 3.0]]))


def test_attention_scores_know_offsets_alone():
    q, k = torch.randn(16), torch.randn(16)

    def score(from_row, from_column, to_row, to_column):
        places = torch.tensor([[from_row, from_column], [to_row, to_column]])
        a, b = rotate(torch.stack([q, k]), rotary(places, 16, base=100))
        return (a @ b).item()

    assert score(0, 0, 0, 0) == pytest.approx((q @ k).item(), rel=1e-4, abs=1e-4)
    assert score(3, 4, 5, 1) == pytest.approx(score(10, 12, 12, 9), rel=1e-4, abs=1e-4)
    different = [score(3, 4, 5, 1), score(3, 4, 1, 1), score(3, 4, 5, 7), score(3, 4, 6, 2), score(3, 4, 3, 4)]
    assert len({round(s, 3) for s in different}) == 5


def test_points_of_a_transformer_know_how_far_a_stone_is():
    tower = BoardTransformer(1, 16, 1)
    with torch.no_grad():
        tower.stem.weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0  # sees its own point alone
    planes = torch.zeros(3, 1, 5, 5)
    planes[0, 0, 0, 3] = planes[1, 0, 0, 4] = planes[2, 0, 3, 0] = 1
    first = tower(planes)[:, :, 0, 0]
    assert all((first[i] - first[j]).abs().max() > 1e-4 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_attention_by_hand_and_its_mask():
    attention = Attention(2, heads=1)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(2).repeat(3, 1))  # q = k = v = x
        attention.out.weight.copy_(2 * torch.eye(2))
        attention.qkv.bias.zero_()
        attention.out.bias.zero_()
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    seen = torch.tensor([[[[True, True, False]]]])
    p = math.exp(1 / math.sqrt(2)) / (1 + math.exp(1 / math.sqrt(2)))
    torch.testing.assert_close(attention(x, mask=seen)[0, :2], 2 * torch.tensor([[p, 1 - p], [1 - p, p]]))


@pytest.mark.parametrize("channels,heads", [(16, 1), (32, 2), (48, 3), (64, 2), (96, 3), (112, 7)])
def test_heads_have_32_or_16_features(channels, heads):
    assert BoardTransformer(3, channels, 1).blocks[0].attention.heads == heads


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_say_the_same_until_they_are_packed_anew(dtype):
    tower = PlainTower(3, 16, 3).to(dtype)
    planes = [boards(rows, 9, 9) for rows in (1, 8, 33)]
    with torch.inference_mode():
        plain = [tower(some) for some in planes]
        pack_(tower)
        for some, before in zip(planes, plain, strict=True):
            torch.testing.assert_close(tower(some), before, rtol=0, atol=1e-6 if dtype == torch.float32 else 0)
        tower.convs[2].weight.mul_(2)
        packed = dtype == torch.float32 or onednn_has_bf16()  # then what it takes is the copy, the old one
        assert torch.allclose(tower(planes[0]), plain[0], rtol=1e-5, atol=1e-5) == packed
        pack_(tower)
        assert not torch.allclose(tower(planes[0]), plain[0], rtol=1e-5, atol=1e-5)
    assert not any("packed" in name for name in tower.state_dict())
    gradient = torch.autograd.grad(tower(planes[0]).sum(), tower.convs[2].weight)[0]
    assert gradient.any()  # where something is learned, the weights themselves are taken
