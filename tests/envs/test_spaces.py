"""Observations and actions of any space, by gymnasium's own `flatten`, `contains` and `sample`."""

import itertools
import math
import warnings

import gym_toys
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Text
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from agents.dqn.agent import DQNConfig, QNetwork
from envs.spaces import allowed_of, check_observations, is_image, numbered_actions, reader_of, view_of
from rlkit.nn.convolution import BACKBONES
from rlkit.replay import Replay

# -- observations ------------------------------------------------------------------------------------------------------

shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)
dtypes = st.sampled_from([np.float32, np.float64, np.float16, np.int8, np.uint8, np.int32, np.int64, bool])
boxes = st.builds(lambda shape, dtype: Box(0, 1, shape, dtype), shapes, dtypes)
images = st.builds(
    lambda shape, dtype: Box(0, 1, shape, dtype),
    st.lists(st.integers(1, 6), min_size=2, max_size=3).map(tuple),
    st.sampled_from([np.uint8, bool]),
)
leaves = st.one_of(
    st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3)),
    st.integers(1, 4).map(MultiBinary),
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(MultiDiscrete),
    boxes.filter(lambda space: not is_image(space)),
)
nested = st.recursive(
    leaves,
    lambda part: st.one_of(
        st.dictionaries(st.text("abc", min_size=1), part, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(part, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=5,
)


@settings(max_examples=80, deadline=None)
@given(nested, st.integers(0, 1 << 20))
def test_any_space_is_seen_as_gymnasium_flattens_it(space, seed):
    check_observations(space, "x")
    space.seed(seed)
    read, flat = reader_of(space), space if isinstance(space, Box) else spaces.flatten_space(space)
    seen = [space.sample() for _ in range(3)]
    raw = np.stack([read(obs) for obs in seen])
    assert raw.shape == (3, *flat.shape)
    view = view_of(flat, 0, 84, False)
    out = view.of(raw)
    expected = np.stack([np.ravel(spaces.flatten(space, obs)) for obs in seen]).astype(np.float32)
    assert view.stack == 1 and out.dtype == np.float32
    np.testing.assert_array_equal(out, expected)


@settings(max_examples=40, deadline=None)
@given(images, st.integers(0, 1 << 20))
def test_small_images_are_planes_and_hold_the_values(space, seed):
    space.seed(seed)
    raw = np.stack([space.sample() for _ in range(2)])
    view = view_of(space, 0, 84, False)
    out = view.of(raw)
    assert out.dtype == np.int8 and out.shape == (2, *view.shape) and len(view.shape) == 3
    np.testing.assert_array_equal(np.sort(out, axis=None), np.sort(raw.astype(np.int8), axis=None))


LAYOUTS = {
    "hwc": ((48, 40, 3), (3, 48, 40), (0, 3, 1, 2)),
    "chw": ((3, 48, 40), (3, 48, 40), (0, 1, 2, 3)),
    "grey": ((48, 40), (48, 40), (0, 1, 2)),
    "hw1": ((48, 40, 1), (48, 40), None),
    "rgba": ((40, 40, 4), (3, 40, 40), (0, 3, 1, 2)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_of_every_layout(layout):
    shape, colour_shape, order = LAYOUTS[layout]
    space = Box(0, 255, shape, np.uint8, seed=1)
    raw = np.stack([space.sample() for _ in range(2)])
    bare = raw[..., 0] if layout == "hw1" else np.transpose(raw, order)
    view = view_of(space, 0, 0, True)
    assert (view.shape, view.dtype, view.stack) == (colour_shape, np.uint8, 4)
    np.testing.assert_array_equal(view.of(raw), bare[:, :3] if bare.ndim == 4 else bare)
    rows = np.moveaxis(bare[:, :3], 1, -1) if bare.ndim == 4 else bare
    grey = [np.asarray(Image.fromarray(np.ascontiguousarray(one)).convert("L")) for one in rows]
    np.testing.assert_array_equal(view_of(space, 2, 0, False).of(raw), grey)
    # Averages of areas: of 40 x 40 in halves they are means of four.
    small = view_of(space, 1, 20, False)
    assert small.shape == (20, 20) and small.of(raw).shape == (2, 20, 20)
    if layout == "rgba":
        means = np.float64(grey).reshape(2, 20, 2, 20, 2).mean((2, 4))
        assert abs(means - small.of(raw)).max() <= 1


def test_pictures_with_other_channels_are_grey_ones_side_by_side():
    """Four frames that a wrapper has stacked are no colour and a transparency."""
    space = Box(0, 255, (4, 50, 40), np.uint8, seed=1)
    raw = np.stack([space.sample() for _ in range(3)])
    view = view_of(space, 0, 0, True)
    assert (view.shape, view.dtype, view.stack) == ((4, 50, 40), np.uint8, 1)
    np.testing.assert_array_equal(view.of(raw), raw)
    assert view_of(space, 0, 36, False).of(raw).shape == (3, 4, 36, 36)
    last = Box(0, 255, (50, 40, 6), np.uint8, seed=1)
    raw = last.sample()[None]
    np.testing.assert_array_equal(view_of(last, 0, 0, False).of(raw), np.moveaxis(raw, 3, 1))


PLANES = {
    "boolean": Box(0, 1, (10, 10, 4), bool),
    "large boolean": Box(0, 1, (3, 84, 84), bool),
    "low": Box(0, 1, (17, 9, 9), np.uint8),
    "large and low": Box(0, 9, (60, 60), np.uint8),
    "128": Box(0, 128, (6, 40, 40), np.uint8),
    "narrow": Box(0, 255, (84, 35, 3), np.uint8),
    "minigrid": Box(0, 255, (7, 7, 3), np.uint8),
}


@pytest.mark.parametrize("name", PLANES)
def test_the_network_sees_the_values_of_planes(name):
    space = PLANES[name]
    space.seed(3)
    raw = np.stack([space.sample(), np.broadcast_to(space.high, space.shape)])
    view = view_of(space, 0, 84, True)
    axis = {"low": 1, "128": 1, "large boolean": 1}.get(name, 3)
    expected = raw[:, None] if raw.ndim == 3 else np.moveaxis(raw, axis, 1)
    assert view.stack == 1 and view.dtype == (np.int8 if space.high.max() < 128 else np.int16)
    assert view.shape == expected.shape[1:]
    out = view.of(raw)
    np.testing.assert_array_equal(out, expected.astype(int))
    networks = [QNetwork((1, *view.shape), 3, DQNConfig(backbone=kind, width=0.25)) for kind in ("minatar", "mlp")]
    replay = Replay(20, 1, view.shape, stack=1, dtype=torch.from_numpy(out).dtype)
    for _ in range(4):
        replay.add(out[1:], *(np.ones(1) for _ in range(3)), np.zeros(1, bool), np.zeros(1, bool))
    kept = replay.batch_at_moments(np.array([1]), np.array([0]))["s_tm1"]
    for network in networks:
        as_floats = network(torch.from_numpy(expected[1:, None].astype(np.float32)))
        torch.testing.assert_close(network(torch.from_numpy(out[1:, None])), as_floats)
        torch.testing.assert_close(network(kept), as_floats)


@pytest.mark.parametrize("kind", [kind for kind in BACKBONES if kind != "minatar"])
def test_every_backbone_takes_numbers_and_bytes(kind):
    network = QNetwork((2, 3, 40, 40), 3, DQNConfig(backbone=kind, width=0.1))
    numbers = torch.randint(0, 200, (2, 2, 3, 40, 40), dtype=torch.int16)
    torch.testing.assert_close(network(numbers.to(torch.uint8)), network(numbers / 255), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(network(numbers), network(numbers.float()))


@pytest.mark.parametrize(
    ("space", "obs", "words"),
    [
        (Box(-1, 1, (3,)), np.zeros(4), r"something of shape \(4,\), and its space has \(3,\)"),
        (Box(-1, 1, (3,)), "up", "shape"),
        (Box(-1, 1, ()), None, "object instead of numbers"),
        (Box(0, 255, (2,), np.uint8), [3, 256], "none of its space's uint8"),
        (Box(0, 255, (2,), np.uint8), [3, 2.5], "none of its space's uint8"),
        (Box(0, 9, (2, 2), np.uint8), np.full((2, 2), 200, np.uint8), "200, and its space ends at 9"),
        (Discrete(3), 3, r"3, outside Discrete\(3\)"),
        (Discrete(3, start=1), 0, "outside"),
        (Discrete(3), -1, "outside"),
        (Discrete(3), None, "outside"),
        (Discrete(3), 1.5, "outside"),
        (MultiBinary(2), [0, 2], "outside"),
        (MultiDiscrete([2, 3]), [2, 0], "outside"),
        (MultiDiscrete([2, 3]), [1], "outside"),
        (spaces.Dict(a=Discrete(2), b=Box(0, 1, (2,))), {"a": 1}, "without 'b'"),
        (spaces.Dict(a=Discrete(2), b=Box(0, 1, (2,))), {"a": 1, "b": [0.0]}, "as 'b' something of shape"),
        (spaces.Tuple((Discrete(2), Discrete(2))), (1, 2), "as 1 2, outside"),
        (spaces.Tuple((Discrete(2), Discrete(2))), 1, "without 0"),
    ],
)
def test_what_lies_outside_its_space_is_refused(space, obs, words):
    with pytest.raises(ValueError, match=words):
        reader_of(space)(obs)


def test_types_that_environments_mix_up_are_taken():
    assert reader_of(Discrete(3, start=1))(np.int64(3)).tolist() == [0, 0, 1]
    assert reader_of(Discrete(3))(np.array(1)).tolist() == [0, 1, 0]
    assert reader_of(MultiDiscrete([2, 2]))([1, 0]).tolist() == [0, 1, 1, 0]
    assert reader_of(MultiBinary(2))([True, False]).tolist() == [1, 0]
    both = reader_of(spaces.Dict(a=Box(0, 1, (2,)), b=Discrete(2)))({"b": 1, "a": [0.25, 7.0], "c": "more"})
    assert both.tolist() == [0.25, 7.0, 0, 1]  # bounds are a matter of taste
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planes = reader_of(Box(0, 255, (2,), np.uint8))(np.array([3, 255]))
        assert planes.dtype == np.uint8 and reader_of(Box(0, 1, ()))(0.5).shape == ()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (gym_toys.SPACES["text"], "x observes Text.*--wrappers module:Class"),
        (gym_toys.SPACES["graph"], "x observes Graph.*--wrappers"),
        (gym_toys.SPACES["sequence"], "x observes Sequence.*--wrappers"),
        (gym_toys.SPACES["minigrid"], "'image' among them is an image.*--wrappers minigrid.wrappers:ImgObsWrapper"),
        (gym_toys.SPACES["tuple"], "1 among them is Text.*--wrappers"),
        (spaces.Dict(a=spaces.Tuple((Box(0, 1, (3, 3), bool),))), "0 among them is an image.*--wrappers"),
    ],
)
def test_what_no_network_takes_is_refused_with_a_remedy(space, words):
    with pytest.raises(ValueError, match=words):
        check_observations(space, "x")


# -- actions -----------------------------------------------------------------------------------------------------------

actions = st.one_of(
    st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 40), st.integers(-9, 9)),
    st.integers(1, 6).map(MultiBinary),
    st.sampled_from([MultiBinary([2, 3]), MultiDiscrete([[2, 3], [1, 2]])]),
    st.lists(st.integers(1, 5), min_size=1, max_size=4).map(MultiDiscrete),
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(lambda n: MultiDiscrete(n, start=[-2] * len(n))),
    st.builds(
        lambda shape, low, width, dtype: Box(low, low + width, shape, dtype),
        st.sampled_from([(), (1,), (2,), (1, 2)]),
        st.integers(-3, 3),
        st.integers(4, 9),
        st.sampled_from([np.float32, np.float64, np.int32]),
    ),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(actions, st.integers(2, 5))
def test_every_number_is_an_action_and_another_one(space, bins):
    num_actions, of = numbered_actions(space, bins, "x")
    taken = [of(number) for number in range(num_actions)]
    assert all(space.contains(action) for action in taken)
    assert len({np.asarray(action).tobytes() for action in taken}) == num_actions
    stacked = np.stack([np.asarray(action) for action in taken])
    if isinstance(space, Box):
        widths = (space.high.ravel() - space.low.ravel()).tolist()  # of integers there may be fewer than bins
        assert num_actions == math.prod(min(bins, width + 1) if space.dtype == np.int32 else bins for width in widths)
        corners = itertools.product(*zip(space.low.ravel(), space.high.ravel(), strict=True))
        assert {tuple(row) for row in stacked.reshape(num_actions, -1).tolist()} >= {
            tuple(corner) for corner in np.array(list(corners)).tolist()
        }
    else:
        space.seed(0)
        samples = {np.asarray(space.sample()).tobytes() for _ in range(30)}
        assert samples <= {np.asarray(action).astype(space.dtype).tobytes() for action in taken}


def test_bins_are_evenly_spread():
    _, of = numbered_actions(Box(np.array([-2, 0]), np.array([2, 1]), dtype=np.float64), 3, "x")
    assert [of(n).tolist() for n in (0, 1, 3, 4, 8)] == [[-2, 0], [-2, 0.5], [0, 0], [0, 0.5], [2, 1]]


@pytest.mark.parametrize(
    ("space", "bins", "words"),
    [
        (Box(-1, 1, (2,)), 0, "--bins 5 makes five values of each dimension"),
        (Box(-1, 1, (2,)), 1, "--bins 5"),
        (Box(-1, 1, (6,)), 5, "15,625 actions.*at most 4,096.*fewer --bins"),
        (Box(-np.inf, 1, (1,)), 5, "without bounds.*by a wrapper"),
        (MultiDiscrete([17, 17, 17]), 0, "4,913 actions.*at most 4,096"),
        (MultiBinary(13), 0, "8,192 actions"),
        (MultiBinary(70), 0, "actions.*at most 4,096"),
        (Discrete(40_000), 0, "40,000 actions.*at most 32,767"),
        (spaces.Dict(a=Discrete(2)), 0, "Discrete by a wrapper, --wrappers module:Class"),
        (spaces.Tuple((Discrete(2),)), 0, "--wrappers module:Class"),
        (Text(3), 0, "--wrappers module:Class"),
    ],
)
def test_actions_that_cannot_be_numbered_are_refused_with_a_remedy(space, bins, words):
    with pytest.raises(ValueError, match=words):
        numbered_actions(space, bins, "x")


def test_the_largest_that_can():
    assert numbered_actions(MultiBinary(12), 0, "x")[0] == numbered_actions(Box(0, 1, (6,)), 4, "x")[0] == 4096


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_masks_of_dimensions_allow_what_gymnasium_samples(sizes, data):
    space = MultiDiscrete(sizes, seed=1)
    mask = tuple(np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), np.int8) for n in sizes)
    num_actions, of = numbered_actions(space, 0, "x")
    allowed = allowed_of(mask)
    assert allowed.dtype == bool and len(allowed) == num_actions
    for number in range(num_actions):
        assert allowed[number] == all(part[value] for part, value in zip(mask, of(number), strict=True))
    assert allowed_of(np.array([1, 0], np.int8)).tolist() == allowed_of([True, False]).tolist() == [True, False]
