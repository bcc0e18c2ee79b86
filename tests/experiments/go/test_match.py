import functools
import json
import os
import shlex
import shutil
import signal
import sys
import threading
from concurrent import futures
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gtp_players import simple_eyes

from envs.go.gtp_client import GTPPlayer
from envs.go.position import BLACK, EMPTY, RESIGN, WHITE, Position
from envs.go.random_player import RandomPlayer
from envs.go.record import GameRecord
from experiments.go import match
from experiments.go.match import Config
from experiments.go.matches import RULES, MatchGame, play_game, play_match, random_openings, summary
from experiments.go.players import go_player
from rlkit import command_line
from rlkit.ratings import wilson_interval

ENGINE = """
import sys, time
for line in sys.stdin:
    answer = "false" if line.startswith("known") else ""
    if line.startswith("genmove"):
        PART
    print("=", answer, end="\\n\\n", flush=True)
"""


def engine(part):
    return [sys.executable, "-ISc", ENGINE.replace("PART", part)]


def moves_of(games):
    return [game.position().moves() for game in sorted(games, key=lambda game: game.number)]


def test_eyes_that_the_random_player_keeps():
    board = Position.parse(
        """
        . X . X O
        X X X X O
        . X X O O
        X . X O .
        X X O O O
        """
    ).board
    black = simple_eyes(board, BLACK)
    # Two at the edge; the middle one has lost one diagonal of four and still counts.
    assert np.argwhere(black).tolist() == [[0, 0], [0, 2], [2, 0], [3, 1]]
    assert np.argwhere(simple_eyes(board, WHITE)).tolist() == [[3, 4]]
    lost_diagonals = np.array([[EMPTY, BLACK, WHITE], [BLACK, EMPTY, BLACK], [WHITE, BLACK, WHITE]], np.int8)
    assert np.argwhere(simple_eyes(lost_diagonals, BLACK)).tolist() == [[0, 0]]  # two of four, and none at the edge
    lost_diagonals[1, 1] = WHITE
    assert not simple_eyes(lost_diagonals, BLACK).any()


def test_random_player_passes_only_when_nothing_else_is_sensible():
    position, player = Position.empty(4, 0.5, max_moves=200), RandomPlayer(1)
    assert {RandomPlayer(s)(position) for s in range(300)} == set(range(16))
    while not position.is_over:
        move = player(position)
        sensible = position.legal_moves()[:-1] & ~simple_eyes(position.board, position.to_play).ravel()
        assert sensible[move] if move != position.pass_move else not sensible.any()
        position = position.play(move)


@pytest.mark.slow
def test_openings_are_distinct_and_repeatable():
    empty = Position.empty(5)
    openings = random_openings(empty, 50, 2, seed=1)
    assert len({o.board.tobytes() for o in openings}) == 50
    assert all(o.move_number == 2 and o.to_play == BLACK for o in openings)
    assert [o.moves() for o in openings] == [o.moves() for o in random_openings(empty, 50, 2, seed=1)]
    assert [o.moves() for o in openings] != [o.moves() for o in random_openings(empty, 50, 2, seed=2)]
    assert random_openings(empty, 0, 2, seed=1) == [empty]
    assert len(random_openings(Position.empty(2), 50, 1, seed=1)) == 4  # as many as there are
    with pytest.raises(ValueError, match="found no openings of 30 moves"):
        random_openings(Position.empty(2, max_moves=12), 5, 30, seed=1)


