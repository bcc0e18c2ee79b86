"""The Go Text Protocol, version 2 (draft 2), over a position and a player: an engine for any program that speaks GTP.

    Engine(player, size=9).run(sys.stdin, sys.stdout)

All commands of the standard's core, set-up, tournament and regression groups, the commands by which Sabaki, Lizzie
and GoGui show an analysis or set up a position, KataGo's for rules and parameters, and GNU Go's `printsgf`,
`set_random_seed`, `cputime`. Where the standard leaves a choice:

- Scores are by area and every stone on the board stands: `final_status_list dead` and `seki` are empty.
- Either colour may play at any time, also after two passes; asked for a move then, the engine passes.
- `undo` takes back moves, but neither handicap stones nor what a game record set up.
- A game record without a komi leaves the komi as it is. One in which a board came back goes on under simple ko.
"""

import contextlib
import inspect
import operator
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from envs.go import gtp_settings, gtp_setup
from envs.go.clock import Clock, moves_to_come
from envs.go.gtp_analysis import ANALYSES, GOGUI, Question, area, candidates, read_question, report, split_words
from envs.go.gtp_text import Refused, colour_of, failure, integer, is_vertex, number, parse, respond, vertices
from envs.go.points import chains, fixed_handicap, free_handicap
from envs.go.position import BLACK, RESIGN, WHITE, IllegalMove, Position, from_vertex
from envs.go.record import result_text
from envs.go.rulesets import Ruleset

MAX_LINES = 19
SLICE = 0.1
"""seconds that an analysis runs between two looks at the input"""


