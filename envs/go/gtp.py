"""The Go Text Protocol, version 2 (draft 2), over a position and a player: an engine for any program that speaks GTP.

    Engine(player, size=9).run(sys.stdin, sys.stdout)

All commands of the standard's core, set-up, tournament and regression groups, the commands by which Sabaki, Lizzie
and GoGui show an analysis, and GNU Go's `printsgf`, `set_random_seed`, `cputime`. Where the standard leaves a choice:

- Scores are by area and every stone on the board stands: `final_status_list dead` and `seki` are empty.
- Either colour may play at any time, also after two passes; asked for a move then, the engine passes.
- `undo` takes back moves, but neither handicap stones nor what a game record set up.
- A game record without a komi leaves the komi as it is. One in which a board came back goes on under simple ko.
"""

import contextlib
import inspect
import math
import operator
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from envs.go.clock import Clock, moves_to_come
from envs.go.gtp_text import COLOURS, Refused, colour_of, failure, integer, is_vertex, number, parse, respond
from envs.go.points import chains, fixed_handicap, free_handicap
from envs.go.position import BLACK, RESIGN, WHITE, IllegalMove, Position, from_vertex, to_vertex
from envs.go.record import BrokenSGF, GameRecord, printable, result_text

MAX_LINES = 19
SLICE = 0.1
"""seconds that an analysis runs between two looks at the input"""


