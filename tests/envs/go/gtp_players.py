"""Players with known answers, and how to talk to an engine: for the tests of GTP."""

import io

import numpy as np

from envs.go.gtp import Engine


class FirstLegal:
    """Plays the first legal point from the top left."""

    def __call__(self, position):
        return int(position.legal_moves().argmax())


class Analyst(FirstLegal):
    """Has an opinion, always the same, and says what it was asked."""

    def __init__(self):
        self.seconds, self.asked = 3.0, []

    def analyze(self, position, seconds=None):
        self.asked.append((position.to_play, seconds))
        return [
            {"move": 0, "visits": 30, "winrate": 0.75, "prior": 0.5, "pv": [0, 10], "score": 2.5},
            {"move": position.pass_move, "visits": 10, "winrate": 0.5, "prior": np.float32(0.25), "pv": []},
        ]


def say(engine, *lines):
    return [engine.answer(line) for line in lines]


def session(text, player=None, **rules):
    """What an engine sends back for a whole input."""
    out = io.StringIO()
    Engine(player or FirstLegal(), **rules).run(io.StringIO(text, newline="\n"), out)
    return out.getvalue()


def failing(position, seconds=None):
    raise RuntimeError("out of\n\nideas")


def blocks(text):
    """The responses in a stream."""
    assert text.endswith("\n\n")
    return text[:-2].split("\n\n")


def simple_eyes(board, colour):
    """Where `board` [H, W] has eyes of `colour`: bool [H, W].

    An eye is an empty point with only own stones beside it, and with at most one diagonal lost to the opponent, or
    none at the edge.
    """
    height, width = board.shape
    off = 3
    padded = np.pad(board, 1, constant_values=off)
    around = {
        (dy, dx): padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    }
    beside = np.stack([around[d] for d in ((-1, 0), (1, 0), (0, -1), (0, 1))])
    diagonal = np.stack([around[d] for d in ((-1, -1), (-1, 1), (1, -1), (1, 1))])
    enclosed = ((beside == colour) | (beside == off)).all(0)
    lost = (diagonal == 3 - colour).sum(0) + (diagonal == off).any(0)
    return (board == 0) & enclosed & (lost < 2)
