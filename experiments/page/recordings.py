"""What was played, as a file of transitions, and as a video.

A file NAME.npz holds N rows in the order of time, as RLDS has them: a row is an observation and what followed it.

    obs       [N, *frame]  the newest frame, or vector; a state is made of the newest `stack` of them
    first     [N]          it begins an episode
    last      [N]          it ends one: no action followed, and action, reward and discount say -1, 0 and 0
    action    [N]          -1 also in the last row, which is there for its observation
    reward    [N]          raw: neither clipped nor scaled
    discount  [N]          0 where the action ended the episode, 1 elsewhere, and where it was only cut
    by        [N]          0 the agent's best action, 1 a random one of its own, 2 a person's
    q         [N, actions] what the agent thought the actions were worth
    earlier   [M]          actions since the world was made, before the first row; -1 as above
    about     JSON: agent, env (as in agent.json), protocol, seed, epsilon, stack, action_names
"""

import importlib.util
import io
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.recording import enlarged
from rlkit.files import write_atomically

MOST_ROWS = 20_000
"""22 minutes of Atari, 140 MB"""
BY = ("greedy", "random", "person")
NOTHING = -1


def can_film() -> bool:
    """Whether the extra `video` is installed."""
    return all(importlib.util.find_spec(name) for name in ("imageio", "imageio_ffmpeg"))


class Recording:
    """Rows that are kept until `finish`; the video is written as it goes.

    Args:
        folder: it is made where it is missing. about: see above. earlier: actions before.
        rate: pictures a second of the video; None: no video.
    """

    def __init__(self, folder: Path, about: dict[str, Any], earlier: list[int], rate: float | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        game = "".join(c if c.isalnum() else "-" for c in str(about["env"]["game"]))[:60]
        self.path = folder / f"{game}__{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}.npz"
        self.about, self.earlier, self.rows = about, list(earlier), []  # type: ignore[var-annotated]
        self._film, self._aside = None, self.path.with_name(f".{self.path.stem}.mp4")
        if rate is not None:
            import imageio.v2 as imageio

            self._film = imageio.get_writer(self._aside, fps=rate, macro_block_size=2)

    def add(
        self, obs: NDArray, first: bool, last: bool, action: int, reward: float, discount: float, by: str, q: NDArray
    ) -> None:
        """A row; of a last one, what followed is left out."""
        follows = (NOTHING, 0.0, 0.0) if last else (action, reward, discount)
        self.rows.append((np.array(obs), first, last, *follows, BY.index(by), np.array(q)))

    def film(self, pictures: list[NDArray[np.uint8]]) -> None:
        """Pictures [height, width, 3] of the video."""
        if self._film:
            for picture in pictures:
                self._film.append_data(enlarged(picture))

    @property
    def full(self) -> bool:
        return len(self.rows) >= MOST_ROWS

    def finish(self, obs: NDArray, first: bool, last: bool, q: NDArray) -> list[Path]:
        """Write the files, this the last row; returns their paths. Raises OSError."""
        self.add(obs, first, last, NOTHING, 0.0, 0.0, BY[0], q)
        types = (None, bool, bool, np.int64, np.float32, np.float32, np.uint8, np.float32)
        names = ("obs", "first", "last", "action", "reward", "discount", "by", "q")
        columns = zip(names, types, zip(*self.rows, strict=True), strict=True)
        arrays: dict[str, Any] = {name: np.array(column, dtype) for name, dtype, column in columns}
        file = io.BytesIO()
        np.savez_compressed(file, earlier=np.array(self.earlier, np.int64), about=json.dumps(self.about), **arrays)
        written = []
        if self._film:
            self._film.close()
            os.replace(self._aside, film := self.path.with_suffix(".mp4"))
            written.append(film)
        write_atomically(self.path, file.getbuffer())
        return [self.path, *written]

    def drop(self) -> None:
        """End without files."""
        if self._film:
            self._film.close()
            self._aside.unlink(missing_ok=True)
