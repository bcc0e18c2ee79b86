"""The experiment, from its command line to what it leaves on disk."""

import copy
import json
import re

import numpy as np
import pytest
import torch

from agents.alphazero.games import SelfPlayConfig
from agents.alphazero.player import AlphaZero
from envs.go.position import Position
from envs.go.sgf import read_collection
from envs.tictactoe import Board, PerfectPlayer, RandomTicTacToe, TicTacToe, values
from experiments.any_agent import load_agent
from experiments.go import alphazero as alphazero_go
from experiments.go.matches import play_game
from experiments.go.players import go_player
from experiments.go.resumable import TextLines
from rlkit.command_line import parse
from rlkit.saved_config import load_config
from rlkit.trainer import TrainConfig


def tiny(steps=12, **options):
    selfplay = {"games": 16, "simulations": 8, "batch_size": 32, "window": 1000, "start": 50}
    values = {
        "size": 3, "komi": 0.5, "minutes": 1, "channels": 8, "blocks": 1, "rungs": ("random",), "eval_games": 2,
        "eval_simulations": 8, "eval_minutes": 9, "sgf_every": 5, "device": "cpu", "threads": 1,
        "selfplay": SelfPlayConfig(**selfplay | options.pop("selfplay", {})),
        "trainer": TrainConfig(steps=steps, ema=0.9, progress=False, log_every=5, save_every=5),
    }  # fmt: skip
    return alphazero_go.Config(**values | options)


def scalars(run_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir)).Reload()
    return events, set(events.Tags()["scalars"]), set(events.Tags()["images"])


@pytest.mark.parametrize("args", ["", "--size 7", "--size 9", "--size 6", "--preset gpu", "--preset tictactoe"])
def test_the_commands_of_the_readme_mean_something(args):
    cfg = alphazero_go.with_defaults(parse(alphazero_go.PRESETS, args.split()))
    assert cfg.channels >= 32 and cfg.blocks >= 2 and cfg.minutes >= 5 and cfg.eval_minutes == cfg.minutes / 5
    assert cfg.komi == {5: 24.5, 7: 9.0, 3: 0.0}.get(cfg.size, 7.5)


@pytest.mark.slow
def test_main_leaves_an_agent_games_pictures_and_curves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_dir = alphazero_go.main(tiny(eval_minutes=0.005))
    player = go_player(str(run_dir))
    assert isinstance(player, AlphaZero)
    position = Position.empty(3, 0.5)
    assert position.is_legal(player(position))
    info = json.loads((run_dir / "agent" / "agent.json").read_text())
    assert info["env"] == {"game": "go", "size": 3, "komi": 0.5} and info["trained"]["updates"] == 12
    assert "eval/elo" in info["score"]
    for record in read_collection(run_dir / "games.sgf"):
        assert (record.height, record.width) == (3, 3)
        assert re.fullmatch(r"[BW]\+[\d.]+|0", record.result)
    _, tags, images = scalars(run_dir)
    wanted = {
        "eval/elo", "eval/elo_low", "eval/elo_high", "eval/against_random", "losses/policy", "losses/value",
        "losses/ownership", "losses/score", "losses/reply", "selfplay/length", "selfplay/pass_rate",
        "selfplay/commonest_first_move", "selfplay/calibration_error", "search/evaluations_per_second",
        "search/simulations_per_second",
    }  # fmt: skip
    assert wanted <= tags, wanted - tags
    boards = {f"board/{name}_{what}" for name in ("empty", "middle") for what in ("policy", "visits", "owners")}
    assert images == boards | {"board/game"}


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    agents = []
    for halves in (False, True):
        cfg = tiny(steps=6 if halves else 12, seed=7)
        run_dir = alphazero_go.main(cfg)
        if halves:
            again = load_config(alphazero_go.Config, run_dir)
            again.resume, again.trainer.steps = str(run_dir), 12
            alphazero_go.main(again)
        agents.append(load_agent(run_dir).network.state_dict())
        run_dir.rename(tmp_path / f"run{halves}")
    for name, tensor in agents[0].items():
        assert torch.equal(tensor, agents[1][name]), name


@pytest.mark.slow
def test_what_cannot_change_when_a_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_dir = alphazero_go.main(tiny())
    with pytest.raises(ValueError, match=r"--selfplay.games cannot change"):
        alphazero_go.main(tiny(resume=str(run_dir), selfplay={"games": 8}))
    alphazero_go.main(tiny(resume=str(run_dir), steps=14, selfplay={"window": 60}))
    assert "the window is smaller now" in capsys.readouterr().err


@pytest.mark.slow
def test_weights_of_a_smaller_board_begin_a_larger_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = alphazero_go.main(tiny())
    large = alphazero_go.main(tiny(start_from=str(small), size=4, steps=1, trainer=TrainConfig(steps=1, lr=1e-9)))
    ours, theirs = (load_agent(folder).network for folder in (small, large))
    assert theirs.config["size"] == 4
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="channels 8, not 16"):
        alphazero_go.main(tiny(start_from=str(small), channels=16))


