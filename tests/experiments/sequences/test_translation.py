"""Translation: number words by hand, tokens, beams against brute force, both families of models, run and agent."""

import dataclasses
import gzip
import io
import itertools
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from experiments.sequences import number_words, translation
from experiments.sequences.byte_pairs import BOS, EOS, PAD, SPECIAL, clean, learn_bpe, load_bpe
from experiments.sequences.number_words import english, korean
from experiments.sequences.sentence_pairs import read_splits, tokenized
from experiments.sequences.text_pictures import draw_attention
from experiments.sequences.translation import PRESETS, Config
from experiments.sequences.translation_scores import loss_with, nats_per_token, score
from experiments.sequences.translator import FIELDS, Decoding, Translator, beam_search, load, network
from rlkit import runtime
from rlkit.checkpoint import save_agent
from rlkit.data import Batches, padded, pairs
from rlkit.errors import DamagedFile
from rlkit.saved_config import load_config
from rlkit.trainer import TrainConfig, Trainer

MODELS = ["rnn", "attention", "transformer"]


def tiny(**kw):
    """Two dozen updates of a small model on a few numbers."""
    trainer = {"steps": 24, "lr": 3e-3, "lr_warmup": 5, "progress": False, "log_every": 10, "save_every": 10}
    trainer |= kw.pop("trainer", {})
    base = dict(numbers=150, held=12, channels=16, heads=2, layers=1, context=40, batch_tokens=200, vocabulary=300)
    base |= dict(eval_every=12, beam=2, device="cpu", threads=1)
    cfg = dataclasses.replace(PRESETS["numbers"], **(base | kw))
    return dataclasses.replace(cfg, trainer=dataclasses.replace(cfg.trainer, **trainer))


# -- number words ------------------------------------------------------------------------------------------------------

WORDS = [
    (0, "zero", "영"),
    (1, "one", "일"),
    (7, "seven", "칠"),
    (10, "ten", "십"),
    (11, "eleven", "십일"),
    (19, "nineteen", "십구"),
    (20, "twenty", "이십"),
    (21, "twenty-one", "이십일"),
    (100, "one hundred", "백"),
    (101, "one hundred one", "백일"),
    (110, "one hundred ten", "백십"),
    (999, "nine hundred ninety-nine", "구백구십구"),
    (1000, "one thousand", "천"),
    (1010, "one thousand ten", "천십"),
    (1111, "one thousand one hundred eleven", "천백십일"),
    (2026, "two thousand twenty-six", "이천이십육"),
    (10_000, "ten thousand", "만"),
    (10_001, "ten thousand one", "만 일"),
    (11_000, "eleven thousand", "만 천"),
    (20_000, "twenty thousand", "이만"),
    (48_213, "forty-eight thousand two hundred thirteen", "사만 팔천이백십삼"),
    (100_000, "one hundred thousand", "십만"),
    (110_000, "one hundred ten thousand", "십일만"),
    (123_456, "one hundred twenty-three thousand four hundred fifty-six", "십이만 삼천사백오십육"),
    (1_000_000, "one million", "백만"),
    (1_000_010, "one million ten", "백만 십"),
    (10_000_000, "ten million", "천만"),
    (11_111_111, "eleven million one hundred eleven thousand one hundred eleven", "천백십일만 천백십일"),
    (
        99_999_999,
        "ninety-nine million nine hundred ninety-nine thousand nine hundred ninety-nine",
        "구천구백구십구만 구천구백구십구",
    ),
]


@pytest.mark.parametrize("number, in_english, in_korean", WORDS)
def test_number_words_by_hand(number, in_english, in_korean):
    assert (english(number), korean(number)) == (in_english, in_korean)


def english_number(text):
    """Reads them back, in another way than they are written."""
    values = {word: i for i, word in enumerate(number_words.ONES)}
    values |= {word: 10 * i for i, word in enumerate(number_words.TENS, 2)}
    total = part = 0
    for word in text.replace("-", " ").split():
        if word == "hundred":
            part *= 100
        elif word in ("thousand", "million"):
            total, part = total + part * {"thousand": 1000, "million": 10**6}[word], 0
        else:
            part += values[word]
    return total + part


