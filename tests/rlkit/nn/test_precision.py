"""bf16 on any CPU: fast where oneDNN has it, and by other kernels where it has not."""

import copy

import pytest
import torch
from test_board_network import boards, build

from rlkit import bf16
from rlkit.nn.board import pack_
from rlkit.nn.nature import NatureCNN
from rlkit.nn.recurrent import Recurrent
from rlkit.trainer import TrainConfig, Trainer

CPU = torch.device("cpu")


@pytest.fixture
def without(monkeypatch):
    """On a CPU without bf16 in oneDNN, or with ONEDNN_MAX_CPU_ISA=AVX2, whatever its features are."""
    monkeypatch.setattr(bf16, "_onednn_bf16", False)


def refuse(*args, **options):
    raise RuntimeError("could not create a primitive descriptor")


def test_the_attempt_fails_for_nothing_but_bf16(monkeypatch):
    monkeypatch.setattr(torch, "bfloat16", torch.float32)
    assert bf16._learns_in_bf16()


@pytest.mark.parametrize("where", [(torch, "conv2d"), (torch, "lstm"), (torch.ops.mkldnn, "_convolution_pointwise")])
def test_one_refusal_is_a_no(monkeypatch, where):
    monkeypatch.setattr(torch, "bfloat16", torch.float32)
    monkeypatch.setattr(*where, refuse)
    assert not bf16._learns_in_bf16()


def test_onednn_is_asked_once_without_drawing_random_numbers(monkeypatch):
    monkeypatch.setattr(bf16, "_onednn_bf16", None)
    before = torch.get_rng_state()
    with torch.inference_mode():
        found = bf16.onednn_has_bf16()
    assert torch.equal(torch.get_rng_state(), before)
    # What torch asks before a convolution goes by ONEDNN_MAX_CPU_ISA too. With AVX-512, oneDNN can do the rest as well.
    believed = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert believed if found else not (believed and torch.cpu.get_capabilities().get("avx512_bw"))
    monkeypatch.setattr(bf16, "_learns_in_bf16", lambda: not found)
    assert bf16.onednn_has_bf16() == found


def test_auto_is_fp32_where_onednn_refuses_what_the_cpu_could(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": True})
    for able, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(bf16, "_onednn_bf16", able)
        assert bf16.fastest_precision(CPU) == precision


@pytest.mark.parametrize("backbone", ["resnet", "alphago"])
def test_towers_without_it(without, monkeypatch, backbone):
    monkeypatch.setattr(torch.ops.mkldnn, "_convolution_pointwise", refuse)
    network, planes = build(backbone).to(torch.bfloat16).eval(), boards(3, 5, 5)
    pack_(network)
    assert not any(hasattr(part, "packed") for part in network.modules())
    expected = {name: out.detach() for name, out in network(planes).items()}
    with torch.inference_mode():
        torch.testing.assert_close(network(planes), expected)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_cores_without_it(without, kind):
    """They are then in fp32, and so is their state."""
    core, x = Recurrent(kind, 5, 16, layers=2), torch.randn(3, 7, 5)
    exact, _ = core(x)
    expected = torch.autograd.grad(exact.square().sum(), list(core.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        out, last = core(x)
        steps, state = [], core.initial_state(3)
        for t in range(7):
            step, state = core(x[:, t : t + 1], state)
            steps.append(step)
    torch.testing.assert_close(out, exact)
    torch.testing.assert_close(torch.cat(steps, 1), out)
    torch.testing.assert_close(state, last)
    got = torch.autograd.grad(out.square().sum(), list(core.parameters()))
    torch.testing.assert_close(got, expected)


def test_the_trainer_learns_in_bf16_without_onednn(without):
    """Where oneDNN has the forward pass alone, torch would take it, and fail in backward."""
    seen = []

    def loss_fn(model, batch):
        out = model(batch["x"])
        out.register_hook(lambda _: seen.append(("backward", torch.backends.mkldnn.enabled)))
        seen.append(("forward", torch.backends.mkldnn.enabled))
        return (out.float() - 1).square().mean(), {"bytes": torch.tensor(out.dtype.itemsize)}

    torso, x = NatureCNN((1, 36, 36), width=0.1), torch.rand(8, 1, 36, 36)
    losses = {}
    for precision, size, onednn in (("fp32", 4, True), ("bf16", 2, False)):
        trainer = Trainer(copy.deepcopy(torso), loss_fn, TrainConfig(precision=precision, lr=1e-3))
        auxes = [trainer.update({"x": x}) for _ in range(5)]
        losses[precision] = [aux["loss"].item() for aux in auxes]
        assert auxes[0]["bytes"] == size and torch.backends.mkldnn.enabled
        assert set(seen) == {("forward", onednn), ("backward", onednn)}
        seen.clear()
    assert losses["fp32"][-1] < losses["fp32"][0]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    with pytest.raises(RuntimeError, match="primitive"), bf16.kernels_for("bf16", CPU):
        refuse()
    assert torch.backends.mkldnn.enabled


@pytest.mark.parametrize(("precision", "able"), [("fp32", False), ("bf16", True)])
def test_onednn_stays_on_where_it_can(monkeypatch, precision, able):
    monkeypatch.setattr(bf16, "_onednn_bf16", able)
    with bf16.kernels_for(precision, CPU):
        assert torch.backends.mkldnn.enabled
