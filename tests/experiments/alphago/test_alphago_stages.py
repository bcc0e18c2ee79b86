"""AlphaGo's first stages, the games that they learn from, and the one command: tiny runs, and what they know."""

import json
import math
import shutil
import sys

import numpy as np
import pytest
import torch

from agents.alphago.network import PolicyNetwork, policy_loss
from agents.alphago.parts import Parts
from agents.alphago.rollout import RolloutPolicy, rollout_loss
from envs.go.features import ALPHAGO_ORDER, symmetries
from envs.go.game import Go
from envs.go.sgf import read_collection
from experiments.alphago import pipeline as alphago
from experiments.alphago import positions, stages
from experiments.alphago import rollout as alphago_rollout
from experiments.alphago import sl as alphago_sl
from experiments.alphago import table as alphago_match
from experiments.any_agent import load_agent
from experiments.go import make_games
from experiments.go.players import agent_folder, go_player
from rlkit import processes
from rlkit.checkpoint import save_agent
from rlkit.errors import DamagedFile
from rlkit.trainer import TrainConfig


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    path = tmp_path_factory.mktemp("games") / "games.sgf"
    return make_games.main(make_games.Config(path, a="mcts:20", games=24, size=5, parallel=1))


def tiny(kind, **kw):
    trainer = {"steps": 4, "optimizer": "adamw", "lr": 1e-2, "progress": False, "log_every": 2, "save_every": 2}
    base = {"held_out": 0.25, "least_moves": 2, "batch_size": 8, "device": "cpu", "threads": 1}
    base |= {"channels": 4, "layers": 2, "eval_every": 2} if kind is alphago_sl else {}
    return kind.Config(**base | kw, trainer=TrainConfig(**trainer))


@pytest.mark.slow
def test_games_go_on_where_they_were_stopped(collection, tmp_path):
    whole = collection.read_text()
    assert len(list(read_collection(collection))) == 24
    again = tmp_path / "games.sgf"
    lines = whole.splitlines(keepends=True)
    again.write_text("".join(lines[:10]) + lines[10][:30])  # cut off in the middle of a game
    make_games.main(make_games.Config(again, a="mcts:20", games=24, size=5, parallel=1))
    assert sorted(again.read_text().splitlines()) == sorted(whole.splitlines())
    with pytest.raises(ValueError, match="line 1, game 1: not a game of mcts:30"):
        make_games.main(make_games.Config(again, a="mcts:30", games=30, size=5))
    assert sorted(again.read_text().splitlines()) == sorted(whole.splitlines())


DIES = """
import sys
from pathlib import Path
moves, games = 0, Path(sys.argv[1])
for line in sys.stdin:
    word = line.split()[0]
    if word == "clear_board":
        games.write_text(str(int(games.read_text()) + 1))
    if word == "genmove":
        moves += 1
        if games.read_text() == "3" and moves % 2 == 0:
            sys.exit("out of memory")
    print("= PASS\\n" if word == "genmove" else "=\\n", flush=True)
"""


def test_a_program_that_dies_loses_one_game_to_the_collection(tmp_path, capsys):
    program, counter, out = tmp_path / "dies.py", tmp_path / "games", tmp_path / "games.sgf"
    program.write_text(DIES)
    counter.write_text("0")
    spec = f"gtp:{sys.executable} {program} {counter}"
    cfg = make_games.Config(out, a=spec, b="mcts:20", games=6, size=3, opening_moves=0, parallel=1)
    make_games.main(cfg)
    said = capsys.readouterr().err
    assert "is left out" in said and "out of memory" in said and "5 games; 1 left out" in said
    assert len(list(read_collection(out))) == 5
    counter.write_text("9")
    make_games.main(cfg)  # the game that is missing, and no other
    assert len(list(read_collection(out))) == 6


