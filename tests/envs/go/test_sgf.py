import contextlib
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.go.position import BLACK, EMPTY, WHITE, Position
from envs.go.record import BrokenSGF, GameRecord, Node, result_text
from envs.go.sgf import Collection, parse, read_collection, read_sgf, to_sgf, write_sgf

DATA = Path(os.environ.get("RLKIT_DATA", Path(__file__).parents[4] / "shared" / "data")) / "go"
HUMAN = "(;GM[1]SZ[9]RE[B+9.5]KM[7]RU[Chinese]PB[bluedragon (2374)]PW[naotin15];B[fd];W[df];B[];W[tt])"
BRANCHED = """(;FF[4]GM[1]SZ[13:9]KM[0.5]HA[2]AB[aa][ca:db]PL[W]C[start (;here) [\\]]
;W[ma]C[a \\\\ b]
(;B[bb];W[tt];AE[aa]AW[mi];B[ab])
(;AW[gg]
  (;W[hh])(;B[ii]C[last]))
)"""


def points(*vertices, width=13):
    """SGF names -> moves."""
    return tuple(sorted("abcdefghijklm".index(v[0]) + width * "abcdefghijklm".index(v[1]) for v in vertices))


def test_a_game_as_servers_write_it():
    [record] = parse(HUMAN)
    assert (record.height, record.width, record.komi, record.rules) == (9, 9, 7.0, "Chinese")
    assert (record.winner, record.margin) == (BLACK, 9.5)
    assert (record.rating(BLACK), record.rating(WHITE)) == (2374, None)
    assert record.moves == [(BLACK, 3 * 9 + 5), (WHITE, 5 * 9 + 3), (BLACK, 81), (WHITE, 81)]
    assert record.place == "text, line 1, game 1"


@pytest.mark.parametrize(
    ("result", "winner", "margin"),
    [
        ("B+9.5", BLACK, 9.5),
        ("W+R", WHITE, None),
        ("w+Resign", WHITE, None),
        ("B+", BLACK, None),
        ("White+0,5", WHITE, 0.5),
        ("0", EMPTY, 0.0),
        ("Draw", EMPTY, 0.0),
        ("Void", None, None),
        ("?", None, None),
        ("", None, None),
        ("B+99999999", BLACK, None),
        ("B+1/2", BLACK, 0.5),
        ("W+3 1/2", WHITE, 3.5),
        ("W+10\N{VULGAR FRACTION ONE HALF}", WHITE, 10.5),
        ("W+1/0", WHITE, None),
        ("B+2.5 points, 231 moves", BLACK, 2.5),
        ("B+3\u76ee\u534a", BLACK, None),  # and a half, in Japanese
        ("W+3.75\u5b50", WHITE, None),  # Chinese stones of two points
        ("W+1e3", WHITE, None),
    ],
)
def test_results(result, winner, margin):
    record = GameRecord(result=result)
    assert (record.winner, record.margin) == (winner, margin)


def test_scores_become_results():
    assert [result_text(s) for s in (9.5, -0.5, 3.0, 0.0)] == ["B+9.5", "W+0.5", "B+3", "0"]


def test_rectangles_name_columns_first():
    [record] = parse("(;SZ[13:9];B[ma];W[ai])")
    assert (record.height, record.width) == (9, 13)
    assert record.moves == [(BLACK, 12), (WHITE, 8 * 13)]
    with pytest.raises(BrokenSGF, match=r"B\[aj\] is no point of a 9x13 board"):
        parse("(;SZ[13:9];B[aj])")


def test_variations_set_up_and_comments():
    [record] = parse(BRANCHED)
    assert record.handicap == 2
    assert record.nodes[0].comment == "start (;here) []"
    assert record.nodes[0].black == points("aa", "ca", "da", "cb", "db")
    assert record.moves == [(WHITE, 12), (BLACK, 14), (WHITE, 117), (BLACK, 13)]
    assert record.comments == ["a \\ b", "", "", ""]
    ends = [(line[-1].colour, line[-1].move, line[-1].comment) for line in record.lines()]
    hh, ii = points("hh", "ii")
    assert ends == [(BLACK, 13, ""), (WHITE, hh, ""), (BLACK, ii, "last")]


