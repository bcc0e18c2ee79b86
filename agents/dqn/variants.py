"""What DQN learns by: values, or distributions of returns. Read each against its neighbour above.

    (agent, model, batch) -> (loss [B], priority [B], Q)

A batch holds s_tm1, a_tm1, r_t, discount_t, s_t. The target network looks ahead, and no gradient comes from there. A
priority says how surprising a transition was.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlkit import losses

if TYPE_CHECKING:
    from agents.dqn.agent import DQN

Batch = dict[str, Tensor]
Learned = tuple[Tensor, Tensor, Tensor]

ALPHA, TEMPERATURE = 0.9, 0.03
"""Munchausen's share of log pi in the reward, and the softmax's temperature (Vieillard et al. 2020, section 4)"""


def values(agent: "DQN", model: Any, batch: Batch) -> Learned:
    """Mnih et al. 2015; with `double` van Hasselt et al. 2016."""
    q_tm1 = model(batch["s_tm1"])
    with torch.no_grad():
        q_t = agent.target(batch["s_t"])
        q_t_selector = model(batch["s_t"]) if agent.cfg.double else q_t  # who chooses the next action
    td_error = losses.double_q_learning(q_tm1, batch["a_tm1"], batch["r_t"], batch["discount_t"], q_t, q_t_selector)
    return losses.huber(td_error), td_error.abs(), q_tm1


def munchausen(agent: "DQN", model: Any, batch: Batch) -> Learned:
    """M-DQN: a soft policy looks ahead, and the log probability of what was done adds to its reward."""
    q_tm1 = model(batch["s_tm1"])
    with torch.no_grad():
        q_t = agent.target(batch["s_t"])
        r_t, pi_t, soft_t = softly(agent, batch, q_t)
    td_error = losses.td_error(q_tm1, batch["a_tm1"], r_t, batch["discount_t"], (pi_t * (q_t + soft_t)).sum(1))
    return losses.huber(td_error), td_error.abs(), q_tm1


def categorical(agent: "DQN", model: Any, batch: Batch) -> Learned:
    """C51: probabilities of `atoms` returns; the target's, moved by reward and discount, is projected back on them."""
    rows, support = torch.arange(len(batch["a_tm1"]), device=batch["a_tm1"].device), model.support
    logits = model.z(batch["s_tm1"])
    with torch.no_grad():
        probs_t = agent.target.z(batch["s_t"]).softmax(-1)
        a_t = greedy(agent, model, batch, (probs_t * support).sum(-1))
        z = batch["r_t"][:, None] + batch["discount_t"][:, None] * support
        target = losses.project(z, probs_t[rows, a_t], support)
    loss = losses.cross_entropy(logits[rows, batch["a_tm1"]], target)
    # The priority is KL, 0 where there is nothing left to learn (Hessel et al. 2018), and the gradient's the same.
    kl = (loss + torch.special.xlogy(target, target).sum(1)).clamp(min=0)
    return loss, kl, (logits.softmax(-1) * support).sum(-1)


def quantiles(agent: "DQN", model: Any, batch: Batch) -> Learned:
    """QR-DQN and IQN: quantiles of the return, at shares that the network names; also M-IQN."""
    a_tm1 = batch["a_tm1"]
    rows, tau = torch.arange(len(a_tm1), device=a_tm1.device), model.tau(len(a_tm1))
    z_tm1 = model.z(batch["s_tm1"], tau)
    with torch.no_grad():
        z_t = agent.target.z(batch["s_t"], model.tau(len(a_tm1)))
        if agent.cfg.munchausen:
            r_t, pi_t, soft_t = softly(agent, batch, z_t.mean(-1))
            z_t = (pi_t[..., None] * (z_t + soft_t[..., None])).sum(1)
        else:
            r_t, z_t = batch["r_t"], z_t[rows, greedy(agent, model, batch, z_t.mean(-1))]
    loss = losses.quantile_regression(z_tm1[rows, a_tm1], tau, r_t[:, None] + batch["discount_t"][:, None] * z_t)
    return loss, loss, z_tm1.mean(-1)


DISTRIBUTIONS: dict[str, Callable[["DQN", Any, Batch], Learned]] = {
    "c51": categorical,
    "qr": quantiles,
    "iqn": quantiles,
}


def greedy(agent: "DQN", model: Any, batch: Batch, q_t: Tensor) -> Tensor:
    """The next actions [B]: the target network's, or with `double` the online one's."""
    return (model(batch["s_t"]) if agent.cfg.double else q_t).argmax(1)


def softly(agent: "DQN", batch: Batch, q_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(the reward with Munchausen's bonus [B], pi of the next actions [B, A], what is added to their values [B, A])."""
    logp_tm1, logp = (losses.soft_policy(q, TEMPERATURE) for q in (agent.target(batch["s_tm1"]), q_t))
    bonus = losses.munchausen(logp_tm1, batch["a_tm1"], TEMPERATURE)
    return batch["r_t"] + ALPHA * bonus, logp.exp(), -TEMPERATURE * logp
