"""The four forms by what they promise, and whole runs of small readers."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.sequences import pretraining
from experiments.sequences.accuracies import draw_bars, interval, table
from experiments.sequences.fine_tuning import GapClassifier
from experiments.sequences.objectives import (
    BEGIN,
    FIRST,
    MASK,
    NONE,
    OBJECTIVES,
    PAD,
    QUERY,
    SIZE,
    causal,
    denoising,
    infilled,
    masked,
    permutation,
)
from experiments.sequences.pretraining import Config, main, pretrain
from experiments.sequences.reader import Reader, fill_in, load_reader, loss_fn
from experiments.sequences.texts import read_corpus
from experiments.sequences.word_gaps import frequent_words, gaps
from rlkit import run, runtime
from rlkit.checkpoint import save_agent
from rlkit.errors import DamagedFile
from rlkit.nn.transformer import Shape
from rlkit.trainer import TrainConfig


def text(count, length, seed=0):
    """[count, length] of letters: no byte comes twice in a row of up to 26."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(26)[np.arange(length) % 26] for _ in range(count)]) + FIRST + 97


def small(seed=0):
    torch.manual_seed(seed)
    return Reader(Shape(16, 2, 2)).eval()


# -- masked ------------------------------------------------------------------------------------------------------------


def test_fifteen_percent_are_hidden_and_eighty_of_them_masked():
    tokens = text(500, 40)
    batch = masked(tokens, np.random.default_rng(0))
    inputs, targets = batch["inputs"].numpy(), batch["targets"].numpy()
    hidden = targets != NONE
    assert (hidden.sum(1) == 6).all()  # 15 % of 40
    assert (targets[hidden] == tokens[hidden]).all() and (inputs[~hidden] == tokens[~hidden]).all()
    now, before = inputs[hidden], tokens[hidden]
    assert np.mean(now == MASK) == pytest.approx(0.8, abs=0.02)
    assert np.mean(now == before) == pytest.approx(0.1, abs=0.015)
    other = now[(now != MASK) & (now != before)]
    assert len(other) / len(now) == pytest.approx(0.1, abs=0.015)
    assert other.min() >= FIRST and other.max() < SIZE and len(set(other)) > 150  # any byte
    assert hidden.mean(0) == pytest.approx(np.full(40, 0.15), abs=0.06)  # any place
    assert batch["seen"].all()


def test_masks_are_drawn_anew_for_every_batch():
    tokens, rng = text(1, 40), np.random.default_rng(0)
    seen = {tuple((masked(tokens, rng)["targets"] != NONE)[0].nonzero().flatten().tolist()) for _ in range(200)}
    assert len(seen) == 200


# -- causal ------------------------------------------------------------------------------------------------------------


def test_causal_is_the_text_and_the_text_one_further():
    tokens = text(3, 16)
    batch = causal(tokens, np.random.default_rng(0))
    assert torch.equal(batch["inputs"], torch.from_numpy(tokens[:, :-1]))
    assert torch.equal(batch["targets"], torch.from_numpy(tokens[:, 1:]))
    model = small()
    before = model(batch)
    batch["inputs"][:, 9] = FIRST
    changed = (model(batch) != before).any(2)
    assert not changed[:, :9].any() and changed[:, 9:].all()


# -- denoising ---------------------------------------------------------------------------------------------------------


def test_infilling_leaves_the_text_with_holes():
    """The letters of a row differ: what is left tells where the holes are, and how long."""
    rng, lengths = np.random.default_rng(0), []
    for row in text(400, 26):
        out = infilled(row, rng)
        kept = [t for t in out if t != MASK]
        assert len(kept) == 26 - 8 and len(out) <= 26  # 30 % of 26
        assert all(a != MASK or b != MASK for a, b in itertools.pairwise(out))  # one mask a span
        where = [int(np.flatnonzero(row == t)[0]) for t in kept]
        assert where == sorted(where)
        # Each gap in what is left has its mask: put the spans back, and the text is whole.
        whole, at = [], 0
        for i, token in enumerate(out):
            if token == MASK:
                end = 26 if i + 1 == len(out) else int(np.flatnonzero(row == out[i + 1])[0])
                whole += row[at:end].tolist()
                lengths.append(end - at)
                at = end
            else:
                assert row[at] == token
                whole.append(token)
                at += 1
        assert whole == row.tolist()
    lengths = np.array(lengths)
    # Poisson's shares, but for those that the last span of a row takes or is cut to.
    assert 0.01 < np.mean(lengths == 0) < 0.06 and 2.3 < lengths.mean() < 3.0 and lengths.max() > 5


