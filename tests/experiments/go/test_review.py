"""A game reviewed: losses by hand, what is written and read back, hostile records, and an end before the end."""

import base64
import gzip
import json
import os
import re
import struct
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from test_alphazero_player import network

from agents.alphazero.player import AlphaZero
from envs.go.position import BLACK
from envs.go.random_player import RandomPlayer
from envs.go.sgf import parse, read_collection, read_sgf
from experiments.__main__ import parse as parse_flags
from experiments.go import review
from experiments.go.game_analysis import GameSearch
from experiments.go.review import Config
from experiments.go.review_page import page
from experiments.go.review_sgf import analysed_sgf

DATA = Path(os.environ.get("RLKIT_DATA", Path(__file__).parents[4] / "shared" / "data")) / "go"
GAME = "(;SZ[5]KM[0.5]PB[Kim]PW[Lee]RE[B+R]C[hello];B[cc];W[cd]C[hm](;B[dd];W[dc])(;B[bb];W[bc]))"
C2 = 17


class Judge:
    """Says Black's win rate by the number of stones, and always the same best move."""

    simulations, name = 40, "judge"

    def __init__(self, *rates):
        self.rates = rates or (0.5, 0.625, 0.5, 0.875, 0.25)

    def __call__(self, position):
        return 0

    def analyze(self, position, seconds=None):
        black = self.rates[int((position.board > 0).sum())]
        own = black if position.to_play == BLACK else 1 - black
        best = {"move": 0, "visits": 30, "winrate": own, "prior": 0.5, "pv": [0, 1], "score": 8 * own - 4}
        return [best, best | {"move": C2, "visits": 10, "prior": 0.25, "pv": []}]


def gambler():
    """An agent of random weights."""
    return AlphaZero(network(), 20, info={"env": {"komi": 0.5}})


def analysed(record, player=None, **options):
    search = GameSearch(player or Judge(), record, 20, **options)
    while search.step():
        pass
    assert search.finished == search.total
    return search.result()


def test_losses_are_those_of_who_moved():
    found = analysed(parse(GAME)[0])
    assert [node.winrate for node in found.nodes] == [0.5, 0.625, 0.5, 0.875, 0.25, None, None]
    assert [(node.number, node.move, node.main) for node in found.nodes][4:6] == [(4, "D3", True), (3, "B4", False)]
    # Black gains .125, White gains .125, Black gains .375, White .625; what is gained is no loss
    assert [node.winrate_loss for node in found.nodes[1:5]] == [0, 0, 0, 0]
    assert found.nodes[2].rank == 1 and found.nodes[1].rank is None and found.mistakes == []
    found = analysed(parse(GAME)[0], Judge(0.5, 0.25, 0.75, 0.7, 0.9), variations=True)
    assert [node.winrate_loss for node in found.nodes[1:]] == [0.25, 0.5, 0.05, 0.2, 0.05, 0.2]
    assert [(m.number, m.colour, m.move, m.better, m.winrate_loss) for m in found.mistakes] == [
        (2, "W", "C2", "A5", 0.5),
        (1, "B", "C3", "A5", 0.25),
        (4, "W", "D3", "A5", 0.2),
        (3, "B", "D2", "A5", 0.05),
    ]
    assert found.summary["W"].winrate_loss == 0.35 and found.summary["B"].moves == 2


def test_a_network_says_more():
    found = analysed(parse(GAME)[0], gambler(), komi=0.5)
    root = found.nodes[0]
    assert found.complete and found.notes == [] and found.simulations == 20
    assert len(root.policy) == 26 and sum(root.policy) == pytest.approx(1, abs=0.01) and len(root.ownership) == 25
    assert root.visits == 21 and sum(move.visits for move in root.candidates) == 20
    assert found.nodes[4].board == [".....", ".....", "..XO.", "..OX.", "....."]
    assert found.nodes[5].board and found.nodes[5].winrate is None
    json.dumps(asdict(found), allow_nan=False)


def test_the_sgf_is_the_record_with_more_in_it():
    record = parse(GAME)[0]
    found = analysed(record, gambler(), variations=True)
    text = analysed_sgf(record, found)
    [again] = parse(text)
    assert again.moves == record.moves and again.nodes[0].comment.startswith("hello\n\n")
    assert replace(again, nodes=[]) == replace(record, nodes=[])
    lines = [[(node.colour, node.move) for node in line[1:]] for line in again.lines()]
    assert all([(node.colour, node.move) for node in line[1:]] in lines for line in record.lines())
    assert len(lines) == 2 + len(found.mistakes)  # nothing better is among the variations of the record
    for line in again.lines():
        again.position(line=line)
    rates = [float(value) for value in re.findall(r"SBKV\[([\d.]+)\]", text)]
    assert len(rates) == 7 + len(found.mistakes) and set(rates) >= {round(100 * n.winrate, 2) for n in found.nodes}
    owners, policy, rest = (
        gzip.decompress(base64.b64decode(part))
        for part in re.search(r"KT((?:\[[^]]*\]){3})", text)[1][1:-1].split("][")
    )
    root = found.nodes[0]
    np.testing.assert_allclose(struct.unpack("25e", owners), root.ownership, atol=1e-3)
    np.testing.assert_allclose(struct.unpack("26e", policy), root.policy, atol=1e-3)
    main = json.loads(rest)
    assert main["root"] == {"winrate": root.winrate, "scoreLead": root.score, "visits": 21}
    assert list(main["moves"]) == [move.move for move in root.candidates]
    assert analysed(again, gambler()).nodes[0].comment.startswith("hello")


