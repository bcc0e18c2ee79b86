"""How often do the tests of learning pass? Over many seeds, in settings that round sums in another order.

python tests/seeds.py                                                # all of them, 20 seeds in each setting: hours
python tests/seeds.py tests/agents/pqn/test_pqn.py --seeds 5 --settings default disturbed flipped

A test of learning takes the fixture `learning_seed`, adds it to its own seed, and gives its score to record_property.
Each setting is a process of its own. Where the weights after the first seeds are bit for bit those of an earlier
setting, the others are not run: "= default".
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

ENVIRONMENTS = {
    "default": {"ONEDNN_MAX_CPU_ISA": "DEFAULT"},
    "onednn-avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "onednn-avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "aten-default": {"ATEN_CPU_CAPABILITY": "default"},
    "aten-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "two-threads": {"GOMP_SPINCOUNT": "0"},
    "disturbed": {},  # first weights times 1 + 1e-6 times normal noise
    "flipped": {},  # a broken learner: gradients have the wrong sign
    "frozen": {},  # no learner at all: gradients are zero
}
BROKEN = ("flipped", "frozen")
PROBES = 2
"""seeds by which a setting shows whether it is bit for bit an earlier one; as many run with what is broken"""


class Watch:
    """A pytest plugin: runs what takes `learning_seed` with each of the seeds, and keeps what came of it.

    All learning goes through an optimiser of torch, where weights are met before their first step and gradients before
    every one.
    """

    def __init__(self, setting, seeds, only=()):
        self.seeds, self.only, self.results, self.weights, self.noise = seeds, only, [], [], torch.Generator()
        create, disturb = torch.optim.Optimizer.__init__, 1e-6 * (setting == "disturbed")

        def created(optimizer, *args, **kw):
            create(optimizer, *args, **kw)
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            self.weights += weights
            with torch.no_grad():
                for p in weights if disturb else ():
                    p.mul_(1 + disturb * torch.randn(p.shape, generator=self.noise))

        torch.optim.Optimizer.__init__ = created
        if setting in BROKEN:
            factor = {"flipped": -1.0, "frozen": 0.0}[setting]

            def broken(optimizer, *_):
                for group in optimizer.param_groups:
                    for p in group["params"]:
                        if p.grad is not None:
                            p.grad.mul_(factor)

            register_optimizer_step_pre_hook(broken)
        if setting == "two-threads":
            torch.set_num_threads(2)
            torch.set_num_threads = lambda number: None  # the tests ask for one

    def pytest_generate_tests(self, metafunc):
        if "learning_seed" in metafunc.fixturenames:
            metafunc.parametrize("learning_seed", self.seeds, indirect=True, ids=[f"seed{n}" for n in self.seeds])

    def pytest_collection_modifyitems(self, items):
        learners = [item for item in items if "learning_seed" in item.fixturenames]
        items[:] = [item for item in learners if not self.only or plain(item.nodeid) in self.only]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        self.weights.clear()
        self.noise.manual_seed(item.callspec.params["learning_seed"])
        began = time.process_time()
        try:
            return (yield)
        finally:
            crc = 0
            for p in self.weights:
                crc = zlib.crc32(p.detach().numpy().tobytes(), crc)
            item.user_properties += [("weights", crc), ("seconds", time.process_time() - began)]

    def pytest_runtest_logreport(self, report):
        if report.when != "call":
            assert report.passed, f"{report.nodeid} did not get as far as learning: {report.longreprtext}"
            return
        seed = int(re.search(r"\bseed(\d+)\b", report.nodeid)[1])
        values = {"test": plain(report.nodeid), "seed": seed, "passed": report.passed}
        self.results.append({name: float(value) for name, value in report.user_properties} | values)
        print(json.dumps(self.results[-1]), file=sys.stderr, flush=True)  # a run takes hours: what is known so far


def plain(nodeid):
    """A test's name without its folder and seed."""
    return re.sub(r"\[seed\d+\]|\bseed\d+-|-seed\d+\b", "", nodeid.split("/")[-1])


def measure(setting, seeds, tests, only=()):
    """Results of all tests in a process of its own: {test: {seed: result}}."""
    with tempfile.NamedTemporaryFile("r") as file:
        one = {"OMP_NUM_THREADS": "2" if setting == "two-threads" else "1", "NUMBA_NUM_THREADS": "1"}
        job = json.dumps([setting, list(seeds), tests, list(only), file.name])
        env = os.environ | one | ENVIRONMENTS[setting]
        subprocess.run([sys.executable, __file__, "--job", job], env=env, stdout=subprocess.DEVNULL)
        results = defaultdict(dict)
        for result in json.load(file):
            results[result["test"]][result["seed"]] = result
    return results


def cell(runs, broken):
    """Passes, and the score that is nearest to the mark."""
    scores = [r["score"] for r in runs if "score" in r]
    nearest = f" ({max(scores) if broken else min(scores):.3g})" if scores else ""
    return f"{sum(r['passed'] for r in runs)} of {len(runs)}{nearest}"


def work(setting, seeds, tests, only, out):
    watch = Watch(setting, seeds, only)
    pytest.main(["-n", "0", "-p", "no:cacheprovider", "--tb=no", *tests], plugins=[watch])
    Path(out).write_text(json.dumps(watch.results))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=["tests"], help="files or tests, as pytest takes them")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--settings", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        work(*json.loads(args.job))
        return
    probes, others = range(args.first, args.first + PROBES), range(args.first + PROBES, args.first + args.seeds)
    found = {setting: measure(setting, probes, args.tests) for setting in args.settings}
    same = defaultdict(dict)  # test -> setting -> the earlier one that it equals
    for k, setting in enumerate(args.settings):
        for test, runs in found[setting].items():
            for earlier in args.settings[:k]:
                if all(runs[n]["weights"] == found[earlier][test][n]["weights"] for n in probes):
                    same[test].setdefault(setting, earlier)
        left = [test for test in found[setting] if setting not in same[test]]
        if left and others and setting not in BROKEN:
            for test, runs in measure(setting, others, args.tests, left).items():
                found[setting][test] |= runs
    print("| test | seconds |", " | ".join(args.settings), "|\n|---|---|" + "---|" * len(args.settings))
    for test, first in found[args.settings[0]].items():
        cells = []
        for setting in args.settings:
            runs = found[setting][test].values()
            equal = same[test].get(setting)
            cells.append(f"= {equal}" if equal else cell(runs, setting in BROKEN))
        seconds = sorted(run["seconds"] for run in first.values())[len(first) // 2]
        print(f"| {test} | {seconds:.1f} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
