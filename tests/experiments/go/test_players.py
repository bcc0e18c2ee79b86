"""From a name or a folder to a trained player, in a match, an evaluation and behind GTP."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_alphazero_player import network

from agents.alphazero.player import AlphaZero
from agents.dqn.agent import DQN, DQNConfig
from envs.go.position import BLACK, Position
from experiments import evaluate
from experiments.any_agent import load_agent
from experiments.go import gtp, match, players
from experiments.go.matches import play_game
from experiments.go.players import agent_folder, board_for, go_player
from rlkit.checkpoint import save_agent
from rlkit.errors import DamagedFile


@pytest.fixture
def saved(tmp_path):
    """A folder of an agent for 3x3."""
    folder = tmp_path / "run"
    save(folder / "agent")
    return folder


def save(folder, kind=None, **env):
    player = AlphaZero(network())
    info = player.describe() | {"env": {"game": "go", "size": 3, "komi": 0.5} | env}
    folder.parent.mkdir(exist_ok=True)
    save_agent(folder, info | ({"kind": kind} if kind else {}), player.network.state_dict())


def test_the_saved_agent_is_the_same(saved):
    agent = load_agent(saved)
    info = agent.info
    assert isinstance(agent, AlphaZero) and agent.info == info and agent.simulations == 400
    json.dumps(agent.describe())
    position = Position.empty(3, 0.5)
    np.testing.assert_array_equal(agent.search(position).N, AlphaZero(network()).search(position).N)
    with pytest.raises(ValueError, match="up to 3 lines"):
        agent(Position.empty(4))
    save_agent(saved / "agent", info | {"config": {"planes": 17, "wings": 2}}, network().state_dict())
    with pytest.raises(DamagedFile, match="wings"):
        load_agent(saved)


def test_a_description_that_claims_too_much_is_refused_before_it_is_built(saved):
    path = saved / "agent" / "agent.json"
    info = json.loads(path.read_text())
    for claim in ({"channels": 10_000, "blocks": 10_000}, {"blocks": 10**12}, {"channels": 10**30}, {"planes": "x"}):
        path.write_text(json.dumps(info | {"config": info["config"] | claim}))
        with pytest.raises(DamagedFile, match=r"agent\.json does not describe an agent with these weights"):
            load_agent(saved)
    for name in ("config", "env", "trained"):
        path.write_text(json.dumps(info | {name: 3}))
        with pytest.raises(DamagedFile, match=f"no object as its '{name}'"):
            load_agent(saved)


@pytest.mark.parametrize("missing", ["env", "trained"])
def test_an_agent_without_what_evaluation_asks_for_is_refused(tmp_path, missing):
    agent = DQN((1, 4), 2, DQNConfig(backbone="mlp", width=0.125))
    info = agent.describe() | {"env": {"game": "catch", "protocol": "nature"}, "trained": {"frames": 9}}
    save_agent(tmp_path, info, agent.network.state_dict())
    assert load_agent(tmp_path).info["trained"] == {"frames": 9}
    save_agent(tmp_path, {name: value for name, value in info.items() if name != missing}, agent.network.state_dict())
    with pytest.raises(DamagedFile, match=missing):
        load_agent(tmp_path)


def test_specs(saved, tmp_path, monkeypatch):
    assert agent_folder("mcts:10") is None and agent_folder("nowhere") is None and agent_folder("") is None
    assert agent_folder(str(saved)) == (saved, None, "") and agent_folder(f"{saved}:80") == (saved, 80, "")
    save(tmp_path / "run:20")  # a folder that exists goes first
    assert agent_folder(f"{saved}:20") == (tmp_path / "run:20", None, "")
    assert go_player(f"{saved}:80").simulations == 80 and go_player(str(saved)).simulations == 400
    assert go_player(str(saved), simulations=30, resign=0.9).resign == 0.9
    timed = go_player(str(saved), seconds=0.5)
    assert timed.seconds == 0.5 and timed.simulations is None
    both = go_player(f"{saved}:30", seconds=0.5)
    assert (both.seconds, both.simulations) == (0.5, 30) and go_player("mcts:5", seconds=2).seconds == 2
    for spec, options, message in (
        (f"{saved}:many", {}, "whole number of at least 1"),
        (f"{saved}:0", {}, "whole number of at least 1"),
        (f"{saved}:30", {"simulations": 40}, "says 30 simulations, and --simulations 40"),
        ("mcts:10", {"simulations": 40}, "takes neither --simulations nor --resign"),
        ("random", {"resign": 0.5}, "takes neither"),
        ("random", {"seconds": 1}, "cannot be told a time"),
    ):
        with pytest.raises(ValueError, match=message):
            go_player(spec, **options)
    save(tmp_path / "toy", game="tictactoe")
    with pytest.raises(ValueError, match="an agent for tictactoe, which does not play Go"):
        go_player(str(tmp_path / "toy"))
    monkeypatch.setattr(players, "PRETRAINED", tmp_path / "pretrained")
    with pytest.raises(FileNotFoundError, match="no agent '5x5' ships with this version; there are: None"):
        go_player("alphazero:5x5")
    save(tmp_path / "pretrained" / "5x5")
    assert go_player("alphazero:5x5").simulations == 400 and go_player("alphazero:5x5:50").simulations == 50
    for spec in ("alphazero:", "alphazero:7x7"):
        with pytest.raises(FileNotFoundError, match="there are: 5x5"):
            go_player(spec)
    with pytest.raises(ValueError, match="needs a whole number"):
        go_player("alphazero:5x5:")


def test_the_board_is_the_agents_own_unless_one_asks(saved, capsys):
    assert board_for(["random", "mcts:5"], None, None) == (9, 7.5)
    assert board_for(["random", f"{saved}:5"], None, None) == (3, 0.5)
    assert board_for([str(saved)], 2, 0.5) == (2, 0.5) and not capsys.readouterr().err
    assert board_for([str(saved), str(saved)], 3, 7.5) == (3, 7.5)
    assert capsys.readouterr().err == f"{saved} was trained with komi 0.5 and now plays with 7.5\n"


@pytest.mark.slow
def test_a_match_and_an_evaluation(saved, capsys):
    threads = []
    real = torch.set_num_threads
    torch.set_num_threads = lambda count: threads.append(count) or real(count)
    try:
        out = match.main(match.Config(f"{saved}:10", f"{saved}:5", games=4, parallel=2, json=True, seed=3))
    finally:
        torch.set_num_threads = real
    assert (out["games"], out["size"], out["komi"], out["forfeits"]) == (4, 3, 0.5, [])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(out))
    assert threads == [1]  # for each of two games
    again = match.main(match.Config(f"{saved}:10", f"{saved}:5", games=4, parallel=1, json=True, seed=3))
    assert (again["score"], again["mean_length"]) == (out["score"], out["mean_length"])
    with pytest.raises(ValueError, match="trained on boards of up to 3 lines"):
        match.main(match.Config(str(saved), "random", games=1, size=5))
    capsys.readouterr()
    results = evaluate.main(evaluate.Config(saved, episodes=2, against=("random", "mcts:5"), json=True))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(results) == ["random", "mcts:5"] == [line["b"] for line in lines]
    assert all(line["a"] == str(saved) and line["games"] == 2 for line in lines)
    with pytest.raises(ValueError, match="--epsilon is for agents of Atari games"):
        evaluate.main(evaluate.Config(saved, epsilon=0.1))


def test_the_engine_from_the_command_line(saved, monkeypatch, capsys):
    def session(**options):
        monkeypatch.setattr(sys, "stdin", io.StringIO("genmove b\nshowboard\nquit\n"))
        gtp.main(gtp.Config(str(saved), **options))
        return capsys.readouterr().out

    assert "komi 0.5" in session(simulations=20, seconds=5, resign=0.95)
    assert session(resign=0.0, simulations=1).startswith("= ")
    for options in ({"resign": 2}, {"seconds": -1}, {"simulations": -1}, {"device": "cuda:99"}):
        with pytest.raises(ValueError, match=r"--resign must be between|must be at least|there is no device"):
            gtp.main(gtp.Config(str(saved), **options))
    with pytest.raises(ValueError, match="up to 3 lines, not 5 x 5"):
        gtp.main(gtp.Config(str(saved), size=5))


@pytest.mark.slow
def test_the_agent_that_ships_knows_5x5():
    """Black opens in the centre and takes the whole board, whatever White does (25 points, so a win at komi 24.5)."""
    player = go_player("alphazero:5x5:100")
    empty = Position.empty(5, 24.5)
    assert player(empty) == 12
    trees = player.search(empty)
    assert trees.W[0, 0, 12] / trees.N[0, 0, 12] > 0.8
    for seed in range(3):
        player.new_game(seed)
        game = play_game(player, go_player("mcts:200", seed), Position.empty(5, 24.5, max_moves=75))
        assert game.winner == BLACK and game.moves[0] == (BLACK, 12)


@pytest.mark.slow
def test_a_picture_of_its_thoughts(tmp_path):
    save(tmp_path / "agent")
    picture = tmp_path / "thoughts.png"
    evaluate.main(evaluate.Config(tmp_path / "agent", episodes=2, against=("random",), picture=picture))
    assert np.asarray(Image.open(picture)).shape[2] == 3
