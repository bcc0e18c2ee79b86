"""Language models: the papers' sizes and first weights, masks, caches, and torch's Transformer."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rlkit.nn.cores import CORES
from rlkit.nn.language import BERT, GPT, CoreLanguageModel, EncoderDecoder, Places, TokenHead
from rlkit.nn.transformer import Past, Shape, causal_mask, sinusoidal

BASE = Shape(768, heads=12, layers=12)
PAPER = Shape(512, heads=8, layers=6, hidden=2048, norm_first=False, activation="relu", dropout=0.1)
SMALL = Shape(12, heads=3, layers=2, hidden=20)
POST = replace(SMALL, norm_first=False)
WORDS, CONTEXT = 17, 10

PLACES = ["learned", "sinusoidal", "rotary"]
GPTS = {
    **{place: lambda place=place: GPT(WORDS, CONTEXT, SMALL, place) for place in PLACES},
    "post-norm": lambda: GPT(WORDS, CONTEXT, POST),
}
every_gpt = pytest.mark.parametrize("name", GPTS)


def count(model):
    return sum(p.numel() for p in model.parameters())


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def opinionated(model, std=0.3):
    """With weights so large that every part of it shows."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model.eval()


def tokens(*shape):
    return torch.randint(1, WORDS, shape)


def other_token(x):
    return x % (WORDS - 1) + 1


def sentences(lengths):
    """Tokens from 1 on, zeros behind the ends."""
    return tokens(len(lengths), max(lengths)) * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


# -- counts ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_count_of_the_transformer_of_2017():
    with torch.device("meta"):
        model = EncoderDecoder(37_000, 512, PAPER)
        assert count(model) - count(model.embed) == 44_140_544
        assert count(nn.Transformer(512, 8, 6, 6, 2048)) == 44_140_544


def test_counts_of_gpt():
    """The head is the embedding and counts once."""
    with torch.device("meta"):
        assert count(GPT(40_478, 512, replace(BASE, norm_first=False))) == 116_534_784
        assert count(GPT(50_257, 1024, BASE)) == 124_439_808


def test_count_of_bert_and_of_its_tied_head():
    with torch.device("meta"):
        model, head = BERT(30_522, 512, replace(BASE, norm_first=False)), TokenHead(30_522, 768)
    assert count(model) == 109_482_240
    assert count(head) == 768 * 768 + 768 + 2 * 768 + 30_522


# -- first weights -----------------------------------------------------------------------------------------------------


def std(tensor):
    return tensor.std().item()


@pytest.mark.parametrize("norm_first, scaled", [(True, math.sqrt(2 * 4)), (False, 1.0)])
def test_first_weights_of_gpt(norm_first, scaled):
    """Radford et al. 2019, section 2.3: GPT-2 divides what adds to the residual sum, GPT-1 does not."""
    model = GPT(300, 50, Shape(64, 4, 4, norm_first=norm_first))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.full_like(parameter, float("norm" in name and "weight" in name))), name
        else:
            adds = name.endswith(("attention.out.weight", "dense2.weight"))
            assert std(parameter) == pytest.approx(0.02 / (scaled if adds else 1), rel=0.06), name
            assert abs(parameter.mean().item()) < 0.002


def test_first_weights_of_bert():
    model = BERT(300, 50, Shape(64, 4, 2, norm_first=False))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            wide = 0.3 if parameter.numel() < 1000 else 0.06
            assert std(parameter) == pytest.approx(0.02, rel=wide), name
        elif "norm" not in name:
            assert not parameter.any(), name


def test_first_weights_of_the_transformer_of_2017():
    model = EncoderDecoder(300, 50, Shape(64, 4, 2, norm_first=False))
    assert std(model.embed.weight[1:]) == pytest.approx(1 / 8, rel=0.05)
    assert not model.embed.weight[0].any()
    for stack in (model.encoder, model.decoder):
        for name, parameter in stack.named_parameters():
            if parameter.ndim > 1:  # Glorot and Bengio 2010, eq. 16: uniform, of variance 2 / (in + out)
                assert std(parameter) == pytest.approx(math.sqrt(2 / sum(parameter.shape)), rel=0.06), name


def test_a_new_gpt_knows_nothing():
    model = GPT(300, 50, Shape(64, 4, 2)).eval()
    x = torch.randint(300, (8, 50))
    loss = F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(300), abs=0.05)


# -- GPT ---------------------------------------------------------------------------------------------------------------


@every_gpt
def test_gpt_a_later_token_changes_nothing_before_it(name):
    model = opinionated(GPTS[name]())
    x = tokens(2, 8)
    logits = model(x)
    assert logits.shape == (2, 8, WORDS)
    for t in (0, 4, 7):
        changed = x.clone()
        changed[:, t] = other_token(x[:, t])
        new = model(changed)
        assert torch.equal(new[:, :t], logits[:, :t])
        assert (new != logits)[:, t:].any(2).all()


