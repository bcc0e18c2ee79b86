"""What KataGo and GoGui add to the protocol: rules, parameters, set-up, and analyses of some moves alone."""

import re

import numpy as np
import pytest
from gtp_players import Analyst, FirstLegal, say

from envs.go.gtp import Engine
from envs.go.position import BLACK, WHITE, Position, from_vertex


def rules(ko="POSITIONAL", suicide="false", passes="true"):
    return (
        f'{{"friendlyPassOk":{passes},"hasButton":false,"ko":"{ko}","scoring":"AREA","suicide":{suicide},'
        '"tax":"NONE","whiteHandicapBonus":"0"}'
    )


class Restricted(FirstLegal):
    """Finds two moves, the first that it may."""

    simulations, leaves = 100, 8

    def describe(self):
        return {}

    def analyze(self, position, seconds=None, allowed=None):
        legal = position.legal_moves()
        moves = np.flatnonzero(legal if allowed is None else legal & allowed)[:2].tolist()
        return [{"move": move, "visits": 9, "winrate": 0.5, "prior": 0.25, "pv": []} for move in moves]


SESSIONS = {
    "rules": [
        ("kata-get-rules", f"= {rules()}"),
        ("kata-set-rules Chinese", "= "),
        ("kata-get-rules", f"= {rules('SIMPLE')}"),
        ("kata-set-rules tromp-taylor", "= "),
        ("kata-get-rules", f"= {rules(suicide='true', passes='false')}"),
        (
            "kata-set-rules japanese",
            f"? not played here: territory, a tax on seki; the nearest rules are {rules('SIMPLE')}",
        ),
        (
            "kata-set-rules stone-scoring",
            f"? not played here: a tax on all groups; the nearest rules are {rules('SIMPLE')}",
        ),
        ("kata-set-rules aga-button", f"? not played here: a button; the nearest rules are {rules('SITUATIONAL')}"),
        ("kata-set-rules", "? syntax error"),
        ('kata-set-rules {"ko":"NONE"}', "? no rules: ko cannot be 'NONE'"),
        ('kata-set-rules {"ko":"SIMPLE","komi":7}', "? the komi is no rule here: say komi POINTS"),
        ("kata-get-rules", f"= {rules(suicide='true', passes='false')}"),
        ('kata-set-rules { "ko": "SITUATIONAL",  "suicide": true }', "= "),
        ("kata-get-rules", f"= {rules('SITUATIONAL', 'true')}"),
        ("kata-set-rule ko simple", "= "),
        ("kata-set-rule suicide false", "= "),
        ("kata-get-rules", f"= {rules('SIMPLE')}"),
        ("kata-set-rule suicide no", "? suicide is true or false, not no"),
        ("kata-set-rule ko sometimes", "? no rules: ko cannot be 'SOMETIMES'"),
        ("kata-set-rule scoring TERRITORY", f"? not played here: territory; the nearest rules are {rules('SIMPLE')}"),
        (
            "kata-set-rule whiteHandicapBonus N",
            "? White gets no points for handicap stones here: set the komi, and leave whiteHandicapBonus 0",
        ),
        ("kata-set-rule whiteHandicapBonus 0", "= "),
        (
            "kata-set-rule golf true",
            "? no rule: golf; there are ko scoring tax suicide hasButton whiteHandicapBonus friendlyPassOk",
        ),
        ("kgs-rules chinese", "= "),
        ("kata-get-rules", f"= {rules()}"),
        ("kgs-rules new_zealand", "= "),
        ("boardsize 3", "= "),
        ("clear_board", "= "),
        ("kata-get-rules", f"= {rules('SITUATIONAL', 'true')}"),
        ("get_komi", "= 7.5"),
    ],
    "suicide is really played": [
        ("boardsize 3", "= "),
        ("set_position b A3 w C3 w A2 w B2", "= "),
        ("play b B3", "? illegal move"),
        ("kata-set-rule suicide true", "= "),
        ("play b B3", "= "),
        ("final_status_list alive", "= C3\nA2 B2"),
        ("undo", "= "),
        ("play b B3", "= "),
        ("undo", "= "),
        ("kata-set-rules chinese", "= "),
        ("play b B3", "? illegal move"),
    ],
    "parameters": [
        ("kata-list-params", "= maxVisits"),
        ("kata-get-param maxVisits", "= 100"),
        ("kata-set-param maxVisits 7", "= "),
        ("kata-get-param maxVisits", "= 7"),
        ("kata-set-param maxVisits 0", "? maxVisits is 1 at least"),
        ("kata-set-param maxVisits many", "? syntax error"),
        ("kata-get-param maxTime", "? invalid parameter: maxTime; there are: maxVisits"),
        ("kata-set-param numSearchThreads 2", "? invalid parameter: numSearchThreads; there are: maxVisits"),
        (
            "kata-get-models",
            '= [{"internalName":"rlkit","maxBatchSize":8,"name":"rlkit","usesHumanSLProfile":false,'
            '"usingFP16":"false","version":1}]',
        ),
    ],
    "set-up": [
        ("boardsize 3", "= "),
        ("gogui-setup b A1 w B2 e C3", "= "),
        ("final_status_list alive", "= B2\nA1"),
        ("gogui-setup b", "? syntax error"),
        ("gogui-setup x A1", "? syntax error"),
        ("gogui-setup b D4", "? no point of this board: D4"),
        ("gogui-setup b pass", "? no point of this board: pass"),
        ("gogui-setup w A2 w B1", "? a chain would have no liberty"),
        ("gogui-setup e A1 empty B2 b C3 w C3", "= "),
        ("final_status_list alive", "= C3"),
        ("gogui-setup_player x", "? syntax error"),
        ("gogui-setup_player w", "= "),
        ("kata-genmove_analyze maxmoves 0", "=\nplay A3"),
        ("gogui-setup b B1", "? stones are set up before the first move"),
        ("undo", "= "),
        ("undo", "? cannot undo"),
        ("set_position b A1 b A1", "? a point is given twice"),
        ("set_position e A1", "? syntax error"),
        ("set_position b A1 w A2 w B1", "? a chain would have no liberty"),
        ("final_status_list alive", "= C3"),
        ("set_position w B2", "= "),
        ("final_status_list alive", "= B2"),
        ("set_position", "= "),
        ("final_status_list alive", "= "),
    ],
}


