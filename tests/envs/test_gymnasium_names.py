"""Names of environments, their arguments and wrappers, and what a wrong one is told."""

import functools
import sys
import types

import ale_py  # noqa: F401  (registers Atari's games, which no hint should name)
import gym_toys
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces import Box

from envs.gymnasium import Gymnasium, Options, make_one
from envs.gymnasium_names import CALLABLE, imported, maker, name_of, parse_kwargs
from experiments.control import worlds


def here():
    return gym_toys.Endings()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CartPol-v1", "no environment CartPol-v1 is registered.*did you mean CartPole-v1.*--env module:Name-v0"),
        ("cartpole-v1", "did you mean CartPole-v1"),
        ("CartPole-v7", "did you mean CartPole-v1"),
        ("Nowhere/Xyzzy-v0", "One of your own is named with the module that registers it: --env module:Name-v0"),
        ("gym_toys:Nothing-v0", "no environment Nothing-v0 is registered with gymnasium by gym_toys"),
        ("gym_toys:Nothing", "module 'gym_toys' has no attribute 'Nothing'; module:Name is wanted"),
        ("gym_toys:NUMBER", "gym_toys:NUMBER is a int: module:Name of a class or function is wanted"),
        ("gym_toys:", "module:Name of a class or function is wanted"),
        ("gym toys!:x", "No module named"),
        ("..:x", "module:Name is wanted"),
        ("callable/lambda-v0", "for one process is not there in the next"),
        ("no_such_module:X-v0", "No module named 'no_such_module'; is it installed, or in this folder"),
    ],
)
def test_a_wrong_name_gets_a_remedy(name, words):
    gymnasium.registry.pop("callable/lambda-v0", None)
    with pytest.raises((ValueError, ModuleNotFoundError), match=words):
        maker(name)


def test_names_that_look_like_those_of_atari_get_a_hint():
    for name in ("CartPole", "cartpole", "LunarLander", "Taxi"):
        with pytest.raises(
            ValueError, match=r"no Atari game.*; or (CartPole-v1|LunarLander-v3|Taxi-v4) of gymnasium\?"
        ):
            worlds.full_name(name)
    with pytest.raises(ValueError, match="did you mean pong") as caught:
        worlds.full_name("pongg")
    assert "gymnasium" not in str(caught.value)
    assert worlds.full_name("ALE/Pong-v5") == worlds.full_name("pong") == "pong"
    assert worlds.full_name("CartPole-v1") == "CartPole-v1"


