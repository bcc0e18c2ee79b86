"""Who waits for whom between a learner and its actors; these here are calls that end when the test says so."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.parallel import stream
from rlkit.parallel.actors import LOST
from rlkit.parallel.stream import Piece, Stream, StreamConfig


class Scripted:
    """In place of `Actors`."""

    def __init__(self, make, cfg, cpus=1):
        self.cfg, self.idle, self.starts, self.lost = cfg, set(range(cfg.actors)), [0] * cfg.actors, 0
        self.calls: dict[int, tuple] = {}
        self.ended: list[tuple] = []

    def put(self, value):
        return {name: array.copy() for name, array in value.items()}

    def call(self, index, method, *args):
        self.idle.remove(index)
        self.calls[index] = method, *args

    def end(self, index, seconds=1.0):
        method, *args = self.calls.pop(index)
        if method == "begin":
            self.ended.append((index, None))
        else:
            weights, version, share, *_ = args
            assert float(weights["bias"][0]) == version, "the weights are those of their version"
            piece = Piece(f"{index} at {version}", version, seconds * share, {"games": 2}, 10)
            self.ended.append((index, piece))

    def lose(self, index):
        self.calls.pop(index)
        self.lost += 1
        self.ended.append((index, LOST))

    def results(self, seconds=0.0):
        out, self.ended = self.ended, []
        self.idle |= {index for index, _ in out}
        return out


@pytest.fixture
def streams(monkeypatch):
    return lambda **options: scripted(monkeypatch, **options)


def scripted(patch, **options) -> tuple[Stream, Scripted]:
    patch.setattr(stream, "Actors", Scripted)
    network = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(network.bias)
    made = Stream(lambda index, start: None, network, StreamConfig(**options))
    return made, made.actors  # type: ignore[return-value]


def update(made: Stream, wanted: bool = True) -> list:
    """What a learner does: one update, counted in the bias, and then what there is."""
    assert not made.behind
    made.updates += 1
    torch.nn.init.constant_(made.network.bias, made.updates)
    return made.after_update(wanted)


def test_versions_by_hand(streams):
    made, actors = streams(actors=2, publish_every=2, max_lag=1)
    assert made.take(True) == [] and {call[2] for call in actors.calls.values()} == {0}
    update(made)
    update(made)  # version 2 is out, and both calls are one behind
    actors.end(1)
    ((index, piece),) = made.take(True)
    assert (index, piece.version, list(made.lags)) == (1, 0, [1])
    update(made)
    assert actors.calls[1][2] == 2
    assert made.behind, "the next would publish, and leave actor 0 two behind"
    actors.end(0)
    made.take(False)
    assert not made.behind and actors.idle == {0}, "it has to wait, as no more is wanted"
    update(made)
    assert actors.calls[0][2] == 4 and list(made.lags) == [1, 1]


def test_taking_turns(streams):
    made, actors = streams(actors=3, max_lag=0)
    assert made.take(True) == []
    actors.end(2)
    assert made.take(True) == [] and made.behind, "nobody learns while somebody plays"
    actors.end(0)
    actors.lose(1)
    assert [index for index, _ in made.take(True)] == [0, 2] and made.lost == [1] and not made.behind
    update(made)
    assert not actors.calls
    made.take(True)
    assert {call[2] for call in actors.calls.values()} == {1}, "the newest weights"


def test_a_slow_actor_gets_less_to_do(streams):
    made, actors = streams(actors=2, max_lag=50)
    made.take(True)
    actors.end(0, seconds=1.0)
    actors.end(1, seconds=10.0)
    made.take(True)
    made.take(True)
    assert [actors.calls[index][3] for index in (0, 1)] == [1.0, pytest.approx(0.1)]
    actors.end(1, seconds=10.0)
    made.take(True)
    made.take(True)
    assert actors.calls[1][3] == pytest.approx(0.1), "by what a full call would take"


def test_going_on(streams):
    made, actors = streams(actors=2)
    made.take(True)
    actors.lose(0)
    made.take(False)
    made.actors.starts[0] = 1
    saved = made.state_dict()
    again, actors = streams(actors=2)
    again.load_state_dict(saved | {"updates": 7})
    assert again.updates == 7 and actors.starts == [2, 2], "other random numbers than any before"
    assert [actors.calls[index] for index in (0, 1)] == [("begin", 2)] * 2
    for index in (0, 1):
        actors.end(index)
    assert again.take(False) == [] and not again.lost


def test_what_is_logged(streams):
    made, actors = streams(actors=2)
    made.take(True)
    actors.end(0)
    made.take(False)
    rates = made.rates()
    assert rates["actors/games_per_second/0"] > 0 and "actors/games_per_second/1" not in rates
    assert rates["actors/lag"] == 0 and rates["actors/lost"] == 0 and rates["actors/bytes_per_second"] > 0


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.lists(st.integers(0, 9), min_size=20, max_size=80))
def test_no_piece_is_too_far_behind_whatever_happens(actors_, publish_every, max_lag, happens):
    with pytest.MonkeyPatch.context() as patch:
        made, actors = scripted(patch, actors=actors_, publish_every=publish_every, max_lag=max_lag)
        begun = came = 0
        for what in happens:
            index = what % actors_
            before = len(actors.calls)
            if what < 5 and index in actors.calls:
                actors.end(index)
                begun += 1
                came += len(made.take(True))
            elif what == 9 and index in actors.calls:
                actors.lose(index)
                came += len(made.take(True))
            elif not made.behind:
                came += len(update(made))
            else:
                came += len(made.take(True))
            assert before >= 0 and max(made.lags, default=0) <= max_lag
        for index in [*actors.calls]:
            actors.end(index)
            begun += 1
        came += len(made.take(False)) + len(made.take(False))
        assert came == begun, "each piece comes once"
