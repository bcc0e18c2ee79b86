"""Losses of Q-learning as pure functions. No reduction unless said: the caller weighs and averages."""

import torch.nn.functional as F
from torch import Tensor


def q_learning(q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t: Tensor) -> Tensor:
    """TD errors [B] of Q-learning: r_t + discount_t max_a q_t(a) - q_tm1(a_tm1).

    Args:
        q_tm1, q_t: [B, A]; q_t is the target network's. Gradients flow through q_tm1 alone.
        a_tm1: [B] int64. r_t, discount_t: [B]; discount_t includes gamma (gamma^n after n steps), 0 at a terminal.
    Source: Watkins 1989; with q_t of a target network, Mnih et al. 2015.
    """
    return double_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t, q_t)


def double_q_learning(
    q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t: Tensor, q_t_selector: Tensor
) -> Tensor:
    """TD errors [B] with the next action chosen by `q_t_selector` [B, A] and judged by q_t [B, A].

    Source: van Hasselt et al. 2016, eq. 4. The other arguments are those of `q_learning`.
    """
    batch, actions = q_tm1.shape
    assert q_t.shape == q_t_selector.shape == (batch, actions), (q_tm1.shape, q_t.shape, q_t_selector.shape)
    assert a_tm1.shape == r_t.shape == discount_t.shape == (batch,), (a_tm1.shape, r_t.shape, discount_t.shape)
    return td_error(q_tm1, a_tm1, r_t, discount_t, q_t.gather(1, q_t_selector.argmax(1, keepdim=True)).squeeze(1))


def td_error(q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, v_t: Tensor) -> Tensor:
    """TD errors [B], given what the next state is worth, v_t [B]: r_t + discount_t v_t - q_tm1(a_tm1)."""
    assert a_tm1.shape == r_t.shape == discount_t.shape == v_t.shape, (a_tm1.shape, r_t.shape, v_t.shape)
    target = r_t + discount_t * v_t
    return target.detach() - q_tm1.gather(1, a_tm1.unsqueeze(1)).squeeze(1)


def huber(td_error: Tensor) -> Tensor:
    """Squared error with its gradient clipped to [-1, 1]; any shape, elementwise (the paper's error clipping)."""
    return F.huber_loss(td_error, td_error.new_zeros(()).expand_as(td_error), reduction="none")