class Engine:
    """A player behind the protocol.

    player: a callable position -> move (or RESIGN). If it has `seconds`, that follows the clock; if it has
    `can_play(height, width)`, boards that it cannot play are refused. The analysis commands need its
    `analyze(position, seconds)`, which is called again and again with the same object and should go on where it was;
    after a move was chosen there, 0 seconds ask what it came from. With a third parameter, `allowed` [points + 1], it
    can be asked about some moves alone.
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
        self.rules = Ruleset()
        """of boards to come; a game that was loaded may have brought its own"""
        self.position = self.empty_board(size)
        self.clocks: dict[int, Clock] = {}
        """the time of each colour; none: no limit"""
        self.done = False
        """`quit` was said"""
        self.seconds: float | None = getattr(player, "seconds", None)
        """the player's own for a move, where it has no clock"""
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

    # The protocol's commands, more of which are in gtp_setup and gtp_settings: their arguments are words, what they
    # return is the answer, and Refused says why not.

    def quit(self) -> None:
        self.done = True

    def boardsize(self, width: str, height: str | None = None) -> None:
        columns, rows = integer(width), integer(height or width)
        if not (1 <= columns <= MAX_LINES and 1 <= rows <= MAX_LINES and self.can_play(rows, columns)):
            raise Refused("unacceptable size")
        self.position = self.empty_board((rows, columns))

    def empty_board(self, size: int | tuple[int, int]) -> Position:
        return Position.empty(size, self.komi, superko=self.rules.superko, suicide=self.rules.suicide)

    def can_play(self, height: int, width: int) -> bool:
        return not hasattr(self.player, "can_play") or self.player.can_play(height, width)

    def clear_board(self) -> None:
        self.position = self.empty_board((self.position.height, self.position.width))

    def set_komi(self, komi: str) -> None:
        self.komi = number(komi)
        self.position = self.position.replace(komi=self.komi)

    def play(self, colour: str, vertex: str) -> None:
        side = colour_of(colour)
        if not is_vertex(vertex):
            raise Refused("syntax error")
        try:
            move = from_vertex(vertex, self.position.height, self.position.width)
            self.position = self.position.play(move, side, force=True)
        except ValueError:  # off this board, or an IllegalMove
            raise Refused("illegal move") from None

    def undo(self) -> None:
        if self.position.parent is None:
            raise Refused("cannot undo")
        self.position = self.position.parent
        if self.position.komi != self.komi:  # it has changed since
            self.position = self.position.replace(komi=self.komi)

    def genmove(self, colour: str) -> str:
        return vertices(self.position, [self.choose(colour_of(colour))])

    def reg_genmove(self, colour: str) -> str:
        before = self.position
        try:
            return self.genmove(colour)
        finally:
            self.position = before

    def choose(self, side: int, choose: Callable[[Position], int] | None = None) -> int:
        """The player's move, or that of `choose`, which is played unless it is RESIGN."""
        position, clock = self._turned(side), self.clocks.get(side)
        if hasattr(self.player, "seconds"):
            self.player.seconds = clock.budget(moves_to_come(position)) if clock else self.seconds
        began = time.monotonic()
        move = position.pass_move if position.is_over else operator.index((choose or self.player)(position))
        if clock:
            clock.spend(time.monotonic() - began)
        if move != RESIGN:
            if not 0 <= move <= position.pass_move:
                raise Refused(f"the player's move {move} is off the board")
            try:
                self.position = self.position.play(move, side, force=True)
            except IllegalMove as error:
                raise Refused(f"the player's move {vertices(position, [move])} is illegal: {error}") from None
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
        alive = chains(self.position.board) if status == "alive" else []
        return "\n".join(vertices(self.position, chain) for chain in alive)

    def set_random_seed(self, seed: str) -> None:
        value = integer(seed)
        if hasattr(self.player, "new_game"):
            self.player.new_game(value)

    def reports(self, command: str, *words: str) -> Iterator[str]:
        """The lines of an analysis, one at once and then one every interval, without end ("" if there is no move).

        words: as `split_words` has them.
        """
        question = self._question(words)
        pause, due = min(SLICE, question.interval), 0.0
        while True:
            began = time.monotonic()
            infos = self._analysis(question, pause)
            self._stop.wait(max(began + pause - time.monotonic(), 0.0))  # some players have nothing more to find out
            if self._stop.is_set() or time.monotonic() >= due:
                due = time.monotonic() + question.interval
                yield report(command, question, infos)

    def genmove_analyze(self, command: str, *words: str) -> str:
        question, infos = self._question(words), []
        if question.allowed is None:
            move = self.choose(question.position.to_play)
            infos = self._analysis(question, 0)  # what the move came from
        else:

            def best(position: Position) -> int:
                infos[:] = self._analysis(question, None)
                if not infos:
                    raise Refused("the player has found no move")
                return int(infos[0]["move"])

            move = self.choose(question.position.to_play, best)
        return f"\n{report(command, question, infos)}play {vertices(self.position, [move])}"

    def _question(self, words: tuple[str, ...]) -> Question:
        side, options = split_words(words)
        if not hasattr(self.player, "analyze"):
            raise Refused("the player cannot analyse")
        question = read_question(self._turned(side or self.position.to_play), options)
        if question.allowed is not None and "allowed" not in inspect.signature(self.player.analyze).parameters:
            raise Refused("the player cannot analyse chosen moves only")
        return question

    def _analysis(self, question: Question, seconds: float | None) -> list[dict[str, Any]]:
        if question.position.is_over:
            return []
        allowed = () if question.allowed is None else (question.allowed,)
        infos: list[dict[str, Any]] = self.player.analyze(question.position, seconds, *allowed)
        return infos

    def candidates(self) -> str:
        question = self._question(())
        return candidates(question.position, self._analysis(question, 5 * SLICE))


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
    "fixed_handicap": lambda engine, stones: gtp_setup.place_handicap(engine, fixed_handicap, stones),
    "place_free_handicap": lambda engine, stones: gtp_setup.place_handicap(engine, free_handicap, stones),
    "set_free_handicap": gtp_setup.set_free_handicap,
    "play": Engine.play,
    "genmove": Engine.genmove,
    "reg_genmove": Engine.reg_genmove,
    "undo": Engine.undo,
    "time_settings": Engine.time_settings,
    "time_left": Engine.time_left,
    "final_score": lambda engine: result_text(engine.position.score()),
    "final_status_list": Engine.final_status_list,
    "loadsgf": gtp_setup.loadsgf,
    "printsgf": gtp_setup.printsgf,
    "gogui-setup": gtp_setup.add_stones,
    "gogui-setup_player": gtp_setup.set_player,
    "set_position": gtp_setup.set_position,
    "get_komi": lambda engine: f"{engine.komi:.12g}",
    "kata-get-rules": lambda engine: str(gtp_settings.current_rules(engine)),
    "kata-set-rules": gtp_settings.set_rules,
    "kata-set-rule": gtp_settings.set_rule,
    "kgs-rules": gtp_settings.kgs_rules,
    "kata-list-params": lambda engine: " ".join(gtp_settings.parameters(engine)),
    "kata-get-param": gtp_settings.get_parameter,
    "kata-set-param": gtp_settings.set_parameter,
    "kata-get-models": gtp_settings.models,
    "showboard": lambda engine: f"\n{engine.position}",
    "set_random_seed": Engine.set_random_seed,
    "cputime": lambda engine: f"{time.process_time():.3f}",
    "lz-analyze": lambda engine, *words: "\n" + next(engine.reports("lz-analyze", *words)),
    "kata-analyze": lambda engine, *words: "\n" + next(engine.reports("kata-analyze", *words)),
    "lz-genmove_analyze": lambda engine, *words: engine.genmove_analyze("lz", *words),
    "kata-genmove_analyze": lambda engine, *words: engine.genmove_analyze("kata", *words),
    "gogui-analyze_commands": lambda engine: GOGUI,
    "rlkit-area": lambda engine: area(engine.position),
    "rlkit-candidates": Engine.candidates,
}
