"""Texts as numbers, counting, writing, and whole runs of small models."""

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.sequences import language_model
from experiments.sequences.language_model import PRESETS, Config, main
from experiments.sequences.sampling import generate, predictions
from experiments.sequences.text_model import build, load_model, loss_fn, nats_per_symbol, predict
from experiments.sequences.text_pictures import draw_table
from experiments.sequences.texts import (
    decode,
    encode,
    ngram_floor,
    read_corpus,
    standard_library,
    visible,
)
from rlkit import run, runtime
from rlkit.checkpoint import save_agent
from rlkit.data import Batches, windows
from rlkit.errors import DamagedFile
from rlkit.nn.language import CoreLanguageModel
from rlkit.nn.recurrent import Recurrent
from rlkit.saved_config import load_config
from rlkit.trainer import Trainer

DATA = Path(os.environ.get("RLKIT_DATA", Path(__file__).parents[4] / "shared" / "data")) / "ml"
MODELS = ("transformer", "lstm", "gru", "rnn")


def shape(model, **kw):
    return {
        "model": model,
        "vocabulary": "abcdefg",
        "layers": 2,
        "width": 16,
        "heads": 2,
        "context": 8,
        "dropout": 0.0,
    } | kw


def tiny(**kw):
    trainer = dataclasses.replace(
        PRESETS["cpu"].trainer,
        **{
            "steps": 6,
            "lr": 1e-3,
            "lr_warmup": 2,
            "precision": "fp32",
            "progress": False,
            "log_every": 2,
            "save_every": 2,
        }
        | kw.pop("trainer", {}),
    )
    base = {"layers": 1, "width": 16, "heads": 2, "context": 8, "batch_size": 4, "eval_every": 4, "tokens": 12}
    return Config(**(base | {"device": "cpu", "threads": 1} | kw), trainer=trainer)


