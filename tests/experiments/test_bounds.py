"""Numbers that make no sense are refused, with the flag and what it may be, before anything is read or written."""

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.alphago import pipeline as alphago
from experiments.alphago import rl as alphago_rl
from experiments.alphago import sl as alphago_sl
from experiments.alphago import value as alphago_value
from experiments.bench import __main__ as bench
from experiments.bench import turns
from experiments.control import curves
from experiments.control import memory as dqn_memory
from experiments.control import suite as atari_suite
from experiments.go import alphazero as alphazero_go
from experiments.go import gtp, make_games, match
from experiments.sequences import language_model, translation
from experiments.supervised import heights, images


@pytest.mark.parametrize(
    "main, cfg, message",
    [
        (alphago.main, alphago.Config(size=25), "--size must be between 2 and 19, not 25"),
        (alphago_rl.main, alphago_rl.Config(komi=1e9), "--komi must be between -361 and 361"),
        (alphago_sl.main, alphago_sl.Config(held_out=2.0), "--held-out must be between 0 and 1, not 2"),
        (alphago_value.main, alphago_value.Config(held_out=-1.0), "--held-out must be between 0 and 1"),
        (alphazero_go.main, alphazero_go.Config(gate=2.0), "--gate must be between 0 and 1"),
        (atari_suite.checked, atari_suite.Config(seeds=(1, -1)), "--seed must be at least 0, not -1"),
        (atari_suite.checked, atari_suite.Config(frames=0), "--frames must be at least 1, not 0"),
        (curves.main, curves.Config((Path("x"),), smooth=0), "--smooth must be at least 1, not 0"),
        (dqn_memory.main, dqn_memory.Config(flicker=2.0), "--flicker must be between 0 and 1"),
        (gtp.main, gtp.Config(komi=400.0), "--komi must be between -361 and 361"),
        (gtp.main, gtp.Config(resign=2.0), "--resign must be between 0 and 1, not 2"),
        (heights.main, heights.Config(predict="x", values=(float("inf"),)), "--values must be finite"),
        (images.main, images.Config(hidden=(8, 0)), "--hidden must be at least 1, not 0"),
        (images.main, images.Config(image_size=-1), "--image-size must be at least 0"),
        (language_model.main, language_model.Config(dropout=1.0), "--dropout must be between 0 and 0.99"),
        (make_games.main, make_games.Config(Path("x.sgf"), komi=-400.0), "--komi must be between -361 and 361"),
        (match.main, match.Config("random", "random", komi=1e9), "--komi must be between -361 and 361"),
        (match.main, match.Config("random", "random", opening_moves=-1), "--opening-moves must be at least 0, not -1"),
        (translation.main, translation.Config(length_power=-1.0), "--length-power must be at least 0"),
        (bench.main, turns.Config(rounds=0), "--rounds must be at least 1, not 0"),
        (bench.main, turns.Config(threads=-1), "--threads must be at least 0, not -1"),
    ],
)
def test_numbers_out_of_bounds_are_refused(main, cfg, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        main(cfg)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("ema", 2.0, "--trainer.ema must be between 0 and 1, not 2"),
        ("momentum", -0.1, "--trainer.momentum must be between 0 and 1"),
        ("weight_decay", -1.0, "--trainer.weight-decay must be at least 0"),
        ("eps", -1.0, "--trainer.eps must be at least 0"),
        ("lr_warmup", -1, "--trainer.lr-warmup must be at least 0"),
        ("lr_final", -1.0, "--trainer.lr-final must be at least 0"),
    ],
)
def test_those_of_every_trainer_too(field, value, message):
    cfg = images.Config()
    with pytest.raises(ValueError, match=message):
        images.main(replace(cfg, trainer=replace(cfg.trainer, **{field: value})))