def test_properties_in_small_letters_and_long_ones():
    [record] = parse("(;gm[1]sz[9]km[5.5]c[(b[aa\\])];b[ee];w[cc]c[x])")
    assert (record.height, record.komi, record.moves) == (9, 5.5, [(BLACK, 40), (WHITE, 20)])
    assert (record.nodes[0].comment, record.comments) == ("(b[aa])", ["", "x"])
    [record] = parse("(;GaMe[1]SiZe[9]AddBlack[aa]PLayer[w];White[ee];Black[cc])")
    assert (record.nodes[0].black, record.moves) == ((0,), [(WHITE, 40), (BLACK, 20)])
    with pytest.raises(BrokenSGF, match=r"GM\[2\] is not Go"):
        parse("(;gm[2])")


def test_games_and_variations_without_a_semicolon():
    text = "(\r\nEV[x]\r\nKM[6.5]\r\nSZ[9]\r\n;B[ee];W[cc](B[gg]C[(B[aa\\];W[bb\\])])\n(;B[hh]))\n(TE[y]SZ[9];B[aa])"
    first, second = parse(text)
    assert (first.event, first.komi, first.comments[2]) == ("x", 6.5, "(B[aa];W[bb])")
    assert [[node.move for node in line[1:]] for line in first.lines()] == [[40, 20, 60], [40, 20, 70]]
    assert second.moves == [(BLACK, 0)] and second.place == "text, line 7, game 2"


def test_several_moves_in_a_node_are_played_in_the_order_in_which_they_stand():
    [record] = parse("(;SZ[9]B[aa]W[bb]B[cc]C[third](;W[dd]BL[5]B[ee])(;B[ff];W[gg]))")
    assert [[(node.colour, node.move) for node in line if node.move is not None] for line in record.lines()] == [
        [(BLACK, 0), (WHITE, 10), (BLACK, 20), (WHITE, 30), (BLACK, 40)],
        [(BLACK, 0), (WHITE, 10), (BLACK, 20), (BLACK, 50), (WHITE, 60)],
    ]
    assert record.comments == ["", "", "third", "", ""]
    assert parse("(;SZ[9];W[bb]B[aa])")[0].moves == [(WHITE, 10), (BLACK, 0)]
    assert len(list(record.positions())) == 5 and parse(to_sgf(record)) == [record]


@pytest.mark.parametrize(
    ("komi", "points"),
    [
        ("6.5", 6.5), ("6,5", 6.5), (" +6.5 ", 6.5), ("-5", -5.0), (".5", 0.5), ("0.00", 0.0), ("361", 361.0),
        ("6.5 points", 6.5), ("6 1/2", 6.5), ("7\N{VULGAR FRACTION ONE HALF}", 7.5), ("200", 200.0),
        ("", None), ("abc", None), ("nan", None), ("inf", None), ("1e999", None), ("1e1", None), ("6.5.1", None),
        ("3.75\u5b50", None), ("3\u53c83/4\u5b50", None), ("6\u76ee\u534a", None), ("362", None), ("-400", None),
        ("375", None), ("650", None), ("325", None), ("99999", None), ("9" * 9999, None),
    ],
)  # fmt: skip
def test_komi_in_figures_and_words(komi, points):
    [record] = parse(f"(;SZ[9]KM[{komi}];B[ee])")
    assert (record.komi, record.moves) == (points, [(BLACK, 40)])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("275", 5.5), ("325", 6.5), ("350", 7.0), ("375", 7.5), ("550", 5.5), ("650", 6.5), ("750", 7.5),
        ("7.5", 7.5), ("0", 0.0), ("376", None), ("375.5", None), ("-375", -7.5),
    ],
)  # fmt: skip
def test_komi_as_the_fox_server_writes_it(written, meant):
    [record] = parse(f"(;GM[1]FF[4]SZ[19]KM[{written}]HA[0]RU[Chinese]AP[foxwq:1];B[pd];W[dp])")
    assert record.komi == meant and record.position().score() == -(meant or 0)


@pytest.mark.parametrize(
    ("text", "stones"),
    [("2", 2), ("2.0", 2), ("3 stones", 3), ("two", 0), ("", 0), ("2.5", 0), ("-99999", 0), ("99999", 0), ("82", 0)],
)
def test_handicaps_in_figures_and_words(text, stones):
    [record] = parse(f"(;SZ[9]HA[{text}];B[ee])")
    assert (record.handicap, record.moves) == (stones, [(BLACK, 40)])


