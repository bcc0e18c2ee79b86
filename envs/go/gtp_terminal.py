"""The Go Text Protocol for a person at a terminal: a prompt, moves by their names alone, boards, and help.

    Black> e5
    White plays C3
       A B C D E
     5 . . . . X 5
     ...

All else that is typed is the protocol.
"""

from collections.abc import Iterator
from typing import TextIO

from envs.go.gtp import Engine
from envs.go.gtp_text import failure, is_vertex, parse, vertices
from envs.go.position import NAMES, RESIGN, from_vertex
from envs.go.record import printable, result_text

GROUPS: dict[str, dict[str, str]] = {
    "The game": {
        "play COLOUR VERTEX": "play a move: play b e5",
        "genmove COLOUR": "let the engine play a move: genmove w",
        "reg_genmove COLOUR": "the engine's move, which is not played",
        "undo": "take back one move",
        "final_score": "who wins, and by how much, as the board stands",
        "final_status_list STATUS": "the chains that are alive (all), dead or seki (none)",
        "showboard": "the board",
    },
    "A new game": {
        "clear_board": "begin again on an empty board",
        "boardsize LINES": "an empty board of this size: boardsize 9",
        "rectangular_boardsize COLUMNS LINES": "an empty board that is no square",
        "komi POINTS": "points for White",
        "get_komi": "what the komi is",
        "fixed_handicap STONES": "handicap stones on the usual points",
        "place_free_handicap STONES": "handicap stones where the engine wants them",
        "set_free_handicap VERTEX ...": "handicap stones where you want them",
        "kata-set-rules RULES": "rules by name, as chinese or tromp-taylor, or as KataGo's JSON",
        "kata-set-rule RULE VALUE": "one of them: kata-set-rule ko SIMPLE",
        "kata-get-rules": "the rules as KataGo's JSON",
        "kgs-rules RULES": "rules as KGS calls them",
    },
    "Positions and records": {
        "gogui-setup COLOUR VERTEX ...": "set stones before the first move: gogui-setup b e5 w c3 e d4 (e: empty)",
        "gogui-setup_player COLOUR": "whose turn it is",
        "set_position COLOUR VERTEX ...": "these stones alone, Black to move",
        "loadsgf FILE [MOVE]": "a game record, or the position before one of its moves",
        "printsgf [FILE]": "write the game as a record",
    },
    "What the engine thinks": {
        "lz-analyze [COLOUR] [CENTISECONDS] [KEY VALUE ...]": "analyse until the next line, in Leela Zero's format",
        "kata-analyze [COLOUR] [CENTISECONDS] [KEY VALUE ...]": "the same in KataGo's, with scores",
        "lz-genmove_analyze [COLOUR] [KEY VALUE ...]": "play a move, and say what it came from",
        "kata-genmove_analyze [COLOUR] [KEY VALUE ...]": "the same in KataGo's format",
        "gogui-analyze_commands": "what GoGui can draw",
        "rlkit-area": "whose area each point is",
        "rlkit-candidates": "the best moves, for GoGui",
    },
    "Time and strength": {
        "time_settings MAIN BYOYOMI STONES": "seconds of main time and for so many stones behind it",
        "time_left COLOUR SECONDS STONES": "what is left of them",
        "kata-list-params": "what can be set",
        "kata-get-param NAME": "how it is set",
        "kata-set-param NAME VALUE": "set it: kata-set-param maxVisits 100",
        "kata-get-models": "the network",
        "set_random_seed SEED": "of the engine's randomness",
        "cputime": "seconds of all processors so far",
    },
    "The protocol": {
        "name": "of the engine",
        "version": "of the engine",
        "protocol_version": "2",
        "list_commands": "all names",
        "known_command NAME": "whether it is one of them",
        "quit": "the end",
    },
}
MOVE = "A move, as e5 or pass, is played for the side to move, and the engine answers it."
WIDTH = 30


def typed_lines(engine: Engine, keyboard: TextIO, screen: TextIO) -> Iterator[str]:
    """What is typed, for `Engine.run`, which answers it; but moves, and questions for help, are answered here.

    The board is shown whenever it has changed.
    """
    shown = None
    print(f"{engine.name}. {MOVE} Type help, or quit.", file=screen)
    while True:
        if engine.position is not shown:
            shown = engine.position
            print(f"{shown}{_end(engine)}", file=screen)
        print(f"{NAMES[shown.to_play]}> ", end="", file=screen, flush=True)
        line = keyboard.readline()
        if not line:
            print(file=screen)
            return
        _, words = parse(line)
        if words and (words[0].lower() == "help" or (len(words) == 1 and is_vertex(words[0]))):
            yield "\n"  # which ends an analysis: two may not use the player at once
            print(help_text(words[1:]) if words[0].lower() == "help" else play(engine, words[0]), file=screen)
        else:
            yield line


def play(engine: Engine, vertex: str) -> str:
    """Play a move for the side to move, and let the engine answer; says what it has played, or why not."""
    position = engine.position
    try:
        engine.position = position.play(from_vertex(vertex, position.height, position.width), force=True)
    except ValueError as error:  # off this board, or an IllegalMove
        return str(error)
    if engine.position.is_over:
        return "The game is over."
    side = engine.position.to_play
    try:
        move = engine.choose(side)
    except Exception as error:
        return f"{NAMES[side]} has no answer: {failure(error)}"
    verb = "resigns" if move == RESIGN else "passes" if move == position.pass_move else ""
    return f"{NAMES[side]} {verb or f'plays {vertices(position, [move])}'}"


def _end(engine: Engine) -> str:
    position = engine.position
    return f"\nThe game is over: {result_text(position.score())}" if position.is_over else ""


def help_text(words: list[str]) -> str:
    """All commands in their groups, or those whose names hold the first of the words."""
    lines = []
    for group, commands in GROUPS.items():
        found = {usage: line for usage, line in commands.items() if not words or words[0] in usage.split()[0]}
        if not found:
            continue
        lines += [] if words else ["", group]
        for usage, line in found.items():
            usage, gap = (usage, "") if len(usage) <= WIDTH else ("", f"  {usage}\n")
            lines.append(f"{gap}  {usage:<{WIDTH}}  {line}")
    if words:
        return "\n".join(lines) or f"no command {printable(words[0])}: help alone lists them"
    return "\n".join([MOVE, *lines])
