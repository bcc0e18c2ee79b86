"""The network of AlphaZero: towers, masks, heads, loss."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from agents.alphazero.network import BoardNetwork, alphazero_loss
from rlkit.losses import cross_entropy
from rlkit.nn.board import BOARD_BACKBONES, BoardTransformer, PlainTower, ResidualBlock, global_pool, pack_
from rlkit.nn.transformer import Attention, rotary, rotate

BACKBONES = list(BOARD_BACKBONES)
HEADS = ["ownership", "score", "reply"]


def build(backbone="resnet", planes=3, channels=16, blocks=2, size=6, opinionated=True, **options):
    """A small network, whose heads and residual branches say something at once if `opinionated`."""
    network = BoardNetwork(planes, channels, blocks, backbone, size=size, **options)
    if opinionated:
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.2)
    return network


def boards(batch, height, width, planes=3):
    return torch.randint(0, 2, (batch, planes, height, width), dtype=torch.uint8)


def targets(batch, height, width, has_pass=True):
    """Planes and what a game might have said of them; of the last row nothing but policy and value."""
    actions = height * width + has_pass
    known = (torch.arange(batch) < batch - 1).float()
    return {
        "planes": boards(batch, height, width),
        "policy": torch.eye(actions)[torch.randint(actions, (batch,))],
        "value": torch.randint(2, (batch,)) * 2.0 - 1,
        "ownership": torch.randint(-1, 2, (batch, height, width)).float() * known[:, None, None],
        "score": torch.randn(batch) * known,
        "reply": torch.eye(actions)[torch.randint(actions, (batch,))] * known[:, None],
        "known": known,
    }


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("has_pass", [True, False])
@pytest.mark.parametrize("height,width", [(5, 5), (2, 6), (1, 1)])
def test_shapes_of_all_heads(backbone, has_pass, height, width):
    network = build(backbone, has_pass=has_pass)
    out = network(boards(4, height, width))
    actions = height * width + has_pass
    shapes = {name: tuple(tensor.shape) for name, tensor in out.items()}
    one, plane = (4,), (4, height, width)
    expected = {"policy": (4, actions), "reply": (4, actions), "value": one, "score": one, "ownership": plane}
    assert shapes == expected and all(tensor.dtype == torch.float32 for tensor in out.values())
    assert out["value"].abs().max() < 1 and out["ownership"].abs().max() < 1
    assert network.tower(boards(4, height, width)).shape == (4, network.tower.out_features, height, width)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_new_network_has_no_opinion_and_all_of_it_learns(backbone):
    network = build(backbone, opinionated=False)
    out = network(boards(3, 4, 4))
    assert not any(tensor.any() for tensor in out.values())
    alphazero_loss(network, targets(3, 4, 4))[0].backward()
    assert all(p.grad is not None for p in network.parameters())
    network = build(backbone, size=4)  # with weights that pass gradients on
    alphazero_loss(network, targets(3, 4, 4))[0].backward()
    assert all(p.grad.any() for p in network.parameters())


def test_what_comes_first_is_the_top_left_and_the_pass_is_last():
    network = build("alphago", opinionated=False)
    with torch.no_grad():
        network.position.copy_(torch.arange(36.0).reshape(6, 6))
        network.board.bias[network.of_board.index("policy")] = -1
        network.board.bias[network.of_board.index("score")] = 1.5
    out = network(boards(1, 2, 3))
    torch.testing.assert_close(out["policy"], torch.tensor([[0.0, 1, 2, 6, 7, 8, -1]]))
    assert out["score"].item() == 1.5 and not out["reply"].any()  # a score may be more than the board


# -- boards of several sizes in one array ----------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("has_pass", [True, False])
def test_a_padded_board_says_what_the_board_alone_says(backbone, has_pass):
    network = build(backbone, blocks=3, has_pass=has_pass).eval()
    sizes = [(5, 6), (3, 3), (2, 6), (1, 4)]
    planes, mask = boards(len(sizes), 5, 6), torch.zeros(len(sizes), 5, 6, dtype=torch.bool)  # what lies off is random
    for i, (height, width) in enumerate(sizes):
        mask[i, :height, :width] = True
    with torch.inference_mode():
        padded = network(planes, mask)
        for i, (height, width) in enumerate(sizes):
            alone = network(planes[i : i + 1, :, :height, :width])
            on = mask[i].flatten()
            for name in ("policy", "reply"):
                torch.testing.assert_close(padded[name][i, :30][on], alone[name][0, : on.sum()], rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(padded[name][i, 30:], alone[name][0, on.sum() :], rtol=1e-4, atol=1e-5)
                assert (padded[name][i, :30][~on] == -torch.inf).all()
            ownership = padded["ownership"][i]
            assert not ownership[~mask[i]].any()
            torch.testing.assert_close(ownership[:height, :width], alone["ownership"][0], rtol=1e-4, atol=1e-5)
            for name in ("value", "score"):
                torch.testing.assert_close(padded[name][i], alone[name][0], rtol=1e-4, atol=1e-5)
        everywhere = network(planes, torch.ones_like(mask))
        for name, tensor in network(planes).items():
            torch.testing.assert_close(everywhere[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_loss_and_gradients_of_a_padded_board_are_those_of_the_board_alone(backbone):
    network = build(backbone)
    alone = targets(3, 3, 4)
    padded = {k: v for k, v in alone.items() if v.ndim == 1}
    padded["mask"] = torch.zeros(3, 5, 5, dtype=torch.bool)
    padded["mask"][:, :3, :4] = True
    padded["planes"], padded["ownership"] = boards(3, 5, 5), torch.zeros(3, 5, 5)
    padded["planes"][..., :3, :4], padded["ownership"][:, :3, :4] = alone["planes"], alone["ownership"]
    for name in ("policy", "reply"):
        padded[name] = torch.zeros(3, 26)
        padded[name][:, :25][padded["mask"].flatten(1)] = alone[name][:, :12].flatten()
        padded[name][:, 25] = alone[name][:, 12]
    results = []
    for batch in (alone, padded):
        network.zero_grad()
        loss, parts = alphazero_loss(network, batch)
        loss.backward()
        results.append((loss, parts, [p.grad.clone() for p in network.parameters()]))
    assert all(gradient.isfinite().all() for gradient in results[1][2])
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-5)


def test_global_pool_by_hand():
    x = torch.tensor([[[[1.0, -2.0], [4.0, 9.0]]], [[[-1.0, -3.0], [8.0, 9.0]]]])
    torch.testing.assert_close(global_pool(x), torch.tensor([[3.0, 9.0], [3.25, 9.0]]))
    mask = torch.tensor([[[True, True], [True, False]], [[True, True], [False, False]]])
    torch.testing.assert_close(global_pool(x, mask), torch.tensor([[1.0, 4.0], [-2.0, -1.0]]))


# -- towers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("masked", [False, True])
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


# -- heads and loss --------------------------------------------------------------------------------------------------


def test_switched_off_heads_are_absent_and_cost_nothing():
    def count(heads, **options):
        return sum(p.numel() for p in build(heads=heads, **options).parameters())

    none = build(heads=[])
    assert none(boards(2, 3, 3)).keys() == {"policy", "value"}
    assert alphazero_loss(none, targets(2, 3, 3))[1].keys() == {"policy", "value"}
    # an output of a 1x1 convolution has 16 weights and a bias, one of the dense layer 2 x 16 and a bias
    points, whole = 16 + 1, 2 * 16 + 1
    assert count(["ownership"]) - count([]) == points
    assert count(["score"]) - count([]) == count(["reply"]) - count([]) == points + whole
    assert count(["reply"], has_pass=False) - count([], has_pass=False) == points
    out = build(heads=["score"])(boards(2, 3, 3))
    assert out.keys() == {"policy", "value", "score"}


class Fixed(nn.Module):
    """Says the same whatever it sees."""

    def __init__(self, **out):
        super().__init__()
        self.out = out

    def forward(self, planes, mask=None):
        return self.out


def test_loss_by_hand():
    """Two positions on a board of 1 x 2 with a pass; the second game was resigned and had no answer."""
    log = math.log
    out = {
        "policy": torch.tensor([[log(2.0), 0.0, 0.0], [0.0, 0.0, 0.0]]),
        "value": torch.tensor([0.5, -1.0]),
        "ownership": torch.tensor([[[1.0, 0.5]], [[0.3, 0.3]]]),
        "score": torch.tensor([-1.0, 0.3]),
        "reply": torch.tensor([[0.0, log(6.0), 0.0], [7.0, 8.0, 9.0]]),
    }
    batch = {
        "planes": torch.zeros(2, 1, 1, 2),
        "policy": torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]),
        "value": torch.tensor([1.0, 0.0]),
        "ownership": torch.tensor([[[1.0, -1.0]], [[0.0, 0.0]]]),
        "score": torch.tensor([0.0, 0.0]),
        "reply": torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
        "known": torch.tensor([1.0, 0.0]),
    }
    loss, parts = alphazero_loss(Fixed(**out), batch)
    by_hand = {
        "policy": ((log(2) + log(4)) / 2 + log(3)) / 2,  # of 1/2, 1/4, 1/4 and of thirds
        "value": (0.25 + 1) / 2,
        "ownership": (0 + 2.25) / 2,
        "score": 1.0,
        "reply": log(8 / 6),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(by_hand, rel=1e-5)
    weighed = by_hand["policy"] + by_hand["value"] + 0.5 * by_hand["ownership"] + 0.5 + 0.15 * by_hand["reply"]
    assert loss.item() == pytest.approx(weighed, rel=1e-5)
    nothing = batch | {"known": torch.zeros(2), "reply": torch.zeros(2, 3)}
    loss, parts = alphazero_loss(Fixed(**out), nothing)
    assert parts["ownership"] == parts["score"] == parts["reply"] == 0
    assert loss.item() == pytest.approx(by_hand["policy"] + by_hand["value"], rel=1e-5)


def test_cross_entropy_bears_what_cannot_be_played():
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [1.0, -torch.inf, -torch.inf]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(loss, torch.tensor([math.log(2), 0.0]))
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.25, -0.25, 0.0], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("has_pass", [True, False])
def test_it_learns_a_few_positions_by_heart(backbone, has_pass):
    network = build(backbone, opinionated=False, has_pass=has_pass, channels=32)
    batch = targets(8, 4, 4, has_pass)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        loss, _ = alphazero_loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 3.5 and losses[-1] < 0.25 * losses[0]


# -- what else is done with it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_config_rebuilds_it(backbone):
    network = build(backbone, heads=("score", "reply"), has_pass=False)
    config = json.loads(json.dumps(network.config))
    expected = {"planes": 3, "channels": 16, "blocks": 2, "backbone": backbone, "has_pass": False, "size": 6}
    assert config == expected | {"heads": ["score", "reply"]}
    twin = BoardNetwork(**config)
    twin.load_state_dict(network.state_dict())
    planes = boards(2, 4, 4)
    torch.testing.assert_close(twin(planes), network(planes), rtol=0, atol=0)
    assert BoardNetwork(17).config["heads"] == HEADS


@pytest.mark.parametrize("backbone", BACKBONES)
def test_half_precision_says_nearly_the_same(backbone):
    network = build(backbone, channels=32).eval()
    low, planes = copy.deepcopy(network).to(torch.bfloat16), boards(8, 5, 5)
    mask = torch.ones(8, 5, 5, dtype=torch.bool)
    mask[:4, 3:] = False
    with torch.inference_mode():
        exact, padded = network(planes), network(planes, mask)
        for out, expected in ((low(planes), exact), (low(planes.float()), exact), (low(planes, mask), padded)):
            for name, tensor in out.items():
                assert tensor.dtype == torch.float32
                torch.testing.assert_close(tensor, expected[name], rtol=0.1, atol=0.1)
        with torch.autocast("cpu", torch.bfloat16):
            for name, tensor in network(planes).items():
                assert tensor.dtype == torch.float32
                torch.testing.assert_close(tensor, exact[name], rtol=0.1, atol=0.1)


def test_wrong_arguments_are_answered():
    with pytest.raises(ValueError, match="no backbone 'mlp': take one of resnet, alphago, transformer"):
        BoardNetwork(3, backbone="mlp")
    with pytest.raises(ValueError, match="no head 'mood': take some of ownership, score, reply"):
        BoardNetwork(3, heads=["score", "mood"])
    with pytest.raises(ValueError, match="say size"):
        BoardNetwork(3, backbone="alphago")
    with pytest.raises(ValueError, match="up to 6 lines, not 4 x 7: train one with a larger size"):
        build("alphago")(boards(1, 4, 7))
    with pytest.raises(ValueError, match="24 is no multiple"):
        BoardNetwork(3, 24, backbone="transformer")


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
        torch.testing.assert_close(tower(planes[0]), plain[0], rtol=1e-5, atol=1e-5)  # the copy is the old one
        pack_(tower)
        assert not torch.allclose(tower(planes[0]), plain[0], rtol=1e-5, atol=1e-5)
    assert not any("packed" in name for name in tower.state_dict())
    gradient = torch.autograd.grad(tower(planes[0]).sum(), tower.convs[2].weight)[0]
    assert gradient.any()  # where something is learned, the weights themselves are taken
