"""The clock and the lists of points behind the GTP engine."""

import pytest
from gtp_players import Analyst, say

from envs.go.clock import Clock, moves_to_come
from envs.go.gtp import Engine
from envs.go.points import chains, fixed_handicap, free_handicap
from envs.go.position import Position, to_vertex

# -- time


def test_budgets_by_hand():
    assert Clock(100).budget(20) == pytest.approx(0.95 * 5 - 0.05)  # absolute: an even share of what is left
    assert Clock(100, 30, 5).budget(20) == pytest.approx(0.95 * (5 + 6) - 0.05)  # and a move's share of byo-yomi
    assert Clock(0, 30, 5).budget(20) == pytest.approx(0.95 * 6 - 0.05)  # in byo-yomi from the start
    assert Clock(0).budget(20) == Clock(-3).budget(1) == 0.01
    assert Clock(10).budget(0) == pytest.approx(0.95 * 10 - 0.05)


def test_a_clock_runs_through_main_time_and_periods():
    clock, seen = Clock(10, 30, 2), []
    for used in (4, 7, 20, 5, 25, 5):
        clock.spend(used)
        seen.append((clock.left, clock.stones_left))
    assert seen == [(6, 0), (29, 2), (9, 1), (30, 2), (5, 1), (30, 2)]


@pytest.mark.parametrize("main, byo_yomi, stones", [(60, 0, 0), (5, 0, 0), (0, 10, 1), (20, 10, 5), (0, 300, 25)])
def test_a_player_that_keeps_to_its_budgets_never_loses_on_time(main, byo_yomi, stones):
    clock, position = Clock(main, byo_yomi, stones), Position.empty(9)
    for number in range(120):
        budget = clock.budget(max(36 - number, 10))
        assert budget <= max(clock.left + (byo_yomi if not clock.stones_left else 0), 0.01)
        clock.spend(budget)
    assert moves_to_come(position) == pytest.approx(36.45)


def test_the_players_seconds_follow_the_clock():
    player = Analyst()
    engine = Engine(player)
    say(engine, "genmove b")
    assert player.seconds == 3.0  # its own
    say(engine, "time_settings 0 20 1", "genmove w")
    assert player.seconds == pytest.approx(0.95 * 20 - 0.05)
    say(engine, "time_left b 6 3", "genmove b")
    assert player.seconds == pytest.approx(0.95 * 2 - 0.05)
    say(engine, "time_settings 0 1 0", "genmove w")
    assert player.seconds == 3.0


# -- lists of points


def names(size, moves):
    return " ".join(to_vertex(move, size, size) for move in moves)


def test_fixed_handicap_is_the_standards_table():
    assert [names(19, fixed_handicap(19, 19, n)) for n in range(2, 10)] == [
        "D4 Q16",
        "D4 Q16 D16",
        "D4 Q16 D16 Q4",
        "D4 Q16 D16 Q4 K10",
        "D4 Q16 D16 Q4 D10 Q10",
        "D4 Q16 D16 Q4 D10 Q10 K10",
        "D4 Q16 D16 Q4 D10 Q10 K4 K16",
        "D4 Q16 D16 Q4 D10 Q10 K4 K16 K10",
    ]
    assert names(13, fixed_handicap(13, 13, 5)) == "D4 K10 D10 K4 G7"
    assert names(12, fixed_handicap(12, 12, 4)) == "C3 K10 C10 K3"
    assert names(7, fixed_handicap(7, 7, 4)) == "C3 E5 C5 E3"
    for size, stones in ((7, 5), (8, 5), (14, 5), (6, 2), (19, 10), (19, 1)):
        with pytest.raises(ValueError):
            fixed_handicap(size, size, stones)


def test_free_handicap_gives_as_many_different_points_as_asked():
    for height, width in ((1, 4), (2, 2), (5, 5), (6, 9), (9, 9), (19, 19)):
        for stones in {2, 3, 9, 10, height * width // 2, height * width - 1}:
            if 2 <= stones < height * width:
                points = free_handicap(height, width, stones)
                assert len(points) == len(set(points)) == stones
                assert all(0 <= point < height * width for point in points)
    assert names(5, free_handicap(5, 5, 2)) == "C3 B4"
    assert names(9, free_handicap(9, 9, 9)) == names(9, fixed_handicap(9, 9, 9))


def test_chains_of_a_drawn_board():
    position = Position.parse(
        """
        X X . O
        . X O O
        X . O .
        """
    )
    assert chains(position.board) == [[0, 1, 5], [3, 6, 7, 10], [8]]
    assert chains(Position.empty(3).board) == []
