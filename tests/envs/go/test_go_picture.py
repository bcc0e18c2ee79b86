import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from envs.go.picture import PAPER, WOOD, draw_board, draw_game, side_by_side
from envs.go.points import from_vertex
from envs.go.position import BLACK, WHITE, Position
from rlkit.logger import Logger
from rlkit.trainer import TrainConfig, Trainer

EMPTY_5 = np.zeros((5, 5), np.int8)


def at(picture, row, column, reach=0.4, cell=36, top=0):
    """What is within `reach` cells of a point."""
    y, x, around = top + int((row + 1.5) * cell), int((column + 1.5) * cell), int(reach * cell)
    return picture[y - around : y + around + 1, x - around : x + around + 1].astype(int)


def beside(picture, row, column):
    """A spot of the point's cell where neither stone nor line nor text is, as a mean colour."""
    y, x = int((row + 1.14) * 36), int((column + 1.14) * 36)
    return picture[y : y + 4, x : x + 4].reshape(-1, 3).mean(0)


def is_wood(pixels):
    return (abs(np.asarray(pixels) - WOOD) <= 8).all()


def test_stones_are_dark_and_bright_and_the_rest_is_wood():
    board = EMPTY_5.copy()
    board[0, 1], board[3, 4] = BLACK, WHITE
    picture = draw_board(board)
    assert picture.shape == (7 * 36, 7 * 36, 3) and picture.dtype == np.uint8
    assert at(picture, 0, 1, 0.2).max() < 120 and at(picture, 0, 1, 0.05).mean() < 90
    assert at(picture, 3, 4, 0.2).min() > 220
    assert at(picture, 4, 4, 0).max() < 60  # where lines meet
    assert at(picture, 2, 2, 0.05).max() < 60 and at(picture, 1, 1, 0.05).max() > 150  # the one star point
    for row, column in np.argwhere(board == 0):
        assert is_wood(beside(picture, row, column)), (row, column)
    # What a point looks like does not depend on the others, shadows aside.
    assert np.array_equal(at(picture, 1, 3, 0.3), at(draw_board(EMPTY_5), 1, 3, 0.3))