@pytest.fixture
def text(tmp_path, monkeypatch):
    """A file of 600 characters, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("the cat sat on the mat.\n" * 25)
    return "text.txt"


# -- texts -------------------------------------------------------------------------------------------------------------


def test_characters_and_bytes_make_the_round_trip():
    text = "Grüße, 세계!\n"
    vocabulary = "".join(sorted(set(text)))
    numbers = encode(text, vocabulary)
    assert numbers.tolist() == [vocabulary.index(c) for c in text]
    assert decode(numbers, vocabulary) == text
    assert encode(text).tolist() == list(text.encode()) and decode(encode(text)) == text
    assert decode([0xEC, 65]) == "\ufffdA"
    assert visible([97, 10, 0xEC, 7]) == "a\u00b6\u00b7\u00b7"


def test_unknown_characters_are_named():
    with pytest.raises(ValueError, match=r"the prompt has characters .* never seen: '!', 'é'; it knows 'abc'"):
        encode("abé!ca!", "abc")


def test_the_split_is_nine_to_one_by_position(tmp_path):
    (tmp_path / "t.txt").write_text("0123456789" * 10 + "x")
    corpus = read_corpus(str(tmp_path / "t.txt"), "", "characters", 9)
    assert corpus.vocabulary == "0123456789x" and corpus.size == 11 and corpus.name == "t"
    assert decode(corpus.train, corpus.vocabulary) == "0123456789" * 9
    assert decode(corpus.valid, corpus.vocabulary) == "0123456789x"
    assert len(read_corpus(str(tmp_path / "t.txt"), "", "bytes", 9, valid=4).valid) == 4
    both = read_corpus(None, "hello", "characters", 5)
    assert both.vocabulary == "ehlo" and both.train.tolist() == both.valid.tolist() == [1, 0, 2, 2, 3]


def test_the_default_texts_are_source_and_always_the_same():
    text = standard_library(300_000)
    assert len(text) == 300_000 and text == standard_library(300_000) and text.count("import ") > 50


def test_a_python_without_source_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="name a file by --text"):
        standard_library()


def test_counting_by_hand():
    """Train abaab: a a follows b once and a b twice, ...; each count plus 0.1."""
    train, valid = encode("abaab", "ab"), encode("abb", "ab")
    a, b = 3.1 / 5.2, 2.1 / 5.2
    assert ngram_floor(train, valid, 1, 2) == pytest.approx(-(math.log(a) + 2 * math.log(b)) / 3)
    ab, bb = 2.1 / 3.2, 0.1 / 1.2  # after a came b, a, b; after b came a
    assert ngram_floor(train, valid, 2, 2) == pytest.approx(-(math.log(ab) + math.log(bb)) / 2)
    assert ngram_floor(train, valid, 3, 2) == pytest.approx(-math.log(0.1 / 1.2))  # after ab came a
    assert ngram_floor(train, encode("bbb", "ab"), 3, 2) == pytest.approx(math.log(2))  # bb was never seen
    assert ngram_floor(train, valid, 2, 2, add=1) == pytest.approx(-(math.log(3 / 5) + math.log(1 / 3)) / 2)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data in {DATA}; RLKIT_DATA may name another folder")
def test_the_floors_of_tiny_shakespeare():
    corpus = read_corpus(str(DATA / "tinyshakespeare.txt"), "", "characters", 129)
    assert (len(corpus.train), len(corpus.valid), corpus.size) == (1_003_854, 111_540, 65)
    floors = [ngram_floor(corpus.train, corpus.valid, order, corpus.size) for order in (1, 2, 3)]
    assert floors == pytest.approx([3.347, 2.484, 2.046], abs=6e-4)


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_predicts_every_symbol_once(name):
    """Against one prediction at a time; the last window is shorter."""
    torch.manual_seed(1)
    model, tokens, context = build(shape(name)), np.random.default_rng(0).integers(0, 7, 30), 8
    nats = []
    for t in range(1, len(tokens)):
        begin = (t - 1) // context * context
        logits, _ = predict(model, torch.from_numpy(tokens[begin:t])[None], None)
        nats.append(-logits[0, -1].log_softmax(0)[tokens[t]].item())
    assert len(nats) == 29
    assert nats_per_symbol(model, tokens, context) == pytest.approx(np.mean(nats), rel=1e-5)
    assert model.training


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("temperature, top_k", [(1.0, 0), (0.7, 3), (0.0, 0)])
@pytest.mark.slow
def test_cached_writing_equals_uncached(name, temperature, top_k):
    """Beyond the context of 8, and from a prompt that is longer than it."""
    torch.manual_seed(2)
    model = build(shape(name, dropout=0.5))
    for parameter in model.parameters():  # far from even chances
        parameter.data.mul_(4)
    for prompt in ([3], list(range(7)) * 3):
        cached = generate(model, prompt, 30, temperature, top_k, seed=5)
        assert cached == generate(model, prompt, 30, temperature, top_k, seed=5, cached=False)
        assert len(cached) == 30 and model.training
        if temperature:
            assert cached != generate(model, prompt, 30, temperature, top_k, seed=6)


def test_a_transformer_sees_its_context_and_no_more():
    """Every symbol but the first of a window is written from the same tokens as a fresh reading would be."""
    torch.manual_seed(3)
    model = build(shape("transformer")).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4)
    out = [0, *generate(model, [0], 40, 0.0, 0, seed=0)]
    begin = 0
    for i in range(1, len(out)):
        if i - begin > 8:  # full: half of it, and the symbol that came last
            begin = i - 4
        logits, _ = predict(model, torch.tensor([out[begin:i]]))
        assert out[i] == logits[0, -1].argmax(), i


@pytest.mark.slow
def test_temperature_and_top_k_draw_by_the_book():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    model = CoreLanguageModel(4, Recurrent("rnn", 4, 4), 4)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.out.bias.data = p.log()
    for temperature, top_k in [(1.0, 0), (0.5, 0), (2.0, 3)]:
        expected = p ** (1 / temperature) * (torch.arange(4) < (top_k or 4))
        counts = np.bincount(generate(model, [0], 2000, temperature, top_k, seed=1), minlength=4)
        assert counts / 2000 == pytest.approx((expected / expected.sum()).numpy(), abs=0.025)
    assert generate(model, [3], 5, 0.0, 0, seed=1) == generate(model, [3], 5, 1.0, 1, seed=1) == [0] * 5


def test_the_map_has_a_cell_for_each_pair():
    image = draw_table(np.array([[0.0, 1.0], [0.5, 0.0]]), "ab", "cd", cell=10)
    assert image.shape == (50, 50, 3) and image.dtype == np.uint8
    cells = image[[25, 25, 35, 35], [25, 35, 25, 35]]
    assert cells.tolist() == [[255] * 3, [18, 52, 140], [136, 153, 197], [255] * 3]
    assert (image[:20] < 255).any() and (image[:, :20] < 255).any()  # the symbols


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_hello_is_learned(tmp_path, monkeypatch, capsys, learning_seed):
    monkeypatch.chdir(tmp_path)
    cfg = PRESETS["hello"]
    cfg = dataclasses.replace(cfg, seed=cfg.seed + learning_seed)
    run_dir = main(dataclasses.replace(cfg, trainer=dataclasses.replace(cfg.trainer, progress=False)))
    said = capsys.readouterr().err
    for line in ("h -> e", "he -> l", "hel -> l", "hell -> o"):
        assert f"\n{line}  (0.9" in said or f"\n{line}  (1.00" in said, said
    model, config = load_model(run_dir)
    assert decode(generate(model, [1], 4, 0, 0, 0), config["vocabulary"]) == "ello"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_a_run_from_its_text_to_a_sample(name, text, capsys):
    run_dir = main(tiny(model=name, text=text, prompt="the "))
    info = json.loads((run_dir / "agent" / "agent.json").read_text())
    assert info["kind"] == "language_model" and info["config"]["vocabulary"] == "\n .acehmnost"
    events = EventAccumulator(str(run_dir))
    events.Reload()
    assert [p.step for p in events.Scalars("eval/nats")] == [4, 6]
    nats = events.Scalars("eval/nats")[-1].value
    assert info["score"]["nats"] == pytest.approx(nats) and info["score"]["symbols"] == 59
    assert events.Scalars("eval/bits")[-1].value == pytest.approx(nats / math.log(2))
    picture = "attention" if name == "transformer" else "states"
    with Image.open(run_dir / f"{picture}.png") as image:
        assert image.size[0] > 100 and f"eval/{picture}" in events.Tags()["images"]

    model, config = load_model(run_dir)
    corpus = read_corpus(text, "", "characters", 9)
    assert nats_per_symbol(model, corpus.valid, 8) == pytest.approx(nats, rel=1e-5)
    capsys.readouterr()
    assert main(tiny(sample=str(run_dir), prompt="the ", tokens=9, seed=4)) == run_dir
    out = capsys.readouterr().out
    expected = generate(model, encode("the ", config["vocabulary"]).tolist(), 9, 0.8, 0, seed=4)
    assert out == "the " + decode(expected, config["vocabulary"]) + "\n"


def test_bytes_need_no_vocabulary(text, capsys):
    run_dir = main(tiny(symbols="bytes", text=text))
    main(tiny(sample=str(run_dir / "agent"), prompt="세", temperature=0, tokens=3))
    assert capsys.readouterr().out.startswith("세")


@pytest.mark.parametrize("name", ["transformer", "lstm"])
@pytest.mark.slow
def test_resume_is_exact(name, text):
    cfg = tiny(model=name, text=text, dropout=0.1, layers=2)
    whole, _ = load_model(main(cfg))

    run_dir = run.open_run(cfg, "language_model", "broken_off")
    device = runtime.setup(cfg.seed, "cpu", 1)
    corpus = read_corpus(text, "", "characters", 9)
    config = {key: getattr(cfg, key) for key in ("model", "layers", "width", "heads", "context", "dropout")}
    model = build(config | {"vocabulary": corpus.vocabulary}).to(device)
    batches = Batches(windows(corpus.train, 9, 4, runtime.derive_seed(cfg.seed, 1)))
    trainer = Trainer(model, loss_fn, cfg.trainer, run_dir, state={"batches": batches})
    for step, _, _ in trainer.run(batches):
        if step == 3:
            trainer.save()
            break
    trainer.close()
    assert main(dataclasses.replace(cfg, resume=str(run_dir))) == run_dir
    for name, weight in load_model(run_dir)[0].state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), name


def test_a_run_goes_on_from_another_folder_and_with_a_text_that_has_moved(text, tmp_path, monkeypatch, capsys):
    run_dir = main(tiny(text=text)).absolute()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    loaded = load_config(Config, run_dir)
    assert loaded.text == str(tmp_path / text)
    more = dataclasses.replace(loaded, resume=str(run_dir), trainer=dataclasses.replace(loaded.trainer, steps=7))
    assert main(more) == run_dir
    (tmp_path / text).rename("moved.txt")
    with pytest.raises(FileNotFoundError, match=r"there is no .*text\.txt, which .* by --text PATH"):
        main(more)
    capsys.readouterr()
    assert main(dataclasses.replace(more, text="moved.txt")) == run_dir
    assert "nothing to do: step 7" in capsys.readouterr().err
    Path("other.txt").write_text(Path("moved.txt").read_text() + " ")
    with pytest.raises(ValueError, match=r"--text .*other\.txt holds other data than .*moved\.txt, which"):
        main(dataclasses.replace(more, text="other.txt"))
    assert load_config(Config, run_dir).text == str(tmp_path / "other" / "moved.txt")


def test_the_lines_that_a_run_prints_can_be_pasted(tmp_path, monkeypatch, capsys):
    import shlex

    monkeypatch.chdir(tmp_path)
    Path("my 'own' text.txt").write_text("the cat sat on the mat.\n" * 25)
    run_dir = main(tiny(text="my 'own' text.txt", prompt="the cat"))
    said = capsys.readouterr().err.splitlines()
    go_on, write = (shlex.split(line.split(":", 1)[1]) for line in said if line.startswith(("go on:", "write:")))
    assert go_on[1:] == ["-m", "experiments", "language_model", "--resume", str(run_dir)] and " " in str(run_dir)
    assert write[3:] == ["language_model", "--sample", str(run_dir), "--prompt", "the cat"]


def test_predictions_end_with_the_context_of_a_transformer():
    config = {"model": "transformer", "layers": 1, "width": 16, "heads": 2, "context": 4, "dropout": 0.0}
    for name, lines in (("transformer", 4), ("rnn", 10)):
        model = build(config | {"model": name, "vocabulary": " dehlorw"})
        shown = predictions(model, "hello world", " dehlorw")
        assert [line.partition(" -> ")[0] for line in shown] == ["hello world"[: i + 1] for i in range(lines)]


def test_zeros_stand_for_what_suits_the_model():
    cfg = language_model.with_defaults(Config(model="gru", width=24))
    layers, _, batch_size, steps, lr = language_model.SUITABLE["gru"]
    assert (cfg.layers, cfg.width, cfg.batch_size) == (layers, 24, batch_size)
    assert (cfg.trainer.steps, cfg.trainer.lr) == (steps, lr)
    assert set(language_model.SUITABLE) == set(MODELS)


# -- what a user may get wrong -----------------------------------------------------------------------------------------


def test_bad_texts_are_refused_before_anything_is_written(text, tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"one\ntwo \xe9\n")
    with pytest.raises(ValueError, match=r"short.txt has 9 characters, 8 of them to learn from, .* takes 9: shorten"):
        main(tiny(text="short.txt"))
    with pytest.raises(ValueError, match=r"empty.txt has 0 characters"):
        main(tiny(text="empty.txt"))
    with pytest.raises(ValueError, match=r"latin.txt, line 2: byte 0xe9 is no UTF-8"):
        main(tiny(text="latin.txt"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        main(tiny(text="nowhere.txt"))
    with pytest.raises(ValueError, match="never seen: '#'"):
        main(tiny(text=text, prompt="the #"))
    with pytest.raises(ValueError, match="give one of the two"):
        main(tiny(text=text, literal="hello"))
    with pytest.raises(ValueError, match="--width 18 is no multiple of 4"):
        main(tiny(text=text, width=18))
    with pytest.raises(ValueError, match="--temperature must be at least 0"):
        main(tiny(text=text, temperature=-1))
    with pytest.raises(ValueError, match="--eval-symbols 1 predicts nothing"):
        main(tiny(text=text, eval_symbols=1))
    assert not (tmp_path / "runs").exists()


def test_samples_want_a_language_model_and_known_characters(text, tmp_path):
    run_dir = main(tiny(text=text))
    with pytest.raises(ValueError, match="never seen: 'X', 'Y'"):
        main(tiny(sample=str(run_dir), prompt="tXeY"))
    with pytest.raises(FileNotFoundError, match="holds no agent"):
        main(tiny(sample=str(tmp_path)))
    save_agent(tmp_path / "other", {"kind": "dqn"}, {"w": torch.zeros(1)})
    with pytest.raises(ValueError, match="kind 'dqn', and no language model"):
        main(tiny(sample=str(tmp_path / "other")))
    info = json.loads((run_dir / "agent" / "agent.json").read_text())
    info["config"]["width"] = 24
    (run_dir / "agent" / "agent.json").write_text(json.dumps(info))
    with pytest.raises(DamagedFile, match="does not describe a model with these weights"):
        main(tiny(sample=str(run_dir)))
    with pytest.raises(ValueError, match="--text cannot change when a run goes on"):
        main(tiny(resume=str(run_dir), text=None))