def korean_number(text):
    total = part = 0
    digit = None
    for character in text.replace(" ", ""):
        if character in "영일이삼사오육칠팔구":
            digit = "영일이삼사오육칠팔구".index(character)
        elif character == "만":
            total, part, digit = (part + (digit or 0) or 1) * 10_000, 0, None
        else:
            part, digit = part + (1 if digit is None else digit) * 10 ** ("십백천".index(character) + 1), None
    return total + part + (digit or 0)


def test_number_words_can_be_read_back_so_no_two_are_alike():
    drawn = np.random.default_rng(0).integers(0, number_words.MOST + 1, 3000).tolist()
    for number in itertools.chain(range(12_345), drawn):
        assert english_number(english(number)) == number == korean_number(korean(number))


@pytest.mark.parametrize("number", [-1, 10**8])
def test_number_words_have_an_end(number):
    for write in (english, korean):
        with pytest.raises(ValueError, match="99,999,999"):
            write(number)


def test_held_out_numbers_are_never_seen_and_small_ones_always():
    splits = number_words.splits(3000, 200, seed=5)
    numbers = {name: [english_number(source) for source, _ in part] for name, part in splits.items()}
    assert [len(part) for part in numbers.values()] == [3000, 200, 200]
    together = list(itertools.chain(*numbers.values()))
    assert len(set(together)) == 3400 and set(range(100)) <= set(numbers["train"])
    assert all(korean(n) == target for n, (_, target) in zip(numbers["test"], splits["test"], strict=True))
    lengths = np.bincount([len(str(n)) for n in numbers["train"]])
    assert lengths[4:].min() > 300 and len(lengths) == 9
    assert number_words.splits(3000, 200, seed=5) == splits != number_words.splits(3000, 200, seed=6)


# -- sentences and tokens ----------------------------------------------------------------------------------------------

STRANGE = [
    "a",
    "사만 팔천이백십삼",
    "Größe: 3 € — naïve",
    "🙂 漢字 \t x",
    "<pad> <eos>the<bos>",
    "a  b",
    "\u200b",
    "\x00",
]


@pytest.mark.parametrize("trained_on", [["one two three"] * 3, [w for row in WORDS for w in row[1:]]])
def test_byte_pairs_write_and_read_any_text(trained_on):
    tokenizer = learn_bpe(trained_on, 320)
    for text in STRANGE:
        ids = tokenizer.encode(text).ids
        assert min(ids) >= len(SPECIAL)  # no padding, no end, nothing unknown
        assert tokenizer.decode(ids).strip(" ") == text


def test_byte_pairs_are_the_same_each_time_and_from_their_text():
    text = [word for row in WORDS for word in row[1:]]
    one, two = learn_bpe(iter(text), 330), learn_bpe(iter(text), 330)
    assert one.to_str() == two.to_str() and one.get_vocab_size() == 330
    assert [one.id_to_token(i) for i in range(4)] == ["<pad>", "<bos>", "<eos>", "<unk>"]
    again = load_bpe(one.to_str())
    assert all(again.encode(s).ids == one.encode(s).ids for s in [*text, *STRANGE])
    assert len(one.encode("nine hundred").ids) < 6 < len(learn_bpe(text, 260).encode("nine hundred").ids)


def test_clean_makes_one_of_two_ways_to_write_a_syllable():
    letters = "\u1109\u1161"
    assert len(letters) == 2 and clean(f" {letters}만\n", False) == "사만"
    assert clean("Ein Ärger", True) == "ein ärger" and clean("Ein", False) == "Ein"