@pytest.mark.parametrize("length", [4, 5, 7, 11])
def test_infilling_of_short_texts_never_grows(length):
    rng = np.random.default_rng(1)
    for row in text(300, length):
        out = infilled(row, rng)
        assert out.count(MASK) >= 1 and len(out) <= length
        assert len(out) - out.count(MASK) == length - max(1, round(0.3 * length))


def test_denoising_writes_the_original():
    tokens = text(4, 16)
    batch = denoising(tokens, np.random.default_rng(0))
    source, written = batch["inputs"][:, :-16], batch["inputs"][:, -16:]
    assert (
        torch.equal(batch["targets"][:, -16:], torch.from_numpy(tokens)) and (batch["targets"][:, :-16] == NONE).all()
    )
    assert (written[:, 0] == BEGIN).all() and torch.equal(written[:, 1:], torch.from_numpy(tokens[:, :-1]))
    assert (source == MASK).any(1).all() and (source[:, 0] != PAD).all()
    assert batch["places"].tolist() == [*range(source.shape[1]), *range(16)]
    for row, original in zip(source.numpy(), tokens, strict=True):
        kept = row[(row != PAD) & (row != MASK)]
        assert len(kept) == 11 and np.isin(kept, original).all()


def test_what_is_written_sees_the_whole_source_and_its_own_past():
    model, batch = small(), denoising(text(3, 16), np.random.default_rng(0))
    s = batch["inputs"].shape[1] - 16
    before = model(batch)

    def changed(row):
        other = batch | {"inputs": batch["inputs"].clone()}
        other["inputs"][:, row] = FIRST
        return (model(other) != before).any(2)

    past = changed(s + 9)
    assert not past[:, : s + 9].any() and past[:, s + 9 :].all()  # none of the source, nothing written earlier
    assert changed(2).all()
    assert (batch["inputs"][:, s - 1] == PAD).any()
    padding = batch["inputs"][:, s - 1] == PAD
    assert not changed(s - 1)[padding][:, torch.arange(s + 16) != s - 1].any()


# -- permutation -------------------------------------------------------------------------------------------------------


def test_a_query_sees_exactly_what_came_before_it():
    """Through two blocks: a token never changes what is asked of it, nor anything earlier in the order."""
    n, model, tokens = 12, small(), text(3, 12)
    batch = permutation(tokens, np.random.default_rng(4))
    # The order, as the content rows have it: as many see a token as come after it, and itself.
    order = n - batch["seen"][:, 0, :n, :n].sum(1)
    assert torch.equal(order.sort(1).values, torch.arange(n).expand(3, n))
    assert (batch["inputs"][:, n:] == QUERY).all() and torch.equal(batch["places"], torch.arange(n).repeat(2))
    before = model(batch)
    for i in range(n):
        other = batch | {"inputs": batch["inputs"].clone()}
        other["inputs"][:, i] = FIRST
        changed = (model(other) != before).any(2)
        assert torch.equal(changed[:, n:], order > order[:, i : i + 1])  # queries
        assert torch.equal(changed[:, :n], order >= order[:, i : i + 1])  # content


def test_the_end_of_the_order_is_predicted():
    tokens = text(50, 12)
    batch = permutation(tokens, np.random.default_rng(0))
    targets = batch["targets"].numpy()
    assert (targets[:, :12] == NONE).all() and ((targets[:, 12:] != NONE).sum(1) == 2).all()
    order = 12 - batch["seen"][:, 0, :12, :12].sum(1).numpy()
    assert (targets[:, 12:] == np.where(order >= 10, tokens, NONE)).all()
    assert len({tuple(row) for row in order}) == 50