@pytest.mark.slow
def test_batches_turn_planes_and_moves_alike(collection):
    """A drawn move lies on an empty, legal point of its turned board, and the eight pictures of one move all come."""
    games = positions.read(str(collection), 5)
    one = np.flatnonzero(games.moves != 25)[:1]
    batch = positions.position_batches(games, one, 200, seed=0)(0)
    planes, action = batch["planes"].numpy(), batch["action"].numpy()
    assert planes.shape == (200, 49, 5, 5) and planes.dtype == np.uint8
    assert (planes.reshape(200, 49, 25)[np.arange(200), 2, action] == 1).all()  # empty
    straight = positions.planes(games.states(one))[0].reshape(49, 25)
    seen = set()
    for p, a in zip(planes.reshape(200, 49, 25), action, strict=True):
        fits = {k for k, t in enumerate(symmetries(5)) if np.array_equal(p, straight[:, t[:25]])}
        assert any(symmetries(5)[k][a] == games.moves[one[0]] for k in fits)
        seen |= {tuple(sorted(fits))}
    assert len(seen) == len({straight[:, t[:25]].tobytes() for t in symmetries(5)})
    passes = np.flatnonzero(games.moves == 25)
    if len(passes):
        assert (positions.position_batches(games, passes, 16, seed=0)(0)["action"] == 25).all()


def test_no_game_is_on_both_sides(collection):
    games = positions.read(str(collection), 5)
    learned, held_out = positions.split(games, 0.25)
    assert not set(games.of[learned]) & set(games.of[held_out])
    assert len(set(games.of[held_out])) == 6 and len(learned) + len(held_out) == len(games.moves)
    with pytest.raises(ValueError, match="leave nothing"):
        positions.split(games, 0.0)


def test_losses_by_hand():
    batch = {"planes": torch.zeros(2, 1), "action": torch.tensor([0, 1])}
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.1, 0.3]]).log()
    loss, aux = policy_loss(lambda planes: logits, batch)
    assert loss.item() == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2) and aux["accuracy"] == 0.5

    model = RolloutPolicy(5)
    with torch.no_grad():
        model.weight[:] = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0])  # the first is padding's
    features = torch.tensor([[[1, 2], [3, 0], [0, 0]], [[4, 0], [1, 1], [2, 0]]])
    candidates = torch.tensor([[True, True, False], [True, True, False]])
    logits = model(features, candidates)
    assert logits.tolist() == [[3, 3, -math.inf], [-1, 2, -math.inf]]
    batch = {"features": features, "candidates": candidates, "action": torch.tensor([0, 2])}
    loss, aux = rollout_loss(model, batch)  # the second move is no candidate
    assert loss.item() == pytest.approx(math.log(2)) and aux["accuracy"] == 0.5
    loss.backward()
    assert model.weight.grad.isfinite().all() and model.weight.grad[0] == 0


def test_foretelling_counts_the_best_one_and_five(collection):
    games = positions.read(str(collection), 5)
    index = np.arange(len(games.moves))[:40]
    moves = torch.from_numpy(games.moves[index].astype(np.int64))
    right = torch.nn.functional.one_hot(moves, 26) * 10.0
    found = positions.predict_moves(lambda some: right[some], games, index)
    assert found.top1.all() and found.top5.all()
    fourth = right + torch.arange(26) * 1e-3
    fourth[torch.arange(40), moves] = 0.0215  # below four others
    found = positions.predict_moves(lambda some: fourth[some], games, index)
    assert not found.top1[moves < 21].any() and found.top5[moves < 21].all()
    impossible = torch.zeros(40, 26).scatter(1, moves[:, None], -torch.inf)
    found = positions.predict_moves(lambda some: impossible[some], games, index)
    assert not found.top1.any() and not found.top5.any() and np.isinf(found.nats).all()


