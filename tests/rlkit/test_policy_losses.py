import numpy as np
import pytest
import torch

from rlkit.policy_losses import munchausen, soft_policy


def test_munchausen_by_hand():
    q = torch.tensor([[1.0, 3.0]]).log()  # pi = 1/4, 3/4 at temperature 1
    logp = soft_policy(q, 1.0)
    torch.testing.assert_close(logp.exp(), torch.tensor([[0.25, 0.75]]))
    assert munchausen(logp, torch.tensor([1]), 1.0).item() == pytest.approx(np.log(0.75))
    assert munchausen(logp, torch.tensor([0]), 1.0).item() == -1.0, "log .25 = -1.39 is clipped"
    assert munchausen(soft_policy(q / 2, 0.5), torch.tensor([1]), 0.5).item() == pytest.approx(0.5 * np.log(0.75))
