"""Games of self-play, many at once, each at its own pace."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from agents.alphazero.window import pack
from rlkit.config import AtLeast, Between, Divided, Fixed
from rlkit.search import root
from rlkit.search.game import Game
from rlkit.search.inference import Evaluate, open_edges
from rlkit.search.trees import Trees


@dataclass
class SelfPlayConfig:
    """How games are played, and how batches are drawn from them."""

    games: Annotated[int, AtLeast(1), Fixed, Divided] = 256
    """games that are played at once"""
    parts: Annotated[int, AtLeast(1), Fixed] = 2
    """groups that the games are divided into, each on a thread of its own; at most the CPU's cores"""
    simulations: Annotated[int, AtLeast(2), Fixed] = 32
    """simulations of a move; at a puct root those of a kept subtree included"""
    fast_simulations: Annotated[int, AtLeast(0), Fixed] = 0
    """playout-cap randomisation: simulations of the moves that are played and not learned from; 0: there are none"""
    full_share: Annotated[float, Between(0, 1)] = 0.25
    """share of the moves that have all simulations, where others have --selfplay.fast-simulations"""
    root: Literal["puct", "gumbel"] = "gumbel"
    """exploration at the root of a search: Dirichlet noise and forced visits (puct), or Gumbel noise and sequential
    halving (gumbel), which learns from fewer simulations"""
    considered: Annotated[int, AtLeast(1)] = 16
    """moves that a gumbel root considers at most"""
    c_puct: Annotated[float, AtLeast(0)] = 1.25
    """weight of exploration in the search"""
    fpu: float = 0.2
    """first-play urgency: how much worse than its position an unvisited move is taken to be, except at the root"""
    noise: Annotated[float, Between(0, 1)] = 0.25
    """share of Dirichlet noise in a puct root's priors"""
    alpha: Annotated[float, AtLeast(1e-3)] = 10.0
    """concentration of a puct root's Dirichlet noise, summed over the legal moves"""
    root_temperature: Annotated[float, AtLeast(0.01)] = 1.1
    """temperature of a puct root's priors"""
    forced: Annotated[float, AtLeast(0)] = 2.0
    """k of a puct root's forced visits: a visited move gets at least sqrt(k P N) of N; they are taken out of the policy
    that is learned"""
    temperature_moves: Annotated[int, AtLeast(0)] = 8
    """moves at the beginning of a game that a puct root draws in proportion to visits, later ones to their square"""
    opening_share: Annotated[float, Between(0, 1)] = 0.5
    """share of the games that begin with random moves"""
    opening_moves: Annotated[int, AtLeast(1)] = 2
    """random moves at the beginning of those games, at most: their number is drawn from 1 to this"""
    resign: Annotated[float, Between(0, 1)] = 0.0
    """share of won games that a resignation may cost, 0.05 say; 0: all games are played out"""
    surprise: Annotated[float, Between(0, 1)] = 0.0
    """share of a position's weight in training that depends on how much the search changed the policy; 0: all weigh
    the same"""
    window: Annotated[int, AtLeast(1), Divided] = 100_000
    """newest positions that batches are drawn from, at most"""
    batch_size: Annotated[int, AtLeast(1), Divided] = 256
    """positions in an update"""
    reuse: Annotated[float, AtLeast(1e-3)] = 4.0
    """positions drawn for each new one: how often each is learned from, on average"""
    start: Annotated[int, AtLeast(0), Divided] = 2_000
    """positions that are played before the first update"""


@dataclass
class FinishedGame:
    """A game that has ended."""

    rows: dict[str, NDArray]
    """its positions to learn from, as `Window.add` takes them, and the search's values "q" """
    moves: list[int]
    value: float
    """1 a win of the first player, -1 a loss, 0 a draw"""
    resigned: bool
    lowest: float
    """the winner's lowest q, if nobody could resign; else nan"""


