"""Each kind of agent, tiny and untrained, exported: `main` itself compares every file with the network."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from agents.alphago.network import PolicyNetwork, ValueNetwork
from agents.alphago.parts import Parts
from agents.alphazero.network import BoardNetwork
from agents.alphazero.player import AlphaZero
from agents.pqn.agent import PQN, PQNConfig
from agents.rainbow.agent import Rainbow
from agents.rainbow.config import RainbowConfig
from agents.recurrent.agent import RecurrentConfig, RecurrentDQN
from envs.go.game import Go
from experiments import export
from experiments.alphago import stages
from experiments.export import Config, main
from experiments.networks import BATCH, Array, Network, networks
from experiments.sequences import reader, text_model
from experiments.sequences import translator as translators
from experiments.sequences.byte_pairs import learn_bpe
from experiments.supervised import image_classifier
from experiments.supervised.regression import Line
from rlkit.checkpoint import save_agent
from rlkit.nn.transformer import Shape

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra `export`")
ABOUT = {"env": {"game": "catch", "protocol": "toy"}, "trained": {"frames": 1}, "score": {"mean": 2.0}}


@pytest.fixture(autouse=True)
def operators_once(monkeypatch):
    """The exporter lists its operators anew for each file, which takes it longer than these networks."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cached(ONNXRegistry.from_torchlib)))


cached = functools.cache(functools.cache)


def save(folder, agent):
    """Any weights but the first ones, many of which are 0."""
    disturb(agent.network)
    save_agent(folder, agent.describe() | ABOUT, agent.network.state_dict())


def disturb(network):
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def dqn(folder, obs_shape=(2, 36, 36), **config):
    save(folder, Rainbow(obs_shape, 3, RainbowConfig(width=0.1, **config)))


def recurrent(folder, **config):
    obs_shape = (1, 36, 36) if config.get("torso") == "nature" else (1, 5)
    save(folder, RecurrentDQN(obs_shape, 3, RecurrentConfig(width=0.1, features=8, **config)))


def pqn(folder):
    save(folder, PQN((2, 36, 36), 3, PQNConfig(width=0.1)))


def alphazero(folder, **config):
    save(folder, AlphaZero(BoardNetwork(3, 16, 1, **config)))


def alphago(folder, **parts):
    stages.save(folder, Parts(**{name: made() for name, made in parts.items()}), Go(5, 5, 0.5), {}, {})


def images(folder, backbone, size=12):
    config = {"backbone": backbone, "in_shape": [1, size, size], "width": 0.1, "classes": 4, "hidden": [16]}
    config |= {"activation": "relu", "dropout": 0.5}
    model = disturb(image_classifier.build(config))
    save_agent(folder, {"kind": "classifier", "config": config}, model.state_dict())


def heights(folder):
    line = disturb(Line(np.array([60.0, 65.0]), np.array([2.0, 3.0])))
    config = {"target": "child", "predictors": ["father", "mother"]}
    save_agent(folder, {"kind": "line", "config": config}, line.state_dict())


def language_model(folder, model, layers=1):
    config = {
        "model": model,
        "layers": layers,
        "width": 8,
        "heads": 2,
        "context": 6,
        "dropout": 0.1,
        "vocabulary": "ehlo",
    }
    save_agent(folder, {"kind": "language_model", "config": config}, disturb(text_model.build(config)).state_dict())


def translation(folder, model, kind="gru", attention="additive"):
    tokenizer = learn_bpe(["one two", "eins zwei"], 270)
    config = {"model": model, "kind": kind, "attention": attention, "channels": 8, "heads": 2, "layers": 1, "hidden": 8}
    config |= {"dropout": 0.1, "context": 6, "lowercase": False}
    model = disturb(translators.network(config, tokenizer.get_vocab_size()))
    translator = translators.Translator(model, tokenizer, config)
    translator.save(folder, {})
    return translator


def pretraining(folder, objective):
    config = {"objective": objective, "window": 6, "width": 8, "heads": 2, "layers": 1}
    weights = disturb(reader.Reader(Shape(8, 2, 1))).state_dict()
    (folder / objective).mkdir(parents=True)
    save_agent(folder / objective / "agent", {"kind": "pretraining", "config": config}, weights)


