"""Experience replay as a ring of single frames; stacks and n-step returns are built when a batch is drawn.

A row holds one moment t of E environments in lock-step: the frame of s_t, the action taken there, the reward and
discount that followed, and whether s_t begins (`first`) or ends (`last`) an episode. Nothing starts from a `last`
row, and no stack or return reaches across one:

    row      3     4     5     6     7     8
    frame   s_3   s_4   s_T | s_0   s_1   s_2         stack of row 7: [0, 0, s_0, s_1]
    last     .     .     x  |  .     .     .          3-step from row 3: r_4 + gamma r_5, then s_T (discount 0
    age      3     4     5  |  0     1     2          if it was a terminal, gamma^2 if a truncation)

The frames lie on any device: a million of 84 x 84 are 7.06 GB. The other columns (12 bytes a moment) lie there too, and
in numpy, which on a CPU is the same memory.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.compiled import parallel_kernel, prange
from rlkit.files import ChunkFile

CHUNK_BYTES = 4 << 20


class Replay:
    """The newest `capacity` frames of `num_envs` environments.

    Args:
        capacity: frames in all; each environment keeps capacity // num_envs of them.
        frame_shape: (height, width) or (features,); stack: frames a state is made of; n_step, gamma: of the returns.
        path: file for the frames, written by `state_dict`; None keeps them out of the saved state.
        priority: exponent of prioritised sampling (Schaul et al. 2016); 0: every transition is as probable.
        indexed: draw on the device, by `batch_at_shares`, even if every transition is as probable.
        dtype: of the frames.
        masks: how many actions a row's mask has, where not all are always allowed; 0: no masks.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        frame_shape: tuple[int, ...] = (84, 84),
        *,
        stack: int = 4,
        n_step: int = 1,
        gamma: float = 0.99,
        device: torch.device | str = "cpu",
        seed: int = 0,
        path: Path | None = None,
        priority: float = 0.0,
        indexed: bool = False,
        dtype: torch.dtype = torch.uint8,
        masks: int = 0,
    ):
        self.rows, self.num_envs, self.stack, self.n_step, self.gamma = (
            capacity // num_envs,
            num_envs,
            stack,
            n_step,
            gamma,
        )
        if self.rows < 2 * (stack + n_step):
            raise ValueError(f"a replay of {capacity} frames is too small for {num_envs} environments: raise capacity")
        self.device = torch.device(device)
        # The frame behind the last row stays zero: stacks that begin before their episode point at it.
        self.frames = torch.empty((self.rows * num_envs + 1, *frame_shape), dtype=dtype, device=self.device)
        self.frames[-1] = 0
        shape = (self.rows, num_envs)
        self.action, self.age = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
        self.reward, self.discount = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.last = np.zeros(shape, bool)
        self._columns: tuple[NDArray, ...] = (self.action, self.age, self.reward, self.discount, self.last)
        self.masks = masks
        if masks:
            self._columns += (np.ones((*shape, masks), bool),)
        self._on_device = [torch.from_numpy(column).to(self.device) for column in self._columns]
        self.count = 0  # rows ever written
        self._rng = np.random.default_rng(seed)
        self.priority = priority
        # One leaf a frame: 0 where no transition can start. What is new gets the highest priority that was seen.
        self.tree = None
        if priority or indexed:
            from rlkit.sum_tree import SumTree

            self.tree = SumTree(self.rows * num_envs, self.device)
        self._highest = torch.ones((), dtype=torch.float64, device=self.device)
        self._drawable = False  # whether the tree ever held anything: asking it would wait for the device
        self._divide(path)

    def _divide(self, path: Path | None, rows: int = 1, more: int = 0) -> None:
        """Divide the rows into chunks of about CHUNK_BYTES, which are saved one by one.

        A chunk has a multiple of `rows` rows, and `more` further bytes for each `rows` of them.
        """
        size = rows * self.num_envs * (self.frames[0].nbytes + 12 + self.masks) + more
        multiple = max(1, CHUNK_BYTES // size)
        self._chunk_rows = multiple * rows
        self._dirty = np.zeros(-(-self.rows // self._chunk_rows), bool)
        self._file = ChunkFile(path, multiple * size) if path else None

    def __len__(self) -> int:
        """Frames held."""
        return min(self.count, self.rows) * self.num_envs

    def __repr__(self) -> str:
        size = f"{self.nbytes / 1e9:.2f} GB on {self.device}"
        return f"Replay({len(self):,} of {self.rows * self.num_envs:,} frames, {size})"

    @property
    def nbytes(self) -> int:
        """Memory when full."""
        return self.frames.nbytes + sum(column.nbytes for column in self._columns)

    def add(
        self,
        frame: NDArray,
        action: NDArray,
        reward: NDArray,
        discount: NDArray,
        first: NDArray,
        last: NDArray,
        mask: NDArray | None = None,
    ) -> None:
        """Write one row: frame [E, *frame_shape], mask [E, actions], the others [E]. In a `last` row action to discount
        mean nothing.
        """
        row, before = self.count % self.rows, (self.count - 1) % self.rows
        start = row * self.num_envs
        self.frames[start : start + self.num_envs].copy_(torch.from_numpy(frame))
        self.action[row], self.reward[row], self.discount[row], self.last[row] = action, reward, discount, last
        self.age[row] = np.where(first | (self.count == 0), 0, np.minimum(self.age[before], 254) + 1)
        if self.masks:
            self._columns[5][row] = mask
        self._to_device(row)
        self._dirty[row // self._chunk_rows] = True
        self.count += 1
        low, high = self._bounds()
        if self.tree and high > low:
            gone = np.arange(low - self.stack, low if low else -self.stack)  # the oldest have lost their stacks
            times = np.append(gone, high - 1)
            enters = np.zeros((len(times), self.num_envs))
            enters[-1] = self._startable(times[-1:] % self.rows)
            self._drawable |= bool(enters.any())
            leaves = times[:, None] % self.rows * self.num_envs + np.arange(self.num_envs)
            value = torch.from_numpy(enters.ravel()).to(self.device) * self._highest
            self.tree.set(torch.from_numpy(leaves.ravel()).to(self.device), value)

    def sample(self, batch_size: int, importance: float = 1.0) -> dict[str, Tensor]:
        """A batch of transitions, drawn uniformly or by priority; see `batch_at_moments` and `batch_at_shares`.

        Raises ValueError where no transition is complete yet.
        """
        if self.tree:
            return self.batch_at_shares(**self.draw_shares(batch_size, importance))
        return self.batch_at_moments(*self.draw_moments(batch_size))

    def draw_shares(self, batch_size: int, importance: float = 1.0) -> dict[str, Tensor]:
        """The arguments of `batch_at_shares`: share [B], one random number in each of B equal parts of 0 .. 1, and
        importance [], a number.

        Raises ValueError where no transition is complete yet.
        """
        if not (self.tree and self._drawable):
            raise ValueError(f"no transition to sample yet: {self!r} holds no complete one")
        share = (np.arange(batch_size) + self._rng.random(batch_size)) / batch_size
        return {"share": torch.from_numpy(share).to(self.device), "importance": torch.tensor(importance)}

    def batch_at_shares(self, share: Tensor, importance: Tensor) -> dict[str, Tensor]:
        """The transitions at which the running sum of priorities reaches share [B] of the total: `batch_at_moments` and
        two more entries, "index" [B] for `prioritise` and "weight" [B].

        The weight corrects for drawing some more often: (N P)^-importance divided by the batch's greatest (Schaul et
        al. 2016, section 3.4). Never waits for the device, so that a CUDA graph can hold it together with the loss.
        """
        assert self.tree is not None
        index, probability = self.tree.find(share)
        weight = (probability.min() / probability).pow(importance.to(share)).float()
        row, env = index // self.num_envs, index % self.num_envs
        return self.batch_at_moments(row, env) | {"index": index, "weight": weight}

    def prioritise(self, index: Tensor, priority: Tensor) -> None:
        """Give transitions index [B] of the last batch the priorities [B] > 0 that they have now.

        To be called before anything is added: later an index may be another transition's.
        """
        assert self.tree is not None and index.shape == priority.shape, (index.shape, priority.shape)
        value = (priority.double() + 1e-6).pow(self.priority)
        self._highest = torch.maximum(self._highest, value.max())
        self.tree.set(index, value)

    def draw_moments(self, batch_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Times and environments [B] of transitions, uniform over all that are complete."""
        low, high = self._bounds()
        time, env, missing = np.zeros(batch_size, np.int64), np.zeros(batch_size, np.int64), np.arange(batch_size)
        for _ in range(1000 if high > low else 0):
            time[missing] = self._rng.integers(low, high, missing.size)
            env[missing] = self._rng.integers(self.num_envs, size=missing.size)
            missing = np.flatnonzero(self.last[time % self.rows, env])  # rare: one row an episode
            if not missing.size:
                return time, env
        raise ValueError(f"no transition to sample yet: {self!r} holds no complete one")

    def batch_at_moments(self, time: NDArray[np.int64] | Tensor, env: NDArray[np.int64] | Tensor) -> dict[str, Tensor]:
        """Transitions that start at rows `time` [B] (counted from the first ever written, or in the ring) of `env` [B].

        Returns s_tm1, s_t uint8 [B, stack, height, width] (on a CPU with channels innermost in memory), a_tm1 int64
        [B], r_t float32 [B] the n-step return, discount_t float32 [B] its gamma^m x discounts; with masks also
        mask_tm1, mask_t bool [B, actions].
        """
        time, env = (torch.as_tensor(x, device=self.device) for x in (time, env))
        action, _, reward, discount, last = (column.view(-1) for column in self._on_device[:5])
        r_t, discount_t = torch.zeros(time.shape, device=self.device), torch.ones(time.shape, device=self.device)
        steps, alive = torch.zeros_like(time), torch.ones_like(time, dtype=torch.bool)
        for k in range(self.n_step):
            at = (time + k) % self.rows * self.num_envs + env
            alive = alive & ~last[at]
            r_t = r_t + alive * discount_t * reward[at]
            discount_t = torch.where(alive, discount_t * self.gamma * discount[at], discount_t)
            steps = steps + alive
        return {
            "s_tm1": self._stacks(time, env),
            "a_tm1": action[time % self.rows * self.num_envs + env].long(),
            "r_t": r_t,
            "discount_t": discount_t,
            "s_t": self._stacks(time + steps, env),
        } | (self._masks_at("mask_tm1", time, env) | self._masks_at("mask_t", time + steps, env) if self.masks else {})

    def _masks_at(self, name: str, time: Tensor, env: Tensor) -> dict[str, Tensor]:
        return {name: self._on_device[5].view(-1, self.masks)[time % self.rows * self.num_envs + env]}

    def _to_device(self, rows: int | slice) -> None:
        if self.device.type != "cpu":
            for column, there in zip(self._columns, self._on_device, strict=True):
                there[rows].copy_(torch.from_numpy(np.asarray(column[rows])))

    def _startable(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a transition (or sequence) may begin at rows [N]: [N, E]."""
        return ~self.last[rows]

    def _bounds(self) -> tuple[int, int]:
        """Rows [low, high) whose stack and n-step return are wholly in the ring."""
        oldest = self.count - self.rows
        return (oldest + self.stack - 1 if oldest > 0 else 0), self.count - self.n_step

    def _stacks(self, time: Tensor, env: Tensor) -> Tensor:
        back = torch.arange(self.stack - 1, -1, -1, device=self.device)
        index = (time[:, None] - back) % self.rows * self.num_envs + env[:, None]
        age = self._on_device[1].view(-1)[time % self.rows * self.num_envs + env]
        index = torch.where(back <= age[:, None], index, self.rows * self.num_envs)
        if self.device.type == "cpu" and self.stack == 4 and self.frames.dtype == torch.uint8 and self.frames.ndim == 3:
            _, height, width = self.frames.shape
            out = torch.empty((len(time), height, width, 4), dtype=torch.uint8)
            flat = self.frames.view(len(self.frames), -1).numpy()
            _interleave4(flat, index.numpy(), out.view(len(time), -1).numpy().view(np.uint32))
            return out.permute(0, 3, 1, 2)
        return self.frames[index]

    def state_dict(self) -> dict:
        """Counters and random state; the frames go to `path`, only those chunks that changed since the last call."""
        state = {"count": self.count, "rng": self._rng.bit_generator.state, "table": None}
        state["shape"] = [self.rows, self.num_envs, *self.frames.shape[1:]]
        if self._file:
            state["table"] = self._file.write(
                (i, [part.cpu().numpy() for part in self._chunk(i)]) for i in np.flatnonzero(self._dirty).tolist()
            )
            self._dirty[:] = False
        if self.tree:
            state["priorities"] = {"leaves": self.tree.leaves.cpu(), "highest": self._highest.cpu()}
        return state

    def load_state_dict(self, state: dict) -> str:
        """Restore what `state_dict` saved; returns a line that says what was restored and what was lost."""
        self._rng.bit_generator.state = state["rng"]
        self._dirty[:] = True
        if state["shape"] != [self.rows, self.num_envs, *self.frames.shape[1:]]:
            raise ValueError(
                f"the saved replay has the shape {state['shape']}, this one {[self.rows, self.num_envs]}: "
                "resume with the same capacity and number of environments"
            )
        if self.tree:
            self.tree.fill(torch.zeros_like(self.tree.leaves))
            self._drawable = False
        if not self._file or state["table"] is None:
            self.count = 0
            return "replay: frames were not saved, it is refilled before learning goes on"
        self.count = state["count"]
        self._dirty[:] = False
        damaged = []
        for chunk, blob in self._file.read(state["table"]):
            if blob is None or len(blob) != sum(part.nbytes for part in self._chunk(chunk)):  # or of another version
                damaged.append(chunk)
            else:
                self._restore(chunk, blob)
        if 2 * len(damaged) > len(state["table"]):
            self.count, self._dirty[:] = 0, True
            return f"replay: {len(damaged)} of {len(state['table'])} chunks are damaged, it is refilled before learning"
        for chunk in damaged:  # nothing may start in the hole, end in it, or look back into it
            hole = slice(chunk * self._chunk_rows, min((chunk + 1) * self._chunk_rows, self.rows))
            rows = np.arange(hole.start - 1, hole.stop + self.stack - 1) % self.rows
            self.last[rows] = True
            self._dirty[rows // self._chunk_rows] = True
            self.age[hole] = 0  # a sequence that runs through it forgets everything at each of its rows
            self.frames[hole.start * self.num_envs : hole.stop * self.num_envs] = 0
        self._to_device(slice(None))
        if self.tree:
            startable = np.zeros((self.rows, self.num_envs), bool)
            rows = np.arange(*self._bounds()) % self.rows
            startable[rows] = self._startable(rows)
            self._drawable = bool(startable.any())
            self.tree.fill(torch.from_numpy(startable.ravel()).to(self.device) * self._highest)
            if saved := state.get("priorities"):  # else it was saved without: all are as probable
                leaves = saved["leaves"].to(self.device)[: startable.size]
                self.tree.fill(leaves.masked_fill(torch.from_numpy(~startable.ravel()).to(self.device), 0))
                self._highest = saved["highest"].to(self.device)
        lost = f", {len(damaged)} damaged chunks of {len(state['table'])} left out" if damaged else ""
        return f"replay: {len(self):,} frames restored{lost}"

    def _chunk(self, chunk: int) -> list[Tensor]:
        """Views of what is saved of a chunk of rows."""
        rows = slice(chunk * self._chunk_rows, min((chunk + 1) * self._chunk_rows, self.rows))
        flat = slice(rows.start * self.num_envs, rows.stop * self.num_envs)
        return [self.frames[flat], *(torch.from_numpy(column[rows]) for column in self._columns)]

    def _restore(self, chunk: int, blob: bytes) -> None:
        data = np.frombuffer(bytearray(blob), np.uint8)  # torch wants memory that it may write
        for part in self._chunk(chunk):
            mine, data = data[: part.nbytes], data[part.nbytes :]
            part.copy_(torch.from_numpy(mine).view(part.dtype).view(part.shape))


@parallel_kernel
def _interleave4(frames, index, out):
    """out[b, pixel] = the bytes of four frames side by side: a stack with its channels innermost, as convolutions
    like it. One 32-bit store a pixel is three times as fast as four byte stores.
    """
    batch, pixels = out.shape
    for b in prange(batch):
        f0, f1, f2, f3 = frames[index[b, 0]], frames[index[b, 1]], frames[index[b, 2]], frames[index[b, 3]]
        for p in range(pixels):
            low = np.uint32(f0[p]) | (np.uint32(f1[p]) << np.uint32(8))
            high = (np.uint32(f2[p]) << np.uint32(16)) | (np.uint32(f3[p]) << np.uint32(24))
            out[b, p] = low | high
