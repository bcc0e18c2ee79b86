"""What two ranks find out about their averages, for test_ranks.py: torchrun averages.py FOLDER."""

import hashlib
import json
import sys
from pathlib import Path

import torch
from torch import nn

from rlkit import runtime
from rlkit.errors import NonFiniteLoss
from rlkit.trainer import TrainConfig, Trainer

rank, found = runtime.rank(), {}
torch.manual_seed(7)
data = {"x": torch.randn(12, 1, 3), "y": torch.randn(12)}


def model(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 1))


def squared(model, batch):
    return (model(batch["x"]).squeeze(1) - batch["y"]).square().mean(), {}


def per_token(model, batch):
    loss, _ = squared(model, batch)
    return loss, {"tokens": torch.tensor(float(len(batch["y"])))}


def rows(low, high):
    return {name: x[low:high] for name, x in data.items()}


def weights(model):
    return torch.cat([x.detach().flatten().double() for x in model.state_dict().values()])


def hash_of(model):
    return hashlib.sha256(b"".join(x.contiguous().numpy().tobytes() for x in model.state_dict().values())).hexdigest()


sgd = TrainConfig(steps=1, optimizer="sgd", momentum=0.0, lr=0.1, clip=0, progress=False)
for name, loss, mine in (
    ("half each", squared, rows(6 * rank, 6 * rank + 6)),
    ("by tokens", per_token, rows(0, 2) if rank == 0 else rows(2, 12)),
):
    alone = model(0)
    squared(alone, data)[0].backward()
    expected = torch.cat([(p.detach() - 0.1 * p.grad).flatten() for p in alone.parameters()])
    trainer = Trainer(model(rank), loss, sgd)  # other first weights on each rank: rank 0's are meant
    for _, _, aux in trainer.run([mine]):
        found[f"{name}: loss"] = abs(float(aux["loss"]) - float(squared(alone, data)[0]))
    got = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    found[name] = float((got - expected).abs().max())

# Unequal data, statistics of their own, averaged weights: all ranks stay the same.
network = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
trainer = Trainer(network, squared, TrainConfig(steps=50, ema=0.9, progress=False))
noise = torch.Generator().manual_seed(100 + rank)
batches = ({"x": torch.randn(8, 1, 3, generator=noise) + rank, "y": torch.randn(8, generator=noise)} for _ in range(99))
for _ in trainer.run(batches):
    pass
found["hashes"] = [hash_of(trainer.model), hash_of(trainer.averaged)]
found["own random numbers"] = float(torch.rand(()))

# Rank 1 is asked to stop: both do, after the same update.
trainer = Trainer(model(0), squared, TrainConfig(steps=50, progress=False))
for step, _, _ in trainer.run(rows(0, 6) for _ in range(99)):
    trainer.stopped |= rank == 1 and step == 5
found["stopped"] = trainer.step

# What is not finite on rank 1 is masked on both.
trainer = Trainer(model(0), squared, TrainConfig(steps=20, log_every=10, progress=False))
before = weights(trainer.model)
try:
    for _ in trainer.run({"x": data["x"], "y": data["y"] * (float("nan") if rank else 1)} for _ in range(99)):
        pass
except NonFiniteLoss:
    found["masked"] = bool((weights(trainer.model) == before).all())

Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(found))