class OpenGames:
    """Games that are being played, with their trees and their positions so far.

    A game whose search is done plays its move at once, so that every call of the network has a position of each.
    """

    def __init__(self, game: Game, cfg: SelfPlayConfig, games: int, seed: int):
        self.game, self.cfg, self.rng = game, cfg, np.random.default_rng(seed)
        nodes = max(cfg.simulations, cfg.fast_simulations) + 2  # a kept subtree's nodes count among the simulations
        self.trees = Trees(games, nodes, game.num_actions, game.state_size, c=cfg.c_puct, fpu=cfg.fpu)
        self.states = game.reset(games)
        self.resign_below = -2.0
        self.simulations = 0
        planes = game.encode(self.states[:1])
        self.shape: tuple[int, int, int] = planes.shape[1:]
        """(C, H, W)"""
        self.ended: list[FinishedGame] = []
        shape = (games, game.moves_cap + 1)
        self.open: dict[str, NDArray] = {
            "planes": np.zeros((*shape, pack(planes).shape[-1]), np.uint8),
            "policy": np.zeros((*shape, game.num_actions), np.float16),
            "action": np.zeros(shape, np.int16),
            "to_play": np.zeros(shape, np.int16),
            "q": np.zeros(shape, np.float32),  # the search's value of the position, for its side to move
            "surprise": np.zeros(shape, np.float32),  # from the network's policy to the search's, in nats
            "full": np.zeros(shape, np.bool_),  # searched with all simulations: to learn from
        }
        """the open games so far"""
        self.length = np.zeros(games, np.int64)
        self.fresh = np.ones(games, np.bool_)
        """games whose tree has to begin anew"""
        self.goal = np.zeros(games, np.int64)
        self.prior = np.zeros((games, game.num_actions), np.float32)
        """the network's policy at the roots, before any noise"""
        self.to_the_end = np.zeros(games, np.bool_)
        """games in which nobody resigns"""
        self._begin_games(np.arange(games))

    def _begin_games(self, which: NDArray[np.int64]) -> None:
        cfg, game = self.cfg, self.game
        states = game.reset(len(which))
        self.length[which], self.fresh[which] = 0, True
        self.to_the_end[which] = self.rng.random(len(which)) < 0.1
        count = np.where(
            self.rng.random(len(which)) < cfg.opening_share, self.rng.integers(1, cfg.opening_moves + 1, len(which)), 0
        )
        for move in range(count.max(initial=0)):
            rows = np.flatnonzero(count > move)
            going = states[rows]
            odds = self.rng.random((len(rows), game.num_actions)) * game.legal(going)
            actions = odds.argmax(1)
            game.play(going, actions)
            over = game.is_over(going)
            count[rows[over]] = move  # a random opening does not end a game
            rows, going, actions = rows[~over], going[~over], actions[~over]
            states[rows] = going
            for name, what in (("action", actions), ("full", False), ("q", 1.0)):  # 1: nothing to resign for
                self.open[name][which[rows], move] = what
            self.length[which[rows]] += 1
        self.states[which] = states

    def step(self, evaluate: Evaluate) -> int:
        """One call of the network, with a position of every game; returns how many those were."""
        game, trees = self.game, self.trees
        done = np.flatnonzero(~self.fresh & ((trees.total[:, 0] >= self.goal) | (trees.used == trees.N.shape[1])))
        if len(done):
            self._move(done)
        begin = np.flatnonzero(self.fresh)
        edges = trees.select(1, self.goal)  # fresh trees have none
        states = self.states[begin]
        priors, value, count = open_edges(trees, game, self.states, edges, evaluate, more=states)
        if len(begin):
            trees.plant(states, priors, value, begin)
            self._begin_searches(begin)
        return count

    def _begin_searches(self, which: NDArray[np.int64]) -> None:
        cfg, trees = self.cfg, self.trees
        self.fresh[which] = False
        self.prior[which] = np.maximum(trees.P[which, 0], 0)
        full = self.rng.random(len(which)) < (cfg.full_share if cfg.fast_simulations else 1.0)
        self.goal[which] = np.where(full, cfg.simulations, cfg.fast_simulations)
        self.open["full"][which, self.length[which]] = full
        if cfg.root == "gumbel":
            for goal in np.unique(self.goal[which]):
                root.begin_halving(trees, self.rng, which[self.goal[which] == goal], cfg.considered, int(goal))
        else:
            explore = which[full]
            root.perturb(trees, self.rng, explore, cfg.noise, cfg.alpha, cfg.root_temperature, cfg.forced)

    def _move(self, which: NDArray[np.int64]) -> None:
        """Play a move in these games; `ended` then has those that it ended."""
        cfg, game, trees = self.cfg, self.game, self.trees
        at, states = self.length[which], self.states[which]
        if cfg.root == "gumbel":
            policy, actions = root.improved_policy(trees, which), root.halving_choice(trees, which)
        else:
            policy = root.visit_policy(trees, which)
            odds = np.where(at < cfg.temperature_moves, 1.0, 2.0)[:, None]
            odds = (policy**odds).cumsum(1)
            actions = (odds <= self.rng.random((len(odds), 1)) * odds[:, -1:]).sum(1)
        prior = np.maximum(self.prior[which], 1e-6)
        N, W = trees.N[which, 0], trees.W[which, 0]  # the move itself may have been drawn for the sake of variety
        q = np.where(N.max(1, keepdims=True) == N, W / np.maximum(N, 1), -np.inf).max(1)
        seen = {
            "planes": pack(game.encode(states)),
            "policy": policy,
            "action": actions,
            "to_play": game.to_play(states),
            "q": q,
            "surprise": (policy * np.log(np.maximum(policy, 1e-6) / prior)).sum(1),
        }
        for name, array in seen.items():
            self.open[name][which, at] = array
        self.length[which] += 1
        game.play(states, actions)
        self.states[which] = states
        over = game.is_over(states)
        resigned = (q < self.resign_below) & ~self.to_the_end[which] & ~over
        over |= resigned
        self.simulations += int(trees.total[which, 0].sum())
        forget = over | (cfg.root == "gumbel")  # halving needs a root without visits
        kept = trees.advance(np.where(forget, -1, actions), which)
        self.fresh[which] = ~kept
        if len(going := which[kept]):
            self.simulations -= int(trees.total[going, 0].sum())
            self._begin_searches(going)
        if over.any():
            self._finish(which[over], resigned[over])

    def _finish(self, which: NDArray[np.int64], resigned: NDArray[np.bool_]) -> None:
        game = self.game
        states = self.states[which]
        _, value = game.outcome(states)
        mover = game.to_play(states)  # who would play next: after a resignation the winner
        value = np.where(resigned, 1.0, value)
        if hasattr(game, "ownership") and hasattr(game, "score"):
            owner, score = game.ownership(states), game.score(states) / np.prod(self.shape[1:])
        else:
            owner, score = np.zeros((len(which), *self.shape[1:]), np.int8), np.zeros(len(which))
        for i, g in enumerate(which):
            length = self.length[g]
            seen = {name: array[g, :length] for name, array in self.open.items()}
            full = seen["full"]
            sign = np.where(seen["to_play"] == mover[i], 1, -1)
            black = np.where(seen["to_play"] == 1, 1, -1)
            reply = np.zeros_like(seen["policy"])
            reply[:-1] = seen["policy"][1:]
            rows = {
                "planes": seen["planes"],
                "policy": seen["policy"],
                "reply": reply,
                "value": (sign * value[i]).astype(np.float32),
                "score": (black * score[i]).astype(np.float32),
                "ownership": (black[:, None, None] * owner[i]).astype(np.int8),
                "known": np.full(length, not resigned[i], np.float32),
                "q": seen["q"],
            }
            won = rows["value"] > 0
            lowest = float(seen["q"][won].min(initial=1.0)) if self.to_the_end[g] and won.any() else np.nan
            keep = np.repeat(np.arange(length), self._copies(seen["surprise"], full))
            first = float(value[i] if mover[i] == 1 else -value[i])
            learned = {name: array[keep] for name, array in rows.items()}
            self.ended.append(FinishedGame(learned, seen["action"].tolist(), first, bool(resigned[i]), lowest))
        self._begin_games(which)

    def _copies(self, surprise: NDArray[np.float32], full: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How often each position enters the window: once on average (Wu 2019's surprise weighting, made later)."""
        share, total = self.cfg.surprise, float(surprise[full].sum())
        if not share or total <= 0:
            return full.astype(np.int64)
        weight = (1 - share) * full + share * full * surprise * full.sum() / total
        return np.floor(weight + self.rng.random(len(weight))).astype(np.int64)

    _ARRAYS = "states", "length", "fresh", "goal", "prior", "to_the_end"

    def _begun(self) -> NDArray[np.bool_]:
        """Which rows of `open` hold something, those of the present searches included: [games, moves_cap + 1]."""
        return np.arange(self.open["full"].shape[1]) <= self.length[:, None]

    def state_dict(self) -> dict[str, Any]:
        """Open games, trees, generator."""
        arrays = {name: getattr(self, name) for name in self._ARRAYS}
        arrays |= {name: array[self._begun()] for name, array in self.open.items()}
        saved: dict[str, Any] = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        trees = {name: torch.from_numpy(array) for name, array in self.trees.state_dict().items()}
        return saved | {"trees": trees, "rng": self.rng.bit_generator.state, "simulations": self.simulations}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        for name in self._ARRAYS:
            getattr(self, name)[:] = saved[name].numpy()
        for name, array in self.open.items():
            array[self._begun()] = saved[name].numpy()
        self.trees.load_state_dict({name: tensor.numpy() for name, tensor in saved["trees"].items()})
        self.rng.bit_generator.state, self.simulations = saved["rng"], saved["simulations"]