CASES = {
    "dqn": (dqn, {}),
    "c51 of numbers": (dqn, {"obs_shape": (1, 6), "backbone": "mlp", "distribution": "c51", "normalise": True}),
    "planes": (dqn, {"obs_shape": (1, 4, 10, 10), "backbone": "minatar"}),
    "qr": (dqn, {"distribution": "qr", "atoms": 5}),
    "dueling noisy iqn": (dqn, {"distribution": "iqn", "noisy": True, "dueling": True}),
    "impala": (dqn, {"backbone": "impala"}),
    "resnet": (dqn, {"backbone": "resnet"}),
    "vgg": (dqn, {"backbone": "vgg"}),
    "memory none": (recurrent, {"backbone": "none"}),
    "memory rnn": (recurrent, {"backbone": "rnn"}),
    "memory gru": (recurrent, {"backbone": "gru"}),
    "memory lstm of images": (recurrent, {"backbone": "lstm", "torso": "nature"}),
    "memory transformer": (recurrent, {"backbone": "transformer"}),
    "pqn": (pqn, {}),
    "alphazero": (alphazero, {}),
    "alphazero transformer": (alphazero, {"backbone": "transformer", "heads": ()}),
    "alphazero alphago": (alphazero, {"backbone": "alphago", "size": 5, "has_pass": False}),
    "alphago": (
        alphago,
        {
            "policy": lambda: disturb(PolicyNetwork(5, 48, 4, 2)),
            "value": lambda: disturb(ValueNetwork(5, 49, 4, 2)),
            "rollout": lambda: np.linspace(-1, 1, 20, dtype=np.float32),
        },
    ),
    "images mlp": (images, {"backbone": "mlp"}),
    "images cnn": (images, {"backbone": "cnn"}),
    "images vgg-a": (images, {"backbone": "vgg-a", "size": 32}),
    "images resnet-20": (images, {"backbone": "resnet-20"}),
    "heights": (heights, {}),
    "gpt": (language_model, {"model": "transformer"}),
    "language lstm": (language_model, {"model": "lstm", "layers": 2}),
    "language rnn": (language_model, {"model": "rnn"}),
    "transformer": (translation, {"model": "transformer"}),
    "encoder-decoder": (translation, {"model": "rnn"}),
    "attention lstm": (translation, {"model": "attention", "kind": "lstm"}),
    "attention gru": (translation, {"model": "attention", "kind": "gru", "attention": "dot"}),
    "attention rnn": (translation, {"model": "attention", "kind": "rnn"}),
    "bert": (pretraining, {"objective": "masked"}),
    "causal": (pretraining, {"objective": "causal"}),
    "denoising": (pretraining, {"objective": "denoising"}),
}
OFTEN = {
    "onnx": ["dueling noisy iqn", "memory lstm of images", "alphazero", "heights", "gpt"],
    "torch": ["c51 of numbers", "planes", "pqn", "alphago", "images cnn", "language rnn", "transformer", "bert"],
}
"""cases that cost little, of each kind one at least (others are in tests below); all in both formats are exhaustive"""


def params():
    for form, often in OFTEN.items():
        for name, case in CASES.items():
            mark = pytest.mark.slow if name in often else pytest.mark.exhaustive
            yield pytest.param(form, *case, marks=mark, id=f"{name}, {form}")


