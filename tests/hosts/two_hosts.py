"""Self-play over two hosts whose cable is cut: the learner on one, its actors on the other, both on this machine.

    sudo .venv/bin/python tests/hosts/two_hosts.py --minutes 3 --out /tmp/two_hosts

A host is a process with namespaces of its own: network, processes, mounts and name, so that it has an address, a
/dev/shm and a /tmp/ray to itself. The cable is a pair of virtual Ethernet devices. When the first process of a host
ends, all that runs there ends, and its network too; and it ends with this script, however that ends. This wants Linux,
root, iproute2 and util-linux.

The cable is cut twice: for as long as Ray bears it, and until Ray has given the actors' host up; after that one
`ray start` has to be typed there again. The run has to end as any other does, with each game counted once.
"""

import argparse
import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parent.parent.parent
SHORT_CUT = 5
"""seconds"""
HEALTH = {"period_ms": 1000, "timeout_ms": 2000, "failure_threshold": 5}
"""how Ray's head asks whether the other host lives: it is given up after about 15 seconds, by default after 65"""
MORE = 30
"""games that have to come in before each cut, and after the last"""
LONG = 10
"""moves: games of so many are never the same by chance"""
RUN = """
    alphazero --size 5 --channels 16 --blocks 1 --device cpu --threads 1 --actors 2 --sgf-every 1
    --selfplay.games 32 --selfplay.simulations 8 --selfplay.start 200 --selfplay.batch-size 64
    --selfplay.opening-share 1 --selfplay.opening-moves 10 --eval-games 2 --rungs random
    --trainer.no-progress --trainer.log-every 5
"""
NAMESPACES = "unshare", "--net", "--pid", "--mount", "--uts", "--fork"
HOST = """
mount --make-rprivate / && mount -t proc none /proc && mount -t tmpfs none /dev/shm
mkdir -p /tmp/ray && mount --bind "$2" /tmp/ray
hostname "$1" && ip link set lo up && echo ready
read  # until the script ends
"""
began = time.monotonic()


def note(text: str) -> None:
    print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)


class Host:
    """A host. Its end of the cable has its name; Ray's files are in out/name, and its commands begin in `out`."""

    def __init__(self, name: str, address: str, out: Path, env: dict[str, str]):
        self.name, self.address, self.out, self.env = name, address, out, env
        (out / name).mkdir()
        command = [*NAMESPACES, "bash", "-ec", HOST, "host", name, str(out / name)]
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the host {name} does not begin")
        self.pid = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().strip()

    def start(self, *command: str, **options) -> subprocess.Popen:
        enter = ["nsenter", "--target", self.pid, "--net", "--pid", "--mount", "--uts", f"--wdns={self.out}"]
        return subprocess.Popen([*enter, *command], env=self.env, **options)

    def run(self, *command: str) -> None:
        """Raises RuntimeError with what the command printed where it fails."""
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        printed, _ = process.communicate(timeout=120)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} on {self.name}: {printed}")

    def ray(self, *options: str) -> None:
        """Begin Ray here."""
        memory = "--object-store-memory", str(100 * 2**20)
        ray = str(Path(sys.executable).parent / "ray")
        self.run(ray, "start", "--node-ip-address", self.address, *memory, "--disable-usage-stats", *options)

    def cable(self, state: str) -> None:
        """up or down"""
        self.run("ip", "link", "set", self.name, state)
        note(f"the cable is {state}")

    def close(self) -> None:
        """End all that runs here, and wait until it has ended."""
        self.process.communicate()


def connect(one: Host, other: Host) -> None:
    command = f"ip link add {one.name} netns {one.pid} type veth peer name {other.name} netns {other.pid}"
    subprocess.run(command.split(), check=True)
    for host in (one, other):
        host.run("ip", "address", "add", f"{host.address}/24", "dev", host.name)
        host.run("ip", "link", "set", host.name, "up")