def test_too_long_pairs_are_left_out_and_counted(capsys):
    tokenizer = learn_bpe(["x"], 260)  # a token a byte, and one for the space before the first word
    part = [("abc", "d"), ("abcd", "d"), ("a", "efgh")]
    kept, rows = tokenized("train", part, tokenizer, context=5)
    assert kept == [("abc", "d")] and "2 of 3 pairs" in capsys.readouterr().err
    assert len(rows["source"][0]) == 5 and rows["source"][0][-1] == EOS
    assert rows["target"][0][0] == BOS and rows["target"][0][-1] == EOS
    with pytest.raises(ValueError, match="raise --context"):
        tokenized("train", part[1:], tokenizer, context=5)


# -- files -------------------------------------------------------------------------------------------------------------


def files(folder, left, right, packed=False):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{side}.txt{'.gz' * packed}" for side in ("left", "right")]
    for path, data in zip(paths, (left, right), strict=True):
        data = data if isinstance(data, bytes) else data.encode()
        path.write_bytes(gzip.compress(data) if packed else data)
    return {"source": str(paths[0]), "target": str(paths[1])}


@pytest.mark.parametrize("packed", [False, True])
def test_pairs_from_two_files_are_split_by_the_seed(tmp_path, packed):
    left = "".join(f"S{i % 20}\n" for i in range(60))  # each sentence three times
    right = "".join(f"T{i}\n" for i in range(60))
    cfg = Config(**files(tmp_path, left, right, packed), held=4, lowercase=True)
    splits = read_splits(cfg)
    assert [len(splits[name]) for name in ("train", "valid", "test")] == [36, 12, 12]
    sides = [{source for source, _ in part} for part in splits.values()]
    assert [len(side) for side in sides] == [12, 4, 4] and len(set.union(*sides)) == 20
    assert all(pair[0][0] == "s" for pair in splits["train"])
    assert read_splits(cfg) == splits != read_splits(dataclasses.replace(cfg, seed=2))
    other = read_splits(dataclasses.replace(cfg, reverse=True))
    assert all(source[0] == "t" and target[0] == "s" for part in other.values() for source, target in part)
    some = read_splits(dataclasses.replace(cfg, limit=10))
    assert len(some["train"]) == 10 and set(some["train"]) < set(splits["train"]) and some["test"] == splits["test"]


def test_pairs_from_one_file_and_sets_of_their_own(tmp_path):
    (tmp_path / "kor.txt").write_text("Go.\t가.\tCC-BY\nHi.\t안녕.\n\nRun!\t뛰어!\n", encoding="utf-8")
    own = files(tmp_path / "v", "Who?\n", "누구?\n")
    cfg = Config(
        pairs=str(tmp_path / "kor.txt"), valid_source=own["source"], valid_target=own["target"],
        test_source=own["source"], test_target=own["target"],
    )  # fmt: skip
    splits = read_splits(cfg)
    assert splits["train"] == [("Go.", "가."), ("Hi.", "안녕."), ("Run!", "뛰어!")]
    assert splits["valid"] == splits["test"] == [("Who?", "누구?")]


