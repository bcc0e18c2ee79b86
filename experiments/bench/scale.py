"""One run on several ranks, or with actors, beside runs that know nothing of each other; and a plan for a cluster.

python -m experiments bench scale --json --seconds 10
python -m experiments bench scale --plan --cpus 256       # how many actors feed a learner (experiments/bench/plan.py)

Each rank has the batch that a run alone has, so the two do the same work but for the average of the gradients, and for
the waiting of the faster rank. Ranks are worth their while where they make most of the updates that two runs do, and
actors where they play most of what two runs do.
"""

import json
import statistics
from dataclasses import replace

from experiments.bench import plan
from experiments.bench.neighbours import measure, outputs, rates
from experiments.bench.turns import Config, report

RANKS = 2
LEARNERS: dict[str, tuple[str, dict[str, int]]] = {
    "dqn": ("--learning-starts 2000 --no-save-replay", {"num-envs": 16, "batch-size": 128, "replay": 20_000}),
    "images": ("--data digits --epochs 10000", {"batch-size": 64}),
    "language_model": ("--model transformer", {"batch-size": 16}),
    "alphazero": (
        "--size 5 --channels 64 --blocks 6 --rungs random --eval-minutes 999 --minutes 999 --selfplay.parts 1",
        {"selfplay.games": 32, "selfplay.start": 100, "selfplay.window": 20_000, "selfplay.batch-size": 128},
    ),
}
"""of each command: its flags, and what is divided among ranks; AlphaZero's updates are rounds of self-play"""
NEVER = 10**9
PLAYERS = {
    "alphazero": (
        "alphazero --rungs random --eval-minutes 999 --minutes 999 --threads 1 --selfplay.parts 1", "alphazero",
        f"--size 9 --selfplay.games 32 --selfplay.start {NEVER}", "--size 5 --selfplay.games 64 --selfplay.start 200",
        "evaluations/s",
    ),
    "dqn on Pong": (
        "dqn --env pong --replay 20000 --no-save-replay --threads 1 --frames {NEVER} --eval-every {NEVER}",
        "apex", "--learning-starts 20000 --epsilon-frames 1", "--learning-starts 2000", "steps/s",
    ),
}  # fmt: skip
"""of each: the command in one process, the one with actors, flags to play only, flags to learn too, what is counted"""

# Runs a command until it has played (and learned), then counts for so many seconds, and is gone.
WORKER = """
import json, os, sys, threading, time
from agents.alphazero.selfplay import SelfPlay
from agents.dqn.actors import ActorExperience
from agents.dqn.experience import Experience
from experiments.__main__ import load, parse
from rlkit.trainer import Trainer

seconds, learns, name, *flags = float(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
made, updates = [], []
for kind in SelfPlay, ActorExperience, Experience:
    def begun(self, *args, _begin=kind.__init__, **options):
        _begin(self, *args, **options)
        made.append(self)
    kind.__init__ = begun
update = Trainer.update
Trainer.update = lambda self, batch: (updates.append(1), update(self, batch))[1]

def counts():
    one = made[0]
    stream = getattr(getattr(one, "source", one), "stream", None)
    return stream, {
        "seconds": time.monotonic(), "played": getattr(one, "evaluations", 0) or getattr(one, "steps", 0),
        "games": getattr(one, "finished", 0), "positions": getattr(one, "positions", 0), "updates": len(updates),
        "waits": one.timer.seconds["selfplay"] + one.timer.seconds["actors"], "bytes": stream.bytes if stream else 0,
    }

def watch():
    while not made or not counts()[1]["played"] or len(updates) < 5 * learns:
        time.sleep(0.05)
    time.sleep(2)
    _, before = counts()
    time.sleep(seconds)
    stream, after = counts()
    out = {key: (after[key] - before[key]) / (after["seconds"] - before["seconds"]) for key in after}
    if stream:
        out |= {"lag": sum(stream.lags) / max(1, len(stream.lags)), "weights": stream._size}
        out["call"] = sum(stream._full_seconds.values()) / max(1, len(stream._full_seconds))
        stream.actors.ray.shutdown()
    print(json.dumps(out), flush=True)
    os._exit(0)

threading.Thread(target=watch, daemon=True).start()
command = load(name)
command.main(parse(command, [*flags, "--trainer.no-progress"]))
"""


