"""Many games of Go at once: the verbs that a search, self-play and a benchmark call."""

import operator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.go import board, features, knowledge, playouts
from envs.go.board import (
    HASH,
    MAX_MOVES,
    PASSES,
    REMOVED,
    STATE_SIZE,
    STORED,
    TO_PLAY,
    columns,
    copy,
    is_over,
    komi_of,
    play_point,
    remember,
    to_point,
)
from envs.go.chains import BLACK, EMPTY, WHITE
from envs.go.playouts import task_of
from rlkit.compiled import kernel, parallel_for, scratch

States = NDArray[np.int16]
Superko = Literal["positional", "situational", "simple"]
RULES: dict[str, int] = {"simple": board.SIMPLE, "positional": board.POSITIONAL, "situational": board.SITUATIONAL}
MOST_MOVES = 30_000  # the move number is an int16


class Edges(NamedTuple):
    """Edges of search trees, and the nodes that they begin at."""

    states: NDArray[np.int16]  # [G, nodes, state_size]
    parents: NDArray[np.int32]  # [G, nodes]; the root is node 0
    tree: NDArray[np.int64]  # [edges]
    node: NDArray[np.int64]  # [edges]
    action: NDArray[np.int64]  # [edges]


@kernel
def _legal(_, begin, end, rows, out):
    for g in range(begin, end):
        board.legal_moves(rows[g], rows[g].view(np.int64), out[g])


@kernel
def _sensible(_, begin, end, rows, out):
    for g in range(begin, end):
        row, words = rows[g], rows[g].view(np.int64)
        board.legal_moves(row, words, out[g])
        c = columns(row, words)
        for move in range(row[board.HEIGHT] * row[board.WIDTH]):
            if out[g, move] and knowledge.is_true_eye(c, row[board.STRIDE], to_point(row, move), row[TO_PLAY]):
                out[g, move] = False


@kernel
def _play(slot, begin, end, rows, actions, refused, work):
    for g in range(begin, end):
        row, words = rows[g], rows[g].view(np.int64)
        p = to_point(row, actions[g])
        refused[g] = actions[g] < 0 or actions[g] > row[board.HEIGHT] * row[board.WIDTH] or is_over(row)
        if not refused[g] and p > 0:
            refused[g] = columns(row, words).colour[p] != EMPTY
        if not refused[g]:
            play_point(row, words, p, work[slot, 0])


@kernel
def _follow(slot, begin, end, rows, games, edges, work):
    for b in range(begin, end):
        row, t, n = rows[b], edges.tree[b], edges.node[b]
        words, size = row.view(np.int64), games[t, STATE_SIZE]
        copy(row, edges.states[t, n], size)
        row[STORED] = 0
        play_point(row, words, to_point(row, edges.action[b]), work[slot, 0])
        if row[REMOVED] or row[board.SUICIDE]:  # before the first stone is taken off, no board can come back
            first, stored = size // 4, games[t, STORED]
            at = first + row[STORED]
            copy(words[at:], games[t].view(np.int64)[first:], stored)
            row[STORED] += stored
            while n != 0:
                state = edges.states[t, n]
                remember(row, words, state.view(np.int64)[HASH], state[TO_PLAY])
                n = edges.parents[t, n]


@kernel
def _outcome(slot, begin, end, rows, finished, value, work):
    for g in range(begin, end):
        row, words = rows[g], rows[g].view(np.int64)
        finished[g] = is_over(row)
        if finished[g]:
            black = knowledge.own_points(row, words, work[slot, 0], work[slot, 1]) - komi_of(words)
            if row[TO_PLAY] == WHITE:
                black = -black
            value[g] = (black > 0) - (black < 0)


@kernel
def _score(slot, begin, end, rows, score, work):
    for g in range(begin, end):
        row, words = rows[g], rows[g].view(np.int64)
        score[g] = knowledge.own_points(row, words, work[slot, 0], work[slot, 1]) - komi_of(words)


@kernel
def _ownership(slot, begin, end, rows, out, work):
    for g in range(begin, end):
        row, owner = rows[g], work[slot, 0]
        knowledge.own_points(row, row.view(np.int64), owner, work[slot, 1])
        for move in range(len(out[g])):
            colour = owner[to_point(row, move)]
            out[g, move] = (colour == BLACK) - (colour == WHITE)