@pytest.mark.parametrize(("form", "make", "options"), list(params()))
def test_every_network_gives_the_same_numbers_from_its_file(form, make, options, tmp_path, capsys):
    """As `main` finds by itself; and an ONNX file is called here as it says."""
    make(tmp_path / "agent", **options)
    paths = main(Config(str(tmp_path / "agent"), tmp_path / f"x{export.ENDINGS[form]}", form))
    _, found = networks(tmp_path / "agent")
    assert [path.stem.removeprefix("x") for path in paths] == [f"_{name}" if name else "" for name in found]
    said = capsys.readouterr().out.split("wrote ")[1:]
    for path, network, block in zip(paths, found.values(), said, strict=True):
        assert block.startswith(f"{path}, whose numbers")
        if form == "onnx":
            arrays = export.draw(network.inputs, 2)
            scope = {"onnxruntime": onnxruntime} | dict(zip([a.name for a in network.inputs], arrays, strict=True))
            exec(block.splitlines()[-1].strip(), scope)
            for name, wanted in zip(network.outputs, network(*map(torch.from_numpy, arrays)), strict=True):
                np.testing.assert_allclose(scope[name], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_an_onnx_file_says_what_it_is(tmp_path):
    dqn(tmp_path / "agent")
    (path,) = main(Config(str(tmp_path / "agent"), tmp_path / "q.onnx"))
    model = onnxruntime.InferenceSession(path)
    (obs,), (q,) = model.get_inputs(), model.get_outputs()
    assert (obs.name, obs.type, obs.shape) == ("obs", "tensor(uint8)", ["batch", 2, 36, 36])
    assert (q.name, q.type, q.shape) == ("q", "tensor(float)", ["batch", 3])
    about, info = model.get_modelmeta().custom_metadata_map, json.loads((tmp_path / "agent/agent.json").read_text())
    assert about["kind"] == "dqn" and about["git"] == info["git"]
    assert all(json.loads(about[name]) == info[name] for name in ("env", "score", "config", "trained"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_steps_in_a_row_are_an_unroll(tmp_path):
    recurrent(tmp_path / "agent", backbone="transformer")
    _, found = networks(tmp_path / "agent")
    network, (_, step) = found[""].module, export.torch_file(found[""], {})
    obs, first, rows = torch.randn(2, 3, 1, 5), network.core.initial_state(2), []
    wanted, _ = network(obs, first)
    state = [part.numpy() for part in first]
    for t in range(3):
        q, *state = step([obs[:, t].numpy(), *state])
        rows.append(q)
    np.testing.assert_allclose(np.stack(rows, 1), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_translation_by_the_files_is_the_translators(tmp_path):
    translator = translation(tmp_path / "agent", "attention", "rnn")
    encoder, decoder = (export.torch_file(part, {})[1] for part in networks(tmp_path / "agent")[1].values())
    source = np.array([[5, 9, 2, 0, 0], [7, 8, 6, 3, 2]])  # the encoder must see where padding begins
    target, logits = np.array([[1, 5, 6], [1, 7, 7]]), []
    *known, h = encoder([source])
    for token in target.T:
        y, h = decoder([np.ascontiguousarray(token), h, *known])
        logits.append(y)
    with torch.no_grad():
        wanted = translator.model.eval()(torch.from_numpy(source), torch.from_numpy(target))
    np.testing.assert_allclose(np.stack(logits, 1), wanted, rtol=1e-4, atol=1e-4)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path):
    heights(tmp_path / "agent")
    return str(tmp_path / "agent")


def test_a_missing_package_is_named(agent, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r"`export`.*onnxscript is missing: pip install"):
        main(Config(agent))


def test_what_has_no_network(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no agent"):
        main(Config(str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="no agent 'nosuch' ships"):
        main(Config("alphazero:nosuch"))
    with pytest.raises(ValueError, match="mcts:10 has no network to export"):
        main(Config("mcts:10"))
    save_agent(tmp_path / "agent", {"kind": "uct"}, {})
    with pytest.raises(ValueError, match=r"kind 'uct', which has no network to export; these have: dqn, "):
        main(Config(str(tmp_path / "agent")))


def test_where_a_file_cannot_be(agent, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nosuch to write x.onnx to"):
        main(Config(agent, tmp_path / "nosuch" / "x.onnx"))
    with pytest.raises(ValueError, match=r"x.pt2 does not end in .onnx, as files of --format onnx do"):
        main(Config(agent, tmp_path / "x.pt2"))


def test_a_file_of_other_numbers_is_not_written(agent, tmp_path, monkeypatch):
    (tmp_path / "x.pt2").write_text("before")
    monkeypatch.setattr(export, "torch_file", lambda network, about: (b"", lambda arrays: [arrays[0][:, 0]]))
    with pytest.raises(ValueError, match=r"x.pt2 was not written: .* differ from the network's by"):
        main(Config(agent, tmp_path / "x.pt2", "torch"))
    assert (tmp_path / "x.pt2").read_text() == "before"


# -- the comparison ----------------------------------------------------------------------------------------------------


def test_distance():
    x = np.array([0.5, -np.inf, 4.0])
    assert export.distance(x, x) == 0
    assert export.distance(x, np.array([0.5, -np.inf, 3.0])) == 0.25  # a share of the largest
    assert export.distance(x[:1], np.array([0.25])) == 0.25  # below 1 as it is
    for y in (x[:2], x.astype(np.float32), np.array([0.5, 0.0, 4.0]), np.array([np.nan, -np.inf, 4.0])):
        assert export.distance(x, y) == np.inf
    assert export.distance(np.zeros((2, 0)), np.zeros((2, 0))) == 0
    assert export.distance(np.array([True]), np.array([False])) == 1


def test_usage_names_what_may_vary():
    length = torch.export.Dim("length")
    arrays = [Array("tokens", (BATCH, length), torch.int64, 9), Array("h", (BATCH, 1, 8))]
    network = Network(
        nn.Identity(), arrays, ["logits", "next_h"], lambda x, h: (torch.zeros(len(x), x.shape[1] + 1, 3), h)
    )
    _, shapes = export.compare(network, lambda arrays: [y.numpy() for y in network(*map(torch.from_numpy, arrays))])
    assert export.usage(Path("x.pt2"), network, shapes) == [
        "tokens int64 [batch, length], h float32 [batch, 1, 8] -> logits [batch, ?, 3], next_h [batch, 1, 8]",
        'logits, next_h = torch.export.load("x.pt2").module()(tokens, h)',
    ]


def test_inputs_are_drawn_in_several_sizes():
    length = torch.export.Dim("length", max=5)
    inputs = [Array("tokens", (BATCH, length), torch.int64, 9), Array("seen", (BATCH, length, 2), torch.bool)]
    shapes = [[x.shape for x in export.draw(inputs, check)] for check in range(3)]
    assert shapes == [[(3, 4), (3, 4, 2)], [(1, 5), (1, 5, 2)], [(5, 2), (5, 2, 2)]]
    tokens, seen = export.draw(inputs, 0)
    assert tokens.dtype == np.int64 and tokens.max() < 9 and (tokens[:, 0] > 0).all()
    assert seen.dtype == bool and seen[..., 0].all() and not seen.all()
