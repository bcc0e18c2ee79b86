import json
import math

import pytest
import torch

from envs.go.gtp_client import PlayerFailed
from envs.tictactoe import Board, PerfectPlayer, RandomTicTacToe
from experiments.go import elo_ladder
from experiments.go.elo_ladder import CLIMB, EloLadder
from rlkit.checkpoint import load_checkpoint, save_checkpoint


class Mixed(PerfectPlayer):
    """Plays at random with this probability, else perfectly."""

    def __init__(self, chance, seed=0):
        self.chance = chance
        super().__init__(seed)

    def choices(self, board):
        return (RandomTicTacToe if self._rng.random() < self.chance else PerfectPlayer).choices(self, board)


class Failing(RandomTicTacToe):
    """Dies at its first move of every game as Black, or of all."""

    def __init__(self, always):
        self.always = always
        super().__init__()

    def __call__(self, board):
        if self.always or board.to_play == 1:
            raise PlayerFailed("death", "gone")
        return super().__call__(board)


def make(spec, seed):
    """random, mixed:CHANCE, perfect, or a program that fails."""
    kind, _, rest = spec.partition(":")
    if kind == "gnugo":
        raise FileNotFoundError("GNU Go is not installed")
    if kind == "failing":
        return Failing(rest == "always")
    return {"random": RandomTicTacToe, "perfect": PerfectPlayer}[kind](seed) if not rest else Mixed(float(rest), seed)


def ladder_of(*rungs, games=40, **options):
    return EloLadder(rungs, make, [Board()], games=games, seed=1, **options)


def test_a_player_climbs_as_it_grows_and_its_rating_follows():
    ladder = ladder_of("random", "mixed:0.5", "perfect")
    weak = ladder.play("step 0", RandomTicTacToe)
    assert weak.keys() == {"eval/against_random", "eval/elo", "eval/elo_low", "eval/elo_high", "eval/rung"}
    assert weak["eval/rung"] == 0 and weak["eval/elo_low"] < 0 < weak["eval/elo_high"]
    score = weak["eval/against_random"]
    assert weak["eval/elo"] == pytest.approx(400 * math.log10((40 * score + 0.5) / (40 * (1 - score) + 0.5)))
    strong = ladder.play("step 1", PerfectPlayer, ("step 0", RandomTicTacToe))
    assert strong["eval/against_random"] >= 0.9 and "eval/against_mixed_0.5" in strong and strong["eval/rung"] == 1
    assert strong["eval/against_past"] >= 0.9 and strong["eval/elo_low"] > weak["eval/elo_high"]
    assert [(r["a"], r["b"]) for r in ladder.results] == [
        ("step 0", "random"), ("step 1", "random"), ("step 1", "mixed:0.5"), ("step 1", "step 0")
    ]  # fmt: skip
    assert "eval/against_random" not in ladder.play("step 2", PerfectPlayer)  # what it has beaten is behind it
    ratings = ladder.ratings()
    assert ratings["random"] == (0, 0, 0) and set(ratings.names) == {
        "random",
        "mixed:0.5",
        "step 0",
        "step 1",
        "step 2",
    }
    assert 0 < ratings["mixed:0.5"][0] < ratings["step 1"][0]


def test_the_climb_of_one_evaluation_is_bounded_and_ends_at_the_top():
    ladder = ladder_of(*(f"mixed:{1 - i / 1000}" for i in range(CLIMB + 1)), games=20)  # all as good as random
    first = ladder.play("a", PerfectPlayer)
    assert len(ladder.results) == CLIMB and first["eval/rung"] == CLIMB
    for name in "bc":
        assert ladder.play(name, PerfectPlayer)["eval/rung"] == CLIMB  # beaten, and nothing above
    assert len(ladder.results) == CLIMB + 2
    # Anyone who is beaten falls no rung.
    assert ladder.play("d", RandomTicTacToe)["eval/rung"] == CLIMB