@every_gpt
def test_gpt_tells_an_order_from_another(name):
    model = opinionated(GPTS[name]())
    x = tokens(1, 3)
    x[0] = torch.tensor([1, 2, 3])
    assert (model(x)[:, -1] - model(x[:, [1, 0, 2]])[:, -1]).abs().max() > 1e-3


@every_gpt
@pytest.mark.parametrize("chunks", [[1] * CONTEXT, [3, 1, 4, 2], [9, 1], [1, 9]])
def test_gpt_cached_equals_uncached(name, chunks):
    model = opinionated(GPTS[name]())
    x = tokens(2, CONTEXT)
    expected, past, outs = model(x), Past(), []
    for begin, end in itertools.pairwise([0, *itertools.accumulate(chunks)]):
        outs.append(model(x[:, begin:end], past))
    close(torch.cat(outs, 1), expected, tolerance=1e-4)


@every_gpt
def test_gpt_past_is_reordered_with_its_sequences(name):
    model = opinionated(GPTS[name]())
    x, rows, past = tokens(2, 4), torch.tensor([1, 0, 1]), Past()
    model(x, past)
    past.select(rows)
    new = tokens(3, 3)
    close(model(new, past), model(torch.cat([x[rows], new], 1))[:, 4:], tolerance=1e-4)


@every_gpt
def test_gpt_refuses_more_than_its_context(name):
    model = GPTS[name]()
    with pytest.raises(ValueError, match="11 tokens is longer than the context of 10"):
        model(tokens(2, 11))
    past = Past()
    model(tokens(2, 8), past)
    with pytest.raises(ValueError, match="11 tokens is longer"):
        model(tokens(2, 3), past)
    assert past.length == 8  # nothing of the refused tokens was taken in
    assert model(tokens(2, 2), past).shape == (2, 2, WORDS)


def test_gpt_head_is_its_embedding():
    model = opinionated(GPT(WORDS, CONTEXT, SMALL))
    x = tokens(2, 5)
    features = model.features(x)
    close(model(x), features @ model.embed.weight.t())
    assert not [key for key in model.state_dict() if "head" in key or "table" in key]


def test_rotary_gpt_knows_relative_places_alone():
    """The same tokens five places later get the same logits."""
    model = opinionated(GPT(WORDS, CONTEXT, SMALL, "rotary"))
    x, far = tokens(1, 4), Past()
    far.length = 5
    close(model(x, far), model(x), tolerance=1e-4)


def test_odd_heads_have_no_rotary_places():
    with pytest.raises(ValueError, match="3 features are no multiple of 2"):
        GPT(WORDS, CONTEXT, Shape(12, heads=4, layers=1), "rotary")
    assert GPT(WORDS, CONTEXT, Shape(12, heads=4, layers=1), "sinusoidal")(tokens(1, 3)).shape == (1, 3, WORDS)


@pytest.mark.parametrize("heads", [5, 0])
def test_heads_that_cannot_share_equally(heads):
    for build in (GPT, BERT, EncoderDecoder):
        with pytest.raises(ValueError, match="equally"):
            build(WORDS, CONTEXT, Shape(12, heads=heads, layers=1))


def test_places_add_the_table_from_the_right_row():
    places, x = Places("sinusoidal", CONTEXT, SMALL), torch.randn(2, 3, 12)
    y, turns = places(x, begin=4)
    assert turns is None
    close(y, x + sinusoidal(7, 12)[4:])
    places = Places("learned", CONTEXT, SMALL)
    close(places(x, begin=7)[0], x + places.learned.weight[7:])


# -- BERT --------------------------------------------------------------------------------------------------------------


def bert():
    return opinionated(BERT(WORDS, CONTEXT, POST))


def test_bert_padding_and_company_change_nothing():
    model, x = bert(), sentences([5, 2, 8])
    features = model(x)
    assert features.shape == (3, 8, 12)
    for row, n in enumerate([5, 2, 8]):
        close(model(x[row : row + 1, :n])[0], features[row, :n])
    close(model(torch.cat([x, torch.zeros(3, 2, dtype=torch.int64)], 1))[:, :8], features)
    close(model.pooled(features), torch.tanh(model.pool(features[:, 0])))


def test_bert_sees_both_sides():
    model, x = bert(), tokens(1, 6)
    for t in range(6):
        changed = x.clone()
        changed[0, t] = other_token(x[0, t])
        assert (model(changed) != model(x)).any(2).all()
    segments = torch.tensor([[0, 0, 0, 1, 1, 1]])
    assert (model(x, segments) != model(x)).any()
    close(model(x, torch.zeros_like(x)), model(x))


