"""Go for one learner, as a gymnasium environment, and its picture of the board.

gym.make("envs.go:rlkit/Go-v0", size=9) imports what it needs by itself; after `import envs.go`, "rlkit/Go-v0" will do.
"""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.go.game import Superko
from envs.go.position import BLACK, EMPTY, RESIGN, WHITE, IllegalMove, Position
from envs.go.random_player import RandomPlayer

ID = "rlkit/Go-v0"
PLANES = 17
CELL = 36
"""pixels from line to line"""
SMOOTH = 1.0
"""pixels over which an edge fades"""


class GoEnv(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One player's side of a game against `opponent`.

    Observations: uint8 [17, N, N], AlphaGo Zero's planes seen by the player to move. Actions: Discrete(N * N + 1),
    row * N + column from the top left, then the pass. Every info holds `action_mask`, int8 [N * N + 1], which is 1 at
    the legal moves and fits action_space.sample(mask); `illegal`; and, once the game is over, `score`: Black minus
    White minus komi.

    Two passes in a row end the game: terminated, reward 1 to the winner by area, -1 to the loser, 0 for a draw. An
    opponent that resigns has lost. So has the learner with an illegal move: terminated, -1, `illegal` is True, the
    board stays as it is. After `max_moves` of both together the game is truncated, with no reward.

    size: lines a side, N. opponent: "random" (any move that fills no eye of its own) or a callable position -> move;
    a new_game(seed) that it may have is called at each reset, with a seed that follows from reset's. colour: the
    learner's, "black" or "white". superko, suicide: as for Position.empty. max_moves: None means 2 * N * N.

    Raises ValueError for arguments that make no sense, and where the opponent plays an illegal move.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}

    def __init__(
        self,
        size: int = 9,
        komi: float = 7.5,
        opponent: str | Callable[[Position], int] = "random",
        colour: str = "black",
        superko: Superko = "positional",
        suicide: bool = False,
        max_moves: int | None = None,
        render_mode: str | None = None,
    ):
        if not isinstance(size, (int, np.integer)):
            raise ValueError(f"size is one number, as the boards of {ID} are squares, not {size!r}")
        if not 1 <= size <= 19:
            raise ValueError(f"a board has 1 to 19 lines, not {size}")
        if colour not in ("black", "white"):
            raise ValueError(f"the learner's colour is 'black' or 'white', not {colour!r}")
        if opponent != "random" and not callable(opponent):
            raise ValueError(f"the opponent is 'random' or a callable position -> move, not {opponent!r}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is one of {self.metadata['render_modes']} or None, not {render_mode!r}")
        most = 2 * size * size if max_moves is None else max_moves
        if most < 2:
            raise ValueError(f"a game has at least 2 moves, not {max_moves}")
        self._empty = Position.empty(size, komi, superko=superko, suicide=suicide, max_moves=most)
        self._opponent = RandomPlayer() if isinstance(opponent, str) else opponent
        self._learner = BLACK if colour == "black" else WHITE
        self._ended = True
        self.position = self._empty
        """the game as it stands"""
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0, 1, (PLANES, size, size), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(size * size + 1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin a game; if the learner is White, the opponent's first move is already made."""
        super().reset(seed=seed)
        if hasattr(self._opponent, "new_game"):
            self._opponent.new_game(int(self.np_random.integers(1 << 31)))
        self.position, self._ended = self._empty, False
        if self._learner == WHITE and self._reply():
            raise ValueError("the opponent resigned before the first move")
        return self._planes(), self._info()

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """The learner's move and the opponent's reply: observation, reward, terminated, truncated, info."""
        if self._ended:
            raise gymnasium.error.ResetNeeded("the game is over: call reset() before the next step()")
        if not self.action_space.contains(action):
            raise gymnasium.error.InvalidAction(f"{action!r} is no action of 0 to {self.position.pass_move}")
        illegal = not self.position.is_legal(int(action))
        resigned = False
        if not illegal:
            self.position = self.position.play(int(action))
            resigned = not self.position.is_over and self._reply()
        two_passes = self.position.passes >= 2
        reward = 0.0
        if illegal or resigned:
            reward = 1.0 if resigned else -1.0
        elif two_passes:
            reward = float(np.sign(self.position.score())) * (1 if self._learner == BLACK else -1)
        terminated = illegal or resigned or two_passes
        truncated = not terminated and self.position.is_over
        self._ended = terminated or truncated
        return self._planes(), reward, terminated, truncated, self._info(illegal)

    def _planes(self) -> NDArray[np.uint8]:
        game, states = self.position.states()
        return game.encode(states)[0]

    def render(self) -> str | NDArray[np.uint8] | None:  # type: ignore[override]
        """The board as text, or as a picture, uint8 [(N + 1) * 36, (N + 1) * 36, 3]; None without a render_mode."""
        if self.render_mode == "ansi":
            return str(self.position)
        return picture(self.position) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the opponent, if it can be closed."""
        getattr(self._opponent, "close", lambda: None)()

    def _reply(self) -> bool:
        """The opponent's move; True if it resigns instead."""
        move = int(self._opponent(self.position))
        if move == RESIGN:
            return True
        try:
            self.position = self.position.play(move)
        except IllegalMove as error:
            raise ValueError(f"the opponent played an illegal move, {move}: {error}") from error
        return False

    def _info(self, illegal: bool = False) -> dict[str, Any]:
        info = {"action_mask": self.position.legal_moves().astype(np.int8), "illegal": illegal}
        return info | {"score": self.position.score()} if self._ended else info


def picture(position: Position) -> NDArray[np.uint8]:
    """The board as a picture, uint8 [(H + 1) * 36, (W + 1) * 36, 3]: wood, stones, a ring on the last move."""
    image = _bare_board(position.height, position.width).copy()
    stones = {BLACK: _stone(BLACK), WHITE: _stone(WHITE)}
    for row, column in np.argwhere(position.board != EMPTY).tolist():
        _paint(image, row, column, *_shadow())
    for row, column in np.argwhere(position.board != EMPTY).tolist():
        _paint(image, row, column, *stones[int(position.board[row, column])])
    last = position.last_move
    if last is not None and last != position.pass_move and position.last_colour in stones:
        row, column = divmod(last, position.width)
        distance = _distance(0, 0)
        ring = np.clip((1.2 - abs(distance - CELL * 0.22)) / SMOOTH, 0, 1)
        colour = np.array([245.0] * 3 if position.last_colour == BLACK else [25.0] * 3)
        _paint(image, row, column, np.broadcast_to(colour, (*ring.shape, 3)), ring)
    return np.rint(image).astype(np.uint8)


def _paint(
    image: NDArray[np.float64], row: int, column: int, colour: NDArray[np.float64], cover: NDArray[np.float64]
) -> None:
    """Lay a patch, colour [2 * CELL, 2 * CELL, 3] as far as cover [2 * CELL, 2 * CELL] in 0..1, around a point."""
    here = image[row * CELL : (row + 2) * CELL, column * CELL : (column + 2) * CELL]
    here += (colour - here) * cover[..., None]


def _distance(dy: float, dx: float) -> NDArray[np.float64]:
    """Pixels from the middle of a patch, moved by (dy, dx)."""
    along = np.arange(2 * CELL) - CELL + 0.5
    return np.hypot(*np.meshgrid(along - dy, along - dx, indexing="ij"))


@functools.lru_cache(maxsize=2)
def _stone(colour: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Colour and cover of a stone that is lit from the upper left."""
    radius = CELL * 0.48
    cover = np.clip((radius - _distance(0, 0)) / SMOOTH + 0.5, 0, 1)
    light = np.exp(-((_distance(-0.36 * radius, -0.36 * radius) / (0.55 * radius)) ** 2))
    rim = np.clip(_distance(-0.3 * radius, -0.3 * radius) / radius, 0, 1.4) ** 2
    shade = 28 + 95 * light if colour == BLACK else 252 - 38 * rim
    return np.repeat(shade[..., None], 3, axis=2), cover


@functools.lru_cache(maxsize=1)
def _shadow() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    cover = 0.45 * np.clip((CELL * 0.52 - _distance(CELL * 0.07, CELL * 0.05)) / (CELL * 0.12), 0, 1)
    return np.full((2 * CELL, 2 * CELL, 3), 30.0), cover


@functools.lru_cache(maxsize=8)
def _bare_board(height: int, width: int) -> NDArray[np.float64]:
    """Wood, lines and star points, [(height + 1) * CELL, (width + 1) * CELL, 3] in 0..255."""
    y, x = np.indices(((height + 1) * CELL, (width + 1) * CELL)) + 0.5
    # rings of a trunk that lies nearly along the rows, and fine fibres along them
    across = y * 0.11 + 1.6 * np.sin(x / 170 + 0.7) + 0.8 * np.sin(x / 61 + y / 240)
    fibres = np.random.default_rng(1).normal(size=len(y))[:, None] * np.ones(x.shape[1])
    grain = 5 * np.sin(across) + 3 * np.sin(2.7 * across + 1) + 1.5 * fibres
    image = np.array([222.0, 180.0, 112.0]) + grain[..., None] * np.array([1.0, 1.0, 0.8])

    right, bottom = width * CELL, height * CELL
    near_row = abs(y / CELL - np.clip(np.rint(y / CELL), 1, height)) * CELL
    near_column = abs(x / CELL - np.clip(np.rint(x / CELL), 1, width)) * CELL
    inside_x = np.clip(np.minimum(x - CELL, right - x) + 1, 0, 1)
    inside_y = np.clip(np.minimum(y - CELL, bottom - y) + 1, 0, 1)
    ink = np.maximum(np.clip(1.1 - near_row, 0, 1) * inside_x, np.clip(1.1 - near_column, 0, 1) * inside_y)
    for row, column in _stars(height, width):
        ink = np.maximum(ink, np.clip(CELL * 0.1 - np.hypot(y - (row + 1) * CELL, x - (column + 1) * CELL) + 0.5, 0, 1))
    image += (np.array([50.0, 35.0, 20.0]) - image) * (0.85 * ink)[..., None]
    image.flags.writeable = False
    return image


def _stars(height: int, width: int) -> list[tuple[int, int]]:
    """Where a board has its star points: as on the 19, 13 and 9 boards that are sold."""
    if height != width or height < 5:
        return []
    edge, middle = (3 if height > 11 else 2), height // 2
    corners = [edge, height - 1 - edge] if height > 5 else []
    lines = sorted({*corners, middle}) if height % 2 and height > 15 else corners
    stars = [(row, column) for row in lines for column in lines]
    return stars if height % 2 == 0 or (middle, middle) in stars else [*stars, (middle, middle)]