class Engine:
    """A player behind the protocol.

    player: a callable position -> move (or RESIGN). If it has `seconds`, that follows the clock; if it has
    `can_play(height, width)`, boards that it cannot play are refused. The analysis commands need its
    `analyze(position, seconds)`, which is called again and again with the same object and should go on where it was;
    after a move was chosen there, 0 seconds ask what it came from.
    size: lines of the first board, or (height, width). version: Lizzie needs numbers with a dot.
    """

    def __init__(
        self,
        player: Callable[[Position], int],
        size: int | tuple[int, int] = 9,
        komi: float = 7.5,
        name: str = "rlkit",
        version: str = "0.0",
    ):
        self.player: Any = player
        self.komi, self.name, self.version = komi, name, version
        self.position = Position.empty(size, komi)
        self.clocks: dict[int, Clock] = {}
        """the time of each colour; none: no limit"""
        self.done = False
        """`quit` was said"""
        self._seconds = getattr(player, "seconds", None)
        self._other_side: tuple[Position, Position] | None = None
        self._stop = threading.Event()  # set but while an analysis runs on
        self._stop.set()

    def run(self, lines: Iterable[str], out: TextIO) -> None:
        """Answer line after line until `quit`, their end, or until nobody takes the answers any more.

        An analysis runs in a thread of its own until the next line, of whatever kind, has come.
        """
        worker = None
        try:
            for line in lines:
                self._halt(worker)
                identity, words = parse(line)
                if words and words[0] in ANALYSES:
                    self._stop.clear()
                    worker = threading.Thread(target=self._analyse, args=(identity, words, out), daemon=True)
                    worker.start()
                elif answer := self.answer(line):
                    out.write(answer)
                    out.flush()
                if self.done:
                    break
        except BrokenPipeError:
            pass
        finally:
            self._halt(worker)

    def _halt(self, worker: threading.Thread | None) -> None:
        self._stop.set()
        if worker:
            worker.join()

    def _analyse(self, identity: str, words: list[str], out: TextIO) -> None:
        sent = False
        try:
            for report in self.reports(*words):
                out.write(report if sent else f"={identity}\n{report}")
                out.flush()
                sent = True
                if self._stop.is_set():
                    break
            end = "\n"
        except Exception as error:
            end = "\n" if sent else respond("?", identity, failure(error))
            if sent:  # too late for an answer
                print(f"{words[0]}: {failure(error)}", file=sys.stderr)
        with contextlib.suppress(OSError, ValueError):  # nobody reads it
            out.write(end)
            out.flush()

    def answer(self, line: str) -> str | None:
        """The response to one line, with the empty line behind it; None to an empty line or a comment.

        Whatever fails is such a response. An analysis ends with its first report.
        """
        identity, words = parse(line)
        if not words:
            return respond("?", identity, "unknown command") if identity else None
        try:
            return respond("=", identity, self._execute(*words))
        except Exception as error:
            return respond("?", identity, failure(error))

    def _execute(self, name: str, *args: str) -> str:
        if name not in COMMANDS:
            raise Refused("unknown command")
        try:
            inspect.signature(COMMANDS[name]).bind(self, *args)
        except TypeError:
            raise Refused("syntax error") from None
        return COMMANDS[name](self, *args) or ""

    # The protocol's commands: their arguments are words, what they return is the answer, and Refused says why not.

    def quit(self) -> None:
        self.done = True

    def boardsize(self, width: str, height: str | None = None) -> None:
        columns, rows = integer(width), integer(height or width)
        if not (1 <= columns <= MAX_LINES and 1 <= rows <= MAX_LINES and self._can_play(rows, columns)):
            raise Refused("unacceptable size")
        self.position = Position.empty((rows, columns), self.komi)

    def _can_play(self, height: int, width: int) -> bool:
        return not hasattr(self.player, "can_play") or self.player.can_play(height, width)

    def clear_board(self) -> None:
        self.position = Position.empty((self.position.height, self.position.width), self.komi)

    def set_komi(self, komi: str) -> None:
        self.komi = number(komi)
        self.position = self.position.replace(komi=self.komi)

    def play(self, colour: str, vertex: str) -> None:
        side = colour_of(colour)
        if not is_vertex(vertex):
            raise Refused("syntax error")
        try:
            self.position = self.position.play(self._move(vertex), side, force=True)
        except ValueError:  # off this board, or an IllegalMove
            raise Refused("illegal move") from None

    def undo(self) -> None:
        if self.position.parent is None:
            raise Refused("cannot undo")
        self.position = self.position.parent
        if self.position.komi != self.komi:  # it has changed since
            self.position = self.position.replace(komi=self.komi)

    def place_handicap(self, choose: Callable[[int, int, int], list[int]], stones: str) -> str:
        count = integer(stones)
        self._must_be_empty()
        try:
            if not 2 <= count < self.position.points:
                raise ValueError
            points = choose(self.position.height, self.position.width, count)
        except ValueError:
            raise Refused("invalid number of stones") from None
        self.position = self.position.setup(black=points, to_play=WHITE)
        return self._vertices(points)

    def set_free_handicap(self, *vertices: str) -> None:
        self._must_be_empty()
        try:
            points = {self._move(vertex) for vertex in vertices}
        except ValueError:
            points = set()
        if not 2 <= len(points) == len(vertices) < self.position.points or self.position.pass_move in points:
            raise Refused("bad vertex list")
        self.position = self.position.setup(black=points, to_play=WHITE)

    def _must_be_empty(self) -> None:
        if self.position.board.any():
            raise Refused("board not empty")

    def _move(self, vertex: str) -> int:
        return from_vertex(vertex, self.position.height, self.position.width)

    def _vertices(self, moves: Iterable[int]) -> str:
        height, width = self.position.height, self.position.width
        return " ".join("resign" if move == RESIGN else to_vertex(move, height, width) for move in moves)

    def genmove(self, colour: str) -> str:
        return self._vertices([self._choose(colour_of(colour))])

    def reg_genmove(self, colour: str) -> str:
        before = self.position
        try:
            return self.genmove(colour)
        finally:
            self.position = before

    def _choose(self, side: int) -> int:
        """The player's move, which is played unless it is RESIGN."""
        position, clock = self._turned(side), self.clocks.get(side)
        if hasattr(self.player, "seconds"):
            self.player.seconds = clock.budget(moves_to_come(position)) if clock else self._seconds
        began = time.monotonic()
        move = position.pass_move if position.is_over else operator.index(self.player(position))
        if clock:
            clock.spend(time.monotonic() - began)
        if move != RESIGN:
            if not 0 <= move <= position.pass_move:
                raise Refused(f"the player's move {move} is off the board")
            try:
                self.position = self.position.play(move, side, force=True)
            except IllegalMove as error:
                raise Refused(f"the player's move {self._vertices([move])} is illegal: {error}") from None
        return move

    def _turned(self, side: int) -> Position:
        """The position with this side to move: the same object each time, by which a player knows it again."""
        if side == self.position.to_play:
            return self.position
        if self._other_side is None or self._other_side[0] is not self.position:
            self._other_side = self.position, self.position.replace(to_play=side)
        return self._other_side[1]

    def time_settings(self, main: str, byo_yomi: str, stones: str) -> None:
        settings = number(main, 0), number(byo_yomi, 0), integer(stones)
        unlimited = settings[1] > 0 and settings[2] == 0  # the standard's way to say so
        self.clocks = {} if unlimited else {side: Clock(*settings) for side in (BLACK, WHITE)}

    def time_left(self, colour: str, seconds: str, stones: str) -> None:
        clock = self.clocks.setdefault(colour_of(colour), Clock(0.0))
        clock.left, clock.stones_left = number(seconds), integer(stones)

    def final_status_list(self, status: str) -> str:
        if status not in ("alive", "dead", "seki"):
            raise Refused("syntax error")
        return "\n".join(map(self._vertices, chains(self.position.board))) if status == "alive" else ""

    def loadsgf(self, path: str, *words: str) -> None:
        from envs.go.sgf import read_sgf

        # a path may hold spaces, and GoGui then puts it between quotes
        before = integer(words[-1]) if words and words[-1].isdecimal() else None
        path = " ".join([path, *(words if before is None else words[:-1])])
        number = None if before is None else max(before - 1, 0)
        try:
            record = read_sgf(path.strip('"'))
            try:
                position = record.position(number, superko="positional")
            except BrokenSGF:  # a board came back, which many servers allow
                position = record.position(number, superko="simple")
        except (OSError, ValueError) as error:
            print(f"loadsgf: {printable(str(error))}", file=sys.stderr)
            raise Refused("cannot load file") from None
        if not self._can_play(position.height, position.width):
            raise Refused("unacceptable size")
        self.komi = self.komi if record.komi is None else record.komi
        self.position = position.replace(komi=self.komi)

    def set_random_seed(self, seed: str) -> None:
        value = integer(seed)
        if hasattr(self.player, "new_game"):
            self.player.new_game(value)

    def printsgf(self, *path: str) -> str:
        from envs.go.sgf import to_sgf, write_sgf

        record = GameRecord.from_position(self.position)
        if not path:
            return to_sgf(record)
        write_sgf(" ".join(path).strip('"'), record)
        return ""

    def reports(self, command: str, *words: str) -> Iterator[str]:
        """The lines of an analysis, one at once and then one every interval, without end ("" if there is no move).

        words: [colour] [interval in centiseconds] [key value ...], of which the keys interval, maxmoves and ownership
        count.
        """
        position, interval, most, owners = self._question(words)
        pause, due = min(SLICE, interval), 0.0
        while True:
            began = time.monotonic()
            infos = [] if position.is_over else self.player.analyze(position, pause)[:most]
            self._stop.wait(max(began + pause - time.monotonic(), 0.0))  # some players have nothing more to find out
            if self._stop.is_set() or time.monotonic() >= due:
                due = time.monotonic() + interval
                yield self._report(command, infos, owners)

    def genmove_analyze(self, command: str, *words: str) -> str:
        position, _, most, owners = self._question(words)
        move = self._choose(position.to_play)
        infos = [] if position.is_over else self.player.analyze(position, 0)[:most]  # what the move came from
        return f"\n{self._report(command, infos, owners)}play {self._vertices([move])}"

    def _question(self, words: tuple[str, ...]) -> tuple[Position, float, int | None, bool]:
        rest = list(words)
        side = COLOURS[rest.pop(0).lower()] if rest and rest[0].lower() in COLOURS else self.position.to_play
        if rest and not rest[0].isalpha():
            rest.insert(0, "interval")
        if len(rest) % 2:
            raise Refused("syntax error")
        options = dict(zip(rest[::2], rest[1::2], strict=True))
        if not hasattr(self.player, "analyze"):
            raise Refused("the player cannot analyse")
        if options.keys() & {"allow", "avoid"}:
            raise Refused("the player cannot analyse chosen moves only")
        most = integer(options["maxmoves"]) if "maxmoves" in options else None
        interval = max(number(options.get("interval", "100"), 0) / 100, 0.01)
        return self._turned(side), interval, most, options.get("ownership") == "true"

    def _report(self, command: str, infos: list[dict[str, Any]], owners: bool) -> str:
        parts, whole = [], command.startswith("lz")
        for order, info in enumerate(infos):
            rates = [info["winrate"], info["prior"], lower_bound(info["winrate"], info["visits"])]
            winrate, prior, lcb = (f"{round(10_000 * x)}" if whole else f"{x:.6f}" for x in rates)
            score = "" if whole or "score" not in info else "scoreMean {0:.3f} scoreLead {0:.3f} ".format(info["score"])
            parts.append(
                f"info move {self._vertices([info['move']])} visits {info['visits']} winrate {winrate} {score}"
                f"prior {prior} lcb {lcb} order {order} pv {self._vertices(info['pv'] or [info['move']])}"
            )
        if owners and not whole and infos and "ownership" in infos[0]:  # of the points from the top left
            parts.append(" ".join(["ownership", *(f"{x:.3f}" for row in infos[0]["ownership"] for x in row)]))
        return " ".join(parts) + "\n" * bool(parts)

    def candidates(self) -> str:
        """What GoGui draws over the board: the chances of the best moves, in percent."""
        position, *_ = self._question(())
        infos = [] if position.is_over else self.player.analyze(position, 5 * SLICE)
        on_board = [info for info in infos[:10] if info["move"] != position.pass_move]
        labels = " ".join(f"{self._vertices([info['move']])} {100 * info['winrate']:.0f}" for info in on_board)
        return f"LABEL {labels}\nTEXT {sum(info['visits'] for info in infos)} visits"

    def area(self) -> str:
        """What GoGui draws: a board of 1 (Black's), -1 (White's) and 0."""
        return "\n".join(" ".join(map(str, row)) for row in self.position.ownership().tolist())


