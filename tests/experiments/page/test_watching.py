"""Agents watched: their games are those of `evaluate`, a person's actions count, and recordings replay."""

import base64
import io
import itertools
import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from agents.dqn.agent import DQN, DQNConfig
from agents.pqn.agent import PQN, PQNConfig
from agents.rainbow.agent import Rainbow
from agents.rainbow.config import RainbowConfig
from agents.recurrent.agent import RecurrentConfig, RecurrentDQN
from envs.atari import Atari
from experiments import evaluate
from experiments.control import worlds
from experiments.page import recordings, watching
from experiments.page.cameras import AtariFrames, overlay, tiles
from experiments.page.insides import Insides
from experiments.page.watching import Agents, Pace, Watch
from rlkit.checkpoint import save_agent

CARTPOLE = (1, 4), 2
CATCH = (4, 36, 36), 3


def saved(runs, name, agent, game, protocol="nature", **env):
    """The folder of a run that left this agent, untrained."""
    folder = runs / "dqn" / name
    folder.mkdir(parents=True)
    options = {"options": {"kwargs": ()}} if worlds.is_gymnasium(game) else {}
    info = agent.describe() | {
        "env": {"game": game, "protocol": protocol, "flicker": None} | options | env,
        "trained": {"frames": 100, "seed": 0, "preset": "x"},
        "score": None,
    }
    save_agent(folder / "agent", info, agent.network.state_dict())
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def cartpole(runs):
    return saved(runs, "cartpole", DQN(*CARTPOLE, DQNConfig(backbone="mlp")), "CartPole-v1")


@pytest.fixture
def catch(runs):
    return saved(runs, "catch", DQN(*CATCH, DQNConfig(width=0.1)), "catch")


def watched(runs, name, **asked):
    """A watch as fast as it can, and its answers after the first."""
    session = Watch(Agents(runs))
    answers = session.answers({"do": "watch", "agent": name, "speed": 0, **asked})
    assert next(answers)["world"]["agent"] == name
    return session, answers


def every(answers):
    """Those that tell of a moment."""
    return (answer for answer in answers if "q" in answer)


@pytest.fixture(autouse=True)
def tell_all(monkeypatch):
    """However fast, each moment is told."""
    monkeypatch.setattr(watching, "TOLD", -1.0)


def returns(answers, count):
    found = []
    for answer in every(answers):
        if answer["last"]:
            found.append(answer["return"])
            if len(found) == count:
                return found


# -- the same games ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", ["cartpole", "catch"])
@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_the_returns_are_those_that_evaluate_finds(game, epsilon, runs, request):
    name, seen = request.getfixturevalue(game), []
    for seed in (0, 3):
        out = evaluate.play(evaluate.Config(name, episodes=1, epsilon=epsilon, seed=seed, threads=1))
        _, answers = watched(runs, name, seed=seed, epsilon=epsilon)
        last = next(answer for answer in every(answers) if answer["last"])
        assert last["return"] == out["mean"] and last["step"] == out["mean_length"]
        seen.append(last["return"])
    assert epsilon == 0 or game == "catch" or seen[0] != seen[1]  # another seed is another game


def test_later_episodes_go_on_with_the_same_random_numbers(runs, catch):
    envs, agent = worlds.make("catch", 1, seed=5), Agents(runs).load(catch)
    rng, wanted = np.random.default_rng(5), []
    obs, first = envs.reset(), np.ones(1, bool)
    while len(wanted) < 6:
        step = envs.step(agent.act(obs, 0.7, rng, first))
        obs, first = step.obs, step.first
        wanted += step.score[step.last].tolist()
    _, answers = watched(runs, catch, seed=5, epsilon=0.7)
    assert returns(answers, 6) == wanted and set(wanted) == {-1, 1}