# -- all ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.slow
def test_every_form_learns_a_row_by_heart(name, learning_seed, record_property):
    """And then fills it in; the loss of a model that has no idea is log(260)."""
    tokens, model = text(1, 16), small(learning_seed)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    assert loss_fn(model, OBJECTIVES[name](tokens, np.random.default_rng(0)))[0].item() == pytest.approx(
        np.log(SIZE), abs=0.3
    )
    for i in range(600 if name in ("masked", "permutation") else 100):  # they predict less in a batch
        loss, _ = loss_fn(model, OBJECTIVES[name](tokens.repeat(32, 0), np.random.default_rng([learning_seed, i])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seen, made = fill_in(model, name, tokens, np.random.default_rng(1000))
    whole = "".join(chr(t - FIRST) for t in tokens[0])
    record_property("score", float(np.mean([a == b for a, b in zip(made, whole, strict=False)])))
    assert made == whole
    assert seen == whole[:8] if name == "causal" else "_" in seen


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_weight_of_a_reader_is_trained(name):
    model = small()
    model.zero_grad()
    loss_fn(model, OBJECTIVES[name](text(8, 16), np.random.default_rng(0)))[0].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


# -- the task ----------------------------------------------------------------------------------------------------------


def test_words_are_counted_where_they_stand_alone():
    text = b"an ox, an ox; an_ox oxen x 2ox \xec\x84\xb8 ox\xec an a a a"
    assert frequent_words(text, 2) == [b"an", b"ox"]
    assert frequent_words(text, 5) == [b"an", b"ox", b"oxen", b"ox\xec", b"\xec\x84\xb8"]
    with pytest.raises(ValueError, match="the text has 5 different words, and 6"):
        frequent_words(text, 6)


def test_gaps_hide_their_word_and_nothing_else():
    text = b"in the box the cat saw the dog and the fox, in and out in between " * 3
    batch = gaps(text, [b"the", b"and"], 9, window=12, seed=1)
    assert batch["label"].tolist() == [0] * 4 + [1] * 4 and batch["tokens"].shape == (8, 12)
    found = set()
    for row, label in zip(batch["tokens"].numpy(), batch["label"], strict=True):
        assert (row == MASK).nonzero()[0].tolist() == [6]
        piece = [bytes((part - FIRST).astype(np.uint8)) for part in (row[:6], row[7:])]
        at = text.find(piece[0] + (b"the", b"and")[label] + piece[1])
        assert at >= 0
        found.add((at, *piece))
    other = gaps(text, [b"the", b"and"], 9, window=12, seed=2)["tokens"]
    assert not torch.equal(batch["tokens"], other)
    with pytest.raises(ValueError, match=r"'and' stands 6 times in 198 bytes, where 10 .* lower --labels or --tests"):
        gaps(text, [b"and"], 10, window=12, seed=1)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_classifier_reads_the_row_that_learned_to_predict(name):
    """A causal one what is before the gap, the others both sides; of the gap each the sign that it knows."""
    tokens = torch.from_numpy(text(2, 9))
    tokens[:, 4] = MASK
    model = GapClassifier(small(), 3, name).eval()
    before = model(tokens)
    for i in [0, 1, 2, 3, 5, 6, 7, 8]:
        other = tokens.clone()
        other[:, i] = FIRST
        assert (model(other) != before).any(1).all() == (name != "causal" or i < 4)
    known = {"masked": MASK, "causal": None, "denoising": MASK, "permutation": QUERY}[name]
    for sign in (MASK, QUERY):
        with torch.no_grad():
            kept = model.reader.embed.weight[sign].clone()
            model.reader.embed.weight[sign] = 1 - kept
            assert (model(tokens) != before).any().item() == (sign == known)
            model.reader.embed.weight[sign] = kept


def test_intervals_by_hand():
    mean, half = interval([0.5, 0.6, 0.7])
    assert mean == pytest.approx(0.6) and half == pytest.approx(4.30 * 0.1 / 3**0.5)
    mean, half = interval([0.2, 0.4])
    assert half == pytest.approx(12.71 * 0.1)
    lines = table({"masked": 1.5}, {"masked": {"tuned": (0.625, 0.01), "scratch": (0.5, 0), "gain": (0.125, 0.02)}})
    assert lines.split("\n")[1] == "masked         1.500       62.5 +- 1.0       50.0 +- 0.0       12.5 +- 2.0"


def test_bars_are_as_high_as_what_they_show():
    image = draw_bars({"masked": {"tuned": (1.0, 0.0), "scratch": (0.5, 0.0), "gain": (0.5, 0.0)}}, chance=0.125)
    blue, grey = (image == (18, 52, 140)).all(2).any(1).sum(), (image == (170, 170, 170)).all(2).any(1).sum()
    assert abs(blue - 300) <= 3 and abs(grey - 150) <= 3


# -- runs --------------------------------------------------------------------------------------------------------------


TEXT = "the cat and the dog sat on a mat, and a fox in a box sat by the dog; but the cat is on it.\n"


def tiny(**kw):
    trainer = TrainConfig(
        **{"steps": 4, "optimizer": "adamw", "lr": 1e-3, "progress": False, "log_every": 2, "save_every": 2}
        | kw.pop("trainer", {})
    )
    base = {"window": 16, "layers": 1, "width": 8, "heads": 2, "batch_size": 4, "labels": 16, "tests": 16}
    tune = {"tune_steps": 3, "tune_batch": 8, "repeats": 2, "device": "cpu", "threads": 1}
    return Config(**(base | tune | kw), trainer=trainer)


def weights(run_dir, name):
    return load_reader(run_dir / name / "agent")[0].state_dict()


@pytest.mark.slow
def test_all_four_in_one_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_dir = main(tiny())
    lines = capsys.readouterr().out.strip().split("\n")
    assert [line.split()[0] for line in lines] == ["objective", *OBJECTIVES]
    for name in OBJECTIVES:
        info = json.loads((run_dir / name / "agent" / "agent.json").read_text())
        assert info["kind"] == "pretraining" and info["config"]["objective"] == name
        assert set(info["score"]) >= {"nats", "tuned", "scratch", "gain"}
        assert list((run_dir / name).glob("events*"))
    with Image.open(run_dir / "accuracy.png") as image:
        assert image.size[0] > 600

    # By itself an objective comes out as it does among all; and it can be tuned again, from its folder.
    alone = main(tiny(objective="denoising"))
    for key, weight in weights(alone, "denoising").items():
        assert torch.equal(weight, weights(run_dir, "denoising")[key]), key
    capsys.readouterr()
    again = main(tiny(start_from=str(run_dir / "denoising"), width=64, labels=8))
    assert capsys.readouterr().out.split("\n")[1].startswith("denoising")
    assert torch.equal(weights(again, "denoising")["embed.weight"], weights(alone, "denoising")["embed.weight"])


@pytest.mark.slow
def test_resume_is_exact(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text(TEXT * 20)
    cfg = tiny(text="t.txt", objective="permutation")
    whole = main(cfg)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((whole / "config.json").read_bytes())
    runtime.setup(cfg.seed, "cpu", 1)
    real = pretraining.Trainer.run

    def two_steps(self, batches):
        for step, batch, aux in real(self, batches):
            yield step, batch, aux
            if step == 2:
                self.save()
                return

    with monkeypatch.context() as patch:
        patch.setattr(pretraining.Trainer, "run", two_steps)
        corpus = read_corpus("t.txt", "", "bytes", cfg.window + 1)
        trainer, _ = pretrain("permutation", cfg, corpus, broken / "permutation", torch.device("cpu"), run.Deadline(0))
        assert trainer.step == 2
        trainer.close()
    assert main(dataclasses.replace(cfg, resume=str(broken))) == broken
    for key, weight in weights(whole, "permutation").items():
        assert torch.equal(weight, weights(broken, "permutation")[key]), key
    scores = [json.loads((run / "permutation/agent/agent.json").read_text())["score"] for run in (whole, broken)]
    assert scores[0] == scores[1]


# -- what a user may get wrong -----------------------------------------------------------------------------------------


def test_bad_input_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("short " * 20)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"one\n\xe9\n")
    for name, length in (("short.txt", 120), ("empty.txt", 0)):
        with pytest.raises(ValueError, match=rf"{name} has {length} bytes, .* takes \d+: shorten"):
            main(tiny(text=name, window=150))
    with pytest.raises(ValueError, match="the text has 1 different words, and 8"):
        main(tiny(text="short.txt"))
    (tmp_path / "once.txt").write_text(TEXT * 2)
    with pytest.raises(ValueError, match=r"'the' stands 0 times in 19 bytes, where 2 .* lower --labels or --tests"):
        main(tiny(text="once.txt"))
    with pytest.raises(ValueError, match=r"latin.txt, line 2: byte 0xe9 is no UTF-8"):
        main(tiny(text="latin.txt"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        main(tiny(text="nowhere"))
    with pytest.raises(ValueError, match="--width 10 is no multiple of 4"):
        main(tiny(width=10))
    with pytest.raises(ValueError, match="--labels must be at least 8"):
        main(tiny(labels=7))
    with pytest.raises(ValueError, match="--repeats must be at least 2"):
        main(tiny(repeats=1))
    with pytest.raises(FileNotFoundError, match="holds no agent"):
        main(tiny(start_from=str(tmp_path)))
    save_agent(tmp_path / "other", {"kind": "dqn"}, {"w": torch.zeros(1)})
    with pytest.raises(ValueError, match="kind 'dqn', and none that was pre-trained here"):
        main(tiny(start_from=str(tmp_path / "other")))
    save_agent(tmp_path / "odd", {"kind": "pretraining", "config": {"width": 8}}, {"w": torch.zeros(1)})
    with pytest.raises(DamagedFile, match="does not describe a reader"):
        main(tiny(start_from=str(tmp_path / "odd")))
    assert not (tmp_path / "runs").exists()