def test_replay_sets_up_in_the_middle_and_follows_a_line():
    [record] = parse(BRANCHED)
    played = list(record.positions())
    assert [(p.to_play, move) for p, move in played] == record.moves
    before_last, last = played[-1][0], record.position()
    assert (before_last.board[0, 0], before_last.board[8, 12], before_last.board[0, 12]) == (EMPTY, WHITE, WHITE)
    assert last.board[1, 0] == BLACK
    third = list(record.lines())[2]
    assert record.position(line=third).board[8, 8] == BLACK
    assert record.position(line=third).board[6, 6] == WHITE
    assert record.position(1).to_play == BLACK and record.position(1).last_move == 12
    assert (record.position(0).board != EMPTY).sum() == 5


def test_who_begins():
    assert parse("(;SZ[9])")[0].position().to_play == BLACK
    assert parse("(;SZ[9]HA[2]AB[cc][gg])")[0].position().to_play == WHITE
    assert parse("(;SZ[9]HA[2]AB[cc][gg]PL[B])")[0].position().to_play == BLACK
    for names, colour in ((["B", "b", "Black", "1"], BLACK), (["W", "white", " 2 "], WHITE)):  # numbers: FF[1] to FF[3]
        for name in names:
            assert parse(f"(;SZ[9];PL[{name}]AW[ee]AB[cc])")[0].position().to_play == colour
    assert parse("(;SZ[9]PL[];B[ee])")[0].moves == [(BLACK, 40)]
    assert [p.to_play for p, _ in parse("(;SZ[9];W[aa];W[bb])")[0].positions()] == [WHITE, WHITE]


def test_games_go_on_after_two_passes():
    [record] = parse("(;SZ[5];B[];W[];B[cc];W[];B[];W[bb])")
    assert (record.position().board != EMPTY).sum() == 2


def test_an_illegal_move_names_game_and_number():
    [_, record] = parse("(;SZ[9])\n(;SZ[9];B[cc];W[dd];B[dd])")
    with pytest.raises(BrokenSGF, match=r"^text, line 2, game 2: move 3: .*D6.*occupied"):
        list(record.positions())
    with pytest.raises(BrokenSGF, match=r"set-up after move 0: .*liberty"):
        parse("(;SZ[2]AB[aa][ab][ba][bb])")[0].position()
    with pytest.raises(ValueError, match="-1 moves"):
        record.position(-1)


def test_repeats_are_let_through_unless_forbidden():
    # 1 x 2: a stone, the stone that takes it, and the first one again
    [record] = parse("(;SZ[2:1];B[aa];W[ba];B[];W[];B[aa])")
    assert record.position().board.tolist() == [[BLACK, EMPTY]]
    with pytest.raises(BrokenSGF, match=r"move 5: .*superko"):
        record.position(superko="positional")


def test_collections_of_every_shape():
    text = "From: somebody\n(;SZ[9]C[a ) and ( and (;GM[1\\] inside];B[aa])(;SZ[9]\n;B[bb]\n)\n\n ( ;SZ[9];B[cc])\n\x1a"
    records = parse(text)
    assert [r.moves[0][1] for r in records] == [0, 10, 20]
    assert [r.place.split(", ")[1] for r in records] == ["line 2", "line 2", "line 6"]
    assert records[0].nodes[0].comment == "a ) and ( and (;GM[1] inside"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no game"),
        ("hello", "no game"),
        ("(;SZ[9];B[aa]", "not closed before the end"),
        ("(;SZ[9];B[aa];W[b", r"the \[ on line 1 is never closed"),
        ("(;SZ[0])", r"SZ\[0\] is no board of 1 to 19 lines"),
        ("(;SZ[50])", r"SZ\[50\] is no board"),
        ("(;SZ[9:9:9])", "is no board"),
        ("(;SZ[" + "9" * 9999 + "])", "is no board"),
        ("(;SZ[])", "is no board"),
        ("(;GM[2]SZ[9])", r"GM\[2\] is not Go"),
        ("(;SZ[9];B[zz])", r"B\[zz\] is no point of a 9x9 board"),
        ("(;SZ[9];B[aa][bb])", "two moves in one node"),
        ("(;SZ[9];B[\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}\x9b])", r"B\[\\x1b\[2J\\u202e\\x9b\] is no point"),
        ("(;SZ[9]\x1b;B[aa])", r"'\\x1b;B.aa..' on line 1 cannot be read"),
        ("(;SZ[\x1bc])", r"SZ\[\\x1bc\] is no board"),
        ("(;SZ[9];AB[aa:zz])", "AB"),
        ("(;SZ[5:9]AB[fa])", "AB"),
        ("(;SZ[9]AB[])(;SZ[9]AB[aa]AW[aa])", "same point twice"),
        ("(;SZ[9]PL[x])", "PL"),
        ("(;SZ[9]PL[3])", "PL"),
        ("(;SZ[9];B)", "property with no values"),
        ("(;SZ[9]!;B[aa])", "'!;B.aa..' on line 1 cannot be read"),
        ("(;" * 100_000, "not closed"),
    ],
)
def test_broken_games_say_what_is_wrong(text, reason):
    with pytest.raises(BrokenSGF, match=reason) as error:
        parse(text)
    assert str(error.value).startswith("text, line 1, game ") and len(str(error.value)) < 200
    assert str(error.value).isprintable()