@pytest.mark.parametrize("protocol", ["nature", "machado"])
def test_every_frame_of_atari_is_seen_and_the_fourth_is_what_the_agent_saw(protocol):
    """That one is the greater of the last two frames, pixel by pixel, in grey for the agent."""
    game = Atari("breakout", 1, protocol=protocol, training=False, seed=3, max_frames=2000, color_size=(210, 160))
    camera, rng = AtariFrames("breakout", protocol, 3, 2000), np.random.default_rng(0)
    assert (camera(None)[0] == game.reset()[0, -1]).all()
    ends = 0
    for _ in range(700):
        camera.actions[:] = rng.integers(game.num_actions)
        step = game.step(camera.actions)
        frames = camera(step)
        assert len(frames) == (1 if step.first[0] else 4) or step.last[0]
        if len(frames) == 4:
            assert (np.maximum(*frames[-2:]) == step.obs[0, -1]).all()
        ends += int(step.last[0])
    assert ends >= 2


def test_atari_is_shown_in_colour(runs):
    name = saved(runs, "pong", DQN((4, 84, 84), 6, DQNConfig(width=0.1)), "pong")
    session, answers = watched(runs, name)
    session.control({"do": "saliency", "on": True})
    found = every(answers)
    begins, second = next(found), next(found)
    assert begins["count"] == 1 and second["count"] == 4
    assert picture(begins["pictures"]).shape == (210, 160, 3) and picture(second["pictures"]).shape == (840, 160, 3)
    assert picture(second["seen"]).shape == (84, 4 * 84) and picture(second["saliency"]).shape == (84, 84, 4)


