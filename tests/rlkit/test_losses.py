import pytest
import torch

from rlkit import losses

# Two transitions with two actions, worked out by hand. The second is a terminal.
Q_TM1 = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
A_TM1 = torch.tensor([1, 0])
R_T = torch.tensor([0.5, -1.0])
DISCOUNT_T = torch.tensor([0.9, 0.0])
Q_T = torch.tensor([[5.0, 3.0], [7.0, 7.5]])


def test_q_learning():
    # 0.5 + 0.9 * max(5, 3) - 2 = 3;  -1 + 0 - 3 = -4
    td = losses.q_learning(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T)
    torch.testing.assert_close(td, torch.tensor([3.0, -4.0]))


def test_double_q_learning_takes_the_selectors_action_and_the_targets_value():
    # the selector prefers action 1, worth 3 to the target network: 0.5 + 0.9 * 3 - 2 = 1.2
    selector = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    td = losses.double_q_learning(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, selector)
    torch.testing.assert_close(td, torch.tensor([1.2, -4.0]))


def test_gradient_flows_through_the_taken_action_alone():
    q_tm1, q_t = Q_TM1.clone().requires_grad_(), Q_T.clone().requires_grad_()
    losses.huber(losses.q_learning(q_tm1, A_TM1, R_T, DISCOUNT_T, q_t)).sum().backward()
    # errors of 3 and -4 are clipped to 1 and -1; d td / d q = -1
    torch.testing.assert_close(q_tm1.grad, torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    assert q_t.grad is None


def test_huber():
    error = torch.tensor([-3.0, -0.5, 0.0, 1.0, 2.0])
    torch.testing.assert_close(losses.huber(error), torch.tensor([2.5, 0.125, 0.0, 0.5, 1.5]))


def test_wrong_shapes_are_refused():
    with pytest.raises(AssertionError):
        losses.q_learning(Q_TM1, A_TM1.unsqueeze(1), R_T, DISCOUNT_T, Q_T)
