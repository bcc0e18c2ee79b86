"""KataGo's analysis protocol: requests as KaTrain and others send them, answers as they read them, and bad luck."""

import io
import json
import random
import sys

import numpy as np
import pytest
from test_alphazero_player import network

from agents.alphazero.player import AlphaZero
from envs.go.position import BLACK, WHITE, Position
from experiments.go import analysis
from experiments.go.analysis import Config
from experiments.go.analysis_engine import AnalysisEngine, hashes
from experiments.go.analysis_queries import Wrong, read_query

# as KaTrain builds them: a position of a game, a refinement, and the end of an older game's questions
KATRAIN = {
    "rules": "japanese", "priority": 0, "analyzeTurns": [3], "maxVisits": 25, "komi": 6.5, "boardXSize": 5,
    "boardYSize": 5, "includeOwnership": True, "includeMovesOwnership": True, "includePolicy": True,
    "initialStones": [["B", "B4"], ["B", "D2"]], "initialPlayer": "W",
    "moves": [["W", "C3"], ["B", "C4"], ["W", "D4"]],
    "overrideSettings": {"reportAnalysisWinratesAs": "BLACK", "maxTime": 8.0, "wideRootNoise": 0.04},
    "reportDuringSearchEvery": 1000.0, "id": "QUERY:1",
}  # fmt: skip
TERMINATE = {"action": "terminate", "terminateId": "QUERY:1", "id": "QUERY:2"}
PLAIN = {"id": "q", "moves": [], "rules": "tromp-taylor", "komi": 7.5, "boardXSize": 5, "boardYSize": 5}


class Session:
    """An engine and what it said."""

    def __init__(self, **options):
        self.said = []
        self.player = AlphaZero(network(), info={"env": {"size": 9, "komi": 7.5}})
        self.engine = AnalysisEngine(self.player, self.write, visits=8, name="ours", **options)

    def write(self, answer):
        self.said.append(json.loads(json.dumps(answer, allow_nan=False)))

    def ask(self, *queries):
        """What is said to these, until all of it is answered."""
        self.said.clear()
        for query in queries:
            self.engine.receive(query if isinstance(query, str) else json.dumps(query))
        while self.engine.busy:
            self.engine.step()
        return self.said

    def one(self, **changes):
        [answer] = self.ask(PLAIN | changes)
        return answer


@pytest.fixture
def session():
    return Session()


def test_a_request_of_katrain(session):
    rules, settings, found = session.ask(KATRAIN)
    assert rules["field"] == "rules" and "not supported by neural net, using" in rules["warning"]
    assert settings == {"warning": "Unknown config params: wideRootNoise", "field": "overrideSettings", "id": "QUERY:1"}
    assert (found["id"], found["turnNumber"], found["isDuringSearch"]) == ("QUERY:1", 3, False)
    root, moves = found["rootInfo"], found["moveInfos"]
    assert root["visits"] == 25 and sum(move["visits"] for move in moves) == 24 and root["currentPlayer"] == "B"
    assert [move["order"] for move in moves] == list(range(len(moves)))
    for info in (root, *moves):
        assert 0 <= info["winrate"] <= 1 and info["scoreLead"] == info["scoreMean"] and info["scoreStdev"] >= 0
    for move in moves:
        assert move["pv"][0] == move["move"] and 0 <= move["prior"] <= 1 and move["lcb"] <= move["winrate"]
        assert len(move["ownership"]) == 25
    assert len(found["ownership"]) == 25 and min(found["ownership"]) >= -1
    policy = np.array(found["policy"])
    assert len(policy) == 26 and policy[policy >= 0].sum() == pytest.approx(1, abs=1e-4)
    assert [i for i, p in enumerate(policy) if p < 0] == [6, 7, 8, 12, 18]  # the stones, from the top left
    # the same search, asked directly
    position = Position.empty(5, 6.5, superko="simple").setup([6, 18], to_play=WHITE).play(12).play(7).play(8)
    searches = session.player.searches([position], 24)
    while searches.step():
        pass
    expected = searches.analysis(0)
    assert root["winrate"] == pytest.approx(expected["winrate"], abs=1e-6)
    assert root["scoreLead"] == pytest.approx(expected["score"], abs=1e-6)


