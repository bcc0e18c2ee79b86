"""AlphaGo's search: two statistics an edge, worked out by hand; its limits; and the player around it."""

import numpy as np
import pytest
import torch

from agents.alphago.network import PolicyNetwork, ValueNetwork
from agents.alphago.parts import Parts, describe, evaluators, from_files

# -- parts


def parts():
    torch.manual_seed(5)
    return Parts(PolicyNetwork(3, 48, 8, 2), ValueNetwork(3, 49, 8, 2), np.arange(7, dtype=np.float32))


@pytest.mark.parametrize("kept", [("policy", "value", "rollout"), ("policy",), ("value",), ("rollout",)])
def test_parts_survive_a_description(kept):
    whole = parts()
    some = Parts(**{name: getattr(whole, name) for name in kept})
    config, weights = describe(some)
    assert set(config) == set(kept) == {key.partition(".")[0] for key in weights}
    again = from_files({"config": config | {"search": {}}}, weights)
    planes = np.random.default_rng(0).integers(0, 2, (4, 49, 3, 3), np.uint8)
    for ours, theirs in zip(evaluators(some, "fp32"), evaluators(again, "fp32"), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_array_equal(ours(planes), theirs(planes))
    if again.policy is not None:
        assert evaluators(again)[0](planes).shape == (4, 10)
    if again.rollout is not None:
        np.testing.assert_array_equal(again.rollout, whole.rollout)


def test_weights_without_a_config_and_the_other_way_round_are_refused():
    config, weights = describe(parts())
    with pytest.raises(ValueError, match="config of value"):
        from_files({"config": {"value": config["value"]}}, weights)
    with pytest.raises(ValueError, match="config of nothing"):
        from_files({"config": {}}, {})
    with pytest.raises(RuntimeError):
        from_files({"config": config}, {k: w for k, w in weights.items() if k != "policy.bias"})
    with pytest.raises(KeyError):
        from_files({"config": config}, {k: w for k, w in weights.items() if not k.startswith("rollout")})


def test_an_evaluator_takes_the_present_weights_when_told():
    some = parts()
    policy, _ = evaluators(some, "fp32")
    planes = np.ones((1, 48, 3, 3), np.uint8)
    before = policy(planes)
    with torch.no_grad():
        some.policy.bias += 1
    np.testing.assert_array_equal(policy(planes), before)
    policy.refresh()
    np.testing.assert_allclose(policy(planes)[0, :9], before[0, :9] + 1, atol=1e-6)
    assert policy(planes)[0, 9] == pytest.approx(before[0, 9])
