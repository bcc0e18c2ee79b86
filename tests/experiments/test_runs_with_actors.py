"""Commands with actors: what they leave, how they go on, and what they refuse at the start."""

import json
from dataclasses import replace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.alphazero.games import SelfPlayConfig
from experiments.any_agent import load_agent
from experiments.control import apex, memory
from experiments.go import alphazero, match
from rlkit.parallel.actors import ActorConfig
from rlkit.parallel.stream import StreamConfig
from rlkit.trainer import TrainConfig

pytestmark = pytest.mark.slow

GO = alphazero.Config(
    env="tictactoe", size=3, komi=0.0, minutes=5, channels=8, blocks=1, heads=(), rungs=("random",), eval_games=2,
    eval_simulations=4, eval_minutes=9, sgf_every=0, device="cpu", threads=1, elsewhere=StreamConfig(actors=2),
    selfplay=SelfPlayConfig(games=16, simulations=8, batch_size=32, window=2000, start=50),
    trainer=TrainConfig(steps=20, progress=False, log_every=5, save_every=10),
)  # fmt: skip
CATCH = replace(
    apex.PRESETS["fast"], env="catch", frames=4_000, num_envs=5, batch_size=16, replay=2_000, learning_starts=1_000,
    eval_every=10**9, eval_episodes=2, device="cpu", threads=1, elsewhere=StreamConfig(actors=2),
)  # fmt: skip
CATCH = replace(CATCH, trainer=replace(CATCH.trainer, progress=False, log_every=10, steps=40))


def tags(folder) -> dict[str, float]:
    """The greatest value of each."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: max(point.value for point in events.Scalars(tag)) for tag in events.Tags()["scalars"]}


def test_alphazero_with_actors_leaves_an_agent_and_goes_on(cluster, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    folder = alphazero.main(GO)
    logged = tags(folder)
    assert 0 <= logged["actors/lag"] <= 4 and logged["actors/games_per_second/1"] > 0
    games = json.loads((folder / "agent" / "agent.json").read_text())["trained"]["games"]
    more = replace(GO, resume=str(folder), trainer=replace(GO.trainer, steps=30))
    with pytest.raises(ValueError, match="--actors 0 cannot become more"):
        alphazero.main(replace(more, elsewhere=StreamConfig()))
    alphazero.main(replace(more, elsewhere=StreamConfig(actors=1)))
    trained = json.loads((folder / "agent" / "agent.json").read_text())["trained"]
    assert trained["updates"] == 30 and trained["games"] > games
    assert "the games that actors had in hand begin anew" in capfd.readouterr().err


def test_dqn_with_actors_leaves_an_agent_and_goes_on(cluster, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    folder = apex.main(CATCH)
    assert load_agent(folder).num_actions == 3
    logged = tags(folder)
    assert logged["actors/steps_per_second/0"] > 0 and logged["charts/epsilon"] < 0.2 and logged["actors/lost"] == 0
    apex.main(replace(CATCH, resume=str(folder), trainer=replace(CATCH.trainer, steps=50)))
    said = capfd.readouterr().err
    assert "frames restored" in said and "actors begin new episodes" in said
    assert "evaluation at" in said


def test_a_memory_with_actors(cluster, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    small = memory.PRESETS["small"]
    trainer = replace(small.trainer, progress=False, log_every=10, steps=30)
    cfg = replace(
        small, env="tmaze", frames=6_000, num_envs=6, replay=6_000, learning_starts=2_000, eval_every=10**9,
        eval_episodes=4, device="cpu", threads=1, priority=0.5, elsewhere=StreamConfig(actors=2), trainer=trainer,
    )  # fmt: skip
    folder = memory.main(cfg)
    with pytest.raises(ValueError, match="--actors 0 cannot become more"):
        memory.main(replace(cfg, resume=str(folder), elsewhere=StreamConfig()))
    assert load_agent(folder).recurrent and tags(folder)["actors/steps_per_second/1"] >= 0
    memory.main(replace(cfg, resume=str(folder), trainer=replace(trainer, steps=40)))
    assert "actors begin new episodes" in capfd.readouterr().err


def test_a_match_over_actors_is_that_of_one_process(cluster, capsys):
    cfg = match.Config("mcts:20", "random", games=6, size=4, seed=3, threads=1, json=True)
    alone, spread = (match.main(replace(cfg, elsewhere=ActorConfig(actors=n))) for n in (0, 2))
    same = {name: value for name, value in alone.items() if "second" not in name}
    assert same == {name: value for name, value in spread.items() if "second" not in name} and same["games"] == 6


def test_what_actors_cannot_do_is_refused_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for change, message in (
        ({"elsewhere": StreamConfig(actors=6)}, "--actors 6 cannot share 5 worlds"),
        ({"elsewhere": StreamConfig()}, "--actors 0 cannot share"),
        ({"together": 2}, "one by one"),
        ({"trainer": replace(CATCH.trainer, mode="cudagraph")}, "take eager"),
        ({"priority": 0.5, "trainer": replace(CATCH.trainer, accumulate=2)}, "--trainer.accumulate at 1"),
        ({"elsewhere": StreamConfig(actors=2, max_lag=-1)}, "--max-lag must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            apex.main(replace(CATCH, **change))
    assert not list(tmp_path.rglob("config.json"))
