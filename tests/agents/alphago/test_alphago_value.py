"""AlphaGo's value network: its data as published, what it is measured by, and the experiment."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from agents.alphago.network import PolicyNetwork, ValueNetwork, value_loss
from agents.alphago.parts import Parts
from agents.alphago.value_data import SampledGames, Store, sample
from envs.go.chains import BLACK, WHITE
from envs.go.features import ALPHAGO_ORDER, alphago_slab
from envs.go.game import Go
from envs.go.position import Position
from envs.go.record import GameRecord
from envs.go.replay import UNKNOWN, from_lists
from envs.go.sgf import write_sgf
from experiments.alphago import outcomes, stages, value_games
from experiments.alphago import value as alphago_value
from rlkit.command_line import parse
from rlkit.errors import DamagedFile
from rlkit.saved_agents import load_agent_files
from rlkit.saved_config import load_config
from rlkit.trainer import TrainConfig

GO4 = Go(4, komi=0.5)
encode4 = functools.partial(alphago_slab, height=4, width=4)


def scripted(last, actions=17):
    """Plays the first sensible point, or the last one before the pass."""
    logits = (1 if last else -1) * 1000.0 * np.arange(actions, dtype=np.float32)
    logits[-1] = -1e6
    return lambda planes: np.tile(logits, (len(planes), 1))


def noise(actions, seed=0):
    rng = np.random.default_rng(seed)
    return lambda planes: rng.normal(size=(len(planes), actions)).astype(np.float32)


def whole(sampled):
    return outcomes.made(sampled, GO4, 0)


def test_the_loss_by_hand():
    # (0.5 - 1)^2 = 0.25, (0.5 + 1)^2 = 2.25, (0.5 - 0)^2 = 0.25: the mean is 2.75 / 3
    class Constant(nn.Module):
        def forward(self, planes):
            return torch.full((len(planes),), 0.5)

    loss, _ = value_loss(Constant(), {"planes": torch.zeros(3, 49, 4, 4), "z": torch.tensor([1.0, -1.0, 0.0])})
    assert loss.item() == pytest.approx(2.75 / 3)


# -- the data ----------------------------------------------------------------------------------------------------------


def test_one_policy_then_a_random_move_then_the_other():
    """The first one plays the first sensible point, the second one the last: each move tells who made it."""
    sampled = sample(GO4, encode4, scripted(last=False), scripted(last=True), 60, 12, np.random.default_rng(0))
    begins = np.concatenate([[0], sampled.length.cumsum()])
    strange = 0
    for g, U in enumerate(sampled.kept):
        position = Position.empty(4, 0.5)
        moves = sampled.moves[begins[g] : begins[g + 1]].tolist()
        assert len(moves) > U  # the position that is kept has a move
        for ply, move in enumerate(moves):
            game, state = position.states()
            points = np.flatnonzero(game.sensible(state)[0, :16])
            expected = 16 if not len(points) else points[0] if ply < U - 1 else points[-1]
            if ply == U - 1:
                strange += move not in (expected, points[0])
            else:
                assert move == expected
            position = position.play(move)
        assert position.is_over or len(moves) == GO4.max_moves
        assert sampled.winner[g] == (BLACK if position.score() > 0 else WHITE)
    assert len(sampled) > 30 and strange > len(sampled) / 2  # one of the two extremes by chance now and then
    assert set(sampled.kept) >= set(range(1, 9))


def test_the_random_move_is_uniform_among_the_points():
    sampled = sample(GO4, encode4, noise(17), noise(17, 1), 3200, 1, np.random.default_rng(0))
    assert (sampled.kept == 1).all() and len(sampled) == 3200  # U = 1: the very first move
    first = sampled.moves[np.concatenate([[0], sampled.length.cumsum()[:-1]])]
    counts = np.bincount(first, minlength=17)
    assert counts[16] == 0 and abs(counts[:16] - 200).max() < 60  # four standard deviations


def test_outcomes_are_those_of_the_side_to_move():
    """Black wins a game, White another: at U = 2 Black is to move, at U = 1 White."""
    moves = np.array([5, 10, 6, 16, 16, 5, 10, 16, 16], np.int16)
    sampled = SampledGames(moves, np.array([5, 4]), np.array([BLACK, WHITE], np.int8), np.array([2, 1]))
    found = whole(sampled)
    assert found.kept.tolist() == [2, 5 + 1] and found.games.z(found.kept).tolist() == [1, 1]
    assert found.games.z(found.kept - 1).tolist() == [-1, -1]
    stones = encode4(found.games.states(found.kept))[0, :2].reshape(2, -1)
    assert [np.flatnonzero(own).tolist() for own in stones] == [[5], [10]]
    assert GO4.to_play(found.games.states(found.kept)).tolist() == [BLACK, WHITE]
    values = outcomes.predict_outcomes(ValueNetwork(4, channels=4, layers=1), found.games, found.kept)
    assert values.colour.tolist() == [BLACK, WHITE] and values.number.tolist() == [2, 1]


def test_games_that_end_before_their_random_move_are_left_out():
    pass_only = lambda planes: np.where(np.arange(17) == 16, 0, -1e6) + np.zeros((len(planes), 1))  # noqa: E731
    sampled = sample(GO4, encode4, pass_only, pass_only, 300, 6, np.random.default_rng(0))
    # by passes alone a game is over after two moves: U is 1 or 2 where it got as far
    assert set(sampled.kept) == {1, 2} and 60 < len(sampled) < 140
    assert len(sampled.moves) == sampled.length.sum()


def made_until(folder, sets, store=None):
    store = store or Store(folder, {"seed": 1})
    store.load()
    while store.sets < sets:
        store.add(sample(GO4, encode4, noise(17), noise(17, 1), 5, 8, np.random.default_rng([1, store.sets])))
        store.save()
    return store


def test_games_are_kept_set_by_set(tmp_path):
    once = made_until(tmp_path / "a", 4).all()
    made_until(tmp_path / "b", 2)
    assert len(list((tmp_path / "b").iterdir())) == 1
    again = made_until(tmp_path / "b", 4)
    for name, array in vars(again.all()).items():
        np.testing.assert_array_equal(array, getattr(once, name))
    read = Store(tmp_path / "b")
    assert read.load() and read.games == len(once) and read.header == {"seed": 1} and read.sets == 4
    with pytest.raises(ValueError, match=r"has games made by .*begin a new run"):
        Store(tmp_path / "b", {"seed": 2}).load()
    assert not Store(tmp_path / "c").load()
    with pytest.raises(ValueError, match="no games yet"):
        Store(tmp_path / "c").all()
    (file,) = (tmp_path / "b").iterdir()
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(DamagedFile, match="truncated"):
        Store(tmp_path / "b").load()


def test_whole_games_have_as_many_positions_of_fewer_games():
    sampled = sample(GO4, encode4, noise(17), noise(17, 1), 200, 10, np.random.default_rng(0))
    found = whole(sampled)
    one, test = found.split(0.2, whole=False)
    many, same = found.split(0.2, whole=True)
    assert (test == same).all() and len(test) == round(0.2 * len(sampled)) and len(one) == len(sampled) - len(test)
    of = found.games.of
    for learned in (one, many):
        assert not set(of[learned]) & set(of[test])
    assert set(of[many]) < set(of[one]) and len(set(of[one])) == len(one)
    longest = (sampled.length - sampled.kept).max()
    assert len(one) <= len(many) < len(one) + longest
    assert (found.games.number(many) >= sampled.kept[of[many]]).all()  # what came before led to a random move
    with pytest.raises(ValueError, match="leave nothing"):
        found.split(0.0, whole=False)


def test_recorded_games_go_by_their_result_and_one_komi():
    games = from_lists(
        GO4, [[0, 1], [2], [], [3, 4, 5], [6], [7, 8]], [BLACK, UNKNOWN, WHITE, WHITE, 0, BLACK],
        [7.0, 7.0, 7.0, 7.0, 7.0, 0.5],
    )  # fmt: skip
    found = outcomes.recorded(games, 0, 1)  # the second has no result, the third no move, the last another komi
    assert found.games.winner.tolist() == [BLACK, WHITE, 0] and found.games.game.komi == 7.0
    assert found.games.moves.tolist() == [0, 1, 3, 4, 5, 6]
    assert found.first.tolist() == [0, 2, 5] and (found.games.of[found.kept] == [0, 1, 2]).all()
    assert len(outcomes.recorded(games, 2, 1).games) == 2
    with pytest.raises(ValueError, match="no game has a result"):
        outcomes.recorded(from_lists(GO4, [[0]], [UNKNOWN]), 0, 1)


# -- what is measured --------------------------------------------------------------------------------------------------


def test_constants_and_the_table_by_hand():
    """Learned from: Black to move won and drew, White to move lost: means 1/2 and -1, of all three 0."""
    games = from_lists(GO4, [[0], [1], [2, 3]], [BLACK, 0, BLACK])
    test = outcomes.OutcomePredictions(
        np.array([0, 3, 12]), np.array([1, 2, 1]), np.float32([0.5, -0.5, -1]), np.float32([1, -1, 1])
    )  # fmt: skip
    constant, by_colour = outcomes.constants(games, np.array([0, 1, 3]), test)
    assert constant.tolist() == [0, 0, 0] and by_colour.tolist() == [0.5, -1, 0.5]
    score = outcomes.score(test, test, constant, by_colour)
    # (0.25 + 0.25 + 4) / 3; (1 + 1 + 1) / 3; (0.25 + 0 + 0.25) / 3; two of three winners
    assert score["test_mse"] == pytest.approx(1.5) and score["constant_mse"] == 1
    assert score["colour_mse"] == pytest.approx(0.5 / 3) and score["winner"] == pytest.approx(2 / 3)
    assert outcomes.by_ten(test) == {"mse_from_move_1": 0.25, "mse_from_move_11": 4}
    lines = outcomes.table(test, by_colour).splitlines()
    assert lines[1].split() == ["1", "-", "10", "2", "0.250", "0.125"]
    assert lines[2].split() == ["11", "-", "20", "1", "4.000", "0.250"]


# -- the experiment ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The flags of a supervised policy, and of one that learned by playing."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("policy", "rl")):
        torch.manual_seed(seed)
        stages.save(tmp_path / name, Parts(policy=PolicyNetwork(3, 48, 8, 2)), Go(3, komi=0.5), {}, {})
    return {"policy": str(tmp_path / "policy"), "rl": str(tmp_path / "rl")}


def tiny(steps=6, lr=1e-3, **options):
    values = {
        "positions": 60, "at_once": 16, "held_out": 0.25, "channels": 4, "layers": 2, "batch_size": 8,
        "evaluate_every": 3, "device": "cpu", "threads": 1,
    }  # fmt: skip
    training = TrainConfig(steps=steps, lr=lr, progress=False, log_every=2, save_every=3)
    return alphago_value.Config(**values | options, trainer=training)


def test_main_makes_games_and_leaves_a_value_network(folders, capsys):
    run_dir = alphago_value.main(tiny(**folders))
    info, weights = load_agent_files(run_dir)
    assert info["kind"] == "alphago" and set(info["config"]) == {"value"}
    assert info["env"] == {"game": "go", "size": 3, "komi": 0.5, "planes": ALPHAGO_ORDER}
    assert {name.partition(".")[0] for name in weights} == {"value"}
    score = info["score"]
    assert score["positions"] == 15 and 0 < score["test_mse"] < 4
    assert {"train_mse", "constant_mse", "colour_mse", "winner"} <= set(score)
    said = capsys.readouterr().err
    assert "45 positions of 45 games to learn from, one each of 15 games held out" in said
    assert "moves      positions    MSE  constant" in said
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = set(EventAccumulator(str(run_dir)).Reload().Tags()["scalars"])
    assert {"eval/test_mse", "eval/train_mse", "eval/constant_mse", "eval/mse_from_move_1", "losses/loss"} <= tags
    # another run takes the same games, whole ones, and holds out the same, though a few more were made
    store = Store(run_dir / "games")
    assert store.load() and store.games > 60
    whole_dir = alphago_value.main(tiny(data=str(run_dir), whole_games=True, positions=0))
    told = re.search(r"(\d+) positions of (\d+) games to learn from, one each of 15", capsys.readouterr().err)
    assert told and int(told[1]) >= 45 > int(told[2])
    again, _ = load_agent_files(whole_dir)
    assert again["score"]["positions"] == 15 and again["trained"]["positions"] >= 45
    assert again["env"] == info["env"]


def test_it_begins_with_a_policys_tower(folders, tmp_path):
    torch.manual_seed(0)
    policy, value = PolicyNetwork(3, 4, 8, 2), ValueNetwork(3, 49, 8, 2)
    value.take_tower(policy)
    planes = torch.randint(0, 2, (5, 49, 3, 3), dtype=torch.uint8)
    torch.testing.assert_close(value.tower(planes), policy.tower(planes[:, :4]), rtol=0, atol=1e-6)
    assert not value.tower.convs[0].weight[:, 4:].any() and value.tower.convs[0].weight.requires_grad
    with pytest.raises(ValueError, match="cannot begin with the tower"):
        value.take_tower(PolicyNetwork(3, 4, 8, 3))
    run_dir = alphago_value.main(tiny(**folders, tower_from=folders["rl"], channels=8, steps=1, lr=0.0))
    weights, theirs = load_agent_files(run_dir)[1], load_agent_files(Path(folders["rl"]))[1]
    torch.testing.assert_close(weights["value.tower.convs.1.weight"], theirs["policy.tower.convs.1.weight"])
    before = len(list(tmp_path.glob("runs/*/*")))
    for wrong, why in ((folders["rl"], "cannot begin"), (str(run_dir), "holds no AlphaGo's policy")):
        with pytest.raises(ValueError, match=why):
            alphago_value.main(tiny(**folders, tower_from=wrong))
    assert len(list(tmp_path.glob("runs/*/*"))) == before


def test_main_goes_on_bit_for_bit(folders, monkeypatch, capsys):
    """Stopped while games are made, and again while it trains."""
    reference = load_agent_files(alphago_value.main(tiny(**folders)))
    real, calls = value_games.sample, []

    def stopped(*args):
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(value_games, "sample", stopped)
    with pytest.raises(ValueError, match=r"stopped with \d+ games, which are saved; go on: .*--resume runs/") as error:
        alphago_value.main(tiny(3, **folders))
    run_dir = str(error.value).split()[-1]
    monkeypatch.setattr(value_games, "sample", real)
    for steps in (3, 6):
        again = load_config(alphago_value.Config, run_dir)
        again.resume, again.trainer.steps = run_dir, steps
        alphago_value.main(again)
    assert "of 60 games are there" in capsys.readouterr().err
    found = load_agent_files(alphago_value.Path(run_dir))
    for name, tensor in reference[1].items():
        assert torch.equal(tensor, found[1][name]), name
    assert reference[0]["score"] == found[0]["score"]


def test_time_may_end_while_games_are_made(folders, capsys):
    run_dir = alphago_value.main(tiny(**folders, minutes=1e-9))
    assert "0 of 60 games are made; go on: " in capsys.readouterr().err
    assert not (run_dir / "agent").exists()


def test_main_learns_from_recorded_games(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng, records = np.random.default_rng(0), []
    for i in range(20):
        points = rng.permutation(9)[:4]
        position = Position.empty(3, 0.5)
        for point in points:
            position = position.play(int(point))
        records.append(GameRecord.from_position(position, result="?" if i < 4 else "B+R" if i % 2 else "W+2.5"))
    write_sgf(tmp_path / "games.sgf", records)
    run_dir = alphago_value.main(tiny(2, games=str(tmp_path / "games.sgf")))
    assert "16 games; left out: 4 without a result, 0 of another komi" in capsys.readouterr().err
    assert load_agent_files(run_dir)[0]["env"]["komi"] == 0.5
    (tmp_path / "games.sgf").rename(tmp_path / "moved.sgf")
    assert alphago_value.main(tiny(2, games=str(tmp_path / "moved.sgf"), resume=str(run_dir))) == run_dir


def test_bad_input_is_refused_before_a_folder_is_written(folders, tmp_path):
    with pytest.raises(ValueError, match=r"none is given.*experiments alphago_sl and then `alphago_rl`"):
        alphago_value.main(tiny())
    with pytest.raises(ValueError, match="not --policy and --rl and --games at once"):
        alphago_value.main(tiny(**folders, games="x.sgf"))
    with pytest.raises(ValueError, match=r"--rl is missing.*experiments alphago_rl makes one"):
        alphago_value.main(tiny(policy=folders["policy"]))
    with pytest.raises(ValueError, match=r"--policy is missing.*experiments alphago_sl makes one"):
        alphago_value.main(tiny(rl=folders["rl"]))
    with pytest.raises(FileNotFoundError, match=r"nowhere is no run of `alphago_value`"):
        alphago_value.main(tiny(data="nowhere"))
    for wrong in ({"positions": 0}, {"positions": 9, "held_out": 0.01}, {"held_out": 1.0}):
        with pytest.raises(ValueError, match="--positions says how many"):
            alphago_value.main(tiny(**folders, **wrong))
    stages.save(tmp_path / "large", Parts(policy=PolicyNetwork(5, 48, 8, 2)), Go(5), {}, {})
    with pytest.raises(ValueError, match="--policy is for 3 lines and --rl for 5"):
        alphago_value.main(tiny(policy=folders["policy"], rl=str(tmp_path / "large")))
    assert not (tmp_path / "runs").exists()
    run_dir = alphago_value.main(tiny(1, **folders))
    with pytest.raises(ValueError, match="--positions cannot change"):
        alphago_value.main(tiny(**folders, resume=str(run_dir), positions=80))


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_the_presets_fit_their_bounds(preset):
    cfg = parse(alphago_value.PRESETS, ["--preset", preset, "--policy", "x", "--rl", "y"])
    alphago_value.check(cfg)
    assert cfg.preset == preset