@pytest.mark.parametrize("name", SESSIONS)
def test_every_command_has_its_answer(name):
    engine = Engine(Restricted())
    for line, answer in SESSIONS[name]:
        assert engine.answer(line) == answer + "\n\n", line


def test_who_is_to_move_after_a_set_up():
    engine, seen = Engine(FirstLegal(), 3), []
    for line in ("gogui-setup b A1", "gogui-setup_player w", "gogui-setup b B1", "set_position b A1", "set_position"):
        engine.answer(line)
        seen.append(engine.position.to_play)
    assert seen == [BLACK, WHITE, WHITE, BLACK, BLACK]


def test_a_board_may_come_back_or_not_as_the_rules_say():
    drawn = Position.parse(".O.XXO\nOXXXO.\nO.X.OO\nXX.OO.\nOOOO.O", superko="simple")
    line = drawn.play(11).play(30).play(20).play(5).play(15)
    for vertex in ("C5", "A5", "B5", "pass"):
        line = line.play(from_vertex(vertex, 5, 6))
    engine = Engine(FirstLegal())
    engine.position = line
    moves = ("play w C5", "play b A5", "play w B5")
    assert engine.answer("kata-get-rules") == f"= {rules('SIMPLE')}\n\n"
    assert say(engine, *moves, "undo", "undo", "undo") == ["= \n\n"] * 6
    for name in ("positional", "situational"):
        assert engine.answer(f"kata-set-rule ko {name}") == "= \n\n"
        answers = say(engine, *moves)
        assert "? illegal move\n\n" in answers or name == "situational"
        say(engine, *["undo"] * answers.count("= \n\n"))
    assert (engine.position.board == line.board).all() and engine.position.moves() == line.moves()


def test_rules_change_without_a_new_position_where_nothing_changes():
    engine = Engine(FirstLegal(), 3)
    engine.answer("play b A1")
    before = engine.position
    engine.answer("kata-set-rules chinese-ogs")
    assert engine.position is before  # which a player knows again
    engine.answer("kata-set-rules chinese")
    assert engine.position is not before and engine.position.parent.superko == "simple"


