import importlib
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs.go
from envs.go import gym
from envs.go.position import BLACK, EMPTY, RESIGN, WHITE, Position

PASS = 25


def make(size=5, **options):
    return gymnasium.make("rlkit/Go-v0", size=size, **options)


def playing(*moves):
    """An opponent that makes these moves, then passes."""
    left = list(moves)
    return lambda position: left.pop(0) if left else position.pass_move


@pytest.mark.parametrize("size", [5, 9])
@pytest.mark.parametrize("colour", ["black", "white"])
def test_gymnasiums_own_checker_has_nothing_to_say(size, colour):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(size, colour=colour, render_mode="rgb_array").unwrapped)


def test_it_is_made_by_module_and_name_and_registered_once():
    importlib.reload(envs.go)
    env = gymnasium.make("envs.go:rlkit/Go-v0", size=7, komi=9)
    assert env.observation_space.shape == (17, 7, 7) and env.action_space.n == 50
    assert env.unwrapped.position.komi == 9


def test_a_won_game_a_lost_one_and_a_draw():
    for komi, reward in ((0.5, 1), (25.5, -1), (25, 0)):
        env = make(komi=komi, opponent=playing())
        env.reset()
        assert env.step(12)[1:4] == (0, False, False)  # a pass answered it
        _, got, terminated, truncated, info = env.step(PASS)
        assert (got, terminated, truncated, info["score"]) == (reward, True, False, 25 - komi)
        assert not info["action_mask"].any() and not info["illegal"]
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.unwrapped.step(0)


def test_white_is_rewarded_for_whites_points():
    env = make(colour="white", opponent=playing(12), komi=0.5)
    observation, info = env.reset()
    assert env.unwrapped.position.board[2, 2] == BLACK
    assert observation[8, 2, 2] == 1 and observation[:8].sum() == 0 and observation[16].sum() == 0
    assert info["action_mask"].sum() == 25 and info["action_mask"][12] == 0
    assert env.step(7)[1] == 0
    _, reward, terminated, _, info = env.step(PASS)
    assert (reward, terminated, info["score"]) == (1, True, -0.5)  # neither owns the rest: White has the komi


def test_an_illegal_move_loses():
    env = make(opponent=playing(3))
    env.reset()
    env.step(12)
    _, reward, terminated, truncated, info = env.step(12)
    assert (reward, terminated, truncated, info["illegal"]) == (-1, True, False, True)
    assert env.unwrapped.position.move_number == 2
    env.reset()
    with pytest.raises(gymnasium.error.InvalidAction, match="26 is no action of 0 to 25"):
        env.unwrapped.step(26)


def test_a_resigning_opponent_has_lost():
    env = make(opponent=lambda position: RESIGN, komi=100)
    env.reset()
    assert env.step(12)[1:3] == (1, True)


def test_an_opponent_that_breaks_the_rules_is_told():
    env = make(opponent=lambda position: 12)
    env.reset()
    with pytest.raises(ValueError, match=r"the opponent played an illegal move, 12: .*occupied"):
        env.step(12)


def test_the_cap_truncates_without_a_reward():
    env = make(max_moves=4, opponent=playing(1, 3))
    env.reset()
    assert env.step(0)[1:4] == (0, False, False)
    _, reward, terminated, truncated, info = env.step(2)
    assert (reward, terminated, truncated) == (0, False, True) and info["score"] == -7.5
    env = make(max_moves=4, opponent=playing(1), komi=0.5)
    env.reset()
    env.step(0)
    assert env.step(PASS)[1:4] == (-1, True, False)  # both passed with the last two moves


def test_a_seed_gives_the_game_again():
    def game(seed, options):
        env = make(**options)
        _, info = env.reset(seed=seed)
        env.action_space.seed(0)
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(env.action_space.sample(info["action_mask"]))
            over = terminated or truncated
            assert not info["illegal"]
        return env.unwrapped.position.moves()

    for options in ({}, {"colour": "white"}, {"suicide": True, "superko": "situational"}):
        assert game(3, options) == game(3, options)
    assert game(3, {}) != game(4, {})


def test_each_game_of_one_seed_has_another_opponent():
    class Opponent:
        seeds = []

        def new_game(self, seed):
            self.seeds.append(seed)

        def __call__(self, position):
            return position.pass_move

    for _ in range(2):
        env = make(opponent=Opponent())
        env.reset(seed=1)
        env.reset()
    a, b, *again = Opponent.seeds
    assert [a, b] == again and a != b


def test_observations_are_new_arrays():
    env = make(opponent=playing(1))
    first, _ = env.reset()
    kept = first.copy()
    second, *_ = env.step(0)
    assert (first == kept).all() and second[0, 0, 0] == 1 and second[8, 0, 1] == 1 and second[16].all()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": (5, 5)}, "squares"),
        ({"colour": "green"}, "'black' or 'white'"),
        ({"opponent": "gnugo"}, "callable"),
        ({"max_moves": 1}, "at least 2 moves"),
    ],
)
def test_senseless_arguments_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        gym.GoEnv(**options)
    with pytest.raises(ValueError, match="render_mode"):
        gym.GoEnv(render_mode="human")


def test_the_board_is_drawn_as_text_and_not_without_asking():
    env = make(opponent=playing(3), render_mode="ansi")
    env.reset()
    env.step(12)
    assert env.render() == str(env.unwrapped.position) and "X" in env.render() and "(O)" in env.render()
    assert gym.GoEnv(5).render() is None


def test_the_picture_shows_what_is_on_the_board():
    position = Position.empty((5, 7)).play(0).play(34).play(17)
    image = gym.picture(position)
    assert image.shape == (6 * 36, 8 * 36, 3) and image.dtype == np.uint8
    beside = 9  # pixels off a stone's middle: outside the last move's ring, inside the stone
    brightness = {
        move: image[36 * (move // 7 + 1) + beside, 36 * (move % 7 + 1) + beside].mean() for move in (0, 34, 17, 20)
    }
    assert brightness[0] < 60 and brightness[17] < 60 and brightness[34] > 170
    wood = image[36 * 3 + beside, 36 * 7 + beside].astype(int)
    assert wood[0] > wood[1] > wood[2] and brightness[20] > 60
    assert image[36 * 3 - 8, 36 * 4].min() > 200 > 120 > image[36 - 8, 36].max()  # a ring on the last stone alone


def test_stars_lie_where_boards_have_them():
    assert gym._stars(5, 5) == [(2, 2)]
    assert sorted(gym._stars(9, 9)) == [(2, 2), (2, 6), (4, 4), (6, 2), (6, 6)]
    assert sorted(gym._stars(13, 13)) == [(3, 3), (3, 9), (6, 6), (9, 3), (9, 9)]
    assert sorted(gym._stars(19, 19)) == [(r, c) for r in (3, 9, 15) for c in (3, 9, 15)]
    assert gym._stars(8, 8) == [(2, 2), (2, 5), (5, 2), (5, 5)]
    assert gym._stars(3, 3) == gym._stars(9, 7) == []


def test_the_random_opponent_keeps_its_eyes_and_then_passes():
    env = make(colour="black", komi=0.5)
    env.reset(seed=0)
    passes = 0
    for _ in range(25):  # the learner only passes
        _, _, terminated, truncated, info = env.step(PASS)
        assert not truncated
        if terminated:
            passes += 1
            break
    assert passes == 1 and info["score"] == -25.5
    assert (env.unwrapped.position.board == WHITE).sum() + (env.unwrapped.position.board == EMPTY).sum() == 25