@pytest.mark.parametrize(("height", "width", "cell"), [(1, 1, 36), (1, 19, 8), (19, 19, 12), (4, 9, 25), (13, 7, 40)])
def test_sizes(height, width, cell):
    everything = {
        "heat": np.ones(height * width + 1),
        "ownership": np.linspace(-1, 1, height * width).reshape(height, width),
        "marks": {0: "A"},
    }
    board = np.zeros((height, width))
    assert draw_board(board, cell=cell).shape == ((height + 2) * cell, (width + 2) * cell, 3)
    # Title and pass share are a line each.
    picture = draw_board(board, cell=cell, title="x", **everything)
    assert picture.shape == ((height + 2) * cell + 2 * (cell * 3 // 4), (width + 2) * cell, 3)
    assert np.array_equal(picture, draw_board(board, cell=cell, title="x", **everything))
    assert (picture[0] == PAPER).all() and (picture[-1] == PAPER).all()


def test_a_long_title_takes_more_lines_and_moves_the_board_down():
    plain, titled = draw_board(EMPTY_5), draw_board(EMPTY_5, title="as many words as will not go into a line")
    lines = (len(titled) - len(plain)) // 27
    assert lines == 2 and np.array_equal(titled[lines * 27 :], plain)
    assert len(draw_board(EMPTY_5, title="two\nlines")) == len(titled)
    strip = draw_board(EMPTY_5, title="W" * 60)[:27]  # written smaller rather than cut
    assert (strip[:, :5] == PAPER).all() and (strip[:, -5:] == PAPER).all() and strip.min() < 150


def test_coordinates_are_where_the_names_say():
    # A4 is row 1 of 5 from the top: the margin left of it has the same ink as the lower one of a board of 4 rows.
    five, four = draw_board(EMPTY_5), draw_board(np.zeros((4, 5)))
    move = from_vertex("A4", 5, 5)
    assert np.array_equal(np.divmod(move, 5), (1, 0))
    ink = [(at(p, row, -1).sum(2) < 300) for p, row in ((five, 1), (four, 0), (five, 0))]
    assert ink[0].any() and np.array_equal(ink[0], ink[1]) and not np.array_equal(ink[0], ink[2])
    wide = draw_board(np.zeros((1, 9)))
    h, j = (at(wide, -1, column).sum(2) < 300 for column in (7, 8))
    other = at(draw_board(np.zeros((9, 10))), -1, 8).sum(2) < 300
    assert np.array_equal(j, other) and not np.array_equal(h, j)  # J follows H


def test_heat_grows_with_the_share():
    shares = np.array([0, 0.002, 0.01, 0.05, 0.1, 0.2, 0.25, 0.3])
    spots = np.array([beside(draw_board(np.zeros((1, 3)), heat=[0, share, 0]), 0, 1) for share in shares])
    assert is_wood(spots[0])
    assert (np.diff(spots[:, 1]) < -2).all() and (np.diff(spots[:, 2]) < 0).all()  # less green and less blue: redder
    # In one picture too, and only where the value is.
    picture = draw_board(np.zeros((1, 8)), heat=shares)
    greens = [beside(picture, 0, column)[1] for column in range(8)]
    assert np.argsort(greens).tolist() == [7, 6, 5, 4, 3, 2, 1, 0]


def test_heat_takes_visits_probabilities_and_illegal_moves():
    visits = np.zeros(26, int)
    visits[[3, 7, 25]] = 50, 30, 20
    expected = draw_board(EMPTY_5, heat=visits)
    assert np.array_equal(expected, draw_board(EMPTY_5, heat=visits / 100))
    illegal = np.where(visits, visits / 100, -1)
    assert np.array_equal(expected, draw_board(EMPTY_5, heat=illegal))
    # Without the pass: the same squares, no line below.
    assert np.array_equal(expected[: 7 * 36], draw_board(EMPTY_5, heat=visits[:25] / 100))
    assert np.array_equal(expected[: 7 * 36], draw_board(EMPTY_5, heat=(visits[:25] / 100).reshape(5, 5)))
    # Percents are as marks that say the same; below 1 nothing is written.
    marked = draw_board(EMPTY_5, heat=visits, marks={3: "50%", 7: "30%"})
    assert np.array_equal(expected, marked)
    faint = draw_board(np.zeros((1, 3)), heat=[0, 0.009, 0])
    assert (at(faint, 0, 1)[14] < 80).all()  # the line goes through
    assert not (at(draw_board(np.zeros((1, 3)), heat=[0, 0.01, 0]), 0, 1)[14] < 80).all()
    # A stone hides its point's share.
    board = EMPTY_5.copy()
    board[0, 3] = BLACK
    assert np.array_equal(at(draw_board(board, heat=visits), 0, 3), at(draw_board(board), 0, 3))


def test_ownership_squares():
    def dark(value, board=EMPTY_5):
        before, after = draw_board(board), draw_board(board, ownership=np.full(board.shape, value))
        return (abs(at(after, 1, 1, 0.45) - at(before, 1, 1, 0.45)).sum(2) > 60).sum(), at(after, 1, 1, 0.05)

    areas = [dark(value)[0] for value in (0, -0.09, 0.25, 0.5, 0.75, 1)]
    assert areas[:2] == [0, 0] and (np.diff(areas[1:]) > 0).all()
    assert 12**2 < areas[-1] <= 17**2  # 0.44 of a cell wide
    assert 3 < areas[-1] / areas[-3] < 5  # twice the side
    assert dark(1.0)[1].max() < 50 and dark(-1.0)[1].min() > 220
    board = EMPTY_5.copy()
    board[1, 1] = BLACK
    assert dark(-1.0, board)[1].min() > 220  # a dead stone
    assert 40 <= dark(-1.0, board * WHITE)[0] <= 128  # a living one: the outline of a square of 16 pixels
    # It makes room for what is written.
    numbered = draw_board(board, moves=[6], ownership=-board.astype(float))
    assert np.array_equal(at(numbered, 1, 1, 0.1), at(draw_board(board, moves=[6]), 1, 1, 0.1))
    y, x = int(2.81 * 36), int(2.81 * 36)
    assert numbered[y, x].min() > 220


def test_the_last_move_has_a_ring_or_a_red_number():
    position = Position.empty(5).play(6).play(8)
    ringed, plain = draw_board(position), draw_board(position.board)
    changed = np.argwhere((ringed != plain).any(2))
    low, high = changed.min(0) - (2.5 * 36, 4.5 * 36), changed.max(0) - (2.5 * 36, 4.5 * 36)
    assert (abs(low + 11) < 2).all() and (abs(high - 11) < 2).all()  # around move 8, that is row 1, column 3
    assert np.array_equal(at(ringed, 1, 3, 0.1), at(plain, 1, 3, 0.1))

    def red(picture, row, column):
        pixels = at(picture, row, column)
        return (pixels[..., 0] - pixels[..., 1] > 100).sum()

    for moves in ([6], [6, 8]):
        numbered = draw_game(moves, 5, 5)
        assert [red(numbered, *divmod(move, 5)) > 10 for move in moves] == [move == moves[-1] for move in moves]
    passed = draw_board(position.play(25))
    assert np.array_equal(passed, plain)
    assert np.array_equal(draw_board(position.board, moves=[6, 8]), draw_game([6, 8], 5, 5))


def test_numbers_of_a_game_with_captures_and_passes():
    #  Black B5, White A5, Black A4 takes it, White passes, Black A5
    game = [1, 0, 5, 25]
    position = Position.empty(5)
    for move in game:
        position = position.play(move)
    taken = draw_game(game, 5, 5)
    assert len(taken) == 7 * 36 + 27  # "4 pass"
    assert np.array_equal(at(taken, 0, 0), at(draw_board(position.board), 0, 0))
    assert np.array_equal(taken[: 7 * 36], draw_board(position, marks={1: "1", 5: "3"}))
    again = draw_game([*game, 0], 5, 5)
    assert np.array_equal(again[: 7 * 36], draw_board(position.play(0), marks={1: "1", 5: "3", 0: "5"}))
    # Moves may be (colour, move), as a position and a record have them.
    position = position.play(0)
    assert np.array_equal(again, draw_game(position.moves(), 5, 5))
    assert np.array_equal(again, draw_board(position, moves=position.moves()))
    assert np.array_equal(again, draw_game(np.array([*game, 0]), 5, 5))
    by_white = draw_game([(WHITE, 12), (WHITE, 13)], 5, 5)
    assert at(by_white, 2, 2).mean() > 170 and at(by_white, 2, 3).mean() > 170


def test_a_game_goes_on_after_two_passes_and_under_any_rules():
    assert len(draw_game([25, 25, 12, 25], 5, 5, title="three passes")) == 7 * 36 + 2 * 27
    # Suicide of one stone: it is gone, and so is its number.
    suicide, without = draw_game([8, 1, 7, 3, 0], 3, 3), draw_game([8, 1, 7, 3], 3, 3)
    assert np.array_equal(at(suicide, 0, 0), at(without, 0, 0))
    with pytest.raises(ValueError, match="may not play"):
        draw_game([0, 0], 5, 5)


def test_marks():
    board = EMPTY_5.copy()
    board[0, 0], board[0, 1] = BLACK, WHITE
    picture = draw_board(board, marks={0: "A", 1: "B", 12: "C", 13: ""})
    assert at(picture, 0, 0, 0.25).max() > 200 and at(picture, 0, 1, 0.25).min() < 80
    letter = at(picture, 2, 2)
    assert letter.min() < 90 and is_wood(letter[:, 2])  # no line runs into it
    # They stand before numbers and percents.
    both = {0: "A", 1: "2", 12: "B"}
    expected = draw_board(board, moves=[1], marks=both)
    assert np.array_equal(draw_board(board, moves=[0, 1], marks=both), expected)
    shares = np.zeros(25)
    shares[12] = 0.3
    silent = at(draw_board(board, heat=shares, marks={12: ""}), 2, 2)
    assert (silent == silent[0, 0]).all() and not is_wood(silent[0, 0])


def test_side_by_side():
    one, two = draw_board(EMPTY_5), draw_board(np.zeros((9, 4)), title="taller")
    both = side_by_side(one, two, gap=7)
    assert both.shape == (len(two), one.shape[1] + 7 + two.shape[1], 3)
    assert np.array_equal(both[: len(one), : one.shape[1]], one) and np.array_equal(both[:, one.shape[1] + 7 :], two)
    assert (both[:, one.shape[1] : one.shape[1] + 7] == PAPER).all() and (
        both[len(one) :, : one.shape[1]] == PAPER
    ).all()
    assert np.array_equal(side_by_side(one), one)
    for wrong in ((), (one[..., 0],), (one / 255,), (one, np.zeros((4, 4, 4), np.uint8))):
        with pytest.raises(ValueError, match="picture"):
            side_by_side(*wrong)


@pytest.mark.parametrize(
    ("board", "more", "says"),
    [
        (np.zeros(25), {}, "a board is"),
        (np.zeros((0, 5)), {}, "a board is"),
        (np.zeros((5, 20)), {}, "a board is"),
        (np.full((5, 5), 3), {}, "a board is"),
        (-EMPTY_5 - 1, {}, "a board is"),
        (EMPTY_5, {"cell": 7}, "a cell has"),
        (EMPTY_5, {"moves": [26]}, "moves go from 0 to 25"),
        (EMPTY_5, {"moves": [-1]}, "moves go from 0 to 25"),
        (EMPTY_5, {"marks": {25: "A"}}, "marks to 24"),
        (EMPTY_5, {"heat": np.zeros(27)}, "heat is finite, .26. with the pass"),
        (EMPTY_5, {"heat": np.zeros((5, 6))}, "heat is finite"),
        (EMPTY_5, {"heat": np.full(26, np.nan)}, "heat is finite"),
        (EMPTY_5, {"ownership": np.zeros(25)}, "ownership is .5, 5."),
        (EMPTY_5, {"ownership": np.full((5, 5), 1.5)}, "ownership is .5, 5."),
        (EMPTY_5, {"ownership": np.full((5, 5), np.nan)}, "ownership is .5, 5."),
    ],
)
def test_what_does_not_fit_is_refused(board, more, says):
    with pytest.raises(ValueError, match=says):
        draw_board(board, **more)


@pytest.mark.slow
def test_only_pictures_import_pillow_and_they_need_no_torch():
    code = (
        "import sys, envs.go.gtp, envs.go.sgf, envs.go.gym, envs.go.position\n"
        "assert 'PIL' not in sys.modules\n"
        "import envs.go.picture\n"
        "assert 'PIL' in sys.modules and 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def images_in(folder):
    """tag -> [(step, picture)] of a folder's event files."""
    events = EventAccumulator(str(folder), {"images": 0})
    events.Reload()
    return {
        tag: [(e.step, np.asarray(Image.open(io.BytesIO(e.encoded_image_string)))) for e in events.Images(tag)]
        for tag in events.Tags()["images"]
    }


def test_a_picture_arrives_in_the_event_file(tmp_path):
    pictures = {"search/visits": draw_board(EMPTY_5, heat=np.eye(5)), "selfplay/game": draw_game([6, 8], 5, 5)}
    logger = Logger(tmp_path, 10, " step", progress=False)
    logger.images(pictures, 3)
    logger.images({"selfplay/game": pictures["selfplay/game"]}, 7.9)
    logger.close()
    found = images_in(tmp_path)
    assert {tag: [step for step, _ in images] for tag, images in found.items()} == {
        "search/visits": [3],
        "selfplay/game": [3, 7],
    }
    for tag, images in found.items():
        assert all(np.array_equal(picture, pictures[tag]) for _, picture in images)
    Logger(None, 10, " step", progress=False).images(pictures, 1)  # writes nothing


def test_a_trainer_shows_at_its_clock(tmp_path):
    clock = ("frames", lambda: 40 * trainer.step, 400)
    model, config = nn.Linear(1, 1), TrainConfig(steps=3, progress=False)
    trainer = Trainer(model, lambda m, b: (m(b["x"]).mean(), {}), config, tmp_path, clock=clock)
    picture = draw_board(EMPTY_5)
    for _ in range(2):
        trainer.update({"x": torch.ones(1, 1)})
    trainer.show({"search/position": picture})
    trainer.close()
    [(step, found)] = images_in(tmp_path)["search/position"]
    assert step == 80 and np.array_equal(found, picture)