def test_white_is_told_that_it_gets_nothing_for_handicap_stones(capsys):
    engine = Engine(FirstLegal(), 3)
    say(engine, "kata-set-rules tromp-taylor")
    assert capsys.readouterr().err == ""
    assert say(engine, "kata-set-rules aga") == ["= \n\n"]
    assert capsys.readouterr().err == "White gets no points for Black's handicap stones: set the komi\n"


def test_the_seconds_of_a_move_are_a_parameter_until_the_clock_says_otherwise():
    player = Analyst()
    engine = Engine(player)
    assert say(engine, "kata-list-params", "kata-get-param maxTime") == ["= maxTime\n\n", "= 3\n\n"]
    assert say(engine, "kata-set-param maxTime 1.5", "kata-set-param maxTime -1") == ["= \n\n", "? syntax error\n\n"]
    assert player.seconds == 1.5
    say(engine, "time_settings 0 20 1", "genmove b")
    assert player.seconds == pytest.approx(0.95 * 20 - 0.05)
    assert engine.answer("kata-get-param maxTime") == "= 1.5\n\n"
    say(engine, "time_settings 0 1 0", "genmove w")
    assert player.seconds == 1.5
    assert say(engine, "kata-set-param maxTime 1e20", "kata-get-param maxTime") == ["= \n\n", "= 1e+20\n\n"]
    assert player.seconds is None
    player.simulations = None
    answers = say(engine, "kata-set-param maxTime 2", "kata-set-param maxTime 1e20", "kata-get-param maxVisits")
    assert answers == ["= \n\n", "? a move needs a limit: set maxVisits before\n\n", f"= {1 << 50}\n\n"]


def test_who_has_neither_parameters_nor_a_network_says_so():
    assert say(Engine(FirstLegal()), "kata-list-params", "kata-get-param maxTime", "kata-get-models") == [
        "= \n\n", "? invalid parameter: maxTime; there are: none\n\n", "= []\n\n"
    ]  # fmt: skip


# -- some moves alone


@pytest.mark.parametrize(
    "words, moves",
    [
        ("b 1", ["A3", "B3"]),
        ("b 1 avoid b A3 1", ["B3", "C3"]),
        ("b 1 avoid b A3,b3 1 avoid B C3 1", ["A2", "B2"]),
        ("avoid w A3 1", ["A3", "B3"]),  # the other side's moves
        ("w avoid w A3 1 allow b B2 1", ["B3", "C3"]),
        ("1 allow b C1,pass 2", ["C1", "pass"]),
        ("interval 1 allow b A1 1 maxmoves 1", ["A1"]),
    ],
)
def test_allow_and_avoid(words, moves, capsys):
    engine = Engine(Restricted(), 3)
    for command in ("lz-analyze", "kata-analyze"):
        assert re.findall(r"info move (\S+)", engine.answer(f"{command} {words}")) == moves
    assert engine.answer(f"kata-genmove_analyze {words}").endswith(f"\nplay {moves[0]}\n\n")
    assert capsys.readouterr().err == ""


def test_only_the_first_move_is_restricted(capsys):
    engine = Engine(Restricted(), 3)
    assert re.findall(r"info move (\S+)", engine.answer("lz-analyze b 1 avoid b A3 10")) == ["B3", "C3"]
    assert capsys.readouterr().err == "Only the first move is restricted, whatever the depth says\n"


@pytest.mark.parametrize(
    "words, reason",
    [
        ("avoid", "syntax error"),
        ("avoid b A1", "syntax error"),
        ("avoid x A1 1", "syntax error"),
        ("avoid b A1 x", "syntax error"),
        ("avoid b A1 0", "avoid: the depth is 1 at least"),
        ("avoid b A1,D4 1", "avoid: no move on this board: D4"),
        ("allow b A1, 1", "allow: no move on this board:"),
        ("allow b A1 1 allow b A2 1", "allow goes once for each player, and not beside avoid"),
        ("avoid b A1 1 allow b A2 1", "allow goes once for each player, and not beside avoid"),
        ("allow b A1 1 avoid b A2 1", "allow goes once for each player, and not beside avoid"),
        ("allow b B2 1", "no legal move is left"),
    ],
)
def test_allow_and_avoid_with_wrong_words(words, reason):
    engine = Engine(Restricted(), 3)
    engine.answer("gogui-setup w B2")
    for command in ("kata-analyze", "lz-genmove_analyze"):
        assert engine.answer(f"{command} b {words}") == f"? {reason}\n\n"
    assert engine.position.move_number == 0