@pytest.mark.slow
def test_matches_repeat_themselves_and_differ_from_each_other():
    def results(seed, parallel=1):
        ladder = EloLadder(["random"], make, [Board()], games=100, seed=seed, parallel=parallel)
        for name in "ab":
            ladder.play(name, RandomTicTacToe)
        return [r["score"] for r in ladder.results]

    assert results(1) == results(1, parallel=3) != results(2)
    assert len(set(results(1))) == 2


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_curve(tmp_path):
    whole, first = ladder_of("random", "perfect"), ladder_of("random", "perfect")
    for ladder in (whole, first):
        ladder.play("a", RandomTicTacToe)
        ladder.play("b", PerfectPlayer, ("a", RandomTicTacToe))
    save_checkpoint(tmp_path, 1, {"ladder": first.state_dict(), "x": torch.zeros(1)})
    second = ladder_of("random", "perfect")
    second.load_state_dict(load_checkpoint(next(tmp_path.glob("*.ckpt")))["ladder"])
    assert json.loads(json.dumps(second.state_dict())) == whole.state_dict()  # plain values
    assert second.rung == 1
    assert second.play("c", PerfectPlayer, ("b", PerfectPlayer)) == whole.play("c", PerfectPlayer, ("b", PerfectPlayer))
    assert second.table() == whole.table() and len(first.results) == len(whole.results) - 2 == 4
    fewer = ladder_of("random")  # the rung it stood at is gone
    fewer.load_state_dict(whole.state_dict())
    assert fewer.play("d", PerfectPlayer)["eval/rung"] == 0 and "perfect" in fewer.table()


def test_rungs_that_are_not_installed_are_left_out(capsys):
    ladder = ladder_of("random", "gnugo:1", "perfect", "gnugo:10")
    assert ladder.rungs == ["random", "perfect"]
    said = capsys.readouterr()
    assert (said.out + said.err).count("GNU Go is not installed") == 2
    with pytest.raises(ValueError, match="needs a rung"):
        ladder_of("gnugo:1")
    with pytest.raises(ValueError, match="needs a rung"):
        EloLadder(["random"], make, [])

    def missing(spec, seed):
        raise FileNotFoundError(spec)

    with pytest.raises(FileNotFoundError):
        EloLadder(["runs/nowhere"], missing, [Board()])


def test_games_that_an_opponent_forfeits_do_not_count(capsys):
    ladder = ladder_of("random", "failing:as-black", "failing:always", "perfect", games=20)
    out = ladder.play("a", PerfectPlayer)
    assert [r["games"] for r in ladder.results] == [20, 10, 0] and out["eval/rung"] == 3
    assert "eval/against_failing_always" not in out and 0 <= out["eval/against_failing_as-black"] <= 1
    said = capsys.readouterr()
    assert "a against failing:always: failing:always forfeited 20 games, first: death: gone" in said.out + said.err
    assert math.isfinite(out["eval/elo"]) and math.isnan(ladder.ratings()["failing:always"][0])
    assert "unknown" in ladder.table().splitlines()[-1]
    ours = ladder_of("random").play("b", lambda: Failing(True))  # our own forfeits are losses
    assert ours["eval/against_random"] == 0 and ours["eval/elo"] == pytest.approx(-400 * math.log10(81))


def test_names_that_would_mix_players_up_are_refused():
    ladder = ladder_of("random", games=2)
    with pytest.raises(ValueError, match="is a rung"):
        ladder.play("random", RandomTicTacToe)
    ladder.play("a", RandomTicTacToe)
    ladder.play("b", RandomTicTacToe, ("a", RandomTicTacToe))
    assert ladder.results[-1]["b"] == "a" and elo_ladder.ENOUGH == 0.9
    ladder.play("b", RandomTicTacToe, ("b", RandomTicTacToe))  # evaluated again: it is no past self of its own
    assert ladder.results[-1]["b"] == "random"


def test_whoever_stops_a_match_gets_no_result_of_it():
    ladder, asked = ladder_of("random", "perfect", games=6), []
    scalars = ladder.play("a", PerfectPlayer, ("b", RandomTicTacToe), stop=lambda: asked.append(1) or len(asked) > 3)
    assert ladder.results == [] and scalars == {}
    assert ladder.play("a", PerfectPlayer)["eval/elo"] > 0


def test_the_table_shows_the_strongest_first():
    ladder = ladder_of("random", "perfect")
    ladder.play("ours", PerfectPlayer)
    lines = ladder.table().splitlines()
    assert lines[0].split() == ["player", "games", "score", "Elo", "interval"]
    assert [line.split()[0] for line in lines[1:]][-1] == "random" and lines[-1].endswith("+0  +0 to +0")
    assert lines[1].split()[-2] == "to"