@pytest.mark.parametrize("kind", [alphago_sl, alphago_rollout])
def test_a_stage_leaves_a_part_and_resumes_exactly(kind, collection, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = tiny(kind, games=str(collection))
    whole = kind.main(cfg)
    part = "policy" if kind is alphago_sl else "rollout"
    parts, info = stages.load(str(whole), part, "--start-from")
    assert info["env"]["size"] == 5 and 0 <= info["score"]["top1"] <= info["score"]["top5"] <= 1
    cfg.trainer.steps = 2
    half = kind.main(cfg)
    cfg.resume, cfg.trainer.steps = str(half), 4
    cfg.games = str(shutil.copy(collection, tmp_path / "moved.SGF"))
    again, _ = stages.load(str(kind.main(cfg)), part, "--start-from")
    if part == "rollout":
        np.testing.assert_array_equal(parts.rollout, again.rollout)
        assert parts.rollout.any()
    else:
        for a, b in zip(parts.policy.parameters(), again.policy.parameters(), strict=True):
            assert torch.equal(a, b)
        player = go_player(f"{whole}:p")
        assert player.variant == "p"
        with pytest.raises(ValueError, match="needs what this agent does not have: rollout"):
            go_player(f"{whole}:rp:10")


def test_games_of_a_folder_are_found_whatever_their_names(collection, tmp_path):
    for name in ("a.sgf", "inside/b.SGF", "__MACOSX/._a.sgf", ".hidden.sgf", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(collection, tmp_path / name)
    assert positions.files(str(tmp_path)) == [tmp_path / "a.sgf", tmp_path / "inside" / "b.SGF"]
    with pytest.raises(FileNotFoundError, match=r"__MACOSX has no \*\.sgf in it"):
        positions.files(str(tmp_path / "__MACOSX"))


def test_what_is_missing_says_who_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"--games, or make one by python -m experiments make_games"):
        alphago_sl.main(tiny(alphago_sl))
    with pytest.raises(FileNotFoundError, match=r"there is no SGF file nowhere\.sgf"):
        alphago_sl.main(tiny(alphago_sl, games="nowhere.sgf"))
    with pytest.raises(FileNotFoundError, match=r"--start-from: .*experiments alphago_sl makes one"):
        stages.load(str(tmp_path), "policy", "--start-from")
    save_agent(tmp_path / "other", {"kind": "dqn"}, {"w": torch.zeros(1)})
    with pytest.raises(ValueError, match="holds no AlphaGo's policy"):
        stages.load(str(tmp_path / "other"), "policy", "--start-from")
    with pytest.raises(FileNotFoundError, match=r"--games: there is no nothing\.sgf"):
        alphago.main(alphago.Config(games="nothing.sgf"))
    assert not (tmp_path / "runs").exists()


def test_an_agent_of_another_plane_order_is_refused(tmp_path):
    stages.save(tmp_path, Parts(policy=PolicyNetwork(3, 48, 4, 2)), Go(3, komi=0.5), {}, {})
    assert load_agent(tmp_path).variant == "p"
    file = tmp_path / "agent.json"
    info = json.loads(file.read_text())
    assert info["env"].pop("planes") == ALPHAGO_ORDER
    file.write_text(json.dumps(info))
    assert load_agent(tmp_path).variant == "p"  # older agents do not say
    info["env"]["planes"] = "ones 1, colour 3"
    file.write_text(json.dumps(info))
    for load in (load_agent, lambda path: stages.load(str(path), "policy", "--policy")):
        with pytest.raises(ValueError, match=r"learned from the planes 'ones 1, colour 3'.*train it anew"):
            load(tmp_path)


@pytest.mark.parametrize("env", [None, {}, [], {"size": "many", "komi": 1}, {"size": 5}])
def test_a_table_of_an_agent_without_a_board_is_refused(env, tmp_path):
    save_agent(
        tmp_path / "agent", {"kind": "classifier"} | ({} if env is None else {"env": env}), {"w": torch.zeros(1)}
    )
    with pytest.raises((DamagedFile, ValueError), match=r"board|'env'"):
        alphago_match.main(alphago_match.Config(tmp_path / "agent"))


def test_specs_of_variants(tmp_path):
    (tmp_path / "run").mkdir()
    folder = tmp_path / "run"
    assert agent_folder(f"{folder}:rvp:400") == (folder, 400, "rvp") and agent_folder(f"{folder}:p") == (
        folder,
        None,
        "p",
    )
    with pytest.raises(ValueError, match="whole number"):
        agent_folder(f"{folder}:xyz")


def test_the_one_command_goes_on_in_the_stage_where_it_was_stopped(collection, tmp_path, monkeypatch):
    """The stages themselves are stood in for: in which order, with what, and after a stop only what is missing."""
    monkeypatch.chdir(tmp_path)
    calls, trouble = [], {"alphago_value"}

    def run_stage(run_dir, experiment, arguments):
        calls.append((experiment, arguments))
        if experiment in trouble:
            trouble.discard(experiment)
            raise KeyboardInterrupt
        return f"runs/{experiment}"

    monkeypatch.setattr(alphago, "run_stage", run_stage)
    saved = []
    monkeypatch.setattr(stages, "load", lambda path, name, flag: (alphago.Parts(), {"env": {"size": 5, "komi": 7.5}}))
    monkeypatch.setattr(stages, "save", lambda *a: saved.append(a))
    run_dir = alphago.main(alphago.Config(size=5, match_games=0))
    assert [name for name, _ in calls] == ["make_games", "alphago_sl", "alphago_rollout", "alphago_rl", "alphago_value"]
    assert not saved and json.loads((run_dir / "stages.json").read_text())["rl"] == "runs/alphago_rl"
    assert "--start-from=runs/alphago_sl" in calls[3][1] and "--rl=runs/alphago_rl" in calls[4][1]
    calls.clear()
    alphago.main(alphago.Config(size=5, match_games=0, resume=str(run_dir)))
    assert [name for name, _ in calls] == ["alphago_value"] and len(saved) == 1


def test_a_stage_that_goes_on_hears_again_where_its_data_lie(tmp_path, monkeypatch):
    """The whole run's folder may have moved, and with it the games and agents that lie there."""
    begun = tmp_path / "runs" / "alphago_value" / "one"
    begun.mkdir(parents=True)
    (begun / "config.json").write_text("{}")
    said = []
    monkeypatch.setattr(
        processes, "run_command", lambda module, arguments, folder: said.append((module, arguments)) or 0
    )
    words = ["--policy=runs/sl", "--rl=runs/rl", "--tower-from=runs/rl", "--positions=9", "--seed=1"]
    assert alphago.run_stage(tmp_path, "alphago_value", words) == "runs/alphago_value/one"
    assert said == [("experiments", ["alphago_value", "--resume=runs/alphago_value/one", *words[:3]])]


def test_the_table_of_variants(collection, tmp_path, monkeypatch, capsys):
    """Two players who answer by rule: the one that passes loses every game to the one that plays."""

    monkeypatch.chdir(tmp_path)
    info = {"kind": "alphago", "env": {"size": 3, "komi": 0.5}}
    save_agent(tmp_path / "agent", info, {"w": torch.zeros(1)})

    def player(spec, seed):
        plays = spec.endswith(":p:1")
        return lambda position: (
            int(np.flatnonzero(position.legal_moves())[0]) if plays and position.move_number < 4 else 9
        )

    monkeypatch.setattr(alphago_match, "go_player", player)
    cfg = alphago_match.Config(tmp_path / "agent", ("p", "r"), games=4, simulations=1, opening_moves=0, parallel=1)
    out = alphago_match.main(cfg)
    assert out["played"] == [[0, 4], [4, 0]] and out["score"][0][1] + out["score"][1][0] == 4
    assert out["score"][0][1] > 2 and "player" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there is no variant 'q'"):
        alphago_match.main(alphago_match.Config(tmp_path / "agent", ("q", "r")))