def picture(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


# -- what the agent thinks ---------------------------------------------------------------------------------------------


def test_values_and_actions_are_the_agents(runs, catch):
    agent = Agents(runs).load(catch)
    envs = worlds.make("catch", 1, seed=0, size=36)
    q = agent.q_values(envs.reset())[0].numpy()
    _, answers = watched(runs, catch, epsilon=0)
    answer = next(every(answers))
    assert answer["q"] == pytest.approx(q.tolist(), abs=1e-4)
    assert answer["greedy"] == answer["choice"] == int(q.argmax()) and not answer["random"]
    assert answer["took"] is None and answer["by"] is None


def test_random_actions_are_told_from_the_best(runs, catch):
    """At epsilon 1 each is random, even one that happens to be the best."""
    _, answers = watched(runs, catch, epsilon=1)
    found = [answer for answer, _ in zip(every(answers), range(40), strict=False)]
    assert all(answer["random"] for answer in found)
    assert {answer["choice"] == answer["greedy"] for answer in found} == {True, False}
    assert {answer["by"] for answer in found[1:]} == {"random"}
    for before, after in itertools.pairwise(found):
        assert after["took"] == (before["choice"] if not before["last"] else -1)


@pytest.mark.parametrize("distribution", ["c51", "qr", "iqn"])
def test_distributions_have_the_values_as_their_means(distribution, runs):
    cfg = RainbowConfig(width=0.1, distribution=distribution, atoms=7, v_max=3)
    _, answers = watched(runs, saved(runs, distribution, Rainbow(*CATCH, cfg), "catch"))
    answer = next(every(answers))
    if distribution == "c51":
        low, high = answer["returns"]["support"]
        means = np.array(answer["returns"]["probabilities"]) @ np.linspace(low, high, 7)
        assert (low, high) == (-3, 3)
    else:
        quantiles = np.array(answer["returns"]["quantiles"])
        assert (np.diff(quantiles, axis=1) >= 0).all()
        means = quantiles.mean(1)
    assert answer["q"] == pytest.approx(means.tolist(), abs=1e-3)


def test_a_saliency_is_the_gradient_of_a_linear_network():
    """Q = W s: the gradient of Q(a) is W[a], whatever the observation."""
    agent = DQN(*CARTPOLE, DQNConfig(backbone="linear"))
    insides = Insides(agent)
    agent.act(np.random.default_rng(0).normal(size=(1, 1, 4)).astype(np.float32))
    said = insides.q.copy()
    for action in (0, 1):
        probes = np.eye(4, dtype=np.float32)[:, None]
        slopes = agent.network.forward(torch.from_numpy(probes)) - agent.network.forward(torch.zeros(4, 1, 4))
        wanted = np.abs(slopes[:, action].detach().numpy())
        assert insides.saliency(action) == pytest.approx(wanted / wanted.max(), abs=1e-5)
    assert (insides.q == said).all()  # it looked away meanwhile


def test_recurrent_agents_and_those_without_replay_are_watched_too(runs):
    cfg = RecurrentConfig(features=8)
    names = [saved(runs, "memory", RecurrentDQN(*CARTPOLE, cfg), "CartPole-v1")]
    names.append(saved(runs, "pqn", PQN(*CARTPOLE, PQNConfig(width=0.1)), "CartPole-v1"))
    for name in names:
        out = evaluate.play(evaluate.Config(name, episodes=1, seed=2, threads=1))
        session, answers = watched(runs, name, seed=2)
        session.control({"do": "saliency", "on": True})
        found = every(answers)
        answer = next(found)
        assert len(answer["saliency"]) == 4 and max(answer["saliency"]) == 1 and len(answer["obs"][0]) == 4
        assert next(a for a in found if a["last"])["return"] == out["mean"]


def test_tiles_and_overlays():
    obs = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    assert tiles(obs).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert tiles(np.zeros((2, 4), np.float32)) is None
    planes = np.zeros((1, 2, 2, 2), np.uint8)
    planes[0, 1, 0, 0] = 1
    assert tiles(planes).tolist() == [[0, 0], [0, 0], [255, 0], [0, 0]]
    assert tiles(np.full((2, 3, 5, 7), 9, np.uint8)).shape == (5, 14, 3)
    assert overlay(np.array([[0.0, 1.0]])).tolist() == [[[255, 40, 40, 0], [255, 40, 40, 230]]]


# -- taking over -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action, least, most", [(0, 8, 10), (1, 8, 10)])
def test_who_always_pushes_one_way_falls_at_once(action, least, most, runs, cartpole):
    session, answers = watched(runs, cartpole)
    session.control({"do": "hold", "action": action})
    found = every(answers)
    next(found)
    second = next(found)
    assert second["took"] == action and second["by"] == "person"
    last = next(answer for answer in found if answer["last"])
    assert least <= last["step"] <= most


def test_handing_back_lets_the_agent_play(runs, catch):
    session, answers = watched(runs, catch, epsilon=0)
    found = every(answers)
    before = next(found)
    other = (before["choice"] + 1) % 3
    session.control({"do": "hold", "action": other})
    assert (after := next(found))["took"] == other and after["by"] == "person"
    session.control({"do": "hand back"})
    assert (last := next(found))["took"] == after["choice"] and last["by"] == "greedy"
    session.control({"do": "hold", "action": 99})  # there is no such action: the agent's is taken
    assert next(found)["took"] == last["choice"]


def test_pause_and_step(runs, catch, monkeypatch):
    monkeypatch.setattr(watching, "HEARTBEAT", 0.005)
    session, answers = watched(runs, catch)
    assert next(answers)["step"] == 0
    session.control({"do": "pause"})
    assert [next(answers) for _ in range(3)] == [{"waiting": True}] * 3
    session.control({"do": "step"})
    assert next(every(answers))["step"] == 1
    assert next(answers) == {"waiting": True}
    session.control({"do": "saliency", "on": True})
    assert picture(next(a for a in answers if "saliency" in a)["saliency"]).shape == (36, 36, 4)
    session.control({"do": "saliency", "on": False})
    assert next(a for a in answers if "saliency" in a) == {"saliency": None}
    session.control({"do": "go"})
    assert next(every(answers))["step"] == 2


def test_a_reset_begins_the_game_of_its_seed(runs, catch):
    session, answers = watched(runs, catch, seed=1, epsilon=0.5)
    wanted = returns(answers, 3)
    for seed in (2, 1):
        session.control({"do": "reset", "seed": seed})
        world = next(answer["world"] for answer in answers if "world" in answer)
        assert world["seed"] == seed
    assert returns(answers, 3) == wanted


# -- pace --------------------------------------------------------------------------------------------------------------


def test_moments_are_paced_without_drift_and_late_ones_made_up_for_within_bounds():
    now = [0.0]
    pace = Pace(10, lambda: now[0])
    for i in range(1, 50):
        pace.begin()
        assert pace.left() == pytest.approx(0.1 * i - now[0])
        now[0] = 0.1 * i + 0.03 * (i % 3 == 0)  # now and then, too late by 30 ms
    now[0] += 60
    pace.begin()
    assert pace.left() == pytest.approx(-watching.BEHIND)  # not 600 moments at once
    pace.speed, now[0] = 4, now[0] + 5
    pace.hold()
    pace.begin()
    assert pace.left() == pytest.approx(0.025)
    pace.speed = 0.05
    pace.begin()
    pace.speed = 2  # holds at once
    assert pace.left() == pytest.approx(0.05)
    pace.speed = 0
    assert pace.left() == 0


# -- recordings --------------------------------------------------------------------------------------------------------


def record(runs, name, moments, before=0, **asked):
    """Some moments recorded after others; the arrays of the file."""
    session, answers = watched(runs, name, **asked)
    found = every(answers)
    for _ in range(before + 1):
        next(found)
    session.control({"do": "record", "on": True})
    assert "recording" in next(answers)
    for i in range(moments):
        if i == 3:
            session.control({"do": "hold", "action": 0})
        next(found)
    session.control({"do": "record", "on": False})
    (file,) = next(answers)["saved"]
    answers.close()
    assert [str(path) for path in (runs / "recordings").iterdir()] == [file]
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("game", ["cartpole", "catch"])
@pytest.mark.parametrize("before", [0, 17])
def test_a_recording_replays_to_the_same_rewards(game, before, runs, request):
    rows = record(runs, request.getfixturevalue(game), 60, before, seed=4, epsilon=0.3)
    about = json.loads(str(rows["about"]))
    assert about["seed"] == 4 and about["epsilon"] == 0.3 and len(rows["action"]) == 61
    assert len(rows["earlier"]) == before and set(rows["by"].tolist()) >= {0, 2}
    env = about["env"]
    envs = worlds.make(env["game"], 1, seed=about["seed"], training=False, size=36, options=env.get("options"))
    obs, first, last = envs.reset(), True, False
    for action in rows["earlier"]:
        assert (action == recordings.NOTHING) == last
        step = envs.step(np.array([max(0, action)]))
        obs, first, last = step.obs, bool(step.first[0]), bool(step.last[0])
    for t, action in enumerate(rows["action"]):
        assert (rows["obs"][t] == obs[0, -1]).all() and rows["first"][t] == first and rows["last"][t] == last
        if t == 60:
            break
        step = envs.step(np.array([max(0, action)]))
        wanted = (step.r_t[0], step.discount_t[0]) if not last else (0, 0)
        assert (rows["reward"][t], rows["discount"][t]) == wanted
        obs, first, last = step.obs, bool(step.first[0]), bool(step.last[0])
    assert rows["last"].sum() >= 1 and action == recordings.NOTHING


def test_a_recording_is_written_when_the_page_goes(runs, catch):
    session, answers = watched(runs, catch)
    found = every(answers)
    next(found)
    session.control({"do": "record", "on": True})
    next(found), next(found), next(found)
    assert not list((runs / "recordings").iterdir())
    answers.close()
    (file,) = (runs / "recordings").iterdir()
    assert len(np.load(file)["action"]) == 4


def test_a_recording_ends_where_it_is_full(runs, catch, monkeypatch):
    monkeypatch.setattr(recordings, "MOST_ROWS", 5)
    session, answers = watched(runs, catch)
    session.control({"do": "record", "on": True})
    (file,) = next(answer["saved"] for answer in answers if "saved" in answer)
    assert len(np.load(file)["action"]) == 6


def test_a_recording_is_a_video_too(runs, cartpole):
    imageio = pytest.importorskip("imageio.v2", reason="videos need the extra `video`")
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame", reason="CartPole draws with it")
    session, answers = watched(runs, cartpole)
    session.control({"do": "record", "on": True, "video": True})
    for _ in zip(every(answers), range(6), strict=False):
        pass
    session.control({"do": "record", "on": False})
    saved = next(answer["saved"] for answer in answers if "saved" in answer)
    assert [path.rpartition(".")[2] for path in saved] == ["npz", "mp4"]
    assert len(list((runs / "recordings").iterdir())) == 2
    rows = len(np.load(saved[0])["action"])
    assert imageio.get_reader(saved[1]).count_frames() == rows


# -- what a page may ask -----------------------------------------------------------------------------------------------


def test_only_agents_of_the_runs_are_offered_and_loaded(runs, catch, tmp_path):
    outside = saved(tmp_path / "elsewhere", "x", DQN(*CATCH, DQNConfig(width=0.1)), "catch")
    for name, text in ("damaged", "{"), ("list", "[]"), ("bare", '{"kind": "dqn"}'), ("go", '{"kind": "alphazero"}'):
        (runs / "dqn" / name / "agent").mkdir(parents=True)
        (runs / "dqn" / name / "agent" / "agent.json").write_text(text)
    (runs / "dqn" / "bytes" / "agent").mkdir(parents=True)
    (runs / "dqn" / "bytes" / "agent" / "agent.json").write_bytes(b"\xff\xfe")
    agents = Agents(runs)
    assert agents.offered() == [{"name": catch, "kind": "dqn", "game": "catch", "score": None, "frames": 100}]
    for name in (outside, f"{catch}/../catch", f"{runs}/dqn/damaged", None, 3, ["x"], {}):
        with pytest.raises(ValueError, match="is offered here"):
            agents.load(name)
    assert Agents(tmp_path / "nothing").offered() == []


@pytest.mark.parametrize(
    "message, problem",
    [
        ({"do": "step"}, 'first ask to "watch"'),
        ({"speed": -1}, '"speed" is a number'),
        ({"speed": "fast"}, '"speed" is a number'),
        ({"seed": 1.5}, '"seed" is a whole number'),
        ({"seed": True}, '"seed" is a whole number'),
        ({"epsilon": 2}, '"epsilon" is a number'),
        ({"agent": "../x"}, "no agent '../x' is offered"),
    ],
)
def test_bad_messages_are_refused_with_what_is_wrong(message, problem, runs, catch):
    with pytest.raises(ValueError, match=problem):
        next(Watch(Agents(runs)).answers({"do": "watch", "agent": catch} | message))


def test_bad_controls_change_nothing(runs, catch):
    session, answers = watched(runs, catch)
    for control in ({"do": "speed", "speed": 1e9}, {"do": "hold", "action": -1}, {"do": "reset", "seed": "x"}):
        with pytest.raises(ValueError, match="number"):
            session.control(control)
    assert next(every(answers))["by"] is None and next(every(answers))["by"] != "person"


def test_a_damaged_agent_is_an_error_that_says_so(runs, catch):
    weights = runs / "dqn" / "catch" / "agent" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match="checksum"):
        next(Watch(Agents(runs)).answers({"do": "watch", "agent": catch}))


def test_two_watch_the_same_agent_at_once(runs, catch):
    """Each has its own network, world and random numbers."""
    wanted = returns(watched(runs, catch, seed=7, epsilon=0.5)[1], 8)
    found = [[], []]

    def look(i):
        found[i] = returns(watched(runs, catch, seed=7, epsilon=0.5)[1], 8)

    threads = [threading.Thread(target=look, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted, wanted]
