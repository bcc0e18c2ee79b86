"""Catch by its rules; Atari against one emulator stepped by hand."""

import ale_py
import numpy as np
import pytest
from ale_py import ALEInterface, roms

from envs import atari
from envs.atari import Atari, game_name, human_normalised
from envs.catch import Catch

# -- Catch -----------------------------------------------------------------------------------------------------------


def play(envs, policy, steps):
    envs.reset()
    return [envs.step(policy(envs)) for _ in range(steps)]


def follow(envs):
    return 1 + np.sign(envs._ball[:, 1] - envs._paddle)


def test_catch_optimal_and_worst_play():
    best = play(Catch(8, seed=1), follow, 100)
    scores = np.concatenate([s.score[s.last] for s in best])
    assert len(scores) == 8 * 10 and (scores == 1).all()
    worst = play(Catch(8, columns=9, rows=12, seed=1), lambda e: 2 - follow(e), 300)
    assert np.mean(np.concatenate([s.score[s.last] for s in worst])) < -0.5


def test_catch_ends_and_begins_as_the_interface_says():
    envs = Catch(2, rows=4, seed=0)
    obs = envs.reset()
    for _ in range(3):
        steps = [envs.step(np.array([1, 1])) for _ in range(4)]
        last = [s.last.tolist() for s in steps]
        assert last == [[False] * 2, [False] * 2, [True] * 2, [False] * 2]
        assert [s.first.all() for s in steps] == [False, False, False, True]
        assert (steps[2].discount_t == 0).all() and (steps[1].discount_t == 1).all()
        assert np.isin(steps[2].r_t, [-1, 1]).all() and (steps[3].r_t == 0).all()
        assert (steps[2].length == 3).all() and np.array_equal(steps[2].score, steps[2].r_t)
        obs = steps[3].obs
        assert (obs[:, :3] == 0).all() and (obs[:, 3] == 255).any()


