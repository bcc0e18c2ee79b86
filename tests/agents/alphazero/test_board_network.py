"""The network of AlphaZero: towers, masks, heads, loss."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from agents.alphazero.network import BoardNetwork, alphazero_loss
from rlkit.nn.board import BOARD_BACKBONES, global_pool
from rlkit.policy_losses import cross_entropy

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
@pytest.mark.slow
def test_it_learns_a_few_positions_by_heart(backbone, has_pass, learning_seed, record_property):
    torch.manual_seed(learning_seed)
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
    record_property("score", losses[0] / losses[-1])
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