@pytest.mark.slow
def test_bad_luck_before_the_first_checkpoint(tmp_path, monkeypatch):
    """A run that began with another's weights, and died, begins with them again; lines after a checkpoint are cut."""
    monkeypatch.chdir(tmp_path)
    small = alphazero_go.main(tiny())
    run_dir = alphazero_go.main(tiny(start_from=str(small), steps=1, minutes=1e-9))
    for path in (run_dir / "checkpoints").iterdir():
        path.unlink()
    (run_dir / "games.sgf").write_text("(;a torn li")
    alphazero_go.main(tiny(start_from=str(small), resume=str(run_dir), steps=1, minutes=1e-9))
    ours, theirs = (load_agent(folder).network for folder in (small, run_dir))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (run_dir / "games.sgf").read_text() == ""
    lines = TextLines(tmp_path / "lines")
    lines.append("one")
    state = lines.state_dict()
    lines.append("two")
    lines.load_state_dict(state)
    assert (tmp_path / "lines").read_text() == "one\n"


@pytest.mark.parametrize(("score", "accepted"), [(0.8, False), (0.95, True), (None, False)])
@pytest.mark.slow
def test_the_gate_keeps_the_better_network(tmp_path, monkeypatch, score, accepted):
    """score: against the past self; None: there was no time for that match."""
    monkeypatch.chdir(tmp_path)
    seen = []

    class SelfPlay(alphazero_go.SelfPlay):
        def __init__(self, game, network, *args):
            super().__init__(game, network, *args)
            seen.append((network, copy.deepcopy(network.state_dict())))

    class EloLadder(alphazero_go.EloLadder):
        def __init__(self, *args):
            super().__init__(*args)
            self.past = "before"

        def play(self, name, ours, past=None, stop=bool, end=0.0):
            return {"eval/against_past": score} if score else {}

        def table(self):
            return ""

    monkeypatch.setattr(alphazero_go, "SelfPlay", SelfPlay)
    monkeypatch.setattr(alphazero_go, "EloLadder", EloLadder)
    run_dir = alphazero_go.main(tiny(gate=0.9, steps=8))
    network, before = seen[0]
    kept = all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert kept != accepted
    trained = load_agent(run_dir).network.state_dict()
    assert accepted == all(torch.equal(trained[name], tensor) for name, tensor in network.state_dict().items())


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="--size must be at least"):
        alphazero_go.main(tiny(size=1))
    with pytest.raises(ValueError, match="fewer parts"):
        alphazero_go.main(tiny(selfplay={"games": 1}))
    with pytest.raises(ValueError, match=r"--selfplay.full-share must be between 0 and 1, not 1.5"):
        alphazero_go.main(tiny(selfplay={"full_share": 1.5}))
    with pytest.raises(ValueError, match="3 lines"):
        alphazero_go.main(tiny(env="tictactoe", size=5))


@pytest.mark.slow
def test_tictactoe_is_learned_to_perfection(tmp_path, monkeypatch, learning_seed, record_property):
    """From nothing, by the same file: never loses, and knows what positions are worth."""
    monkeypatch.chdir(tmp_path)
    cfg = copy.deepcopy(alphazero_go.PRESETS["tictactoe"])
    cfg.device, cfg.threads, cfg.trainer.progress, cfg.seed = "cpu", 1, False, 1 + learning_seed
    cfg.minutes = 1000  # 600 updates, however long a busy machine takes for them
    agent = load_agent(alphazero_go.main(cfg))
    agent.simulations = 50
    rng = np.random.default_rng(0)
    lost = drawn = 0
    for number in range(24):
        perfect = number % 2 == 0
        other = PerfectPlayer(number) if perfect else RandomTicTacToe(number)
        black = number % 4 < 2
        game = play_game(agent, other, Board()) if black else play_game(other, agent, Board())
        lost += game.winner == (2 if black else 1)
        drawn += perfect and game.winner == 0
    assert lost == 0 and drawn == 12
    game, right = TicTacToe(), 0
    for _ in range(100):  # the search's value, after a few random moves, against the exact one
        board = Board()
        for _ in range(rng.integers(0, 5)):
            if not board.is_over:
                board = board.play(int(rng.choice(np.flatnonzero(board.legal_moves()))))
        if board.is_over:
            right += 1
            continue
        agent.new_game(0)
        trees = agent.search(board)
        best = trees.ranked()[0]
        right += abs(trees.W[0, 0, best] / trees.N[0, 0, best] - values(board.states()[1])[0]) < 0.5
        assert game.legal(board.states()[1])[0, best]
    record_property("score", float(right / 100))
    assert right >= 95
