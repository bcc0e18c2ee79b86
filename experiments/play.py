"""A page to play Go against the agents, to see what they think, to have games reviewed, and to watch agents play.

python -m experiments play                       # then open the address that it says
python -m experiments play --open --runs runs

The page is served to this machine alone. `--host 0.0.0.0` serves it to others, who must know the `--token`.
"""

import secrets
import sys
import threading
import webbrowser
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from rlkit.config import AtLeast, Between, check_bounds
from rlkit.logger import say


@dataclass
class Config:
    """Serve the page."""

    host: str = "127.0.0.1"
    """address to listen at; any but this machine's own wants a token"""
    port: Annotated[int, Between(0, 65535)] = 8000
    """port to listen at; 0: any that is free"""
    token: str | None = None
    """what visitors from elsewhere must know; default: a random one, which is said"""
    open: bool = False
    """open the page in the browser of this machine"""
    runs: Path = Path("runs")
    """folder of runs whose agents are offered"""
    players: tuple[str, ...] = ()
    """further players of Go to offer, as `match` names them"""
    device: str = "cpu"
    """where networks are: cpu, cuda or auto"""
    threads: Annotated[int, AtLeast(0)] = 1
    """CPU threads of each game that an agent thinks about; 0: as many as there are idle cores"""
    seed: Annotated[int, AtLeast(0)] = 0
    """of the players' randomness"""


def main(cfg: Config) -> None:
    """Serve until Ctrl-C."""
    check_bounds(cfg)
    try:
        import uvicorn

        from experiments.page import server
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"the page needs the extra `web`: pip install 'lecture-rl[web]' ({error})") from None
    from experiments.page.conversation import Talk
    from experiments.page.engines import Engines
    from experiments.page.go_table import Table
    from experiments.page.reviewing import Review
    from experiments.page.watching import Agents, Watch

    listening = server.listen(cfg.host, cfg.port)
    port = listening.getsockname()[1]
    hosts = server.names(cfg.host, port)
    token = cfg.token or (None if hosts else secrets.token_urlsafe(16))
    engines = Engines(cfg.runs, cfg.players, cfg.device, cfg.threads, cfg.seed)
    agents = Agents(cfg.runs, engines.device)
    application = server.app(
        pages={"/": "go.html", "/review": "reviewing.html", "/watch": "watch.html"},
        lists={"/api/players": engines.offered, "/api/agents": agents.offered},
        talks={
            "/talk/go": Talk(partial(Table, engines)),
            "/talk/review": Talk(partial(Review, engines)),
            "/talk/watch": Talk(partial(Watch, agents), Watch.controls),
        },
        hosts=hosts,
        token=token,
    )
    name = f"[{cfg.host}]" if ":" in cfg.host else cfg.host
    address = f"http://{name}:{port}/" + (f"?token={token}" if token else "")
    if hosts is None:
        say("this page is served to other machines, in clear text: whoever knows its token may use it")
    print(f"the page: {address}    (Ctrl-C ends it)", file=sys.stderr, flush=True)
    threading.Thread(target=engines.warm, args=("alphazero:9x9",), daemon=True).start()
    if cfg.open:
        webbrowser.open(address)
    options = {"log_level": "warning", "ws_max_size": server.LARGEST, "ws": "websockets-sansio"}
    serving = uvicorn.Server(uvicorn.Config(application, timeout_graceful_shutdown=1, **options))  # type: ignore[arg-type]
    serving.run([listening])