def test_perspectives(session):
    moves, settings = [["B", "C3"]], "reportAnalysisWinratesAs"
    infos = {
        name: session.one(moves=moves, overrideSettings={settings: name}, includeOwnership=True)
        for name in ("BLACK", "WHITE", "SIDETOMOVE")
    }
    assert infos["WHITE"] == infos["SIDETOMOVE"] and session.one(moves=moves, includeOwnership=True) == infos["BLACK"]
    black, white = infos["BLACK"], infos["WHITE"]
    for ours, theirs in zip(
        [black["rootInfo"], *black["moveInfos"]], [white["rootInfo"], *white["moveInfos"]], strict=True
    ):
        assert ours["winrate"] == pytest.approx(1 - theirs["winrate"]) and ours["scoreLead"] == -theirs["scoreLead"]
        assert ours["lcb"] == pytest.approx(1 - theirs["lcb"])
    assert black["ownership"] == [-x for x in white["ownership"]]
    assert Session(perspective=None).one(moves=moves)["rootInfo"] == white["rootInfo"]


def test_every_turn_is_answered_once(session):
    moves = [["B", "C3"], ["W", "C2"], ["B", "pass"], ["W", "pass"], ["B", "(0,1)"]]
    found = session.ask(PLAIN | {"moves": moves, "analyzeTurns": [4, 0, 2, 2, 5]})
    assert sorted(answer["turnNumber"] for answer in found) == [0, 2, 4, 5]
    assert session.one(moves=moves)["turnNumber"] == 5
    [over] = session.ask(PLAIN | {"moves": moves[:4], "includeOwnership": True})
    assert over["moveInfos"] == [] and over["rootInfo"]["winrate"] in (0, 1) and set(over["ownership"]) <= {-1, 0, 1}


def test_who_begins(session):
    stones = [["B", "A1"], ["B", "B2"]]
    for changes, player in (
        ({}, "B"),
        ({"initialStones": stones}, "W"),
        ({"initialStones": [*stones, ["W", "C3"]]}, "B"),
        ({"initialStones": stones, "initialPlayer": "b"}, "B"),
        ({"moves": [["W", "C3"], ["W", "C4"]]}, "B"),
    ):
        assert session.one(**changes)["rootInfo"]["currentPlayer"] == player


def test_moves_that_may_not_be_the_first(session):
    avoid = [{"player": side, "moves": ["C3", "pass", "A1"], "untilDepth": 1} for side in "BW"]
    moves = {move["move"] for move in session.one(avoidMoves=avoid, maxVisits=60)["moveInfos"]}
    assert not moves & {"C3", "pass", "A1"} and len(moves) > 2
    allow = [{"player": "B", "moves": ["C3", "B2"], "untilDepth": 1}]
    assert {move["move"] for move in session.one(allowMoves=allow, maxVisits=20)["moveInfos"]} == {"C3", "B2"}
    allow[0]["moves"] = []
    assert session.one(allowMoves=allow)["moveInfos"] == []


def test_the_most_urgent_is_answered_first(session):
    engine = session.engine
    engine.receive(json.dumps(PLAIN | {"id": "slow", "maxVisits": 300, "analyzeTurns": [0]}))
    for _ in range(3):
        engine.step()
    session.ask(
        PLAIN | {"id": "late"},
        PLAIN | {"id": "other size", "boardXSize": 4},
        PLAIN | {"id": "urgent", "priority": 5, "maxVisits": 40},
        PLAIN | {"id": "turns", "analyzeTurns": [0], "priorities": [7]},
    )
    assert [answer["id"] for answer in session.said] == ["turns", "urgent", "slow", "late", "other size"]


