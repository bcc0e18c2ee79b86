import pytest
import torch

from agents.dqn.agent import DQN, DQNConfig
from rlkit.nn.dense import Dense
from rlkit.nn.heads import DuelingHead
from rlkit.nn.nature import NatureCNN


@pytest.mark.parametrize("actions", [4, 18])
def test_parameter_count_of_the_paper(actions):
    agent = DQN((4, 84, 84), actions, DQNConfig())
    assert sum(p.numel() for p in agent.network.parameters()) == 1_684_128 + 513 * actions


def test_uint8_images_are_read_as_fractions():
    torso = NatureCNN((4, 84, 84))
    x = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    torch.testing.assert_close(torso(x), torso(x.float() / 255), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torso(x[None].expand(2, 3, 4, 84, 84))[1], torso(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 40, 24), (7, 40, 24), (128, 3136, 512)])
def test_dense_equals_linear_forward_and_backward(shape, monkeypatch):
    monkeypatch.setattr("rlkit.nn.dense.SMALL", 0)
    batch, inputs, outputs = shape
    dense = Dense(inputs, outputs)
    linear = torch.nn.Linear(inputs, outputs)
    linear.load_state_dict(dense.state_dict())
    x = torch.randn(batch, inputs)
    results = []
    for layer in (dense, linear):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        (y * torch.linspace(-1, 1, outputs)).square().sum().backward()
        results.append((y, leaf.grad, layer.weight.grad, layer.bias.grad))
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-4)


def test_images_too_small_say_the_least():
    with pytest.raises(ValueError, match="at least 36 x 36"):
        NatureCNN((4, 35, 84))
    assert NatureCNN((4, 36, 36))(torch.zeros(1, 4, 36, 36)).shape == (1, 512)


def test_dueling_head_by_hand():
    head = DuelingHead(2, 3)
    with torch.no_grad():
        head.value.weight.copy_(torch.tensor([[1.0, 1.0]]))
        head.value.bias.zero_()
        head.advantage.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        head.advantage.bias.zero_()
    # V = 3, A = 1, 2, 3 with mean 2
    torch.testing.assert_close(head(torch.tensor([[1.0, 2.0]])), torch.tensor([[2.0, 3.0, 4.0]]))