def test_bert_looks_where_seen_allows():
    model, x = bert(), sentences([6, 4])
    seen = causal_mask(6)
    features = model(x, seen=seen)
    close(model(x, seen=seen.expand(2, 6, 6)), features)
    changed = x.clone()
    changed[:, 2] = other_token(x[:, 2])
    different = (model(changed, seen=seen) != features).any(2)
    assert different.tolist() == [[False, False, True, True, True, True]] * 2
    close(model(x, seen=torch.ones(6, 6, dtype=torch.bool)), model(x))
    # A mask for each sentence: the first is causal, the second the other way round.
    each = torch.stack([seen, seen.t()])
    close(model(x, seen=each)[0], features[0])
    close(model(x, seen=each)[1], model(x, seen=seen.t())[1])


def test_bert_sentence_of_padding_alone():
    model, x = bert(), sentences([5, 3])
    expected = model(x)
    features = model(torch.cat([x, torch.zeros_like(x[:1])]))
    close(features[:2], expected)
    blind = model(x, seen=torch.zeros(5, 5, dtype=torch.bool))
    (features.square().sum() + blind.square().sum()).backward()
    assert features.isfinite().all() and blind.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_token_head_by_hand():
    head, embedding, x = opinionated(TokenHead(WORDS, 12)), torch.randn(WORDS, 12), torch.randn(3, 12)
    y = F.gelu(x @ head.dense.weight.t() + head.dense.bias)
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    y = y * head.norm.weight + head.norm.bias
    close(head(x, embedding), y @ embedding.t() + head.bias)


def test_bert_refuses_more_than_its_context():
    with pytest.raises(ValueError, match="11 tokens is longer than the context of 10"):
        bert()(tokens(1, 11))


# -- encoder and decoder -----------------------------------------------------------------------------------------------

both_norms = pytest.mark.parametrize("norm_first", [False, True])


def translator(norm_first=False):
    return opinionated(EncoderDecoder(WORDS, CONTEXT, replace(SMALL, norm_first=norm_first, activation="relu")))


@both_norms
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_encoder_decoder_equals_torchs_transformer(norm_first):
    ours, source, target = translator(norm_first), sentences([5, 8]), sentences([6, 3])
    theirs = nn.Transformer(12, 3, 2, 2, 20, 0.0, batch_first=True, norm_first=norm_first).eval()
    for stack, torchs in ((ours.encoder, theirs.encoder), (ours.decoder, theirs.decoder)):
        torchs.norm.load_state_dict(stack.norm.state_dict())
        for block, layer in zip(stack.blocks, torchs.layers, strict=True):
            layer.linear1.load_state_dict(block.dense1.state_dict())
            layer.linear2.load_state_dict(block.dense2.state_dict())
            for i, norm in enumerate(block.norms, 1):
                getattr(layer, f"norm{i}").load_state_dict(norm.state_dict())
            for name, attention in (("self_attn", block.attention), ("multihead_attn", block.cross)):
                if attention is not None:
                    getattr(layer, name).in_proj_weight.data = attention.qkv.weight.data
                    getattr(layer, name).in_proj_bias.data = attention.qkv.bias.data
                    getattr(layer, name).out_proj.load_state_dict(attention.out.state_dict())
    x, y = (ours.embed.weight[t] * math.sqrt(12) + sinusoidal(t.shape[1], 12) for t in (source, target))
    padding = source == 0
    expected = theirs(
        x,
        y,
        tgt_mask=~causal_mask(6),
        src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
        tgt_is_causal=True,
    )
    close(ours(source, target), expected @ ours.embed.weight.t(), tolerance=1e-4)


@both_norms
def test_encoder_decoder_padding_and_company_change_nothing(norm_first):
    model, source, target = translator(norm_first), sentences([5, 2, 8]), sentences([6, 1, 3])
    logits = model(source, target)
    for row, (n, m) in enumerate([(5, 6), (2, 1), (8, 3)]):
        close(model(source[row : row + 1, :n], target[row : row + 1, :m])[0], logits[row, :m], tolerance=1e-4)
    wider = torch.cat([source, torch.zeros(3, 2, dtype=torch.int64)], 1)
    close(model(wider, target), logits, tolerance=1e-4)


@both_norms
def test_encoder_decoder_sees_all_of_the_source_and_no_later_target(norm_first):
    model, source, target = translator(norm_first), tokens(1, 6), tokens(1, 7)
    logits = model(source, target)
    changed = target.clone()
    changed[0, 4] = other_token(target[0, 4])
    different = (model(source, changed) != logits).any(2)[0]
    assert different.tolist() == [False] * 4 + [True] * 3
    for n in range(6):
        changed = source.clone()
        changed[0, n] = other_token(source[0, n])
        assert (model(changed, target) != logits).any(2).all()


