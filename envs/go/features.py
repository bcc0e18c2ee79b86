"""What networks see of a board: the 17 planes of AlphaGo Zero, the 48 of AlphaGo, and the eight symmetries."""

import numpy as np
from numpy.typing import NDArray

from envs.compiled import kernel, over
from envs.go.board import HEIGHT, STRIDE, TO_PLAY, WIDTH, columns
from envs.go.chains import BLACK

ALPHAGOZERO_PLANES = 17


@kernel
def _alphagozero(_, begin, end, rows, words, out):
    for g in range(begin, end):
        row = rows[g]
        past = columns(row, words[g]).past
        black = row[TO_PLAY] == BLACK
        own, other = (0, 8) if black else (8, 0)
        height, width, stride = row[HEIGHT], row[WIDTH], row[STRIDE]
        for k in range(8):
            for r in range(height):
                first = (r + 1) * stride + 1
                for j in range(width):
                    bits = past[first + j] >> k
                    out[g, k, r, j] = (bits >> own) & 1
                    out[g, 8 + k, r, j] = (bits >> other) & 1
        out[g, 16] = black


def alphagozero_slab(states: NDArray[np.int16], height: int, width: int) -> NDArray[np.uint8]:
    """AlphaGo Zero's planes [games, 17, height, width]: own stones now and after each of the last seven moves, the
    opponent's likewise, and ones if Black is to move (Silver et al. 2017, Methods).
    """
    out = np.empty((len(states), ALPHAGOZERO_PLANES, height, width), np.uint8)
    over(_alphagozero, len(states), states, states.view(np.int64), out)
    return out