def test_reports_while_it_searches(session):
    said = session.ask(PLAIN | {"maxVisits": 100, "reportDuringSearchEvery": 0.001})
    assert [answer["isDuringSearch"] for answer in said] == [True] * (len(said) - 1) + [False] and len(said) > 2
    visits = [answer["rootInfo"]["visits"] for answer in said]
    assert visits == sorted(visits) and visits[-1] == 100
    assert session.one(overrideSettings={"maxTime": 0}, maxVisits=10**9)["rootInfo"]["visits"] < 100


def test_what_is_terminated_says_what_it_has(session):
    engine = session.engine
    engine.receive(json.dumps(PLAIN | {"id": "running", "maxVisits": 10**6}))
    engine.step()
    engine.receive(json.dumps(KATRAIN))
    said = session.ask(TERMINATE, {"action": "terminate_all", "turnNumbers": [0], "id": "all"})
    assert said[0] == {"id": "QUERY:1", "turnNumber": 3, "isDuringSearch": False, "noResults": True}
    assert said[1] == TERMINATE and said[3]["action"] == "terminate_all" and len(said) == 4
    assert said[2]["id"] == "running" and said[2]["rootInfo"]["visits"] >= 1 and not said[2]["isDuringSearch"]


def test_actions(session):
    assert session.one(action="query_version")["version"] == "0.0"
    session.one(maxVisits=5)
    assert session.player.heads.known
    assert session.ask({"id": "c", "action": "clear_cache"}) == [{"id": "c", "action": "clear_cache"}]
    assert not session.player.heads.known
    assert session.one(action="query_models")["models"][0]["name"] == "ours"
    assert "'action' field must be" in session.one(action="dance")["error"]


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"boardXSize": 20}, "boardXSize", "integer from 2 to 19"),
        ({"boardYSize": True}, "boardYSize", "integer from 2 to 19"),
        ({"boardXSize": 13}, "boardXSize", "ours cannot play on 13 x 5"),
        ({"moves": [["B", "Z9"]]}, "moves", "Could not parse board location: Z9"),
        ({"moves": [["B", "C3"], ["W", "C3"]]}, "moves", "Illegal move 1: C3"),
        ({"moves": [["red", "C3"]]}, "moves", "Could not parse player: red"),
        ({"moves": [["B"]]}, "moves", "array of pairs"),
        ({"initialStones": [["B", "pass"]]}, "initialStones", "board location: pass"),
        ({"initialStones": [["B", "A1"], ["W", "A2"], ["W", "B1"]]}, "initialStones", "Illegal stones"),
        ({"rules": "chess"}, "rules", "Could not parse rules: chess"),
        ({"rules": 3}, "rules", "Must specify rules string"),
        ({"komi": 7.25}, "rules", "integer or half-integer"),
        ({"komi": 1e9}, "komi", "integer or half-integer"),
        ({"maxVisits": 0}, "maxVisits", "from 1 to 2^50"),
        ({"analyzeTurns": [1]}, "analyzeTurns", "Invalid turn number: 1"),
        ({"analyzeTurns": "all"}, "analyzeTurns", "array of integers"),
        ({"analyzeTurns": [0], "priorities": []}, "priorities", "matching length"),
        ({"priority": 0.5}, "priority", "Must be a number"),
        ({"includePolicy": 1}, "includePolicy", "Must be a boolean"),
        ({"overrideSettings": []}, "overrideSettings", "Must be an object"),
        ({"overrideSettings": {"reportAnalysisWinratesAs": "ME"}}, "overrideSettings", "Could not set settings"),
        ({"avoidMoves": [{}]}, "avoidMoves", "list of dicts"),
        ({"avoidMoves": [], "allowMoves": []}, "allowMoves", "both allowMoves and avoidMoves"),
        ({"action": "terminate"}, "terminateId", "string"),
    ],
)
def test_what_is_wrong_is_said(session, changes, field, message):
    answer = session.one(**changes)
    assert (answer["id"], answer["field"]) == ("q", field) and message in answer["error"]
    assert "error" not in session.one()