@pytest.mark.parametrize(
    "left, right, said",
    [
        ("a\nb\nc\n", "a\nb\n", "3 lines and .*right.txt has 2"),
        ("a\n\nc\n", "a\nb\nc\n", "left.txt, line 2 is empty"),
        ("a\nb\nc\n", "a\nb\n \n", "right.txt, line 3 is empty"),
        ("a\nb\nc\n", b"a\nb\xff\nc\n", "right.txt, line 2: byte 0xff is no UTF-8"),
        ("\n", "\n", "no sentences"),
        ("a\nb\n", "a\nb\n", "of 2 sentences 500 cannot be held out: lower --held"),
    ],
)
def test_bad_files_name_file_and_line(tmp_path, monkeypatch, left, right, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        translation.main(Config(**files(tmp_path, left, right), device="cpu"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"source": "a.txt"}, "--source and --target"),
        ({"pairs": "a.txt", "source": "b", "target": "c"}, "leave one out"),
        ({"test_target": "a.txt"}, "--test-source and --test-target"),
        ({"valid_source": __file__, "valid_target": __file__}, "none to learn from"),
        ({"vocabulary": 259}, "--vocabulary must be at least 260"),
        ({"dropout": 1.0}, "--dropout must be below 1"),
        ({"beam": 0}, "--beam must be at least 1"),
        ({"trainer": TrainConfig(mode="cudagraph")}, "eager or compile"),
        ({"channels": 10, "heads": 4}, "10 channels cannot be shared among 4 heads"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, monkeypatch, wrong, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        translation.main(dataclasses.replace(tiny(), **wrong))
    assert not (tmp_path / "runs").exists()


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        read_splits(Config(pairs=str(tmp_path / "nothing.txt")))


# -- losses and scores -------------------------------------------------------------------------------------------------


def test_the_loss_by_hand():
    """Of the target <bos> A, the second label is padding; of A a smoothed share lies on all three tokens."""
    logits = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]).log()
    batch = {"source": torch.tensor([[1]]), "target": torch.tensor([[BOS, 1, PAD]])}
    value, aux = loss_with(0.3)(lambda source, target: logits, batch)
    everywhere = -(math.log(0.5) + 2 * math.log(0.25)) / 3
    assert aux["nats"].item() == pytest.approx(math.log(4))
    assert value.item() == pytest.approx(0.7 * math.log(4) + 0.3 * everywhere)
    assert loss_with(0.0)(lambda source, target: logits, batch)[0].item() == pytest.approx(math.log(4))


