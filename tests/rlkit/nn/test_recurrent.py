"""Recurrent networks against their equations, torch's cells, and themselves one step at a time."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from rlkit.nn.cores import CORES
from rlkit.nn.recurrent import (
    STEPS,
    AdditiveAttention,
    DotAttention,
    Recurrent,
    RecurrentTranslator,
    gru_step,
    lstm_step,
    rnn_step,
)

KINDS = ["rnn", "lstm", "gru"]
TORCH = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
CELLS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}
every_kind = pytest.mark.parametrize("kind", KINDS)
IN, OUT = 5, 6


def count(model):
    return sum(p.numel() for p in model.parameters())


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def random_state(core, batch):
    return tuple(torch.randn_like(part) for part in core.initial_state(batch))


# -- counts and equations ----------------------------------------------------------------------------------------------


@every_kind
def test_counts(kind):
    i, h = 7, 5
    expected = {"lstm": 4 * h * (i + h) + 8 * h, "gru": 3 * h * (i + h) + 6 * h, "rnn": h * (i + h) + 2 * h}[kind]
    assert count(Recurrent(kind, i, h)) == expected
    second = {"lstm": 4 * h * 2 * h + 8 * h, "gru": 3 * h * 2 * h + 6 * h, "rnn": h * 2 * h + 2 * h}[kind]
    assert count(Recurrent(kind, i, h, layers=2)) == expected + second


def test_steps_by_hand():
    """With no weights, all that enters is the biases and the state."""

    def step(function, bias, *state):
        rows = len(bias)
        weights = torch.zeros(rows, 1), torch.zeros(rows, 1), torch.tensor(bias), torch.zeros(rows)
        state = tuple(torch.tensor([[value]]) for value in state)
        return [part.item() for part in function(torch.ones(1, 1), state, weights)]

    far = 50.0  # a gate that is open, or with a minus shut
    assert step(rnn_step, [0.3], 9.0) == pytest.approx([math.tanh(0.3)])
    half = 0.5 * math.tanh(1.0)
    assert step(lstm_step, [0.0] * 4, 9.0, 2.0) == pytest.approx([half, 1.0])
    assert step(lstm_step, [-far, far, 1.0, far], 9.0, 2.0) == pytest.approx([math.tanh(2), 2.0])  # keeps
    assert step(lstm_step, [far, -far, 1.0, far], 9.0, 2.0) == pytest.approx([math.tanh(math.tanh(1)), math.tanh(1)])
    assert step(lstm_step, [far, far, 1.0, -far], 9.0, 2.0) == pytest.approx([0.0, 2 + math.tanh(1)])  # shows nothing
    assert step(gru_step, [0.0] * 3, 3.0) == pytest.approx([1.5])
    assert step(gru_step, [0.0, far, 1.0], 3.0) == pytest.approx([3.0])  # z keeps the old state
    assert step(gru_step, [0.0, -far, 1.0], 3.0) == pytest.approx([math.tanh(1)])


def test_the_reset_gate_acts_after_the_product():
    weights = torch.zeros(3, 1), torch.tensor([[0.0], [0.0], [2.0]]), torch.zeros(3), torch.tensor([0.0, -50.0, 1.0])
    (h,) = gru_step(torch.ones(1, 1), (torch.tensor([[3.0]]),), weights)
    assert h.item() == pytest.approx(math.tanh(0.5 * (2 * 3 + 1)))  # r = 0.5 halves the bias, too


@every_kind
def test_equations_equal_torchs_cells(kind):
    cell = CELLS[kind](IN, OUT)
    x, state = torch.randn(4, IN), tuple(torch.randn(4, OUT) for _ in range(2 if kind == "lstm" else 1))
    expected = cell(x, state if kind == "lstm" else state[0])
    weights = cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh
    for ours, torchs in zip(STEPS[kind](x, state, weights), expected if kind == "lstm" else (expected,), strict=True):
        close(ours, torchs)


@every_kind
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_equations_step_by_step_equal_the_unroll(kind, layers):
    core = Recurrent(kind, IN, OUT, layers)
    x, state = torch.randn(3, 7, IN), random_state(core, 3)
    out, last = core(x, state)
    states = [tuple(part[:, layer] for part in state) for layer in range(layers)]
    for t in range(7):
        y = x[:, t]
        for layer in range(layers):
            states[layer] = STEPS[kind](y, states[layer], core.weights(layer))
            y = states[layer][0]
        close(out[:, t], y)
    for i, part in enumerate(last):
        close(part, torch.stack([state[i] for state in states], 1))


@every_kind
@pytest.mark.parametrize("layers, bidirectional", [(1, False), (2, False), (2, True)])
def test_equals_torchs_own_module(kind, layers, bidirectional):
    theirs = TORCH[kind](IN, OUT, layers, bidirectional=bidirectional)  # time first
    core = Recurrent(kind, IN, OUT, layers, bidirectional=bidirectional)
    core.cells.load_state_dict(theirs.state_dict())
    x, state = torch.randn(3, 8, IN), random_state(core, 3)
    theirs_state = tuple(part.transpose(0, 1).contiguous() for part in state)
    expected, expected_state = theirs(x.transpose(0, 1), theirs_state if kind == "lstm" else theirs_state[0])
    out, last = core(x, state)
    close(out, expected.transpose(0, 1))
    assert out.shape == (3, 8, core.out_features)
    for ours, torchs in zip(last, expected_state if kind == "lstm" else (expected_state,), strict=True):
        close(ours, torchs.transpose(0, 1))


@every_kind
def test_first_weights(kind):
    core = Recurrent(kind, IN, OUT, layers=2, bidirectional=True)
    for name, parameter in core.cells.named_parameters():
        if name.startswith("weight_hh"):
            for gate in parameter.split(OUT):
                close(gate @ gate.t(), torch.eye(OUT))
        elif name.startswith("bias_hh") and kind != "rnn":  # an LSTM's f, a GRU's z: both keep what is there
            assert torch.equal(parameter[OUT : 2 * OUT], torch.ones(OUT))
            assert parameter[:OUT].abs().max() < 1 and parameter[2 * OUT :].abs().max() < 1
        else:
            assert 0 < parameter.abs().max() <= OUT**-0.5


# -- cores: steps, resets, states --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("layers", [1, 2])
def test_cores_by_name_keep_the_contract(name, layers):
    core = CORES[name](IN, 8, layers=layers)
    state = core.initial_state(3)
    x = torch.randn(3, 4, IN)
    out, later = core(x, state)
    assert out.shape == (3, 4, core.out_features) and core.out_features == 8
    for before, after in zip(state, later, strict=True):
        assert before.shape == after.shape and len(before) == 3 and before.dtype == after.dtype
        assert not before.any() and not before.requires_grad
    close(core(x)[0], out)
    steps, state = [], core.initial_state(3)
    for t in range(4):
        y, state = core(x[:, t : t + 1], state)
        steps.append(y)
    close(torch.cat(steps, 1), out)
    out.square().sum().backward()
    assert all(p.grad.any() for p in core.parameters())


@pytest.mark.parametrize("name", CORES)
def test_states_can_be_written_to_part_by_part(name):
    state = CORES[name](IN, 8).initial_state(2)
    state[0][1] = 1
    assert not any(part.any() for part in state[1:]) and not state[0][0].any()


@every_kind
def test_state_shapes(kind):
    core = Recurrent(kind, IN, OUT, layers=2)
    state = core.initial_state(3)
    assert [tuple(part.shape) for part in state] == [(3, 2, OUT)] * (2 if kind == "lstm" else 1)
    assert [tuple(part.shape) for part in core(torch.randn(3, 1, IN), state)[1]] == [tuple(p.shape) for p in state]


def with_resets(core, x, state, reset, chunks):
    """What the core says of x in so many calls."""
    outs, begin = [], 0
    for size in chunks:
        out, state = core(x[:, begin : begin + size], state, reset[:, begin : begin + size])
        outs.append(out)
        begin += size
    assert begin == x.shape[1]
    return torch.cat(outs, 1), state


@every_kind
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_reset_equals_a_fresh_start(kind, layers, share):
    core = Recurrent(kind, IN, OUT, layers)
    x, state, reset = torch.randn(4, 15, IN), random_state(core, 4), torch.rand(4, 15) < share
    out, last = core(x, state, reset)
    for row in range(4):
        begins = [0, *(t for t in range(1, 15) if reset[row, t])]
        for begin, end in itertools.pairwise([*begins, 15]):
            before = tuple(part[row : row + 1] for part in state)
            fresh = begin > 0 or bool(reset[row, 0])
            alone, after = core(x[row : row + 1, begin:end], None if fresh else before)
            close(out[row, begin:end], alone[0])
        for part, expected in zip(last, after, strict=True):
            close(part[row], expected[0])


@every_kind
@pytest.mark.parametrize("chunks", [[1] * 15, [15], [7, 1, 7], [2, 5, 3, 5]])
def test_steps_and_chunks_equal_the_unroll_with_resets(kind, chunks):
    core = Recurrent(kind, IN, OUT, layers=2)
    x, state, reset = torch.randn(4, 15, IN), random_state(core, 4), torch.rand(4, 15) < 0.2
    assert reset.any() and not reset.all(1).any()
    expected, last = core(x, state, reset)
    out, after = with_resets(core, x, state, reset, chunks)
    close(out, expected)
    for a, b in zip(after, last, strict=True):
        close(a, b)
    never = torch.zeros_like(reset)
    close(with_resets(core, x, state, never, chunks)[0], core(x, state)[0])


@every_kind
def test_a_reset_forgets_even_what_is_no_number(kind):
    core = Recurrent(kind, IN, OUT)
    x, state = torch.randn(2, 3, IN), random_state(core, 2)
    for part in state:
        part[0] = torch.nan
    out, _ = core(x, state, torch.tensor([[True, False, False], [False, False, False]]))
    close(out[0], core(x[:1])[0][0])
    assert out.isfinite().all()


@every_kind
def test_the_gradient_goes_through_time_up_to_a_reset(kind):
    core = Recurrent(kind, IN, OUT, layers=2)
    x = torch.randn(2, 9, IN, requires_grad=True)
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[1, 4] = True
    state = tuple(part.requires_grad_() for part in random_state(core, 2))
    out, _ = core(x, state, reset)
    out[:, -1].sum().backward()
    reached = x.grad.abs().sum(2) > 0
    assert reached[0].all() and reached[1].tolist() == [False] * 4 + [True] * 5
    for part in state:
        assert part.grad[0].any() and not part.grad[1].any()


@every_kind
def test_rows_do_not_depend_on_the_batch(kind):
    core = Recurrent(kind, IN, OUT, layers=2)
    x, state = torch.randn(5, 6, IN), random_state(core, 5)
    out, _ = core(x, state)
    for row in range(5):
        close(core(x[row : row + 1], tuple(part[row : row + 1] for part in state))[0][0], out[row])


@every_kind
def test_bf16_steps_and_backward(kind):
    core = Recurrent(kind, IN, 16, layers=2)
    x, reset = torch.randn(3, 10, IN), torch.rand(3, 10) < 0.2
    expected, _ = core(x, None, reset)
    with torch.autocast("cpu", torch.bfloat16):
        out, state = core(x, None, reset)
        again, _ = core(x, state)
        steps, _ = with_resets(core, x, core.initial_state(3), reset, [1] * 10)
        (out.float().sum() + again.float().sum()).backward()
    for one in (out, steps):
        assert (one.float() - expected).norm() < 0.05 * expected.norm()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in core.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_kind
def test_a_gpu_says_what_the_cpu_says(kind):
    core, x, reset = Recurrent(kind, IN, 16, layers=2), torch.randn(3, 10, IN), torch.rand(3, 10) < 0.2
    translator = RecurrentTranslator((9, 9), 16, kind, "additive")
    tokens = torch.randint(1, 9, (3, 7))
    expected = core(x, None, reset)[0], translator(tokens, tokens)
    core, translator, x, reset, tokens = core.cuda(), translator.cuda(), x.cuda(), reset.cuda(), tokens.cuda()
    for precision, most in ((torch.float32, 0.01), (torch.bfloat16, 0.05)):
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            outs = core(x, None, reset)[0], translator(tokens, tokens)
        sum(out.float().sum() for out in outs).backward()
        for out, wanted in zip(outs, expected, strict=True):
            assert (out.float().cpu() - wanted).norm() < most * wanted.norm()
        assert all(p.grad.isfinite().all() and p.grad.any() for p in core.parameters())


@every_kind
def test_copies_and_saved_weights_give_the_same(kind):
    core, other = Recurrent(kind, IN, OUT, 2), Recurrent(kind, IN, OUT, 2)
    x = torch.randn(2, 4, IN)
    other.load_state_dict(core.state_dict())
    copied = copy.deepcopy(core)
    expected = core(x)[0]
    assert torch.equal(other(x)[0], expected) and torch.equal(copied(x)[0], expected)
    nn.init.zeros_(copied.cells.weight_ih_l0)
    assert not torch.equal(copied(x)[0], expected) and torch.equal(core(x)[0], expected)


# -- attention and translation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AdditiveAttention, DotAttention])
def test_attention_by_hand(kind):
    attention = kind(4, 5, 3)
    query, memory = torch.randn(2, 4), torch.randn(2, 6, 5)
    mask = torch.tensor([[True] * 6, [True, False, True, True, False, False]])
    got, weights = attention(query, memory, attention.keys(memory), mask)
    for b in range(2):
        places = [n for n in range(6) if mask[b, n]]
        if kind is AdditiveAttention:
            w, u, v = attention.w, attention.u.weight, attention.v.weight[0]
            energy = [v @ torch.tanh(w.weight @ query[b] + w.bias + u @ memory[b, n]) for n in places]
        else:
            energy = [query[b] @ attention.w.weight @ memory[b, n] for n in places]
        expected = torch.zeros(6)
        expected[places] = torch.stack(energy).exp() / torch.stack(energy).exp().sum()
        close(weights[b], expected)
        close(got[b], sum(weight * m for weight, m in zip(expected, memory[b], strict=True)))


@pytest.mark.parametrize("kind", [AdditiveAttention, DotAttention])
def test_attention_that_may_look_nowhere_gives_zeros(kind):
    attention = kind(4, 5, 3)
    memory = torch.randn(2, 6, 5, requires_grad=True)
    mask = torch.tensor([[False] * 6, [True] * 6])
    got, weights = attention(torch.randn(2, 4), memory, attention.keys(memory), mask)
    assert not got[0].any() and not weights[0].any() and got[1].any()
    got.square().sum().backward()
    assert memory.grad.isfinite().all() and not memory.grad[0].any() and memory.grad[1].any()
    assert all(p.grad.isfinite().all() for p in attention.parameters())


def translator(kind="gru", attention="additive", **options):
    return RecurrentTranslator((11, 13), 8, kind, attention, **options).eval()


def sentences(lengths, vocabulary):
    """Tokens from 1 on, zeros behind the ends."""
    out = torch.randint(1, vocabulary, (len(lengths), max(lengths)))
    return out * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


every_translator = pytest.mark.parametrize("kind, attention", list(itertools.product(KINDS, ["additive", "dot", None])))


def plain_translation(model, source, target):
    """Logits [M, vocabulary] of one sentence, by the equations: Bahdanau et al. 2015, appendix A.2."""
    step, cells = STEPS[model.decoder.kind], model.encoder.cells
    start = tuple(torch.zeros(1, 8) for _ in range(2 if model.decoder.kind == "lstm" else 1))
    x, sides = model.embed_source(source), []
    for direction, order in (("", range(len(source))), ("_reverse", reversed(range(len(source))))):
        names = [f"{name}_l0{direction}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        state, hidden = start, {}
        for n in order:
            state = step(x[n : n + 1], state, tuple(getattr(cells, name) for name in names))
            hidden[n] = state[0]
        sides.append((torch.cat([hidden[n] for n in range(len(source))]), state[0]))
    memory, summary = (torch.cat(both, 1) for both in zip(*sides, strict=True))
    state, logits = (torch.tanh(model.bridge(summary)), *start[1:]), []
    for token in target:
        y, context = model.embed_target(token)[None], summary
        if model.attention is not None:
            mask = torch.ones(1, len(source), dtype=torch.bool)
            context, _ = model.attention(state[0], memory[None], model.attention.keys(memory[None]), mask)
        state = step(torch.cat([y, context], 1), state, model.decoder.weights())
        logits.append(model.out(torch.tanh(model.join(torch.cat([state[0], context, y], 1)))))
    return torch.cat(logits)


@every_translator
def test_translator_is_its_equations(kind, attention):
    model = translator(kind, attention)
    source, target = sentences([5], 11), sentences([4], 13)
    close(model(source, target)[0], plain_translation(model, source[0], target[0]))


@every_translator
def test_translator_one_step_equals_all(kind, attention):
    model = translator(kind, attention)
    source, target = sentences([5, 2, 7], 11), sentences([4, 6, 1], 13)
    logits = model(source, target)
    assert logits.shape == (3, 6, 13)
    encoded = model.encode(source)
    state = model.begin(encoded)
    for t in range(6):
        one, state, seen = model.step(target[:, t], state, encoded)
        close(one, logits[:, t])
        if attention is None:
            assert seen is None
        else:
            close(seen.sum(1), torch.ones(3))
            assert not seen[source == 0].any() and (seen[source != 0] > 0).all()


@every_translator
def test_translator_padding_and_company_change_nothing(kind, attention):
    model = translator(kind, attention)
    source, target = sentences([5, 2, 7], 11), sentences([4, 6, 1], 13)
    logits = model(source, target)
    for row, (n, m) in enumerate([(5, 4), (2, 6), (7, 1)]):
        close(model(source[row : row + 1, :n], target[row : row + 1, :m])[0], logits[row, :m])
    wider = torch.cat([source, torch.zeros(3, 4, dtype=torch.int64)], 1)
    close(model(wider, target), logits)


@every_translator
def test_translator_sees_the_whole_source_and_no_later_target(kind, attention):
    model = translator(kind, attention)
    source, target = sentences([6], 11), sentences([7], 13)
    logits = model(source, target)
    changed = target.clone()
    changed[0, 4] = changed[0, 4] % 12 + 1
    different = (model(source, changed) != logits).any(2)[0]
    assert different.tolist() == [False] * 4 + [True] * 3
    for n in range(6):
        other = source.clone()
        other[0, n] = other[0, n] % 10 + 1
        assert (model(other, target) != logits)[0, 0].any()


@every_translator
def test_translator_gradients(kind, attention):
    model = translator(kind, attention, dropout=0.2).train()
    source, target = sentences([5, 2, 7], 11), sentences([4, 6, 1], 13)
    source[0, :5] = torch.arange(1, 6)
    model(source, target).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    assert not model.embed_source.weight.grad[0].any() and not model.embed_target.weight.grad[0].any()


@every_translator
def test_translator_sentence_of_padding_alone(kind, attention):
    model = translator(kind, attention)
    source, target = sentences([5, 3], 11), sentences([4, 4], 13)
    expected = model(source, target)
    source = torch.cat([source, torch.zeros_like(source[:1])])
    logits = model(source, torch.cat([target, target[:1]]))
    close(logits[:2], expected)
    logits.square().sum().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


@every_translator
def test_translator_in_bf16(kind, attention):
    model = translator(kind, attention)
    source, target = sentences([5, 2, 7], 11), sentences([4, 6, 1], 13)
    expected = model(source, target)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(source, target)
        encoded = model.encode(source)
        one, _, _ = model.step(target[:, 0], model.begin(encoded), encoded)
        logits.float().square().sum().backward()
    assert (logits.float() - expected).norm() < 0.05 * expected.norm()
    assert (one.float() - expected[:, 0]).norm() < 0.05 * expected[:, 0].norm()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_translator_without_attention_gets_one_vector():
    """Sources of one summary are all the same to it; with an attention, their memories still differ."""
    model = translator("gru", None)
    memory, keys, mask, summary = model.encode(sentences([5], 11))
    target = sentences([3], 13)
    state = model.begin((memory, keys, mask, summary))
    one, _, _ = model.step(target[:, 0], state, (memory + 1, keys - 1, mask, summary))
    close(one, model.step(target[:, 0], state, (memory, keys, mask, summary))[0])
    close(memory[:, -1, :8], summary[:, :8])  # forwards it ends at the end, backwards at the beginning
    close(memory[:, 0, 8:], summary[:, 8:])
