"""The server of the pages, asked over real sockets: what it answers, what it refuses, and that nothing grows."""

import http.client
import json
import socket
import threading
import time
from functools import partial

import pytest

pytest.importorskip("websockets", reason="the page needs the extra `web`")
import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from experiments.page import conversation, server
from experiments.page.conversation import Talk
from experiments.page.engines import Engines
from experiments.page.go_table import Table

GAME = {"height": 5, "width": 5, "komi": 24.5, "moves": ["C3"]}
AGENT = {"player": "alphazero:5x5", "simulations": 20}


class Slow:
    """Answers for ever; says when it was closed."""

    closed: list[str] = []
    told: list[str] = []

    def answers(self, message):
        if message["do"] == "fail":
            raise ValueError("as was asked")
        if message["do"] == "bug":
            raise KeyError("of ours")
        try:
            while True:
                yield {"text": "x" * message.get("size", 10)}
                time.sleep(0.001)
        finally:
            self.closed.append(message["do"])

    def control(self, message):
        self.told.append(message["do"])

    def close(self):
        self.closed.append("session")


class Serving:
    def __init__(self, token=None, hosts=True, runs="no_runs"):
        listening = server.listen("127.0.0.1", 0)
        self.port = listening.getsockname()[1]
        names = server.names("127.0.0.1", self.port) if hosts else None
        engines = Engines(runs)
        talks = {"/talk/go": Talk(partial(Table, engines)), "/talk/slow": Talk(Slow, frozenset({"stop"}))}
        pages, lists = {"/": "go.html"}, {"/api/players": engines.offered}
        app = server.app(pages, lists, talks, names, token)
        options = {"log_level": "error", "ws_max_size": server.LARGEST, "ws": "websockets-sansio"}
        self.server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=1, **options))
        self.thread = threading.Thread(target=self.server.run, args=([listening],), daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def get(self, path, method="GET", **headers):
        ask = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        ask.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = ask.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())

    def talk(self, path="/talk/go", **options):
        return connect(f"ws://127.0.0.1:{self.port}{path}", max_size=None, **options)

    def end(self):
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    here = Serving(runs=tmp_path_factory.mktemp("runs"))
    yield here
    here.end()


def ask(talk, **message):
    """The last answer to a message, and how many came before it."""
    talk.send(json.dumps({"id": 7} | message))
    for count in range(10_000):
        answer = json.loads(talk.recv(timeout=60))
        assert answer["id"] == 7
        if not {"thinking", "scoring"} & answer.keys() and answer.get("done") is not False:
            return answer, count
    raise AssertionError


def test_pages_and_lists(serving):
    status, page, headers = serving.get("/")
    assert status == 200 and b"<svg" in page and "script-src 'self'" in headers["content-security-policy"]
    assert serving.get("/web/go.js")[0] == 200
    names = [each["name"] for each in json.loads(serving.get("/api/players")[1])]
    assert {"alphazero:5x5", "mcts:100", "random"} <= {*names}
    for path in (
        "/web/../play.py",
        "/web/..%2fplay.py",
        "/web/%2e%2e/%2e%2e/setup.cfg",
        "/web//etc/passwd",
        "/web/",
        "/x",
    ):
        assert serving.get(path)[0] == 404, path


def test_pages_of_other_sites_get_nothing(serving):
    own = f"127.0.0.1:{serving.port}"
    assert serving.get("/", Host="evil.example")[0] == 403
    assert serving.get("/", Host=f"evil.example:{serving.port}")[0] == 403
    assert serving.get("/", Host=f"localhost:{serving.port}")[0] == 200
    assert serving.get("/api/players", Host=own, Origin="http://evil.example")[0] == 403
    assert serving.get("/api/players", Host=own, Origin="null")[0] == 403
    assert serving.get("/", Host=own, Origin=f"http://{own}")[0] == 200
    assert serving.get("/", "POST")[0] == 405
    for origin in ("http://evil.example", "null", f"http://evil.example:{serving.port}"):
        with pytest.raises(InvalidStatus, match="403"):
            serving.talk(origin=origin)
    with serving.talk(origin=f"http://{own}") as talk:
        assert "position" in ask(talk, do="look", game=GAME)[0]