@pytest.mark.slow
def test_deep_nesting_is_no_problem():
    depth = 20_000
    [record] = parse("(;SZ[9]" + "(;B[]" * depth + ")" * depth + ")")
    assert len(record.moves) == depth
    assert parse(to_sgf(record)) == [record]


def test_a_collection_goes_on_behind_broken_games(tmp_path):
    path = tmp_path / "games.sgf"
    path.write_text(
        "(;SZ[9];B[aa])\n"
        "(;SZ[9];B[zz])\n"
        "(;SZ[9];B[bb]\n"  # not closed
        "(;SZ[9];B[cc]))\n"  # closed twice
        ";SZ[9];B[dd])\n"  # not opened
        "(;SZ[9]?;B[ee])\n"
        "(;SZ[9];B[ff])\n"
    )
    games = read_collection(path, on_error="skip")
    assert [record.moves[0][1] for record in games] == [0, 20, 50]
    places = [str(error).split(": ")[0] for error in games.skipped]
    assert places == [f"{path}, line {line}, game {line}" for line in (2, 3, 5, 6)]

    games = read_collection(path)
    assert next(games) == read_sgf(path)
    with pytest.raises(BrokenSGF, match=r"games\.sgf, line 2, game 2: B\[zz\]"):
        next(games)
    with pytest.raises(ValueError, match="'raise' or 'skip'"):
        read_collection(path, on_error="ignore")


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12)
COMMENT = st.text(st.characters(exclude_categories=["Cc", "Cs"], include_characters="\n"), max_size=20)


@st.composite
def records(draw):
    height, width = draw(st.integers(1, 19)), draw(st.integers(1, 19))
    nodes = []
    for index in range(draw(st.integers(1, 8))):
        cells = draw(st.lists(st.integers(0, height * width - 1), max_size=4, unique=True))
        shared = [tuple(sorted(cells[k::3])) for k in range(3)]
        colour = draw(st.sampled_from([EMPTY, BLACK, WHITE]))
        move = draw(st.integers(0, height * width)) if colour else None
        # the parent is the node before or one of its ancestors, as in a tree that is listed depth first
        parent = index - 1
        for _ in range(draw(st.integers(0, 2))):
            parent = nodes[parent].parent if parent > 0 else parent
        to_play = draw(st.sampled_from([EMPTY, BLACK, WHITE]))
        nodes.append(Node(colour, move, draw(COMMENT), *shared, to_play=to_play, parent=parent))
    komi = draw(st.none() | st.integers(-800, 800).map(lambda k: k / 4))
    texts = [draw(TEXT) for _ in range(6)]
    return GameRecord(height, width, komi, *texts, handicap=min(draw(st.integers(0, 9)), height * width), nodes=nodes)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(records(), min_size=1, max_size=3))
@pytest.mark.slow
def test_what_is_written_reads_back_equal(written):
    assert parse("".join(map(to_sgf, written))) == written


