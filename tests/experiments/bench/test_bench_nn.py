"""The benchmark of the shared trainer, in small."""

import json

import torch

from experiments.bench import nn, turns


def test_main_prints_a_row_for_each_model(capsys, monkeypatch):
    threads = torch.get_num_threads()
    for name, value in (("LENGTH", 4), ("ROWS", 2), ("IMAGES", 2), ("UPDATES", 1)):
        monkeypatch.setattr(nn, name, value)
    nn.main(turns.Config(what="nn", json=True, rounds=1, seconds=0.001, threads=1, device="cpu"))
    torch.set_num_threads(threads)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["bench"].split(",")[0] for row in rows] == ["cnn", "lstm", "gru", "transformer"]
    assert all(row["ratio"] > 0 for row in rows)
