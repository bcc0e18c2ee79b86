"""Attention, blocks, gates and the gated core: by hand, against torch's own modules, and one step against all."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rlkit.nn.transformer import (
    Attention,
    Block,
    Cache,
    Gate,
    Past,
    Shape,
    Stack,
    TransformerCore,
    attend,
    causal_mask,
    rotary,
    rotate,
    sinusoidal,
)

SHAPE = Shape(12, heads=3, layers=2, hidden=20)


def count(model):
    return sum(p.numel() for p in model.parameters())


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def scattered(model, std=0.3):
    """All weights random, those that begin at one or zero as well."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model.eval()


def copied_attention(ours, theirs):
    ours.qkv.weight.data, ours.qkv.bias.data = theirs.in_proj_weight.data, theirs.in_proj_bias.data
    ours.out.load_state_dict(theirs.out_proj.state_dict())


def copied_block(ours, theirs):
    """From torch's encoder or decoder layer."""
    copied_attention(ours.attention, theirs.self_attn)
    if ours.cross is not None:
        copied_attention(ours.cross, theirs.multihead_attn)
    ours.dense1.load_state_dict(theirs.linear1.state_dict())
    ours.dense2.load_state_dict(theirs.linear2.state_dict())
    for i, norm in enumerate(ours.norms, 1):
        norm.load_state_dict(getattr(theirs, f"norm{i}").state_dict())


# -- attention ---------------------------------------------------------------------------------------------------------