def test_random_against_random_repeats_itself_in_any_number_of_threads():
    starts = random_openings(Position.empty(5, 0.5, max_moves=75), 2, 2, seed=5)

    def games(seed, parallel):
        return list(play_match(RandomPlayer, RandomPlayer, starts, 6, seed, parallel))

    one = games(3, 1)
    assert moves_of(one) == moves_of(games(3, 3)) != moves_of(games(4, 1))
    for i, moves in enumerate(moves_of(one)):
        assert moves[:2] == starts[i // 2 % 2].moves()  # both colours, then the next one, then from the first again
    out = summary(one)
    assert out["games"] == 6 and out["distinct_games"] == 6 and not out["forfeits"]
    assert out["as_black"]["games"] == out["as_white"]["games"] == 3
    for game in one:
        score = game.position().score()
        assert game.winner == (BLACK if score > 0 else WHITE) and game.result[0] == "_BW"[game.winner]
        assert float(game.result[2:]) == abs(score)


def test_results_of_games():
    def passes(position):
        return position.pass_move

    empty = Position.empty(3, komi=2)
    game = play_game(passes, passes, empty)
    assert (game.winner, game.result, game.forfeit, game.capped) == (WHITE, "W+2", "", False)
    assert play_game(passes, passes, empty.replace(komi=0)).result == "0"
    game = play_game(lambda _: 4, passes, Position.empty(3, komi=2, max_moves=1))
    assert (game.winner, game.result, game.capped) == (BLACK, "B+7", True)
    assert play_game(lambda _: RESIGN, passes, empty).result == "W+R"
    game = play_game(passes, lambda _: 0, Position.empty(3).play(0).play(8))
    assert (game.winner, game.result, game.forfeit) == (BLACK, "B+F", "illegal move")
    assert game.story == "illegal move: White may not play A3: occupied"


def test_score_counts_draws_half_and_keeps_forfeits_apart():
    game = functools.partial(MatchGame, Position.empty(3), [])
    games = [
        game(BLACK, "B+1", number=0),
        game(BLACK, "B+1", number=1),
        game(EMPTY, "0", number=2),
        game(WHITE, "W+F", "timeout", "timeout: slow", number=4, capped=False),
        game(WHITE, "W+F", "death", "death: gone", number=5),
    ]
    out = summary(games[::-1])
    assert out["score"] == 0.5 and out["interval_95"] == wilson_interval(2.5, 5) and out["elo"] == 0
    assert [out[key] for key in ("games", "wins", "losses", "draws")] == [5, 2, 2, 1]
    assert out["as_black"] == {"games": 3, "wins": 1, "losses": 1, "draws": 1, "score": 0.5}
    assert out["without_forfeits"] == {"games": 3, "wins": 1, "losses": 1, "draws": 1, "score": 0.5}
    assert [(f["game"], f["loser"], f["reason"]) for f in out["forfeits"]] == [(4, "a", "timeout"), (5, "b", "death")]
    assert out["distinct_games"] == 1
    assert summary([])["score"] is None and summary(games[:1])["elo"] is None


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("time.sleep(1000)", "timeout"),
        ("sys.exit(3)", "death"),
        ("answer = 'nonsense'", "garbage"),
        ("print('? tired\\n', flush=True); continue", "refusal"),
        ("answer = 'A1'", "illegal move"),
    ],
)
def test_a_program_that_fails_loses_and_the_match_goes_on(part, reason):
    start = Position.empty(3, 0.5, max_moves=27).setup(black=[6], to_play=BLACK)  # A1 is taken
    made = []

    def bad():
        made.append(GTPPlayer(engine(part), time_limit=0.2 if reason == "timeout" else 20))
        return made[-1]

    out = summary(list(play_match(bad, RandomPlayer, [start], 2, seed=0, parallel=2)))
    assert [(f["game"], f["loser"], f["reason"]) for f in out["forfeits"]] == [(0, "a", reason), (1, "a", reason)]
    assert out["score"] == 0 and out["without_forfeits"]["games"] == 0
    assert len(made) == 2 and all(player._process is None for player in made)