def lower_bound(rate: float, visits: int) -> float:
    """Of the 95 % interval (Wilson) of a rate, from this number of visits."""
    z2 = 1.96**2 / max(visits, 1)
    return (rate + z2 / 2 - math.sqrt(z2 * (rate * (1 - rate) + z2 / 4))) / (1 + z2)


ANALYSES = {"lz-analyze", "kata-analyze"}
COMMANDS: dict[str, Callable[..., str | None]] = {
    "protocol_version": lambda engine: "2",
    "name": lambda engine: engine.name,
    "version": lambda engine: engine.version,
    "known_command": lambda engine, command: "true" if command in COMMANDS else "false",
    "list_commands": lambda engine: "\n".join(COMMANDS),
    "quit": Engine.quit,
    "boardsize": Engine.boardsize,
    "rectangular_boardsize": Engine.boardsize,
    "clear_board": Engine.clear_board,
    "komi": Engine.set_komi,
    "fixed_handicap": lambda engine, stones: engine.place_handicap(fixed_handicap, stones),
    "place_free_handicap": lambda engine, stones: engine.place_handicap(free_handicap, stones),
    "set_free_handicap": Engine.set_free_handicap,
    "play": Engine.play,
    "genmove": Engine.genmove,
    "reg_genmove": Engine.reg_genmove,
    "undo": Engine.undo,
    "time_settings": Engine.time_settings,
    "time_left": Engine.time_left,
    "final_score": lambda engine: result_text(engine.position.score()),
    "final_status_list": Engine.final_status_list,
    "loadsgf": Engine.loadsgf,
    "printsgf": Engine.printsgf,
    "showboard": lambda engine: f"\n{engine.position}",
    "set_random_seed": Engine.set_random_seed,
    "cputime": lambda engine: f"{time.process_time():.3f}",
    "lz-analyze": lambda engine, *words: "\n" + next(engine.reports("lz-analyze", *words)),
    "kata-analyze": lambda engine, *words: "\n" + next(engine.reports("kata-analyze", *words)),
    "lz-genmove_analyze": lambda engine, *words: engine.genmove_analyze("lz", *words),
    "kata-genmove_analyze": lambda engine, *words: engine.genmove_analyze("kata", *words),
    "gogui-analyze_commands": lambda engine: GOGUI,
    "rlkit-area": Engine.area,
    "rlkit-candidates": Engine.candidates,
}
GOGUI = """\
dboard/Area/rlkit-area
gfx/Candidates/rlkit-candidates
string/Score/final_score"""