def test_visitors_from_elsewhere_must_know_the_token():
    here = Serving(token="secret", hosts=False)
    try:
        assert [here.get(path)[0] for path in ("/", "/web/go.js", "/api/players", "/?token=guess")] == [403] * 4
        with pytest.raises(InvalidStatus, match="403"):
            here.talk()
        status, _, headers = here.get("/?token=secret&a=b")
        assert (status, headers["location"]) == (303, "/?a=b") and "HttpOnly" in headers["set-cookie"]
        cookie = headers["set-cookie"].partition(";")[0]
        assert here.get("/", Cookie=cookie)[0] == 200 and here.get("/", Cookie="rlkit-token=guess")[0] == 403
        assert here.get("//evil.example?token=secret")[2].get("location") in (None, "/")
        with here.talk(additional_headers={"Cookie": cookie}) as talk:
            assert "position" in ask(talk, do="look", game=GAME)[0]
    finally:
        here.end()


def test_a_game(serving):
    with serving.talk() as talk:
        position = ask(talk, do="look", game=GAME)[0]["position"]
        assert position["rows"] == [".....", ".....", "..X..", ".....", "....."] and position["to_play"] == "W"
        assert position["legal"] == "1" * 12 + "0" + "1" * 12 and position["last"] == "C3"
        answer, before = ask(talk, do="move", game=GAME, **AGENT)
        assert answer["position"]["number"] == 2 and answer["position"]["last"] == answer["move"] and before >= 1
        longer = GAME | {"moves": ["C3", answer["move"]]}
        again, _ = ask(talk, do="look", game=longer)
        assert again["position"] == answer["position"]
        found = ask(talk, do="analyse", game=longer, visits=30, player="alphazero:5x5")[0]["analysis"]
        assert found["visits"] == 31 and sum(one["visits"] for one in found["candidates"]) == 30
        assert found["winrate"] > 0.9 and len(found["ownership"]) == 25  # Black wins 5x5 from the middle by 25
        timed = ask(talk, do="move", game=GAME, player="alphazero:5x5", seconds=0.2)[0]
        assert "move" in timed
        assert "move" in ask(talk, do="move", game=GAME, player="random")[0]
        assert ask(talk, do="analyse", game=GAME, player="mcts:100", visits=50)[0]["done"]


def test_the_end_of_a_game_and_dead_stones(serving):
    moves = ["C3", "A1", "C2", "pass", "C4", "pass", "C1", "pass", "C5", "pass", "pass"]
    with serving.talk() as talk:
        game = GAME | {"moves": moves}
        assert ask(talk, do="look", game=game)[0]["position"]["over"]
        counted = ask(talk, do="score", game=game, player="alphazero:5x5")[0]
        assert counted["dead"] == ["A1"] and counted["score"] == 0.5 and counted["result"] == "B+0.5"
        alive = ask(talk, do="score", game=game, dead=[])[0]
        assert alive["score"] == 5 + 10 - 1 - 24.5  # the left side is nobody's then
        assert "no point" in ask(talk, do="score", game=game, dead=["J9"])[0]["error"]
        assert "game is over" in ask(talk, do="move", game=game, **AGENT)[0]["error"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"moves": ["C3", "C3"]}, "move 2: White may not play C3: occupied"),
        ({"moves": ["Z9"]}, "no point"),
        ({"moves": "C3"}, "list"),
        ({"moves": ["C3"] * 4000}, "list"),
        ({"height": 0}, "height"),
        ({"height": "5"}, "height"),
        ({"width": True}, "width"),
        ({"komi": 1e9}, "komi"),
        ({"komi": float("nan")}, "komi"),
        ({"rules": "of mine"}, "rules"),
        ({"rules": 5}, "rules"),
        ({"first": "X"}, "first"),
        ({"black": ["A1", 5]}, "points"),
        ({"black": ["pass"]}, "no point"),
        ({"black": ["A1"], "white": ["A2", "B1"]}, "liberty"),
    ],
)
def test_what_is_no_game(serving, change, says):
    with serving.talk() as talk:
        assert says in ask(talk, do="look", game=GAME | change)[0]["error"]
        assert "position" in ask(talk, do="look", game=GAME)[0]