@pytest.mark.parametrize("size", [10, 36, 84])
def test_catch_draws_ball_and_paddle_at_any_size(size):
    envs = Catch(1, rows=10, columns=5, size=size, seed=3)
    frame = envs.reset()[0, -1]
    assert frame.shape == (size, size)
    lit = frame == 255
    cell = (size // 10) * (size // 5)
    assert 1.5 * cell <= lit.sum() <= 3.5 * cell
    assert lit[-1, size // 2] and lit[0].any()


def test_catch_resumes_exactly():
    envs, other = Catch(3, seed=5), Catch(3, seed=9)
    actions = np.random.default_rng(0).integers(0, 3, (60, 3))
    envs.reset()
    for a in actions[:25]:
        envs.step(a)
    other.load_state_dict(envs.state_dict())
    for a in actions[25:]:
        one, two = envs.step(a), other.step(a)
        for x, y in zip(one, two, strict=True):
            np.testing.assert_array_equal(x, y)


def test_catch_refuses_misuse():
    with pytest.raises(ValueError, match="a pixel a cell"):
        Catch(size=4)
    envs = Catch()
    with pytest.raises(RuntimeError, match="without a send"):
        envs.recv()


# -- Atari -----------------------------------------------------------------------------------------------------------


def area(n_in, n_out):
    """Weights of resampling by area."""
    edges = np.linspace(0, n_in, n_out + 1)
    low, high = np.arange(n_in), np.arange(1, n_in + 1)
    overlap = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return np.clip(overlap, 0, None) * n_out / n_in


class ByHand:
    """One emulator, stepped four frames at a time, without the vector environment."""

    def __init__(self, game, seed):
        ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ALEInterface()
        self.ale.setInt("random_seed", seed)
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(roms.get_rom_path(game))
        self.actions = self.ale.getMinimalActionSet()
        self.ale.reset_game()
        if ale_py.Action.FIRE in self.actions:
            self.ale.act(ale_py.Action.FIRE)
        self.rows, self.columns, self.moves = area(210, 84), area(160, 84), 0

    def step(self, action):
        reward, screens = 0, []
        for k in range(4):
            reward += self.ale.act(self.actions[action])
            if k >= 2:
                screens.append(self.ale.getScreenGrayscale())
            if self.ale.game_over():
                break
        self.moves += 1
        frame = None
        if screens and self.moves % 10 < 2:  # drawing by hand is slow; two in ten show both of a pair
            frame = self.rows @ np.maximum.reduce(screens).astype(float) @ self.columns.T
        return frame, reward, self.ale.lives(), self.ale.game_over()


@pytest.mark.slow
@pytest.mark.parametrize("game, steps", [("breakout", 900), ("pong", 1300)])
def test_against_one_emulator_stepped_by_hand(game, steps, monkeypatch):
    """Frames, raw rewards, life losses, ends and autoreset of whole games, two of them in a row."""
    monkeypatch.setitem(atari.PRESETS, "nature", atari.PRESETS["nature"] | {"noop_max": 0})
    envs = Atari(game, 2, seed=11, threads=2)
    hand = ByHand(game, 11)
    obs = envs.reset()
    assert (obs[0, :3] == 0).all()
    rng = np.random.default_rng(0)
    lives, score, games, losses, before = hand.ale.lives(), 0, 0, 0, obs
    for _ in range(steps):
        actions = rng.integers(0, envs.num_actions, 2)
        step = envs.step(actions)
        if step.first[0]:
            # the autoreset: the action is ignored, nothing is rewarded, a new game stands there
            assert step.r_t[0] == 0 and not step.last[0] and (step.obs[0, :3] == 0).all()
            hand.ale.reset_game()
            if ale_py.Action.FIRE in hand.actions:
                hand.ale.act(ale_py.Action.FIRE)
            lives, score = hand.ale.lives(), 0
        else:
            frame, reward, now, over = hand.step(actions[0])
            score += reward
            assert step.r_t[0] == reward
            assert step.last[0] == over
            assert (step.discount_t[0] == 0) == (now < lives or over)
            np.testing.assert_array_equal(step.obs[0, :3], before[0, 1:])
            if frame is not None and not over:
                assert np.abs(step.obs[0, -1] - frame).max() <= 1.0
            if over:
                assert step.score[0] == score
                games += 1
            losses += now < lives and not over
            lives = now
        before = step.obs
    assert games >= 1 and (game != "breakout" or losses >= 4)


@pytest.mark.slow
def test_protocols_differ_in_what_they_should():
    """Life loss is a terminal in `nature` training alone; it is never the end of the game."""
    seen = {}
    for protocol, training in (("nature", True), ("nature", False), ("machado", True)):
        envs = Atari("breakout", 4, protocol=protocol, training=training, seed=2, threads=2)
        envs.reset()
        rng = np.random.default_rng(1)
        terminals = ends = 0
        for _ in range(250):
            step = envs.step(rng.integers(0, 4, 4))
            terminals += int(((step.discount_t == 0) & ~step.last & ~step.first).sum())
            ends += int(step.last.sum())
        seen[protocol, training] = terminals
        assert ends > 0
    assert seen["nature", True] > 5 and seen["nature", False] == 0 == seen["machado", True]


@pytest.mark.slow
def test_the_frame_cap_truncates_and_keeps_the_discount():
    envs = Atari("pong", 2, max_frames=400, threads=2)
    envs.reset()
    steps = [envs.step(np.zeros(2, np.int64)) for _ in range(101)]
    assert steps[99].last.all() and (steps[99].discount_t == 1).all() and steps[100].first.all()
    assert not any(s.last.any() for s in steps[:99])


@pytest.mark.slow
def test_a_life_lost_in_the_very_step_of_the_cap_ends_the_episode():
    """The emulator reports no truncation there, and starts anew all the same."""

    def first_life_loss(cap):
        envs = Atari("breakout", 1, max_frames=cap, seed=3)
        envs.reset()
        steps = [envs.step(np.array([t % 2])) for t in range(120)]
        return next(t for t, s in enumerate(steps) if s.discount_t[0] == 0), steps

    t, _ = first_life_loss(100_000)
    again, steps = first_life_loss(4 * (t + 1))
    assert again == t and steps[t].last[0] and steps[t + 1].first[0] and steps[t].length[0] == t + 1


@pytest.mark.slow
def test_send_recv_equals_step_and_seeds_reproduce():
    a, b, other = (Atari("pong", 3, seed=s, threads=2) for s in (4, 4, 5))
    assert np.array_equal(a.reset(), b.reset())
    other.reset()
    actions = np.random.default_rng(0).integers(0, 6, (50, 3))
    differs = False
    for row in actions:
        b.send(row)
        one, two, three = a.step(row), b.recv(), other.step(row)
        assert np.array_equal(one.obs, two.obs)
        differs |= not np.array_equal(one.obs, three.obs)
    assert differs


@pytest.mark.slow
def test_observations_are_not_overwritten_by_the_next_step():
    envs = Atari("pong", 2, threads=2)
    envs.reset()
    first = envs.step(np.zeros(2, np.int64)).obs
    copy = first.copy()
    for _ in range(20):
        envs.step(np.full(2, 3))
    assert np.array_equal(first, copy)


@pytest.mark.slow
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_the_games_that_ship_start(every):
    assert len(atari.games()) >= 100 and {"pong", "galaxian", "ms_pacman"} <= set(atari.games())
    for game in atari.games()[:: 1 if every else 5]:
        envs = Atari(game, 1)
        assert envs.reset().shape == (1, 4, 84, 84)
        assert envs.step(np.zeros(1, np.int64)).obs.dtype == np.uint8


@pytest.mark.slow
def test_galaxian_plays():
    envs = Atari("Galaxian", 4, threads=2)
    envs.reset()
    rng = np.random.default_rng(0)
    steps = [envs.step(rng.integers(0, envs.num_actions, 4)) for _ in range(600)]
    assert sum(s.r_t.sum() for s in steps) > 0 and any((s.discount_t == 0).any() for s in steps)


def test_names_of_games():
    for name in ("ms_pacman", "MsPacman", "ALE/MsPacman-v5", "MsPacmanNoFrameskip-v4", "mspacman"):
        assert game_name(name) == "ms_pacman"
    with pytest.raises(ValueError, match="did you mean breakout"):
        game_name("brekout")
    with pytest.raises(ValueError, match="there is no Atari game 'zzzz'"):
        game_name("zzzz")


def test_human_normalised_scores_name_their_column():
    # (20 - -20.7) / (9.3 - -20.7) and / (14.6 - -20.7)
    scores = human_normalised("pong", 20.0)
    assert scores["human_nature"] == pytest.approx(40.7 / 30.0, rel=1e-3)
    assert scores["human_57"] == pytest.approx(40.7 / 35.3, rel=1e-3)
    assert human_normalised("galaxian", 1000.0) == {"human_nature": None, "human_57": None}