@kernel
def _playouts(slot, begin, end, rows, task, copies, work):
    row, words = copies[slot], copies[slot].view(np.int64)
    for g in range(begin, end):
        komi = komi_of(rows[g].view(np.int64))
        total, moves = 0, 0
        for i in range(task.repeats):
            copy(row, rows[g], rows[g, STATE_SIZE])
            random = playouts.mix(task.seed, g * task.repeats + i)
            points, played = playouts.playout(row, words, random, work[slot, 0], work[slot, 1], task.cap)
            black = points - komi
            total += (black > 0) - (black < 0)
            moves += played
        task.value[g] = total / task.repeats if rows[g, TO_PLAY] == BLACK else -total / task.repeats
        task.length[g] = moves


@dataclass(frozen=True)
class Go:
    """The rules that a set of games is played by, and the verbs on their states.

    States are rows [games, game_size] of int16 (`envs/go/board.py` says what is in them); the first `state_size`
    numbers are what a search keeps in a node. An action is row * width + column from the top left; the last one
    passes. Values are those of the side to move. All verbs run without the GIL and on several threads, and raise
    ValueError for states of another board. Superko is seen in whole rows only, not in what a node keeps of them.

    Args:
        height, width: 1 to 19; superko: "positional", "situational" or "simple" (ko); suicide: whether it is allowed.
        max_moves: the game ends after this many moves, passes included; None: twice the points of the board.
    """

    height: int = 9
    width: int = 0
    """0: square"""
    komi: float = 7.5
    superko: Superko = "positional"
    suicide: bool = False
    max_moves: int | None = None

    planes = features.ALPHAGOZERO_PLANES

    def __post_init__(self) -> None:
        height = operator.index(self.height)  # an int8 would overflow below
        width = operator.index(self.width) or height
        max_moves = 2 * height * width if self.max_moves is None else operator.index(self.max_moves)
        for name, value in (("height", height), ("width", width), ("max_moves", max_moves)):
            object.__setattr__(self, name, value)
        if not (1 <= height <= 19 and 1 <= width <= 19):
            raise ValueError(f"a board has 1 to 19 rows and columns, not {self.height} x {self.width}")
        if self.superko not in RULES:
            raise ValueError(f"superko is one of {', '.join(RULES)}, not {self.superko!r}")
        if not isinstance(self.komi, (int, float, np.number)) or not np.isfinite(self.komi):
            raise ValueError(f"komi must be a number, not {self.komi!r}")
        if not 1 <= self.moves_cap <= MOST_MOVES:
            raise ValueError(f"max_moves must be 1 to {MOST_MOVES}, not {self.max_moves}")

    @property
    def moves_cap(self) -> int:
        assert self.max_moves is not None
        return self.max_moves

    @property
    def points(self) -> int:
        return self.height * self.width

    @property
    def num_actions(self) -> int:
        return self.points + 1

    @property
    def state_size(self) -> int:
        """Numbers (int16) that a search keeps of a position."""
        return board.state_size_of(self.height, self.width)

    @property
    def game_size(self) -> int:
        """Numbers (int16) of a whole game: its position, and room for the hash of every position it may have."""
        return self.state_size + 4 * (self.moves_cap + 1)

    def checked(self, states: States) -> States:
        """These states, for compiled code. Raises ValueError where they are of another board."""
        return board.check_states(states, self.height, self.width)

    def work(self) -> NDArray[np.int16]:
        """Working memory: [threads, 4, points with border]."""
        return scratch(board.area_of(self.height, self.width))

    def reset(self, games: int) -> States:
        """New games: states [games, game_size]."""
        return np.tile(self._new(self.game_size), (games, 1))

    def _new(self, size: int) -> States:
        """An empty board in a row of `size` numbers."""
        row = np.zeros(size, np.int16)
        rules = RULES[self.superko], int(self.suicide), self.moves_cap, self.state_size
        board.reset(row, row.view(np.int64), self.height, self.width, float(self.komi), *rules)
        return row

    def position_row(self) -> States:
        """An empty board without room for hashes: [state_size]."""
        return self._new(self.state_size)

    def legal(self, states: States) -> NDArray[np.bool_]:
        """Which actions the side to move has: [games, num_actions]; none where a game is over."""
        out = np.empty((len(states), self.num_actions), np.bool_)
        parallel_for(_legal, len(states), self.checked(states), out)
        return out

    def sensible(self, states: States) -> NDArray[np.bool_]:
        """The legal actions that fill no true eye of the side to move: [games, num_actions]."""
        out = np.empty((len(states), self.num_actions), np.bool_)
        parallel_for(_sensible, len(states), self.checked(states), out)
        return out

    def play(self, states: States, actions: NDArray[np.integer]) -> None:
        """Play actions [games] in place. They must be legal by the caller's own `legal`; a move on a stone, off the
        board or in a finished game raises ValueError, and then the others are played all the same.
        """
        refused, actions = np.empty(len(states), np.bool_), np.asarray(actions)
        if actions.shape != refused.shape or actions.dtype.kind not in "iu":
            raise ValueError(f"{len(states)} games need as many whole numbers, not {actions.dtype} {actions.shape}")
        actions = actions.astype(np.int64)
        parallel_for(_play, len(states), self.checked(states), actions, refused, self.work())
        if refused.any():
            g = int(refused.argmax())
            raise ValueError(f"action {actions[g]} cannot be played in game {g}: ask legal() first")

    def states_after(self, games: States, trees: Any, tree: NDArray, node: NDArray, actions: NDArray) -> States:
        """The games after an edge of a search tree: [edges, game_size], with all the past that superko needs there.

        Unchecked: the edges must be legal. The rows are for questions and play-outs; to play on by the rules, begin
        from `games` (before the first capture a row has no past, because it needs none yet).

        Args:
            games [G, game_size]: where the trees' roots stand. trees: has `states` [G, nodes, state_size] and
            `parents` [G, nodes]; the root is node 0. tree, node, actions: [edges], the edges.
        """
        rows = np.empty((len(tree), self.game_size), np.int16)
        edges = Edges(trees.states, trees.parents, tree, node, actions)
        parallel_for(_follow, len(tree), rows, self.checked(games), edges, self.work())
        return rows

    def to_play(self, states: States) -> NDArray[np.int16]:
        """The colours to move, BLACK or WHITE: [games]."""
        return states[:, TO_PLAY].copy()

    def is_over(self, states: States) -> NDArray[np.bool_]:
        """[games], by two passes or by the cap."""
        return (states[:, PASSES] >= 2) | (states[:, board.MOVES] >= states[:, MAX_MOVES])

    def outcome(self, states: States) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """(over [games], value [games]): +1 a win of the side to move, -1 a loss, 0 a draw or a game that goes on."""
        finished = np.empty(len(states), np.bool_)
        value = np.zeros(len(states), np.float32)
        parallel_for(_outcome, len(states), self.checked(states), finished, value, self.work())
        return finished, value

    def score(self, states: States) -> NDArray[np.float64]:
        """Black minus White minus komi by area [games], whether over or not."""
        score = np.empty(len(states), np.float64)
        parallel_for(_score, len(states), self.checked(states), score, self.work())
        return score

    def ownership(self, states: States) -> NDArray[np.int8]:
        """[games, height, width]: +1 a point of Black's area, -1 of White's, 0 of neither."""
        out = np.empty((len(states), self.points), np.int8)
        parallel_for(_ownership, len(states), self.checked(states), out, self.work())
        return out.reshape(-1, self.height, self.width)

    def encode(self, states: States) -> NDArray[np.uint8]:
        """The network's input: [games, planes, height, width]."""
        return features.alphagozero_slab(states, self.height, self.width)

    def playouts(self, states: States, seed: int, count: int = 1) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Light random play-outs from each state: (mean value [games] for its side to move, moves played [games]).

        The same seed gives the same numbers on any number of threads. A play-out that has not ended after three
        times the board's points is scored as it stands.
        """
        task, work = task_of(len(states), seed, count, 3 * self.points), self.work()
        copies = np.empty((len(work), self.state_size), np.int16)
        parallel_for(_playouts, len(states), self.checked(states), task, copies, work, least=max(1, 4 // count))
        return task.value, task.length