def test_players_that_are_not_offered_and_limits(serving):
    with serving.talk() as talk:
        for player in ("gtp:rm -rf /tmp/x", "/etc", "../runs", "alphazero:../5x5", 5, None, ["a"], "<b>"):
            assert "is offered" in ask(talk, do="move", game=GAME, player=player)[0]["error"]
        assert "simulations" in ask(talk, do="move", game=GAME, **(AGENT | {"simulations": 10**9}))[0]["error"]
        assert "cannot play" in ask(talk, do="move", game=GAME | {"height": 9, "width": 9}, **AGENT)[0]["error"]
        assert "only plays" in ask(talk, do="analyse", game=GAME, player="random")[0]["error"]


def test_ten_thousand_messages_that_mean_nothing(serving):
    threads = threading.active_count()
    with serving.talk() as talk:
        for i in range(10_000):
            talk.send(
                ["", "{", "[]", '{"do": 5}', '{"do": "look", "id": "x"}', "null", "9" * 50, '"' + "a" * 99][i % 8]
            )
            if i % 100 == 99:
                for _ in range(100):
                    assert "error" in json.loads(talk.recv(timeout=20))
        talk.send(b"\x00\xff")
        assert "error" in json.loads(talk.recv(timeout=20))
        talk.send("[" * 100_000)
        assert "error" in json.loads(talk.recv(timeout=20))
        assert "position" in ask(talk, do="look", game=GAME)[0]
    ended(lambda: threading.active_count() <= threads)


def test_a_new_message_ends_the_one_before_and_a_page_that_is_gone_ends_all(serving):
    Slow.closed.clear(), Slow.told.clear()
    with serving.talk("/talk/slow") as talk:
        talk.send(json.dumps({"do": "first", "id": 1}))
        assert json.loads(talk.recv())["id"] == 1
        talk.send(json.dumps({"do": "stop"}))
        talk.send(json.dumps({"do": "second", "id": 2}))
        while json.loads(talk.recv())["id"] == 1:
            pass
        assert Slow.closed == ["first"] and Slow.told == ["stop"]
        talk.send(json.dumps({"do": "fail", "id": 3}))
        while (answer := json.loads(talk.recv()))["id"] == 2:
            pass
        assert answer == {"id": 3, "error": "as was asked"}
        talk.send(json.dumps({"do": "bug", "id": 4}))
        assert "KeyError" in json.loads(talk.recv())["error"]
        talk.send(json.dumps({"do": "third", "id": 5}))
        talk.recv()
    ended(lambda: Slow.closed == ["first", "second", "third", "session"])


def test_a_page_that_does_not_read_is_waited_for(serving):
    """What is sent to it stops; other pages go on."""
    Slow.closed.clear()
    talk = serving.talk("/talk/slow", max_queue=1)
    talk.send(json.dumps({"do": "much", "size": 1_000_000}))
    time.sleep(0.5)
    with serving.talk() as other:
        assert "position" in ask(other, do="look", game=GAME)[0]
    talk.close_timeout = 0.1
    talk.socket.shutdown(socket.SHUT_RDWR)
    ended(lambda: Slow.closed == ["much", "session"])


def test_two_hundred_pages(serving):
    talks, refused = [], 0
    for _ in range(200):
        talks.append(serving.talk())
    for talk in talks:
        try:
            talk.send(json.dumps({"do": "look", "id": 1, "game": GAME}))
            assert "position" in json.loads(talk.recv(timeout=30))
        except ConnectionClosed as error:
            refused += error.rcvd is not None and error.rcvd.code == conversation.TRY_AGAIN_LATER
    assert refused == 200 - conversation.MOST
    for talk in talks:
        talk.close()
    ended(lambda: conversation._open == 0)
    with serving.talk() as talk:
        assert "position" in ask(talk, do="look", game=GAME)[0]


def test_a_port_that_is_taken():
    listening = server.listen("127.0.0.1", 0)
    with pytest.raises(OSError, match="choose another by --port"):
        server.listen("127.0.0.1", listening.getsockname()[1])
    listening.close()
    assert server.names("0.0.0.0", 8000) is None


def ended(happened):
    """Wait until it has."""
    until = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)