@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("MinAtar/Breakout-v1", "minatar", "MinAtar/Breakout-v1 needs a package: pip install minatar"),
        ("highway-fast-v0", "highway_env", "pip install highway-env"),
        ("MiniGrid-Empty-5x5-v0", "minigrid", "pip install minigrid"),
        ("BabyAI-GoTo-v0", "minigrid", "pip install minigrid"),
    ],
)
def test_a_package_that_is_not_there_is_named(name, module, words, monkeypatch):
    for known in [known for known in sys.modules if known.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(gymnasium.envs.registration, "registry", {})
    monkeypatch.setattr(gymnasium, "registry", {})
    with pytest.raises(ModuleNotFoundError, match=words):
        maker(name)


def test_what_a_constructor_lacks_is_one_line():
    with pytest.raises(ModuleNotFoundError, match=r"missing needs what is not installed: .*pip install box3d"):
        make_one("gym_toys:missing", 0, Options())


def test_every_kind_of_name_makes_an_environment(tmp_path, monkeypatch):
    class Local(gym_toys.Endings):
        class Inner(gym_toys.Endings):
            pass

    in_main = types.new_class("InMain", (gym_toys.Endings,))
    in_main.__module__ = in_main.__qualname__ = "__main__"
    in_main.__qualname__ = "InMain"
    other = types.new_class("Endings", (gym_toys.Endings,))
    other.__module__ = "gym_toys"  # its name there is another's
    partial = functools.partial(gym_toys.Told, Box(-1, 1, (2,)), [np.zeros(2)] * 9, spaces.Discrete(3))
    names = {make: name_of(make) for make in (gym_toys.Endings, gym_toys.double, Local, in_main, other, partial)}
    assert [*names.values()][:2] == ["gym_toys:Endings", "gym_toys:double"]
    assert all(name.startswith(CALLABLE) for name in [*names.values()][2:])
    names = [
        *names.values(),
        "GymToys/Endings-v3",
        "gym_toys:GymToys/Endings-v3",
        name_of(lambda **_: gym_toys.Endings()),
    ]
    names += [name_of(Local.Inner), worlds.full_name(gym_toys.Endings)]
    gymnasium.register("Unversioned", gym_toys.Endings)
    names += ["gym_toys:Unversioned"]
    (tmp_path / "of_this_folder.py").write_text("from gym_toys import Endings as Mine\n")
    monkeypatch.chdir(tmp_path)
    names += ["of_this_folder:Mine"]
    for name in names:
        envs = worlds.make(worlds.full_name(name), 2, seed=0)
        assert envs.obs_shape == (1, 2) and envs.num_actions == 3, name
        envs.reset(), envs.step(np.zeros(2, int))
    with pytest.raises(ValueError, match="not a Endings"):
        worlds.full_name(gym_toys.Endings())


def test_kwargs_and_wrappers():
    assert parse_kwargs(["a=1", "b=[1, 2]", "c=word", "d=x=y", "e=", "f=true", "g=False", "h=None", "i={[]: 1}"]) == {
        "a": 1, "b": [1, 2], "c": "word", "d": "x=y", "e": "", "f": True, "g": False, "h": None, "i": "{[]: 1}",
    }  # fmt: skip
    for wrong in ("size", "=3", "a b=3"):
        with pytest.raises(ValueError, match=r"--env-kwargs wants key=value, not"):
            parse_kwargs([wrong])
    for name, kwargs in (("gym_toys:Pictures", "size=3"), ("CartPole-v1", "size=3"), ("gym_toys:here", "a=1")):
        if name == "gym_toys:here":
            gym_toys.here = here
        with pytest.raises(ValueError, match=r"does not fit its --env-kwargs.*"):
            make_one(name, 0, Options((kwargs,)))
    with pytest.raises(ValueError, match=r"does not fit its --env-kwargs.*required positional argument: 'space'"):
        make_one("gym_toys:Told", 0, Options(("seen=[]",)))
    for wrapper, words in {
        "gym_toys:Nothing": "wrapper gym_toys:Nothing: module 'gym_toys' has no attribute",
        "nowhere:X": "wrapper nowhere:X: No module named 'nowhere'; is it installed",
        "gym_toys:NUMBER": "wrapper gym_toys:NUMBER is a int",
        "gym_toys": "wrapper gym_toys is a module: module:Name",
    }.items():
        with pytest.raises((ValueError, ModuleNotFoundError), match=words):
            make_one("gym_toys:Endings", 0, Options(wrappers=(wrapper,)))
    with pytest.raises(ValueError, match="gym_toys:number made a int, which is no"):
        make_one("gym_toys:number", 0, Options())
    envs = Gymnasium("gym_toys:Endings", options=Options(wrappers=("gym_toys:lift", "gym_toys:lift")))
    assert envs.step(np.array([0])).r_t.item() == 0.0  # of action -1: -2, and twice 1
    assert envs.protocol == "gym_toys:Endings gym_toys:lift gym_toys:lift"
    assert imported("gym_toys", "x") is gym_toys


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ("observes=text", "--wrappers module:Class"),
        ("observes=graph", "--wrappers module:Class"),
        ("observes=sequence", "--wrappers module:Class"),
        ("observes=minigrid", "--wrappers minigrid.wrappers:ImgObsWrapper"),
        ("acts=acts_dict", "--wrappers module:Class"),
        ("acts=force", "--bins 5"),
        ("acts=endless", "bound them by a wrapper"),
        ("acts=many", "at most 4,096"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(kwargs, words):
    with pytest.raises(ValueError, match=words):
        Gymnasium("gym_toys:Odd", 2, options=Options((kwargs,), bins=2 if "endless" in kwargs else 0))
