"""What came after DQN, as losses. Read each against its neighbour above, and the first against DQN's.

    (cfg, target, model, batch) -> (loss [B], priority [B], Q [B, actions])

A batch holds s_tm1, a_tm1, r_t, discount_t, s_t, and mask_tm1, mask_t if not all actions are always allowed. The target
network looks ahead, and no gradient comes from there. A priority says how surprising a transition was, for prioritised
replay.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from agents.dqn.agent import DQN, Batch, allowed, td_errors
from agents.rainbow.config import RainbowConfig
from agents.rainbow.network import RainbowNetwork
from rlkit import losses, policy_losses
from rlkit.distribution_losses import project, quantile_regression

Learned = tuple[Tensor, Tensor, Tensor]

ALPHA, TEMPERATURE = 0.9, 0.03
"""Munchausen's share of log pi in the reward, and the softmax's temperature (Vieillard et al. 2020, section 4)"""


def values(cfg: RainbowConfig, target: RainbowNetwork, model: RainbowNetwork, batch: Batch) -> Learned:
    """DQN's, or with `double` Double DQN's; the priority is Schaul et al.'s of 2016."""
    td_error, q_tm1 = td_errors(cfg, target, model, batch)
    return losses.huber(td_error), td_error.abs(), q_tm1


def munchausen(cfg: RainbowConfig, target: RainbowNetwork, model: RainbowNetwork, batch: Batch) -> Learned:
    """M-DQN: a soft policy looks ahead, and the log probability of the action taken is added to its reward."""
    q_tm1 = model(batch["s_tm1"])
    with torch.no_grad():
        q_t = target(batch["s_t"])
        r_t, pi_t, soft_t = soft_step(target, batch, q_t)
    td_error = losses.td_error(q_tm1, batch["a_tm1"], r_t, batch["discount_t"], (pi_t * (q_t + soft_t)).sum(1))
    return losses.huber(td_error), td_error.abs(), q_tm1


def categorical(cfg: RainbowConfig, target: RainbowNetwork, model: RainbowNetwork, batch: Batch) -> Learned:
    """C51: probabilities of `atoms` returns; the target's, moved by reward and discount, is projected back on them."""
    rows, support = torch.arange(len(batch["a_tm1"]), device=batch["a_tm1"].device), model.support
    logits = model.z(batch["s_tm1"])
    with torch.no_grad():
        probs_t = target.z(batch["s_t"]).softmax(-1)
        a_t = greedy(cfg, model, batch, (probs_t * support).sum(-1))
        z = batch["r_t"][:, None] + batch["discount_t"][:, None] * support
        probs = project(z, probs_t[rows, a_t], support)
    loss = policy_losses.cross_entropy(logits[rows, batch["a_tm1"]], probs)
    # The priority is KL, 0 where there is nothing left to learn (Hessel et al. 2018), and the gradient's the same.
    kl = (loss + torch.special.xlogy(probs, probs).sum(1)).clamp(min=0)
    return loss, kl, (logits.softmax(-1) * support).sum(-1)


def quantiles(cfg: RainbowConfig, target: RainbowNetwork, model: RainbowNetwork, batch: Batch) -> Learned:
    """QR-DQN and IQN: quantiles of the return, at the probabilities `model.tau`; also M-IQN."""
    a_tm1 = batch["a_tm1"]
    rows, tau = torch.arange(len(a_tm1), device=a_tm1.device), model.tau(len(a_tm1))
    z_tm1 = model.z(batch["s_tm1"], tau)
    with torch.no_grad():
        z_t = target.z(batch["s_t"], model.tau(len(a_tm1)))
        if cfg.munchausen:
            r_t, pi_t, soft_t = soft_step(target, batch, z_t.mean(-1))
            z_t = (pi_t[..., None] * (z_t + soft_t[..., None])).sum(1)
        else:
            r_t, z_t = batch["r_t"], z_t[rows, greedy(cfg, model, batch, z_t.mean(-1))]
    loss = quantile_regression(z_tm1[rows, a_tm1], tau, r_t[:, None] + batch["discount_t"][:, None] * z_t)
    return loss, loss, z_tm1.mean(-1)


LOSSES: dict[str, Callable[[RainbowConfig, RainbowNetwork, RainbowNetwork, Batch], Learned]] = {
    "none": values,
    "c51": categorical,
    "qr": quantiles,
    "iqn": quantiles,
}
"""by cfg.distribution"""


def greedy(cfg: RainbowConfig, model: RainbowNetwork, batch: Batch, q_t: Tensor) -> Tensor:
    """The next actions [B]: the target network's, or with `double` the online one's."""
    return allowed(model(batch["s_t"]) if cfg.double else q_t, batch.get("mask_t")).argmax(1)


def soft_step(target: RainbowNetwork, batch: Batch, q_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(the reward with Munchausen's bonus [B], pi of the next actions [B, A], what is added to their values [B, A])."""
    q_tm1, q_t = allowed(target(batch["s_tm1"]), batch.get("mask_tm1")), allowed(q_t, batch.get("mask_t"))
    logp_tm1, logp = (policy_losses.soft_policy(q, TEMPERATURE) for q in (q_tm1, q_t))
    bonus = policy_losses.munchausen(logp_tm1, batch["a_tm1"], TEMPERATURE)
    return batch["r_t"] + ALPHA * bonus, logp.exp(), -TEMPERATURE * logp


def weighted_mean(
    batch: Batch, loss: Tensor, priority: Tensor, q: Tensor, td_error: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """(the mean of loss [B], weighted by batch["weight"] [B] where there is one; aux).

    aux: mean q, td_error, each transition's priority [B] and, where the batch has it, its index [B].
    """
    mean = (loss * batch["weight"]).mean() if "weight" in batch else loss.mean()
    aux = {"q": q.detach().mean(), "td_error": td_error, "priority": priority}
    return mean, aux | ({"index": batch["index"]} if "index" in batch else {})


class Rainbow(DQN):
    """A DQN with those methods of later papers that its config turns on: by default none.

    In agent.json its kind is "dqn" too.
    """

    cfg: RainbowConfig
    config = RainbowConfig

    def build(self) -> nn.Module:
        """The network. Raises ValueError for settings that cannot be combined."""
        cfg = self.cfg
        if cfg.munchausen and (cfg.double or cfg.n_step > 1 or cfg.distribution == "c51"):
            raise ValueError(
                "munchausen has a soft policy of its own, for single steps: take --no-double and --n-step 1, and qr or"
                " iqn for c51"
            )
        return RainbowNetwork(self.obs_shape, self.num_actions, cfg)

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss, weighted by batch["weight"] [B] where there is one, and the aux of `weighted_mean`, in which
        td_error is the mean priority.
        """
        cfg = self.cfg
        loss_of = munchausen if cfg.munchausen and cfg.distribution == "none" else LOSSES[cfg.distribution]
        loss, priority, q = loss_of(cfg, self.target, model, batch)
        return weighted_mean(batch, loss, priority.detach(), q, priority.detach().mean())