class Learner:
    """The run, and what it has said and counted so far."""

    def __init__(self, host: Host, minutes: float):
        self.out, self.log = host.out, host.out / "learner.log"
        limits = f"--ray {host.address}:6379 --minutes {minutes} --eval-minutes {minutes}"
        with open(self.log, "w") as log:
            command = sys.executable, "-m", "experiments", *RUN.split(), *limits.split()
            self.process = host.start(*command, stdout=log, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def lost(self) -> list[str]:
        """Of each loss, which actor it was."""
        return re.findall(r"^actor (\d+) is lost", self.said, re.M)

    @property
    def games(self) -> list[str]:
        """Those that were counted, by the run's record of them."""
        texts = [path.read_text() for path in self.out.glob("runs/*/*/games.sgf")]
        return "".join(texts).split("\n\n")[:-1]

    def wait(self, what: str, reached: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not reached():
            status, late = self.process.poll(), time.monotonic() > end
            if status is not None or late:
                why = f"not within {seconds:g} s" if late else f"it ended with {status}; are --minutes too few?"
                raise RuntimeError(f"{what}: not in this run ({why})\n{self.said}")
            time.sleep(0.2)
        note(f"{what}: {len(self.games)} games, losses of actors: {len(self.lost)}")

    def wait_for_games(self) -> None:
        wanted = len(self.games) + MORE
        self.wait(f"{MORE} more games", lambda: len(self.games) >= wanted)


def play(out: Path, minutes: float) -> tuple[Learner, int]:
    """The run with its two cuts, and its exit status. Raises RuntimeError where it does not go on."""
    env = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "PYTHONPATH": str(ROOT)}
    env |= {f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()}
    with contextlib.ExitStack() as stack:
        head, far = Host("head", "10.77.0.1", out, env), Host("far", "10.77.0.2", out, env)
        stack.callback(head.close)
        stack.callback(far.close)
        connect(head, far)
        join = "--address", f"{head.address}:6379", "--num-cpus", "2"
        head.ray("--head", "--port", "6379", "--num-cpus", "0", "--include-dashboard", "false")
        far.ray(*join)
        note("Ray is on both hosts")
        learner = Learner(head, minutes)
        learner.wait_for_games()

        far.cable("down")
        time.sleep(SHORT_CUT)
        far.cable("up")
        learner.wait_for_games()

        before = len(learner.lost)
        far.cable("down")
        learner.wait("both actors are lost", lambda: set(learner.lost[before:]) == {"0", "1"})
        far.cable("up")
        far.run("bash", "-c", "while pgrep raylet; do sleep .2; done")  # it hears that it was given up, and ends
        far.ray(*join)
        note("Ray is on both hosts again")
        learner.wait_for_games()
        return learner, learner.process.wait(60 * minutes + 120)


def check(learner: Learner, status: int) -> None:
    """Whether the run has ended as any other does, and its counts agree."""
    assert status == 0, f"exit status {status}\n{learner.said}"
    [agent] = learner.out.glob("runs/*/*/agent/agent.json")
    trained = json.loads(agent.read_text())["trained"]
    events = EventAccumulator(str(agent.parent.parent)).Reload()
    logged = {tag: [point.value for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    counts, lags = logged["selfplay/games"], logged["actors/lag"]
    [end] = re.findall(r".* min, .* games, .* updates.*", learner.said)
    note(f"exit status {status}; {end}")
    note(f"lag {sum(lags) / len(lags):.2f} versions on average, {max(lags):.2f} at most; last count {counts[-1]:.0f}")

    games, losses = learner.games, len(learner.lost)
    long = [game for game in games if game.count(";") - 1 >= LONG]
    assert f" {len(games):,} games, {trained['updates']:,} updates" in end, "the last line is of all games"
    assert trained["games"] == len(games) and trained["updates"] > 0, "and so is the agent"
    assert counts == sorted(counts) and counts[-1] <= len(games), "no count is taken back"
    assert len(long) == len(set(long)) > len(games) / 2, "a game was counted twice"
    assert logged["actors/lost"][-1] == losses, "each loss is counted"
    note(f"{len(games)} games counted, none of {len(long)} long ones twice; {losses} losses of actors; {agent.parent}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3, help="of the run, which has to be in time for both cuts")
    parser.add_argument("--out", type=Path, help="new folder for the run and Ray's logs; default: one that is removed")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        out = args.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        out.mkdir(parents=True, exist_ok=True)
        check(*play(out.resolve(), args.minutes))


if __name__ == "__main__":
    main()
