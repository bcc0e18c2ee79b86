"""Games against itself as an iterator of batches: play a move in every game, remember the games that end, sample."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.search import Edges, Trees

Evaluate = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass
class SelfPlayConfig:
    """How games are played, and how batches are drawn from them."""

    games: int = 256
    """in lock-step, in two halves: one searches while the other's positions are in the network"""
    simulations: int = 64
    """of each move, those of a reused subtree included"""
    c: float = 1.5
    """exploration in the search"""
    noise: float = 0.25
    """share of Dirichlet noise in the root's priors"""
    alpha: float = 10.0
    """of that noise, divided by the number of legal moves"""
    temperature_moves: int = 8
    """moves drawn in proportion to their visits; later ones by the square of them"""
    window: int = 60_000
    """positions that batches are drawn from"""
    batch_size: int = 256
    reuse: float = 4.0
    """samples drawn for each new position"""


def priors_of(logits: NDArray[np.float32], legal: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Softmax over the legal actions, -1 at the others: [B, A]. Rows without a legal action are all -1."""
    shifted = np.where(legal, logits, -np.inf)
    top = np.where(legal.any(1), shifted.max(1, initial=-np.inf), 0)
    weights = np.exp(shifted - top[:, None])
    total = np.maximum(weights.sum(1, keepdims=True), 1e-30)
    return np.where(legal, weights / total, -1).astype(np.float32)


def evaluator(network: torch.nn.Module) -> Evaluate:
    """The network as a function planes uint8 [B, C, H, W] -> (logits [B, A], value [B])."""

    def evaluate(planes: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        device = next(network.parameters()).device
        with torch.inference_mode():
            out = network(torch.from_numpy(planes).to(device))
        return out["policy"].cpu().numpy(), out["value"].cpu().numpy()

    return evaluate


class Half:
    """Some of the games, with their trees and what they have seen so far."""

    def __init__(self, game: Any, cfg: SelfPlayConfig, games: int, seed: int):
        self.game, self.cfg, self.rng = game, cfg, np.random.default_rng(seed)
        self.states = game.reset(games)
        nodes = 2 * cfg.simulations + 2
        self.trees = Trees(games, nodes, game.num_actions, game.state_size, exploration="puct", c=cfg.c)
        self.fresh = np.ones(games, np.bool_)
        """games whose tree has to begin anew"""
        self.seen: list[list[tuple]] = [[] for _ in range(games)]
        self.ended: list[dict[str, NDArray]] = []

    def play(self, evaluate: Evaluate) -> None:
        """One move in every game; `ended` then has the games that this ended."""
        self.search(evaluate)
        visits = self.trees.N[:, 0].astype(np.float32)
        moves = np.array([len(s) for s in self.seen])
        sharp = np.where(moves < self.cfg.temperature_moves, 1.0, 2.0)[:, None]
        odds = (visits**sharp).cumsum(1)
        actions = (odds < self.rng.random((len(odds), 1)) * odds[:, -1:]).sum(1)
        planes, to_play = self.game.encode(self.states), self.game.to_play(self.states)
        policy = (visits / visits.sum(1, keepdims=True)).astype(np.float32)
        for g, seen in enumerate(self.seen):
            seen.append((planes[g], policy[g], to_play[g]))
        self.game.play(self.states, actions)
        self.fresh = ~self.trees.advance(actions)
        over = self.game.is_over(self.states)
        if over.any():
            self._finish(np.flatnonzero(over))

    def _finish(self, which: NDArray[np.int64]) -> None:
        _, value = self.game.outcome(self.states[which])
        last, owner = self.game.to_play(self.states[which]), self.game.ownership(self.states[which])
        for i, g in enumerate(which):
            planes, policy, to_play = (np.stack(column) for column in zip(*self.seen[g], strict=True))
            sign = np.where(to_play == last[i], 1, -1).astype(np.int8)
            black = np.where(to_play == 1, 1, -1).astype(np.int8)
            self.ended.append(
                {
                    "planes": planes,
                    "policy": policy,
                    "value": (sign * value[i]).astype(np.float32),
                    "ownership": black[:, None, None] * owner[i],
                }
            )
            self.seen[g] = []
        self.states[which] = self.game.reset(len(which))
        self.fresh[which] = True

    def search(self, evaluate: Evaluate) -> None:
        """Grow all trees to cfg.simulations visits, with noise at their roots."""
        cfg, trees, game = self.cfg, self.trees, self.game
        begin = np.flatnonzero(self.fresh)
        if len(begin):
            states = self.states[begin]
            logits, value = evaluate(game.encode(states))
            trees.plant(states, priors_of(logits, game.legal(states)), value, begin)
        root = trees.P[:, 0]
        legal = root >= 0
        draws = self.rng.standard_gamma(np.where(legal, cfg.alpha / legal.sum(1, keepdims=True), 1.0))
        draws = np.where(legal, draws, 0)
        draws /= np.maximum(draws.sum(1, keepdims=True), 1e-30)
        trees.P[:, 0] = np.where(legal, (1 - cfg.noise) * root + cfg.noise * draws, -1)
        while len(edges := trees.select(1, cfg.simulations)):
            open_edges(trees, game, self.states, edges, evaluate)


def open_edges(trees: Trees, game: Any, games: NDArray, edges: Edges, evaluate: Evaluate) -> None:
    """Play the edges, evaluate what is not the end of a game, and expand."""
    states = game.follow(games, trees, edges.tree, edges.node, edges.action)
    over, value = game.outcome(states)
    logits, worth = evaluate(game.encode(states))
    value = np.where(over, value, worth)
    trees.expand(edges, states, priors_of(logits, game.legal(states)), value, over)


class SelfPlay:
    """An iterator of batches {"planes", "policy", "value", "ownership"}, each under a random symmetry.

    Args:
        game: with the verbs of a game and `ownership`; network: plays as it is at the moment.
        symmetries: [K, A], where each action's number comes from under symmetry k.
    """

    def __init__(self, game: Any, network: torch.nn.Module, cfg: SelfPlayConfig, symmetries: NDArray, seed: int = 0):
        self.game, self.network, self.cfg, self.symmetries = game, network, cfg, symmetries
        self.rng = np.random.default_rng([seed, 2])
        self.halves = [Half(game, cfg, cfg.games // 2, seed + i) for i in range(2)]
        self.window: dict[str, NDArray] = {}
        self.positions = self.finished = 0
        self.lengths: list[int] = []
        self.wins: list[float] = []

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        cfg, due = self.cfg, 0.0
        while True:
            before = self.positions
            self.play()
            if self.positions < cfg.batch_size * 4:
                yield {}
                continue
            due += (self.positions - before) * cfg.reuse / cfg.batch_size
            while due >= 1:
                due -= 1
                yield self.sample()

    def play(self) -> None:
        """A move in every game, the halves on a thread each."""
        evaluate = evaluator(self.network)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(1) as pool:
                other = pool.submit(self.halves[1].play, evaluate)
                self.halves[0].play(evaluate)
                other.result()  # or its error, which a bare thread would only print
        finally:
            torch.set_num_threads(threads)
        for half in self.halves:
            for game in half.ended:
                self._remember(game)
            half.ended.clear()

    def _remember(self, game: dict[str, NDArray]) -> None:
        length = len(game["value"])
        if not self.window:
            self.window = {k: np.zeros((self.cfg.window, *v.shape[1:]), v.dtype) for k, v in game.items()}
        rows = (self.positions + np.arange(length)) % self.cfg.window
        for k, v in game.items():
            self.window[k][rows] = v
        self.positions += length
        self.finished += 1
        self.lengths.append(length)
        self.wins.append(float(game["value"][0]))

    def sample(self) -> dict[str, Tensor]:
        """A batch drawn uniformly from the window."""
        cfg = self.cfg
        rows = self.rng.integers(0, min(self.positions, cfg.window), cfg.batch_size)
        k = self.rng.integers(0, len(self.symmetries), cfg.batch_size)
        index = self.symmetries[k]
        points = index[:, None, :-1]
        planes, owner = self.window["planes"][rows], self.window["ownership"][rows]
        flat = np.take_along_axis(planes.reshape(*planes.shape[:2], -1), points, 2).reshape(planes.shape)
        owner = np.take_along_axis(owner.reshape(len(owner), -1), index[:, :-1], 1).reshape(owner.shape)
        batch = {
            "planes": flat,
            "policy": np.take_along_axis(self.window["policy"][rows], index, 1),
            "value": self.window["value"][rows],
            "ownership": owner.astype(np.float32),
        }
        return {name: torch.from_numpy(array) for name, array in batch.items()}