def test_a_game_of_positions_is_written(tmp_path):
    position = Position.empty(5, 0.5)
    for move in (12, 7, 25, 25):
        position = position.play(move)
    info = {"black": "me", "white": "you", "rules": "Chinese"}
    record = GameRecord.from_position(position, comments=["0.61, 800 visits", "reply"], **info)
    assert record.result == result_text(position.score())
    text = to_sgf(record)
    assert text == (
        f"(;FF[4]CA[UTF-8]GM[1]KM[0.5]PB[me]PW[you]RE[{record.result}]RU[Chinese]SZ[5]"
        ";B[cc]C[0.61, 800 visits];C[reply]W[cb];B[];W[])\n"
    )
    path = tmp_path / "game.sgf"
    write_sgf(path, record)
    assert path.read_text() == text and read_sgf(path) == record
    assert (read_sgf(path).position().board == position.board).all()
    with pytest.raises(ValueError, match="5 comments are too many for a game of 4 moves"):
        GameRecord.from_position(position, comments=["x"] * 5)


def test_handicap_and_set_up_are_written():
    handicap = Position.empty(9, 0.5).setup(black=[20, 60], to_play=WHITE).play(40)
    record = GameRecord.from_position(handicap)
    assert (record.handicap, record.result, record.moves) == (2, "", [(WHITE, 40)])
    [again] = parse(to_sgf(record))
    assert again == record and (again.position().board == handicap.board).all()
    problem = Position.empty((3, 4)).setup(black=[0], white=[5], to_play=WHITE)
    [again] = parse(to_sgf(GameRecord.from_position(problem)))
    assert (again.position().board == problem.board).all() and again.position().to_play == WHITE


def test_a_pipe_in_place_of_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "games.sgf")
    with pytest.raises(OSError, match="no regular file"):
        read_sgf(tmp_path / "games.sgf")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "games.sgf"
    write_sgf(path, parse(HUMAN) * 2)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="99 is no point of a 9x9 board"):
        write_sgf(path, [GameRecord(9, 9), GameRecord(9, 9, nodes=[Node(), Node(BLACK, 99, parent=0)])])
    with pytest.raises(ValueError, match="komi of inf"):
        write_sgf(path, GameRecord(9, 9, float("inf")))
    assert path.read_bytes() == before and len(list(read_collection(path))) == 2
    assert os.listdir(tmp_path) == ["games.sgf"]


PIECES = ["(", ")", ";", "[", "]", "\\", ":", "SZ[19]", "KM[", "AB[aa:cc]", "AE[", "B[tt]", "W[zz]", "CA[x]", "\n", "é"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
@pytest.mark.slow
def test_mutated_texts_are_read_or_refused(data):
    text = data.draw(st.sampled_from([HUMAN, BRANCHED]))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.sampled_from(PIECES) | st.text(max_size=4))
        text = text[:at] + piece + text[at + data.draw(st.integers(0, 3)) :]
    is_read_or_refused(text)


def is_read_or_refused(text):
    games = Collection(text.encode("utf-8", "replace"), "text", "skip")
    good = list(games)
    assert good or games.skipped
    for record in good:
        assert parse(to_sgf(record)) == [record]
        for line in record.lines():
            with contextlib.suppress(BrokenSGF):
                assert len(list(record.positions(line))) == sum(node.move is not None for node in line)


@pytest.mark.exhaustive
def test_50_000_mutated_texts_leave_no_memory_behind(resident):
    rng, pieces = random.Random(1), [*PIECES, *"()[];\\\n:aBWx9\0", "\ud800", "\u2028", "KM[1e999]", "SZ[19]"]
    for number in range(50_000):
        text = rng.choice([HUMAN, BRANCHED])
        for _ in range(rng.randint(1, 6)):
            at = rng.randint(0, len(text))
            text = text[:at] + rng.choice(pieces) + text[at + rng.randint(0, 4) :]
        is_read_or_refused(text)
        if number == 5_000:
            before = resident()
    assert resident() - before < 20


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data sets in {DATA}; RLKIT_DATA may name another folder")
@pytest.mark.slow
def test_data_sets_replay_to_their_ends():
    for name, games, moves in (("goquest_rated_9x9", 5046, 293_425), ("azmini_selfplay_9x9", 2412, 131_277)):
        collection = list(read_collection(DATA / f"{name}.sgf"))
        assert len(collection) == games
        assert all(record.winner in (BLACK, WHITE) for record in collection)
        moves_of = [sum(node.move is not None for node in record.nodes) for record in collection]
        assert sum(moves_of) == moves
        assert [sum(1 for _ in record.positions()) for record in collection[::5]] == moves_of[::5], "all take 20 s"