@pytest.mark.parametrize("line", ["{", "[1]", "3", "{}", '{"id":3}', "[" * 100_000, '{"id":' + "9" * 5000, "\udc80\0"])
def test_lines_that_are_no_query(session, line):
    [answer] = session.ask(line)
    assert "error" in answer and len(json.dumps(answer)) < 4000


def test_an_engine_whose_search_fails_goes_on(session):
    heads, session.player.heads = session.player.heads, lambda planes: 1 / 0
    session.player.heads.others = []
    [answer] = session.ask(PLAIN)
    assert "ZeroDivisionError" in answer["error"] and answer["id"] == "q"
    session.player.heads = heads
    assert "rootInfo" in session.one()


def malformed(rng):
    """A line that was a request once."""
    values = json.loads(json.dumps(rng.choice([KATRAIN, TERMINATE, PLAIN])))
    for _ in range(rng.randrange(3)):
        odd = rng.choice([None, True, -1, 2.5, 1e300, "", "B", [], [[]], [["B", "C3"]] * 3, {}, {"a": []}, 10**30, "é"])
        values[rng.choice([*values, "analyzeTurns", "priorities", "avoidMoves", "allowMoves", "action"])] = odd
    line = json.dumps(values)
    if rng.random() < 0.5:
        at = rng.randrange(len(line))
        line = line[:at] + rng.choice(["", "\0", "]", '"', "\udcff", "9" * 400]) + line[at + rng.randrange(1, 9) :]
    return line


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_lines_never_end_it(session, count):
    rng = random.Random(3)
    for _ in range(count):
        before = len(session.said)
        line = malformed(rng)
        session.engine.receive(line)
        assert len(session.said) > before or session.engine.waiting or not line.strip()
        if rng.random() < 0.02:
            session.ask({"id": "all", "action": "terminate_all"})
    session.ask({"id": "all", "action": "terminate_all"})
    assert session.one()["rootInfo"]["visits"] == 8 and not session.engine.busy


def test_hashes_know_symmetries_and_sides():
    first, second = (Position.empty(5).play(move) for move in (1, 3))
    assert hashes(first)["symHash"] == hashes(second)["symHash"] and hashes(first) != hashes(second)
    assert hashes(first)["thisHash"] != hashes(first.replace(to_play=BLACK))["thisHash"]


def test_a_query_keeps_what_it_needs_alone():
    query = read_query(PLAIN | {"rules": {"ko": "SITUATIONAL", "suicide": True}, "whatever": 3}, 10, None)
    assert (query.turns[0][2].superko, query.turns[0][2].suicide, query.visits) == ("situational", True, 10)
    ko = [["B", "B5"], ["B", "A4"], ["B", "B3"], ["W", "C5"], ["W", "D4"], ["W", "C3"], ["W", "B4"]]
    taken = [["B", "C4"], ["W", "B4"]]
    with pytest.raises(Wrong, match="Illegal move 1: B4"):
        read_query(PLAIN | {"initialStones": ko, "moves": taken}, 10, None)
    between = [["B", "C4"], ["W", "pass"], ["B", "pass"], ["W", "B4"]]  # a board comes back, as servers allow
    assert read_query(PLAIN | {"initialStones": ko, "moves": between}, 10, None).turns[0][0] == 4


def test_the_command(monkeypatch, capsys):
    lines = "".join(f"{json.dumps(query)}\n" for query in (PLAIN, {"id": "v", "action": "query_version"}))
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    analysis.main(Config("alphazero:5x5:6", threads=1))
    told = capsys.readouterr()
    said = [json.loads(line) for line in told.out.splitlines()]
    assert {answer["id"] for answer in said} == {"q", "v"} and "ready to begin" in told.err
    assert next(answer for answer in said if answer["id"] == "q")["rootInfo"]["visits"] == 6
    with pytest.raises(ValueError, match="no network"):
        analysis.main(Config("mcts:10"))
