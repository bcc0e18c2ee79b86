"""The benchmark of the shared trainer, in small."""

import json
from dataclasses import replace

import torch

from experiments.bench import detection, nn, turns


def test_main_prints_a_row_for_each_model(capsys, monkeypatch):
    threads = torch.get_num_threads()
    for name, value in (("LENGTH", 4), ("ROWS", 2), ("IMAGES", 2), ("UPDATES", 1)):
        monkeypatch.setattr(nn, name, value)
    monkeypatch.setattr(detection, "PICTURES", 1)
    small = replace(detection.PRESETS["drawn"], height=64, width=96, backbone_width=0.125)
    monkeypatch.setitem(detection.PRESETS, "drawn", small)
    nn.main(turns.Config(what="nn", json=True, rounds=1, seconds=0.001, threads=1, device="cpu"))
    torch.set_num_threads(threads)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    networks = ["cnn", "lstm", "gru", "transformer"]
    operations = [f"{name}, {count} boxes" for count in (200, 1000) for name in ("RoIAlign", "NMS")]
    assert [row["bench"].split(",")[0] for row in rows[:4]] == networks
    assert [row["bench"] for row in rows[4:8]] == operations
    assert rows[8]["bench"] == "detector, through the trainer" and rows[9]["unit"] == "pictures/s"
    assert all(row["ratio"] > 0 for row in (*rows[:4], rows[8]))
    shares = {row["bench"]: row["value"] for row in rows[10:]}
    assert len(shares) == 4 and all(0 <= share <= 1.5 for share in shares.values())