def test_a_match_that_is_closed_leaves_no_program_and_a_bug_is_no_forfeit():
    made = []

    def slow():
        made.append(GTPPlayer(engine("time.sleep(1000)"), time_limit=1000))
        return made[-1]

    def quick():
        return lambda position: RESIGN

    games = play_match(quick, slow, [Position.empty(3)], 8, seed=0, parallel=2)
    assert next(games).result == "W+R"  # A resigns as Black at once; as White it waits for ever
    games.close()
    assert all(player._process is None for player in made)
    with pytest.raises(ZeroDivisionError):
        list(play_match(quick, lambda: lambda position: 1 // 0, [Position.empty(3)], 2, seed=0))


def test_main_prints_a_table_or_json_and_writes_games(tmp_path, capsys):
    sgf = tmp_path / "games.sgf"
    out = match.main(Config("random", "random", games=4, size=5, komi=0.5, seed=2, json=True, sgf=sgf, parallel=2))
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(out))
    assert out["games"] == 4 and out["openings"] == 2 and out["opening_moves"] == 2 and out["moves_per_second"] > 0
    text = sgf.read_text()
    assert text.count("(;") == 4 and "KM[0.5]" in text and "SZ[5]" in text and "PB[random]" in text
    again = match.main(Config("random", "random", games=4, size=5, komi=0.5, seed=2))
    table = capsys.readouterr().out
    assert f"{out['score']:.1%}\n95 % interval" in table and "4 of 4 games are different" in table
    timing = ("seconds", "moves_per_second")
    assert {k: v for k, v in out.items() if k not in timing} == {k: v for k, v in again.items() if k not in timing}
    with pytest.raises(ValueError, match="--games must be at least 1"):
        match.main(Config("random", "random", games=0))


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.slow
def test_a_signal_ends_with_the_result_so_far(name, tmp_path, capsys):
    # A resigns as Black, and as White it sends us the signal, once we have had time to take in the game before, and
    # falls silent.
    kill = f"[open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())), os.kill(os.getppid(), signal.{name})]"
    a = engine(
        f"import os, signal; answer = 'resign' if ' B' in line else time.sleep(1) or {kill} and time.sleep(1000)"
    )
    sgf = tmp_path / "games.sgf"
    cfg = Config(f"gtp:{shlex.join(a)}", "random", games=6, size=3, openings=0, parallel=1, sgf=sgf)
    with pytest.raises(SystemExit) as end:
        command_line.cli(match.main, lambda: cfg)
    assert end.value.code == 128 + getattr(signal, name)
    assert "interrupted after 1 of 6 games" in capsys.readouterr().out
    assert sgf.read_text().count("(;") == 1 and "RE[W+R]" in sgf.read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_match_that_is_interrupted_before_its_games_begin_ends(monkeypatch):
    submit = futures.ThreadPoolExecutor.submit
    asked, woken, release = [], [], threading.Event()

    def interrupted(self, *args):
        asked.append(args)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return submit(self, *args)

    def slow():
        def player(position):
            woken.append(release.wait(10))
            return position.pass_move

        player.close = release.set
        return player

    monkeypatch.setattr(futures.ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(play_match(slow, slow, [Position.empty(3)], 1000, seed=0))
    assert len(asked) == 3 and all(woken)


def test_a_record_is_that_of_the_last_position():
    start = Position.empty(3, 0.5).setup(black=[6], to_play=WHITE).play(0)
    game = replace(play_game(RandomPlayer(1), RandomPlayer(2), start), number=1)
    whole = GameRecord.from_position(game.position(), result=game.result, rules=RULES, black="b", white="a")
    assert game.record("a", "b") == whole and len(whole.moves) == len(game.moves) + 1


def test_players_from_what_a_person_types(tmp_path, monkeypatch):
    for spec in ("randm", "", "gtp:", "gtp: "):
        with pytest.raises(ValueError, match=r"is no player of Go: it must be random, mcts:SIMULATIONS, gnugo:LEVEL"):
            go_player(spec)
    for spec in ("mcts:", "mcts:many", "mcts:0", "gnugo:-1"):
        with pytest.raises(ValueError, match=f"'{spec}' needs a whole number"):
            go_player(spec)
    with pytest.raises(FileNotFoundError, match="no program 'no-such-program'"):
        go_player("gtp:no-such-program --gtp")
    assert go_player(f"gtp:'{sys.executable}' -c pass").command == [sys.executable, "-c", "pass"]
    with pytest.raises(FileNotFoundError, match="holds no agent"):
        go_player(str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    with pytest.raises(FileNotFoundError, match="apt-get install gnugo"):
        go_player("gnugo:1")


def test_an_agent_of_another_game_is_refused(tmp_path):
    import torch

    from rlkit.checkpoint import save_agent

    save_agent(tmp_path, {"kind": "dqn"}, {"w": torch.zeros(1)})
    with pytest.raises(ValueError, match="an agent of kind 'dqn', which does not play Go"):
        go_player(str(tmp_path))


def test_a_match_with_gnu_go():
    if not (shutil.which("gnugo") or shutil.which("/usr/games/gnugo")):
        pytest.skip("needs GNU Go (Debian's package gnugo)")
    out = match.main(Config("gnugo:0", "random", games=2, size=5, komi=0.5, json=True))
    assert out["games"] == 2 and not out["forfeits"] and out["ended_by_move_cap"] == 0


def test_a_missing_folder_is_said_before_the_games():
    with pytest.raises(FileNotFoundError, match="no folder"):
        match.main(match.Config("random", "random", games=2, size=5, sgf=Path("nowhere/at/all/games.sgf")))
    with pytest.raises(ValueError, match="opening-moves"):
        match.main(match.Config("random", "random", games=2, size=5, opening_moves=-1))
