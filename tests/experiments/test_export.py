"""Each kind of agent, tiny and untrained, exported: `main` itself compares every file with the network."""

import functools
import json
import sys

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
from experiments.sequences import reader, text_model
from experiments.sequences.byte_pairs import learn_bpe
from experiments.sequences.translator import Translator, network
from experiments.supervised import image_classifier
from experiments.supervised.regression import Line
from rlkit.checkpoint import save_agent
from rlkit.nn.transformer import Shape

ABOUT = {"env": {"game": "catch", "protocol": "toy"}, "trained": {"frames": 1}, "score": {"mean": 2.0}}


@pytest.fixture(autouse=True)
def cached_operators(monkeypatch):
    """The exporter lists its operators anew each time, which takes longer than these networks do."""
    pytest.importorskip("onnxruntime", reason="ONNX needs the extra `export`")
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(operators(ONNXRegistry.from_torchlib)))


operators = functools.cache(functools.cache)


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
    save(folder, AlphaZero(BoardNetwork(3, 16, 2, **config)))


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


def language_model(folder, model):
    config = {"model": model, "layers": 2, "width": 8, "heads": 2, "context": 6, "dropout": 0.1, "vocabulary": "ehlo"}
    save_agent(folder, {"kind": "language_model", "config": config}, disturb(text_model.build(config)).state_dict())


def translation(folder, model, kind="gru", attention="additive"):
    tokenizer = learn_bpe(["one two", "eins zwei"], 270)
    config = {"model": model, "kind": kind, "attention": attention, "channels": 8, "heads": 2, "layers": 1, "hidden": 8}
    config |= {"dropout": 0.1, "context": 6, "lowercase": False}
    translator = Translator(disturb(network(config, tokenizer.get_vocab_size())), tokenizer, config)
    translator.save(folder, {})
    return translator


def pretraining(folder, objective):
    config = {"objective": objective, "window": 6, "width": 8, "heads": 2, "layers": 1}
    weights = disturb(reader.Reader(Shape(8, 2, 1))).state_dict()
    (folder / objective).mkdir(parents=True)
    save_agent(folder / objective / "agent", {"kind": "pretraining", "config": config}, weights)


CASES = {
    "plain": (dqn, {}),
    "dueling on numbers": (dqn, {"obs_shape": (1, 6), "backbone": "mlp", "dueling": True, "double": True}),
    "c51": (dqn, {"distribution": "c51", "atoms": 5}),
    "qr": (dqn, {"distribution": "qr", "atoms": 5}),
    "noisy iqn": (dqn, {"distribution": "iqn", "noisy": True}),
    "impala": (dqn, {"backbone": "impala"}),
    "resnet": (dqn, {"backbone": "resnet"}),
    "vgg": (dqn, {"backbone": "vgg"}),
    "memory none": (recurrent, {"backbone": "none"}),
    "memory rnn": (recurrent, {"backbone": "rnn"}),
    "memory gru": (recurrent, {"backbone": "gru"}),
    "memory lstm of images": (recurrent, {"backbone": "lstm", "torso": "nature"}),
    "memory transformer": (recurrent, {"backbone": "transformer"}),
    "pqn": (pqn, {}),
    "alphazero resnet": (alphazero, {}),
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
    "language lstm": (language_model, {"model": "lstm"}),
    "language rnn": (language_model, {"model": "rnn"}),
    "translation transformer": (translation, {"model": "transformer"}),
    "translation rnn": (translation, {"model": "rnn"}),
    "translation lstm": (translation, {"model": "attention", "kind": "lstm"}),
    "translation dot": (translation, {"model": "attention", "attention": "dot"}),
    "bert": (pretraining, {"objective": "masked"}),
    "causal": (pretraining, {"objective": "causal"}),
    "denoising": (pretraining, {"objective": "denoising"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_all(case, form, tmp_path):
    make, options = CASES[case]
    make(tmp_path / "agent", **options)
    main(Config(str(tmp_path / "agent"), tmp_path / f"a{export.ENDINGS[form]}", form))