def test_bleu_by_hand():
    same = ["the cat sat on the mat .", "사만 팔천 이백 십삼"]
    assert score(same, same)["bleu"] == pytest.approx(100) and score(same, same)["exact"] == 1
    other = score(["the cat sat on a mat", "x"], ["the cat sat on the mat", "x"])
    # 1 to 4 words in a row: 5 + 1 of 6 + 1, 3 of 5, 2 of 4, 1 of 3; no word too few
    assert other["bleu"] == pytest.approx(100 * (6 / 7 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25) and other["exact"] == 0.5
    assert "tok:13a" in other["signature"] and "version" in other["signature"]
    assert "tok:char" in score(same, same, "char")["signature"]


# -- beams over a table ------------------------------------------------------------------------------------------------

A, B = 4, 5


class Table:
    """Stands for a Decoding: what follows a text is looked up, a table for each sentence; text -> {token: share}."""

    def __init__(self, *tables):
        self.texts = [(table, ()) for table in tables]

    def step(self, token):
        self.texts = [(table, (*text, t)) for (table, text), t in zip(self.texts, token.tolist(), strict=True)]
        logits = torch.full((len(self.texts), 6), -1e9)
        for row, (table, text) in enumerate(self.texts):
            for t, share in table(text[1:]).items():
                logits[row, t] = math.log(share)
        return logits

    def select(self, rows):
        self.texts = [self.texts[row] for row in rows.tolist()]


def following(table):
    """What is not in the table ends there."""
    return lambda text: table.get(text, {EOS: 1.0})


def misleading(a, b):
    """a looks better at first: greedy gets .33; b, b has .38."""
    table = {(): {a: 0.6, b: 0.4}, (a,): {a: 0.55, b: 0.45}, (b,): {b: 0.95, a: 0.05}}
    return following(table)


def test_a_beam_finds_what_greedy_misses_in_each_sentence_of_a_batch():
    tables = misleading(A, B), misleading(B, A)
    assert beam_search(Table(*tables), [9, 9]) == [[A, A], [B, B]]
    assert beam_search(Table(*tables), [9, 9], 2) == [[B, B], [A, A]]
    assert beam_search(Table(*tables), [9, 1], 2) == [[B, B], [B]]  # the second has no room to find out


def test_length_power_decides_between_short_and_long():
    table = {(): {A: 0.5, B: 0.5}, (B,): {B: 0.8, A: 0.2}, (B, B): {B: 1.0}}  # A: .5; B B B: .4
    assert beam_search(Table(following(table)), [9], 3, length_power=0.0) == [[A]]
    assert beam_search(Table(following(table)), [9], 3, length_power=1.0) == [[B, B, B]]


def test_what_has_ended_is_not_lost_to_what_only_looks_better_for_a_while():
    """A <eos> has (ln .5 + ln .6) / 2 = -.602 a token. B B A and B B B, with 2 ln .5 / 3 = -.462, push it out of a beam
    of two, and end below it, at (2 ln .5 + ln 1/3) / 4 = -.621.
    """
    table = {(): {A: 0.5, B: 0.5}, (A,): {EOS: 0.6, A: 0.4}, (B,): {B: 1.0}, (B, B): {A: 0.5, B: 0.5}}
    thirds = {A: 1 / 3, B: 1 / 3, EOS: 1 / 3}
    assert beam_search(Table(lambda text: table.get(text, thirds)), [4], 2) == [[A]]


def best_of_all(table, length_power, longest=4):
    def value(text):
        shares = [table[text[:i]][token] for i, token in enumerate(text)]
        return sum(map(math.log, shares)) / len(text) ** length_power

    whole = [(*t, EOS) for n in range(longest) for t in itertools.product((A, B), repeat=n)]
    whole += itertools.product((A, B), repeat=longest)
    return [token for token in max(whole, key=value) if token != EOS]


@pytest.mark.parametrize("length_power", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all(length_power, seed):
    rng = np.random.default_rng(seed)
    texts = [text for n in range(4) for text in itertools.product((A, B), repeat=n)]
    tables = [{text: dict(zip((EOS, A, B), rng.dirichlet([1, 1, 1]), strict=True)) for text in texts} for _ in range(3)]
    found = beam_search(Table(*map(following, tables)), [4, 4, 4], 40, length_power)
    assert found == [best_of_all(table, length_power) for table in tables]


# -- both families of models -------------------------------------------------------------------------------------------

SETS = [
    {"model": "rnn"},
    {"model": "rnn", "kind": "lstm"},
    {"model": "attention"},
    {"model": "attention", "kind": "lstm", "attention": "dot"},
    {"model": "attention", "kind": "rnn"},
    {"model": "transformer"},
]
every_model = pytest.mark.parametrize("sets", SETS, ids=lambda sets: "-".join(sets.values()))
SOURCES = [[5, 6, 7, 8, 9, EOS], [9, 4, EOS], [7, EOS]]


def untrained(sets, vocabulary=12):
    """With weights large enough for opinions."""
    torch.manual_seed(3)
    cfg = tiny(**sets, dropout=0.3)
    model = network({name: getattr(cfg, name) for name in FIELDS}, vocabulary).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def greedy(model, source, longest):
    """A sentence by itself and without a cache: the whole text anew for each token."""
    text = [BOS]
    while len(text) <= longest and text[-1] != EOS:
        logits = model(torch.tensor([source]), torch.tensor([text]))[0, -1]
        logits[[PAD, BOS]] = -torch.inf
        text.append(int(logits.argmax()))
    return [token for token in text[1:] if token != EOS]


@every_model
@torch.no_grad()
def test_steps_equal_the_whole_and_rows_can_be_chosen(sets):
    model, source = untrained(sets), padded(SOURCES)
    target = torch.randint(3, 12, (3, 7))
    target[:, 0] = BOS
    whole = model(source, target)
    decoding = Decoding(model, source)
    steps = torch.stack([decoding.step(target[:, t]) for t in range(4)], 1)
    torch.testing.assert_close(steps, whole[:, :4], rtol=1e-4, atol=1e-4)
    rows = torch.tensor([2, 0, 0, 1])
    decoding.select(rows)
    for t in range(4, 7):
        torch.testing.assert_close(decoding.step(target[rows, t]), whole[rows, t], rtol=1e-4, atol=1e-4)


@every_model
@torch.no_grad()
def test_padding_changes_nothing(sets):
    model = untrained(sets)
    target = torch.randint(3, 12, (3, 5))
    whole = model(padded(SOURCES), target)
    for i, source in enumerate(SOURCES):
        torch.testing.assert_close(model(torch.tensor([source]), target[i : i + 1])[0], whole[i], rtol=1e-4, atol=1e-4)


@every_model
@torch.no_grad()
def test_a_beam_of_one_is_greedy_for_a_batch_at_once(sets):
    model = untrained(sets)
    found = beam_search(Decoding(model, padded(SOURCES)), [12, 3, 9])
    assert found == [greedy(model, source, most) for source, most in zip(SOURCES, [12, 3, 9], strict=True)]


@every_model
@torch.no_grad()
@pytest.mark.slow
def test_a_wide_beam_finds_the_best_of_all_texts(sets):
    model, letters = untrained(sets, vocabulary=6), (3, A, B)
    texts = [(*t, EOS) for n in range(3) for t in itertools.product(letters, repeat=n)]
    texts += itertools.product(letters, repeat=3)
    sources = [[4, 5, 5, EOS], [5, EOS], [3, 4, EOS]]
    found = beam_search(Decoding(model, padded(sources)), [3, 3, 3], 100, length_power=0.8)
    for source, text in zip(sources, found, strict=True):
        values = []
        for t in texts:
            logits = model(torch.tensor([source]), torch.tensor([[BOS, *t[:-1]]]))[0]
            logits[:, [PAD, BOS]] = -torch.inf
            values.append(logits.log_softmax(1)[range(len(t)), t].sum().item() / len(t) ** 0.8)
        assert text == [token for token in texts[int(np.argmax(values))] if token != EOS]


def last_cross_attention(model, source):
    """By the book, of what goes into it while it writes."""
    kept = []
    cross = model.decoder.blocks[-1].cross
    hook = cross.register_forward_hook(lambda _, x, named, y: kept.append((x[0], named["memory"])), with_kwargs=True)
    with torch.no_grad():
        text = greedy(model, source, min(40, 2 * len(source) + 20))
        model(torch.tensor([source]), torch.tensor([[BOS, *text][:40]]))
    hook.remove()
    (x, memory), (w_q, w_k, _), (b_q, b_k, _) = kept[-1], cross.qkv.weight.chunk(3), cross.qkv.bias.chunk(3)
    queries, keys = (F.linear(x[0], w_q, b_q)).chunk(2, 1), (F.linear(memory[0], w_k, b_k)).chunk(2, 1)
    seen = [(q @ k.T / math.sqrt(q.shape[1])).softmax(1) for q, k in zip(queries, keys, strict=True)]
    return sum(seen).detach() / 2


@every_model
def test_where_it_looks(sets):
    tokenizer = learn_bpe(["x"], 260)
    model = untrained(sets, vocabulary=260)
    config = {name: getattr(tiny(**sets), name) for name in FIELDS}
    attention = Translator(model, tokenizer, config).attention_map("two €")
    if sets["model"] == "rnn":
        assert attention is None
        return
    target, source, weights = attention
    assert source == ["", "t", "w", "o", "", "·", "·", "·", "<eos>"] and weights.shape == (len(target), 9)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    if sets["model"] == "transformer":
        np.testing.assert_allclose(
            weights, last_cross_attention(model, [*tokenizer.encode("two €").ids, EOS]), rtol=1e-4, atol=1e-6
        )


def test_the_picture_is_dark_where_it_looked():
    weights = np.zeros((2, 3), np.float32)
    weights[0, 2], weights[1, 0] = 1.0, 0.5
    picture = draw_attention((["사만", "<eos>"], ["forty", "·", "<eos>"], weights), cell=20)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    left, above = picture.shape[1] - 60, picture.shape[0] - 40
    cells = picture[above + 10 :: 20, left + 10 :: 20, 0]
    assert cells.tolist() == [[255, 255, 0], [127, 255, 255]]
    assert picture[:above, left + 2 : left + 18].min() < 100 > picture[above + 2 : above + 18, :left].min()  # words


@pytest.mark.parametrize("model", MODELS)
def test_multi30ks_models_have_at_most_ten_million_parameters(model):
    cfg = dataclasses.replace(PRESETS["multi30k"], model=model)
    with torch.device("meta"):
        net = network({name: getattr(cfg, name) for name in FIELDS}, cfg.vocabulary)
    assert 5e6 < sum(p.numel() for p in net.parameters()) <= 1e7


# -- the run -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sets", [SETS[1], SETS[3], SETS[5]], ids=MODELS)
@pytest.mark.slow
def test_learns_a_few_pairs_by_heart_and_the_agent_on_disk_knows_them(
    tmp_path, monkeypatch, capsys, sets, learning_seed, record_property
):
    monkeypatch.chdir(tmp_path)
    left = ["a", "b a", "c a b", "d", "b d", "a b c d", "d c"]
    right = ["사", "만 사", "천 사 만", "백", "만 백", "사 만 천 백", "백 천"]
    two = files(tmp_path, "\n".join(left), "\n".join(right))
    own = {f"{name}_{side}": path for name in ("valid", "test") for side, path in two.items()}
    cfg = tiny(
        seed=1 + learning_seed,
        **two, **own, **sets, channels=32, dropout=0.0, smoothing=0.0, eval_every=1000, batch_tokens=400, context=12,
        bleu_tokenize="char", trainer={"steps": 150, "lr": 1e-2, "lr_warmup": 10},
    )  # fmt: skip
    run_dir = translation.main(cfg)
    err = capsys.readouterr().err
    record_property("score", translation_info(run_dir)[0]["score"]["beams"]["1"]["exact"])
    assert "test greedily: BLEU 100.00, exact 1.000" in err and "test with a beam of 2: BLEU 100.00" in err
    assert "|tok:char|" in err
    assert (run_dir / "attention.png").exists() == (sets["model"] != "rnn")

    agent = load(run_dir)
    for beam in (1, 3):
        assert agent(left, beam) == right
        assert [agent([one], beam)[0] for one in left] == right  # without padding
    unseen = ["c d", "d d a b", "b", "c b a d", "xyz"]
    texts = [agent.tokenizer.decode(greedy(agent.model, agent.encode(one), 12)).strip() for one in unseen]
    assert agent(unseen) == texts and len(set(texts)) > 2
    translation.main(dataclasses.replace(cfg, translate=(str(run_dir / "agent"), "d", " b  a ")))
    assert capsys.readouterr().out == f"백\n{agent([' b  a '])[0]}\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa\r\n\nd c\n")))
    translation.main(dataclasses.replace(cfg, translate=(str(run_dir),)))
    assert capsys.readouterr().out == "사\n\n백 천\n"  # line by line
    for broken, why in (
        (b"a\nb\xff c", "stdin, line 2: byte 0xff"),
        (b"a\n" + b"b " * 20, "stdin, line 2: a sentence"),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(broken)))
        with pytest.raises(ValueError, match=why):
            translation.main(dataclasses.replace(cfg, translate=(str(run_dir),)))
    with pytest.raises(ValueError, match="longer than this translator's context of 12"):
        agent(["a b c d e f g h i j k l"])
    with pytest.raises(ValueError, match="empty"):
        agent(["a", " "])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.slow