def test_attend_by_hand():
    q = torch.tensor([[math.log(2) * math.sqrt(2), 0.0], [0.0, 0.0]])
    k, v = torch.eye(2), torch.tensor([[3.0, 0.0], [0.0, 6.0]])
    got, weights = attend(q, k, v)
    close(weights, torch.tensor([[2 / 3, 1 / 3], [1 / 2, 1 / 2]]))
    close(got, torch.tensor([[2.0, 2.0], [1.5, 3.0]]))
    mask = torch.tensor([[True, False], [False, False]])
    got, weights = attend(q, k, v, mask)
    assert torch.equal(weights, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert torch.equal(got, torch.tensor([[3.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_attend_equals_torchs_fused_form(share):
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    mask = torch.rand(2, 1, 5, 7) >= share
    got, weights = attend(q, k, v, mask)
    close(got, F.scaled_dot_product_attention(q, k, v, mask))
    close(weights.sum(3), mask.any(3).float().expand(2, 3, 5))
    assert not weights.masked_select(~mask).any()


@pytest.mark.parametrize("heads", [1, 3, 12])
@pytest.mark.parametrize("cross", [False, True])
def test_attention_equals_torchs_multihead_attention(heads, cross):
    theirs = scattered(nn.MultiheadAttention(12, heads, batch_first=True))
    ours = Attention(12, heads)
    copied_attention(ours, theirs)
    assert count(ours) == count(theirs)
    x, memory = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    other = memory if cross else x
    real = torch.ones(2, 1, 1, other.shape[1], dtype=torch.bool)  # not padding
    real[0, ..., -2:] = False
    looks = torch.rand(5, other.shape[1]) < 0.6
    looks[:, 0] = True
    ours.watch = True
    for mask, padding, attn_mask in (
        (None, None, None),
        (real, ~real[:, 0, 0], None),
        (looks, None, ~looks),
        (real & looks, ~real[:, 0, 0], ~looks),
    ):
        y = ours(x, mask=mask, memory=memory if cross else None)
        expected, weights = theirs(
            x, other, other, key_padding_mask=padding, attn_mask=attn_mask, average_attn_weights=False
        )
        close(y, expected)
        close(ours.seen, weights)


def test_causal_is_the_lower_triangle():
    attention = scattered(Attention(12, 3))
    x = torch.randn(2, 6, 12)
    padding = torch.ones(2, 1, 1, 6, dtype=torch.bool)
    padding[0, ..., 4:] = False
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    close(attention(x, causal=True), attention(x, mask=causal_mask(6)))
    close(attention(x, causal=True, mask=padding), attention(x, mask=causal_mask(6) & padding))


@pytest.mark.parametrize("causal", [False, True])
def test_watching_changes_nothing(causal):
    attention = scattered(Attention(12, 3))
    x = torch.randn(2, 6, 12)
    expected = attention(x, causal=causal)
    assert attention.seen is None
    attention.watch = True
    close(attention(x, causal=causal), expected)
    assert attention.seen.shape == (2, 3, 6, 6) and not attention.seen.requires_grad
    close(attention.seen.sum(3), torch.ones(2, 3, 6))
    assert bool(attention.seen.triu(1).any()) is not causal


def test_rows_that_may_look_nowhere_stay_finite():
    attention = scattered(Attention(12, 3))
    x = torch.randn(2, 6, 12, requires_grad=True)
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    mask[0, :, 2] = False
    mask[1] = False
    for watch in (False, True):
        attention.watch = watch
        y = attention(x, mask=mask)
        assert y.isfinite().all()
        close(y[0, 2], attention.out.bias)
        close(y[1], attention.out.bias.expand(6, 12))
    y.square().sum().backward()
    assert x.grad.isfinite().all() and all(p.grad.isfinite().all() for p in attention.parameters())


@pytest.mark.parametrize("heads", [5, 0, -3, 24])
def test_heads_that_cannot_share_equally(heads):
    with pytest.raises(ValueError, match=f"12 channels cannot be shared among {heads} heads"):
        Attention(12, heads)


def test_attention_dropout_only_in_training():
    attention = Attention(12, 3, dropout=0.5)
    x = torch.randn(2, 6, 12)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


@pytest.mark.parametrize("chunks", [[1] * 7, [3, 1, 3], [6, 1], [2, 5], [7]])
@pytest.mark.parametrize("turned", [False, True])
def test_attention_goes_on_from_its_cache(chunks, turned):
    attention = scattered(Attention(12, 3))
    x = torch.randn(2, 7, 12)
    turns = rotary(torch.arange(7)[:, None], 4, base=100) if turned else None
    expected = attention(x, turns, causal=True)
    cache, begin, outs = Cache(), 0, []
    for size in chunks:
        now = slice(begin, begin + size)
        there = (turns[0][now], turns[1][now]) if turns else None
        outs.append(attention(x[:, now], there, causal=True, cache=cache))
        begin += size
    close(torch.cat(outs, 1), expected)
    assert cache.k.shape == cache.v.shape == (2, 3, 7, 4)


# -- where a row stands ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 7, 16])
def test_sinusoidal_is_the_papers_formula(channels):
    table = sinusoidal(50, channels)
    assert table.shape == (50, channels)
    for position, c in itertools.product((0, 1, 17, 49), range(channels)):
        angle = position / 10_000 ** ((c - c % 2) / channels)
        expected = math.cos(angle) if c % 2 else math.sin(angle)
        assert table[position, c].item() == pytest.approx(expected, abs=1e-5)
    assert sinusoidal(0, channels).shape == (0, channels)


def test_rotation_by_hand():
    """Each pair is a point in the plane that turns by its place."""
    turns = rotary(torch.tensor([[0], [1], [2]]), 4, base=100)
    x = torch.tensor([1.0, 10.0, 0.0, 0.0]).expand(3, 4)  # the pairs (1, 0) and (10, 0)
    angles = torch.tensor([[0.0, 0.0], [1.0, 0.1], [2.0, 0.2]])
    expected = torch.cat([angles.cos() * torch.tensor([1, 10]), angles.sin() * torch.tensor([1, 10])], 1)
    close(rotate(x, turns), expected)


@pytest.mark.parametrize("axes", [1, 2])
def test_rotary_products_depend_on_the_difference_alone(axes):
    q, k = torch.randn(8), torch.randn(8)

    def product(here, there):
        places = torch.tensor([here, there])[:, :axes]
        a, b = rotate(torch.stack([q, k]), rotary(places, 8, base=100))
        return a @ b

    assert product((5, 2), (3, 7)).item() == pytest.approx(product((45, 32), (43, 37)).item(), abs=1e-4)
    assert product((5, 2), (3, 7)).item() != pytest.approx(product((5, 2), (4, 7)).item(), abs=1e-2)
    rows = rotate(q.expand(3, 8), rotary(torch.tensor([[0, 0], [7, 3], [90, 4]])[:, :axes], 8, base=100))
    close(rows.norm(dim=1), q.norm().expand(3))
    assert torch.equal(rows[0], q)


@pytest.mark.parametrize("features, axes", [(3, 1), (6, 2), (2, 2)])
def test_rotary_refuses_what_are_no_pairs(features, axes):
    with pytest.raises(ValueError, match=f"{features} features are no multiple of {2 * axes}"):
        rotary(torch.zeros(2, axes), features, base=100)


def test_attention_with_rotary_places_can_be_moved():
    attention = scattered(Attention(12, 3))
    x = torch.randn(2, 6, 12)
    near, far = (attention(x, rotary(torch.arange(b, b + 6)[:, None], 4, base=100)) for b in (0, 40))
    close(near, far, tolerance=1e-4)
    assert (near - attention(x)).abs().max() > 1e-2


# -- blocks and stacks -------------------------------------------------------------------------------------------------

both_norms = pytest.mark.parametrize("norm_first", [False, True])
both_activations = pytest.mark.parametrize("activation", ["relu", "gelu"])


@both_norms
@both_activations
def test_block_equals_torchs_encoder_layer(norm_first, activation):
    shape = replace(SHAPE, norm_first=norm_first, activation=activation)
    theirs = scattered(nn.TransformerEncoderLayer(12, 3, 20, 0.0, activation, batch_first=True, norm_first=norm_first))
    ours = Block(shape).eval()
    copied_block(ours, theirs)
    assert count(ours) == count(theirs)
    x, padding = torch.randn(2, 5, 12), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    close(ours(x), theirs(x))
    close(ours(x, mask=~padding[:, None, None]), theirs(x, src_key_padding_mask=padding))
    close(ours(x, causal=True), theirs(x, src_mask=~causal_mask(5), is_causal=True))


@both_norms
@both_activations
def test_block_equals_torchs_decoder_layer(norm_first, activation):
    shape = replace(SHAPE, norm_first=norm_first, activation=activation, cross=True)
    theirs = scattered(nn.TransformerDecoderLayer(12, 3, 20, 0.0, activation, batch_first=True, norm_first=norm_first))
    ours = Block(shape).eval()
    copied_block(ours, theirs)
    assert count(ours) == count(theirs)
    x, memory = torch.randn(2, 5, 12), torch.randn(2, 4, 12)
    padding = torch.tensor([[False] * 4, [False] * 3 + [True]])
    close(
        ours(x, causal=True, memory=memory, memory_mask=~padding[:, None, None]),
        theirs(x, memory, tgt_mask=~causal_mask(5), memory_key_padding_mask=padding),
    )


@both_norms
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_stacks_equal_torchs_transformer(norm_first):
    shape = replace(SHAPE, norm_first=norm_first, activation="relu")
    theirs = scattered(nn.Transformer(12, 3, 2, 2, 20, 0.0, batch_first=True, norm_first=norm_first))
    encoder, decoder = Stack(shape, final_norm=True).eval(), Stack(replace(shape, cross=True), final_norm=True).eval()
    assert count(encoder) + count(decoder) == count(theirs)
    for ours, torchs in ((encoder, theirs.encoder), (decoder, theirs.decoder)):
        for block, layer in zip(ours.blocks, torchs.layers, strict=True):
            copied_block(block, layer)
        ours.norm.load_state_dict(torchs.norm.state_dict())
    x, y = torch.randn(2, 6, 12), torch.randn(2, 4, 12)
    padding = torch.tensor([[False] * 6, [False] * 3 + [True] * 3])
    memory = encoder(x, mask=~padding[:, None, None])
    expected = theirs(
        x,
        y,
        tgt_mask=~causal_mask(4),
        src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
        tgt_is_causal=True,
    )
    close(decoder(y, causal=True, memory=memory, memory_mask=~padding[:, None, None]), expected)


def test_the_last_norm_follows_the_first():
    assert isinstance(Stack(SHAPE).norm, nn.LayerNorm)
    assert isinstance(Stack(replace(SHAPE, norm_first=False)).norm, nn.Identity)
    assert isinstance(Stack(replace(SHAPE, norm_first=False), final_norm=True).norm, nn.LayerNorm)
    assert isinstance(Stack(SHAPE, final_norm=False).norm, nn.Identity)
    assert Block(replace(SHAPE, hidden=0)).dense1.out_features == 48


SHAPES = {
    "pre-norm": SHAPE,
    "post-norm": replace(SHAPE, norm_first=False, activation="relu"),
    "cross": replace(SHAPE, cross=True),
    "gated": replace(SHAPE, gated=True),
    "gated cross": replace(SHAPE, gated=True, cross=True),
}
every_shape = pytest.mark.parametrize("name", SHAPES)


def memory_of(name):
    return {"memory": torch.randn(2, 4, 12)} if SHAPES[name].cross else {}


@every_shape
def test_a_later_row_changes_no_earlier_one(name):
    stack = scattered(Stack(SHAPES[name]))
    x, memory = torch.randn(2, 7, 12), memory_of(name)
    changed = x.clone()
    changed[:, 4] += torch.randn(12)
    a, b = stack(x, causal=True, **memory), stack(changed, causal=True, **memory)
    assert torch.equal(a[:, :4], b[:, :4])
    assert (a != b)[:, 4:].any(2).all()


@every_shape
@pytest.mark.parametrize("chunks", [[1] * 7, [3, 1, 3], [2, 5]])
def test_stack_goes_on_from_its_past(name, chunks):
    stack = scattered(Stack(SHAPES[name]))
    x, memory = torch.randn(2, 7, 12), memory_of(name)
    expected = stack(x, causal=True, **memory)
    past, outs = Past(), []
    for begin, end in itertools.pairwise([0, *itertools.accumulate(chunks)]):
        outs.append(stack(x[:, begin:end], causal=True, past=past, **memory))
        assert past.length == end
    close(torch.cat(outs, 1), expected)


@every_shape
def test_a_past_keeps_the_sequences_that_are_selected(name):
    stack = scattered(Stack(SHAPES[name]))
    x, memory = torch.randn(2, 7, 12), memory_of(name)
    rows, past = torch.tensor([1, 0, 1]), Past()
    stack(x[:, :4], causal=True, past=past, **memory)
    past.select(rows)
    new = torch.randn(3, 3, 12)
    got = stack(new, causal=True, past=past, **{k: v[rows] for k, v in memory.items()})
    whole = torch.cat([x[rows, :4], new], 1)
    close(got, stack(whole, causal=True, **{k: v[rows] for k, v in memory.items()})[:, 4:])


@every_shape
def test_stack_gradients_batches_and_bf16(name):
    stack = Stack(SHAPES[name]).eval()
    x, memory = torch.randn(2, 5, 12), memory_of(name)
    expected = stack(x, causal=True, **memory)
    (expected * torch.randn(12)).sum().backward()
    without = [key for key, p in stack.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    for row in range(2):
        close(
            stack(x[row : row + 1], causal=True, **{k: v[row : row + 1] for k, v in memory.items()})[0], expected[row]
        )
    stack.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = stack(x, causal=True, **memory)
        past = Past()
        steps = [stack(x[:, t : t + 1], causal=True, past=past, **memory) for t in range(5)]
        (out * torch.randn(12)).float().sum().backward()
    for one in (out, torch.cat(steps, 1)):
        assert (one.float() - expected).norm() < 0.03 * expected.norm()
    assert all(p.grad.isfinite().all() for p in stack.parameters())


# -- the gate and the gated core ---------------------------------------------------------------------------------------


def test_gate_is_the_papers():
    """Parisotto et al. 2019, section 3.2: r, z and the candidate, each of x and y, and the bias in z alone."""
    gate = scattered(Gate(4))
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    w_r, w_z, w_g = gate.of_y.weight.split(4)
    u_r, u_z = gate.of_x.weight.split(4)
    r = torch.sigmoid(y @ w_r.t() + x @ u_r.t())
    z = torch.sigmoid(y @ w_z.t() + x @ u_z.t() - gate.bias)
    h = torch.tanh(y @ w_g.t() + (r * x) @ gate.candidate.weight.t())
    close(gate(x, y), (1 - z) * x + z * h)


def test_gate_begins_near_the_identity():
    x, y = torch.randn(5, 64), torch.randn(5, 64)
    gate = Gate(64)
    assert gate.bias.eq(2).all()
    moved = (gate(x, y) - x).norm() / x.norm()
    assert 0.02 < moved < 0.3
    close(Gate(64, bias=50.0)(x, y), x)
    for part in (gate.of_x, gate.of_y, gate.candidate):
        nn.init.zeros_(part.weight)
    close(gate(x, y), x / (1 + math.exp(-2)))  # 1 - sigmoid(-2)


WINDOW, STEPS = 5, 23


def build(window=WINDOW, layers=2):
    torch.manual_seed(3)
    return scattered(TransformerCore(6, 12, layers, heads=3, window=window))


def some_resets(share=0.1):
    reset = torch.rand(3, STEPS) < share
    reset[0] = False  # one goes on for longer than any window
    return reset


def plain(core, x, reset):
    """The core's equations, over whole episodes from their beginning, without any state."""
    y = core.enter(x)
    t, episode = torch.arange(x.shape[1]), reset.cumsum(1)
    back = t[:, None] - t
    mask = (back >= 0) & (back <= core.window) & (episode[:, :, None] == episode[:, None])
    for block in core.blocks:
        a = block.attention
        cos, sin = rotary(t[:, None], y.shape[2] // a.heads, base=100)
        q, k, v = (z.unflatten(2, (a.heads, -1)).transpose(1, 2) for z in a.qkv(block.norms[0](y)).chunk(3, 2))
        seen, _ = attend(rotate(q, (cos, sin)), rotate(k, (cos, sin)), v, mask[:, None])
        y = block.gates[0](y, a.out(seen.transpose(1, 2).flatten(2)).relu())
        y = block.gates[1](y, block.dense2(F.relu(block.dense1(block.norms[1](y)))).relu())
    return y


def in_chunks(core, x, reset, chunks, state=None):
    outs = []
    for begin, end in itertools.pairwise([0, *itertools.accumulate(chunks)]):
        out, state = core(x[:, begin:end], state, None if reset is None else reset[:, begin:end])
        outs.append(out)
    return torch.cat(outs, 1), state


@pytest.mark.parametrize("window", [0, 1, WINDOW, 40])
@pytest.mark.parametrize("chunks", [[1] * STEPS, [STEPS], [7, 1, 15], [3, 5, 5, 5, 5], [2] * 11 + [1]])
@pytest.mark.slow
def test_core_in_any_chunks_is_the_plain_computation(window, chunks):
    core, x, reset = build(window), torch.randn(3, STEPS, 6), some_resets()
    expected = plain(core, x, reset)
    out, state = in_chunks(core, x, reset, chunks)
    close(out, expected, tolerance=1e-4)
    close(in_chunks(core, x, None, chunks)[0], plain(core, x, torch.zeros_like(reset)), tolerance=1e-4)
    assert [part.shape for part in state] == [(3, 2, window, 12), (3, 2, window, 12), (3, window)]
    # And a state made in one way goes on as one made in another.
    more = torch.randn(3, 4, 6)
    close(core(more, state)[0], core(more, core(x, None, reset)[1])[0], tolerance=1e-4)


def test_core_reset_equals_a_fresh_state():
    core, x = build(), torch.randn(3, STEPS, 6)
    _, state = core(torch.randn(3, 9, 6))
    fresh, fresh_state = core(x)
    reset = torch.zeros(3, STEPS, dtype=torch.bool)
    reset[:, 0] = True
    out, later = core(x, state, reset)
    close(out, fresh)
    for a, b in zip(later, fresh_state, strict=True):
        close(a, b)
    assert (core(x, state)[0] - fresh).abs().max() > 1e-3
    # In the middle of one row alone: the others do not notice.
    reset = torch.zeros(3, STEPS, dtype=torch.bool)
    reset[1, 8] = True
    out, _ = core(x, state, reset)
    close(out[1, 8:], core(x[1:2, 8:])[0][0])
    close(out[[0, 2]], core(x, state)[0][[0, 2]])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("chunks", [[STEPS], [1] * STEPS, [9, 14]])
def test_core_forgets_what_lies_before_the_window(layers, chunks):
    """Each layer looks back by one window: what is nearer counts, what is farther does not."""
    core, x = build(layers=layers), torch.randn(1, STEPS, 6)
    changed = x.clone()
    changed[:, 2] += 3
    difference = (in_chunks(core, x, None, chunks)[0] - in_chunks(core, changed, None, chunks)[0]).abs().amax(2)[0]
    reach = 2 + layers * WINDOW
    assert not difference[:2].any() and not difference[reach + 1 :].any()
    assert (difference[2 : reach + 1] > 0).all()


def test_core_known_says_what_may_be_seen():
    core = build()
    assert not core.initial_state(2)[2].any()
    x = torch.randn(2, 3, 6)
    reset = torch.tensor([[False, False, False], [False, True, False]])
    _, (keys, values, known) = core(x, None, reset)
    assert known.tolist() == [[False, False, True, True, True], [False, False, False, True, True]]
    # What is not known may be anything.
    for part in (keys, values):
        part.masked_fill_(~known[:, None, :, None], 1e6)
    close(core(x, (keys, values, known))[0], core(x, core(x, None, reset)[1])[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_core_without_gradients(mode):
    core, x, reset = build(), torch.randn(3, STEPS, 6), some_resets()
    expected, _ = core(x, None, reset)
    with mode():
        out, state = in_chunks(core, x, reset, [1] * STEPS)
    close(out, expected, tolerance=1e-4)
    assert not any(part.requires_grad for part in state)


def test_core_in_bf16():
    torch.manual_seed(3)
    core, x, reset = TransformerCore(6, 12, 2, heads=3, window=WINDOW), torch.randn(3, STEPS, 6), some_resets()
    expected, state = core(x, None, reset)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = core(x, None, reset)
        steps, later = in_chunks(core, x, reset, [1] * STEPS)
        out.float().square().sum().backward()
    for one in (out, steps):
        assert (one.float() - expected).norm() < 0.05 * expected.norm()
    assert [part.shape for part in later] == [part.shape for part in state]
    assert all(p.grad.isfinite().all() and p.grad.any() for p in core.parameters())
    core(x, tuple(part.clone() for part in later))  # out of bf16 again


def test_core_gradients_reach_parameters_inputs_and_state():
    core = build()
    x = torch.randn(2, 4, 6, requires_grad=True)
    reset = torch.zeros(2, 4, dtype=torch.bool)
    reset[1, 2] = True
    keys, values, known = core(torch.randn(2, 9, 6))[1]
    keys, values = keys.detach().requires_grad_(), values.detach().requires_grad_()
    out, _ = core(x, (keys, values, known), reset)
    out[:, -1].sum().backward()
    assert all(p.grad.any() for p in core.parameters())
    assert (x.grad.abs().sum(2) > 0).tolist() == [[True] * 4, [False, False, True, True]]
    assert keys.grad[0].any() and values.grad[0].any() and not keys.grad[1].any() and not values.grad[1].any()


def test_core_rows_do_not_depend_on_the_batch():
    core, x, reset = build(), torch.randn(3, STEPS, 6), some_resets()
    out, _ = core(x, None, reset)
    for row in range(3):
        close(core(x[row : row + 1], None, reset[row : row + 1])[0][0], out[row])
    assert torch.equal(copy.deepcopy(core)(x, None, reset)[0], out)


@pytest.mark.parametrize(
    "channels, heads, message", [(10, 4, "equally"), (12, 4, "no multiple of 2"), (12, 0, "equally")]
)
def test_core_refuses_channels_that_heads_cannot_share(channels, heads, message):
    with pytest.raises(ValueError, match=message):
        TransformerCore(6, channels, heads=heads)