def played(cfg: Config, words: str, learns: bool, runs: int = 1) -> dict[str, float]:
    """What so many runs have done a second, added up; of shares, lags and sizes the mean."""
    found = [json.loads(out) for out in outputs(WORKER, [str(cfg.seconds), str(int(learns)), *words.split()], runs)]
    return {
        key: sum(one[key] for one in found) / (1 if key in ("played", "games", "positions", "updates") else runs)
        for key in found[0]
    }


def ranks(cfg: Config) -> None:
    """Updates/s of RANKS ranks together and of as many runs, medians of cfg.rounds turns."""
    for name, (flags, divided) in LEARNERS.items():
        alone, shared = (  # a thread each, as torchrun has it for ranks
            " ".join([name, flags, "--threads 1", *(f"--{flag} {times * size}" for flag, size in divided.items())])
            for times in (1, RANKS)
        )
        together, averages, apart = [], [], []
        for _ in range(cfg.rounds):
            rate, share = measure(cfg, shared, ranks=RANKS)[0]
            together.append(RANKS * rate)
            averages.append(100 * share)
            apart.append(sum(rates(cfg, alone, runs=RANKS)))
        both, peers = statistics.median(together), statistics.median(apart)
        report(cfg, f"{name}: {RANKS} ranks", both, "updates/s", "runs apart", peers)
        report(cfg, f"{name}: averaging", statistics.median(averages), "% of the time")


def actors(cfg: Config) -> None:
    """What one and two actors play for a learner that only collects, beside as many runs; and for one that learns."""
    for name, (alone, command, collecting, learning, unit) in PLAYERS.items():
        alone = alone.replace("{NEVER}", str(NEVER))
        with_actors = command + alone[alone.index(" ") :] + " --actors"
        turns: dict[str, list[dict[str, float]]] = {}
        for _ in range(cfg.rounds):
            for what, words, learns, runs in (
                ("1 actor", f"{with_actors} 1 {collecting}", False, 1),
                ("2 actors", f"{with_actors} 2 {collecting}", False, 1),
                ("1 run", f"{alone} {collecting}", False, 1),
                ("2 runs", f"{alone} {collecting}", False, 2),
                ("learner and 1 actor", f"{with_actors} 1 {learning}", True, 1),
            ):
                turns.setdefault(what, []).append(played(cfg, words, learns, runs))
        median = {
            what: {key: statistics.median(one[key] for one in values) for key in values[0]}
            for what, values in turns.items()
        }
        for count in (1, 2):
            a, b = f"{count} actor{'s' * (count > 1)}", f"{count} run{'s' * (count > 1)}"
            report(cfg, f"{name}: {a}, collecting", median[a]["played"], unit, b, median[b]["played"])
        both = median["learner and 1 actor"]
        report(cfg, f"{name}: learner and 1 actor", both["played"], unit)
        report(cfg, f"{name}: its updates", both["updates"], "updates/s")
        report(cfg, f"{name}: the learner waits", 100 * both["waits"], "% of the time")
        report(cfg, f"{name}: lag", both["lag"], "versions")
        report(cfg, f"{name}: between them", both["bytes"] / 1e6, "MB/s")
        report(cfg, f"{name}: weights", both["weights"] / 1e6, "MB a version")


def simulated(cfg: Config) -> None:
    """What the plan's formulas say of two actors that sleep, beside what comes of it, where each bound is the one."""
    quick = plan.Cluster(
        updates=40, batch=16, games=20, each=10, evaluations=400, weights=1, position=1, publish_every=5
    )
    for settings in (
        {},
        {"updates": 10},
        {"games": 80, "max_lag": 1},
        {"games": 80, "evaluations": 800, "max_lag": 2, "publish_every": 3},
        {"position": 10_000, "bandwidth": 4e5},
    ):
        it = replace(quick, **settings)
        formula, (updates, lag) = plan.predicted(it, 2), plan.simulate(it, 2, 15)
        name = f"plan, held up by {formula.bound}, calls of {it.call:.2g} s"
        report(cfg, name, updates, "updates/s", "formula", formula.updates)
        report(cfg, f"{name}: lag", lag, "versions", "formula", formula.lag)


def main(cfg: Config) -> None:
    """The plan, or what ranks and actors do."""
    if cfg.plan:
        print(plan.table(cfg.cpus, cfg.updates))
        return
    ranks(cfg)
    actors(cfg)
    simulated(cfg)