def test_main_on_number_words(tmp_path, monkeypatch, capsys, model):
    monkeypatch.chdir(tmp_path)
    run_dir = translation.main(tiny(model=model, reverse=True, trainer={"ema": 0.9} if model == "rnn" else {}))
    assert run_dir.parent.name == "translation" and f"numbers-{model}" in run_dir.name
    err = capsys.readouterr().err
    assert "150 for training, 12 for validation, 12 for the test; 300 tokens" in err
    info, _ = translation_info(run_dir)
    assert info["score"]["on"] == "test" and set(info["score"]["beams"]) == {"1", "2"}
    assert info["score"]["loss"] < math.log(300)  # it has learned something
    assert info["trained"]["step"] == 24 and "tokenizers" in info["versions"]


def translation_info(run_dir):
    from rlkit.saved_agents import load_agent_files

    return load_agent_files(run_dir)


def drive(cfg, run_dir, load=False, stop=None):
    runtime.setup(cfg.seed, "cpu", 1)
    splits = read_splits(cfg)
    tokenizer = learn_bpe((s for pair in splits["train"] for s in pair), cfg.vocabulary)
    data = {name: tokenized(name, part, tokenizer, cfg.context) for name, part in splits.items()}
    model = network({name: getattr(cfg, name) for name in FIELDS}, tokenizer.get_vocab_size())
    batches = Batches(pairs(data["train"][1], cfg.batch_tokens, runtime.derive_seed(cfg.seed, 2)))
    trainer = Trainer(model, loss_with(cfg.smoothing), cfg.trainer, run_dir, state={"batches": batches})
    if load:
        torch.manual_seed(99)
        assert trainer.load()
    losses = []
    for step, _, aux in trainer.run(batches):
        losses.append(aux["loss"].item())
        if step % 5 == 0:  # an evaluation on the way changes nothing
            nats_per_token(trainer.model, data["valid"][1])
            assert trainer.model.training
        if step == stop:
            trainer.save()
            break
    return losses, trainer


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.slow
def test_half_and_resume_equals_the_whole_bit_for_bit(tmp_path, model):
    cfg = tiny(model=model, dropout=0.2)
    expected, whole = drive(cfg, tmp_path / "whole")
    first, _ = drive(cfg, tmp_path / "halves", stop=11)
    second, resumed = drive(cfg, tmp_path / "halves", load=True)
    assert first + second == expected and len(second) == 13
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_tokens_and_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    left = [f"{a} {b}" for a in "abcdefgh" for b in "abcdefgh"]
    two = files(tmp_path, "\n".join(left), "\n".join(x[::-1] for x in left))
    cfg = tiny(**two, held=4, trainer={"steps": 6})
    run_dir = translation.main(cfg)
    before = (run_dir / "tokenizer.json").read_text(encoding="utf-8")
    goes_on = load_config(Config, run_dir)
    goes_on.resume, goes_on.trainer.steps = str(run_dir), 8
    moved = {name: f"moved.{name}" for name in two}
    for name, path in two.items():
        (tmp_path / moved[name]).write_bytes((tmp_path / path).read_bytes())
    assert translation.main(dataclasses.replace(goes_on, **moved)) == run_dir
    files(tmp_path, "\n".join(x + " zzz" for x in left), "\n".join(left))  # other pairs would be made of these
    with pytest.raises(ValueError, match=r"--source .* holds other data than .*moved\.source"):
        translation.main(goes_on)
    (run_dir / "data.json").unlink()  # as in runs from before there was one
    (run_dir / "config.json").write_text(json.dumps(dataclasses.asdict(goes_on)))
    goes_on.trainer.steps = 9
    assert translation.main(goes_on) == run_dir
    assert (run_dir / "tokenizer.json").read_text(encoding="utf-8") == before
    assert translation_info(run_dir)[0]["trained"]["step"] == 9
    with pytest.raises(ValueError, match="--seed cannot change"):
        translation.main(dataclasses.replace(goes_on, seed=2))
    (run_dir / "tokenizer.json").write_text(before[:100])
    with pytest.raises(DamagedFile, match=r"tokenizer\.json holds no byte pairs"):
        translation.main(goes_on)


def test_other_folders_are_no_translators(tmp_path):
    with pytest.raises(FileNotFoundError, match="no agent"):
        load(tmp_path)
    save_agent(tmp_path, {"kind": "dqn", "config": {}}, {"w": torch.zeros(1)})
    with pytest.raises(ValueError, match="'dqn', no translator"):
        load(tmp_path)
    save_agent(tmp_path, {"kind": "translator", "config": {}, "tokenizer": "{}"}, {"w": torch.zeros(1)})
    with pytest.raises(DamagedFile, match="does not describe a translator"):
        load(tmp_path)