@both_norms
@pytest.mark.parametrize("chunks", [[1] * 7, [3, 1, 3]])
def test_encoder_decoder_cached_equals_uncached(norm_first, chunks):
    model, source, target = translator(norm_first), sentences([5, 8]), tokens(2, 7)
    encoded, past, outs = model.encode(source), Past(), []
    for begin, end in itertools.pairwise([0, *itertools.accumulate(chunks)]):
        outs.append(model.decode(target[:, begin:end], encoded, past))
    close(torch.cat(outs, 1), model(source, target), tolerance=1e-4)


def test_encoder_decoder_past_is_reordered_with_its_sequences():
    """As a beam search does it: the memory's mask goes with the rows, its keys are in the past."""
    model, source, target = translator(), sentences([5, 8]), tokens(2, 4)
    (memory, mask), past, rows = model.encode(source), Past(), torch.tensor([1, 0, 1])
    model.decode(target, (memory, mask), past)
    past.select(rows)
    new = tokens(3, 2)
    got = model.decode(new, (memory[rows], mask[rows]), past)
    close(got, model(source[rows], torch.cat([target[rows], new], 1))[:, 4:], tolerance=1e-4)


@both_norms
def test_encoder_decoder_sentence_of_padding_alone(norm_first):
    model, source, target = translator(norm_first), sentences([5, 3]), tokens(2, 4)
    expected = model(source, target)
    logits = model(torch.cat([source, torch.zeros_like(source[:1])]), torch.cat([target, target[:1]]))
    close(logits[:2], expected, tolerance=1e-4)
    logits.square().sum().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


def test_encoder_decoder_refuses_more_than_its_context():
    model = translator()
    for source, target in ((11, 3), (3, 11)):
        with pytest.raises(ValueError, match="11 tokens is longer than the context of 10"):
            model(tokens(1, source), tokens(1, target))


# -- all of them -------------------------------------------------------------------------------------------------------


class Pooled(nn.Module):
    """BERT with both of its heads."""

    def __init__(self):
        super().__init__()
        self.bert, self.head = BERT(WORDS, CONTEXT, POST), TokenHead(WORDS, 12)

    def forward(self, x):
        features = self.bert(x, (x > 8).long())
        return torch.cat(
            [self.head(features, self.bert.embed.weight), features + self.bert.pooled(features)[:, None]], 2
        )


class Copying(nn.Module):
    """From a sentence to itself."""

    def __init__(self):
        super().__init__()
        self.model = EncoderDecoder(WORDS, CONTEXT, POST)

    def forward(self, x):
        return self.model(x, x)


class Core(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.model = CoreLanguageModel(WORDS, CORES[name](6, 8), 6)

    def forward(self, x):
        return self.model(x)[0]


MODELS = {
    **{f"gpt {name}": build for name, build in GPTS.items()},
    "bert": Pooled,
    "encoder-decoder": Copying,
    **{name: lambda name=name: Core(name) for name in CORES},
}
every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_every_parameter_receives_a_gradient(name):
    model = opinionated(MODELS[name]())
    x = sentences([9, CONTEXT, 3])
    out = model(x)
    (out * torch.randn(out.shape[2])).sum().backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@every_model
def test_sentences_do_not_depend_on_the_batch(name):
    model, x = opinionated(MODELS[name]()), tokens(4, 7)
    out = model(x)
    for row in range(4):
        close(model(x[row : row + 1])[0], out[row], tolerance=1e-4)


@every_model
def test_bf16_forward_and_backward(name):
    model, x = MODELS[name]().eval(), tokens(3, 8)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
        out.float().square().sum().backward()
    assert (out.float() - expected).norm() < 0.05 * expected.norm()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@every_model
def test_copies_and_saved_weights_give_the_same(name):
    model, other, x = opinionated(MODELS[name]()), MODELS[name]().eval(), tokens(3, 8)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x)) and torch.equal(copy.deepcopy(model)(x), model(x))


@pytest.mark.parametrize("build", [GPT, BERT])
def test_models_drop_out_in_training_alone(build):
    model, x = build(WORDS, CONTEXT, replace(SMALL, dropout=0.3)), tokens(3, 8)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("name", CORES)
def test_core_language_model_goes_on_from_its_state(name):
    model, x = CoreLanguageModel(WORDS, CORES[name](6, 8), 6).eval(), tokens(2, 9)
    logits, _ = model(x)
    assert logits.shape == (2, 9, WORDS)
    first, state = model(x[:, :4])
    second, _ = model(x[:, 4:], state)
    close(torch.cat([first, second], 1), logits)
