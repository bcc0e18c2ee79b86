"""Atari 2600 games: ale-py's C++ vector environment behind the interface of `envs.vector`.

Traps of the emulator that are avoided here: rewards are raw (by default it clips them and forgets the score), a lost
life is a discount of 0 while the game goes on (its `episodic_life` would restart the whole game), autoreset steps are
marked `first`, the caller sets the number of threads, and there is no frame skip on top of the built-in one.
"""

import difflib
import functools
import json
import re
from pathlib import Path
from typing import Any

import ale_py
import gymnasium
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray

from envs.vector import Episodes, Step

gymnasium.register_envs(ale_py)

# Two protocols; a score is always named with its own.
#   nature    Mnih et al. 2015: no sticky actions, up to 30 no-ops, life loss ends the return (in training only)
#   machado   Machado et al. 2018: sticky actions, no life-loss signal; the cap of 108,000 frames is later practice
PRESETS: dict[str, dict[str, Any]] = {
    "nature": {"repeat_action_probability": 0.0, "noop_max": 30, "life_loss_info": True},
    "machado": {"repeat_action_probability": 0.25, "noop_max": 0, "life_loss_info": False},
}
TRAINING_FRAMES = 108_000  # 30 minutes at 60 Hz
EVALUATION_FRAMES = {"nature": 18_000, "machado": 108_000}
EVALUATION_EPSILON = {"nature": 0.05, "machado": 0.0}
FRAME_SKIP = 4
HUMANS = ("human_nature", "human_57")
"""published human scores to normalise by: of the 2015 paper, and of the 57-game suites"""


@functools.cache
def games() -> tuple[str, ...]:
    """All single-player games that ale-py ships, in snake_case."""
    found = {spec.kwargs["game"] for name, spec in gymnasium.registry.items() if name.startswith("ALE/")}
    return tuple(sorted(found))


def game_name(name: str) -> str:
    """The snake_case name for `MsPacman`, `ALE/MsPacman-v5`, `ms_pacman`, ...

    Raises ValueError with the nearest names where there is no such game.
    """
    bare = re.sub(r"(NoFrameskip|Deterministic)?(-v\d+)?$", "", name.strip().removeprefix("ALE/"))
    known = {game.replace("_", ""): game for game in games()}
    key = re.sub(r"[^a-z0-9]", "", bare.lower())
    if key in known:
        return known[key]
    near = [known[k] for k in difflib.get_close_matches(key, known, n=3, cutoff=0.5)]
    hint = f"did you mean {', '.join(near)}?" if near else f"ale-py ships {', '.join(games())}"
    raise ValueError(f"there is no Atari game {name!r}; {hint}")


class Atari:
    """E emulators of one game in C++ threads.

    Args:
        game: a name that `game_name` understands.
        protocol: `nature` or `machado`.
        training: in `nature`, a lost life is a terminal in training only; the frame cap differs too.
        threads: C++ threads that move the emulators.
        seed: of the first emulator; the next ones get seed + 1, ...
        max_frames: emulator frames after which an episode is truncated; None: the protocol's.
        color_size: (height, width) of RGB frames instead of grey ones of 84 x 84: for videos. obs_shape stays three
            numbers then.
    """

    frames_per_step = FRAME_SKIP
    obs_dtype = np.uint8
    mask = None

    def __init__(
        self,
        game: str,
        num_envs: int = 1,
        *,
        protocol: str = "nature",
        training: bool = True,
        seed: int = 0,
        threads: int = 1,
        max_frames: int | None = None,
        color_size: tuple[int, int] | None = None,
    ):
        if protocol not in PRESETS:
            raise ValueError(f"there is no protocol {protocol!r}; choose from {', '.join(PRESETS)}")
        self.game, self.num_envs, self.protocol, self.seed = game_name(game), num_envs, protocol, seed
        self.max_frames = max_frames or (TRAINING_FRAMES if training else EVALUATION_FRAMES[protocol])
        preset = dict(PRESETS[protocol])
        preset["life_loss_info"] &= training
        height, width = color_size or (84, 84)
        self._envs = AtariVectorEnv(
            self.game,
            num_envs,
            num_threads=min(threads, num_envs),
            frameskip=FRAME_SKIP,
            max_num_frames_per_episode=self.max_frames,
            reward_clipping=False,
            episodic_life=False,
            use_fire_reset=True,
            grayscale=color_size is None,
            img_height=height,
            img_width=width,
            **preset,
        )
        self.num_actions = len(self._envs.ale.get_action_set())
        self.obs_shape = (4, height, width)
        self._episodes = Episodes(num_envs)

    @property
    def action_names(self) -> list[str]:
        """As the emulator has them: NOOP, FIRE, UP, UPRIGHTFIRE, ..."""
        return [action.name for action in self._envs.ale.get_action_set()]

    def reset(self) -> NDArray[np.uint8]:
        """Begin new episodes everywhere; returns obs [E, 4, height, width] (in colour: [E, 4, height, width, 3]).

        The emulators get the seeds seed, seed + 1, ...; another reset takes the next ones, not the same games again.
        """
        self._episodes.restart()
        obs, _ = self._envs.reset(seed=self.seed)
        self.seed += self.num_envs
        return obs

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start moving by actions [E]; returns at once, the emulators run in their own threads."""
        self._envs.send(actions)

    def recv(self) -> Step:
        """Wait for the emulators started by the last `send`."""
        obs, reward, terminated, truncated, info = self._envs.recv()
        # A lost life raises `terminated` alone; the game is over when no life is left (games without lives: 0).
        # At the cap, a life lost in the same step hides `truncated`, but the emulator starts anew all the same.
        at_cap = ~self._episodes.ended & ((self._episodes.length + 1) * FRAME_SKIP >= self.max_frames)
        last = truncated | at_cap | (terminated & (info["lives"] == 0))
        return self._episodes.step(obs, reward, ~terminated, last)

    def step(self, actions: NDArray[np.int64]) -> Step:
        """`send`, then `recv`."""
        self.send(actions)
        return self.recv()


@functools.cache
def reference_scores() -> dict[str, dict[str, Any]]:
    """Published scores by game: random, human_nature, dqn_nature and linear, the best linear learner of Bellemare et
    al. 2013 (all four: Mnih et al. 2015, Extended Data Table 2); human_57 (57-game suites); dopamine, {agent: {millions
    of frames: training score with sticky actions}} (Castro et al. 2018, means of five seeds).
    """
    return json.loads((Path(__file__).parent / "atari_scores.json").read_text())


def human_normalised(game: str, score: float) -> dict[str, float | None]:
    """(score - random) / (human - random) for both published human columns; None where a game has none."""
    row = reference_scores().get(game_name(game), {})
    out: dict[str, float | None] = {}
    for column in HUMANS:
        human, random = row.get(column), row.get("random")
        out[column] = None if human is None or random is None else (score - random) / (human - random)
    return out