def test_nothing_of_a_record_is_markup_on_the_page():
    evil = "</script><script>alert(1)</script><!-- &lt; ]]>"
    record = parse(GAME)[0]
    record.black = record.event = evil
    record.nodes[2].comment = f"{evil}\u2028\\"
    found = analysed(record)
    text = page(found)
    assert (
        text.count("<script") == 2 == text.count("</script>") and "alert(1)</script>" not in text and "<!--" not in text
    )
    data = re.search(r'id="data">(.*?)</script>', text)[1]
    assert json.loads(data) == asdict(found)
    assert "http:" not in text.replace("http://www.w3.org/2000/svg", "") and "https:" not in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("(;SZ[5];B[cc])", "no komi: 7.5"),
        ("(;SZ[5]KM[6.5]RU[Japanese];B[cc])", "count territory"),
        ("(;SZ[5]KM[6.5]RU[house];B[cc])", "'house' are not known"),
        ("(;SZ[5]KM[6.5];B[cc];W[cc];B[aa])", "move 2: White may not play C3: occupied"),
        ("(;SZ[5]KM[6.5];AB[aa])", ""),
        ("(;SZ[5]KM[6.5]HA[2]AB[aa][ee];W[cc];W[cb];B[];W[];B[bb];W[])", ""),
    ],
)
def test_odd_records(text, note):
    found = analysed(parse(text)[0], gambler())
    assert note in found.notes[0] if note else not found.notes, found.notes
    assert found.nodes[0].visits == 21
    assert found.nodes[-1].winrate is None if "occupied" in note else found.nodes[-1].winrate is not None
    page(found)
    [again] = parse(analysed_sgf(parse(text)[0], found))
    assert again.moves == parse(text)[0].moves


def test_a_board_may_come_back():
    ko = "(;SZ[5]KM[0]RU[Chinese]AB[ba][ab][bc]AW[ca][db][cc][bb];B[cb];W[ee];B[ed];W[bb];B[de];W[dd];B[cb];W[];B[])"
    found = analysed(parse(ko)[0], gambler())
    assert not found.notes and found.nodes[-1].winrate in (0, 1)


def test_players_and_boards_that_are_refused(tmp_path):
    path = tmp_path / "game.sgf"
    path.write_text(GAME.replace("SZ[5]", "SZ[13]"))
    with pytest.raises(ValueError, match=r"only plays.*alphazero:9x9"):
        review.main(Config(path, "random"))
    with pytest.raises(ValueError, match=r"alphazero:5x5 cannot play on 13 x 13.*mcts"):
        review.main(Config(path, "alphazero:5x5"))
    with pytest.raises(ValueError, match="has no game 2"):
        review.main(Config(path, game=2))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        review.main(Config(path, html=tmp_path / "no" / "page.html"))
    with pytest.raises(ValueError, match="record itself"):
        review.main(Config(path, sgf=path))
    with pytest.raises(ValueError, match="only plays"):
        GameSearch(RandomPlayer(0), parse(GAME)[0])


@pytest.mark.parametrize("agent", ["alphazero:5x5:10", "mcts:20"])
def test_the_command(agent, tmp_path, capsys):
    path, out = tmp_path / "game.sgf", {kind: tmp_path / f"out.{kind}" for kind in ("html", "sgf", "json")}
    path.write_text(GAME)
    flags = [str(path), "--agent", agent, *(word for kind, file in out.items() for word in (f"--{kind}", str(file)))]
    found = review.main(parse_flags(review, flags))
    assert json.loads(out["json"].read_text()) == asdict(found) and found.simulations == int(agent.rpartition(":")[2])
    assert read_sgf(out["sgf"]).moves == parse(GAME)[0].moves and page(found) == out["html"].read_text()
    assert "5 of 5 positions" in capsys.readouterr().err


def test_what_was_done_when_it_is_interrupted_is_kept(tmp_path, monkeypatch, capsys):
    path = tmp_path / "game.sgf"
    path.write_text(GAME)
    step, calls = GameSearch.step, []

    def interrupted(self):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(GameSearch, "step", interrupted)
    for agent, visits in (("mcts:10", [10, 10, 10, 0, 0]), ("alphazero:5x5:100", [4] * 5)):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            review.main(Config(path, agent, json=tmp_path / "out.json", threads=1))
        found = json.loads((tmp_path / "out.json").read_text())
        assert not found["complete"] and [node["visits"] for node in found["nodes"]][:5] == visits


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="no games")
def test_real_games():
    player, simulations, komi = review.reviewer("alphazero:9x9:4", threads=1)
    for number, record in enumerate(read_collection(DATA / "goquest_rated_9x9.sgf")):
        if number >= 5:
            break
        found = analysed(record, player, komi=komi)
        assert found.complete and simulations == 4 and all(node.winrate is not None for node in found.nodes)
        [again] = parse(analysed_sgf(record, found))
        assert again.moves == record.moves
