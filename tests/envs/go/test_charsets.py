"""The charsets of SGF files. A move that is lost in a wrong one is worse than a wrong letter."""

import codecs
from pathlib import Path

import pytest

from envs.go.charsets import codec_of, to_utf8
from envs.go.record import BrokenSGF
from envs.go.sgf import parse, read_collection

MOVES = [(1, 40), (2, 20), (1, 60)]
TRAILS = "申表ソ十"  # of Shift_JIS letters whose second byte is a backslash
BIG5 = "成功許蓋"  # the same of Big5


def game(charset, name):
    """Three moves on 9x9; the name stands where a backslash at its end would lose the first."""
    return f"(;GM[1]SZ[9]{f'CA[{charset}]' if charset else ''}PB[{name}];B[ee]C[{name}];W[cc];B[gg])"


@pytest.mark.parametrize(
    ("charset", "codec", "name"),
    [
        *[(charset, "cp932", TRAILS) for charset in ("Shift_JIS", "SJIS", "MS_KANJI", "cp932", "CP-932", "x-sjis")],
        *[(charset, "cp932", TRAILS) for charset in ("csShiftJIS", "windows-31j", "s_jis", " shift jis ")],
        *[(charset, "cp950", BIG5) for charset in ("Big5", "CP950", "big5-tw", "csbig5")],
        ("Big5-HKSCS", "big5hkscs", BIG5 + "嗰"),
        ("GB18030", "gb18030", "悀"),
        ("936", "gbk", "悀"),
        ("GB2312", "gbk", "悀鎔"),  # more than is in GB2312, which is what such programs write
        ("EUC-CN", "gb2312", "名人"),
        ("euc_jp", "euc_jp", TRAILS),
        ("KS_C_5601-1987", "cp949", "똠이창호"),
        ("ISO-2022-JP", "iso2022_jp", TRAILS),  # of seven bits: it looks like ASCII, and has brackets in it
        ("HZ-GB-2312", "hz", "名人"),
        ("KOI8-R", "koi8_r", "Шикшин"),
        ("windows 1251", "cp1251", "Шикшин"),
        ("cp437", "cp437", "José"),
        ("iso88591", "latin-1", "José"),
        ("utf8", "utf-8", TRAILS),
        ("ISO-8859-1", "utf-8", "José"),  # the text was saved anew, and the name was left
        ("gb2312", "utf-8", "申眞諝聖"),
        ("US-ASCII", "utf-8", TRAILS),
        ("", "utf-8", TRAILS),
        ("", "latin-1", "José"),
    ],
)
def test_a_charset_goes_by_every_name_that_it_has(charset, codec, name):
    [record] = parse(game(charset, name).encode(codec))
    assert (record.black, record.moves, record.comments) == (name, MOVES, [name, "", ""])


@pytest.mark.parametrize("charset", ["", "UTF-8", "ISO-8859-1", "windows-1252", "EUC-KR", "ascii"])
@pytest.mark.parametrize(("codec", "name"), [("cp932", TRAILS), ("cp950", BIG5), ("gbk", "悀")])
def test_half_a_letter_hides_no_bracket_where_the_charset_is_not_said_or_wrong(charset, codec, name):
    for letter in name:
        [record] = parse(game(charset, letter).encode(codec))
        assert record.moves == MOVES, letter
        [record] = parse(f"(;SZ[9]CA[{charset}]LB[aa:{letter}][bb:{letter}];B[ee]C[{letter}]\n)\r\n".encode(codec))
        assert record.moves == MOVES[:1], letter


def test_a_bracket_behind_a_letter_of_one_byte_may_be_escaped():
    comment = "[joué] et [déjà] ([été]) [né]; [là]"
    [record] = parse(game("", comment.replace("]", "\\]")).encode("latin-1"))
    assert record.comments[0] == comment and record.moves == MOVES


NONE = ["klingon", "hex", "rot13", "zlib", "base64", "bz2", "uu", "quopri", "idna", "punycode", "undefined", "utf-7"]
NONE += ["unicode_escape", "raw_unicode_escape", "utf-16", "UTF-32-LE", "cp037", "cp500", "shift_jis_2004"]
NONE += ["mac_arabic", "aliases", "..", "os.path", "\x1b[2J", "é", "a" * 60]


@pytest.mark.parametrize("charset", NONE)
def test_what_is_no_charset_of_this_text_is_refused_by_name(charset):
    data = game(charset, "").replace("PB[]", "PB[@]").encode().replace(b"@", b"\x90\x5c")
    with pytest.raises(BrokenSGF, match=r"^text, line 1, game 1: CA\[.*names no charset that this can be in") as error:
        parse(data)
    assert codec_of(charset) is None and str(error.value).isprintable() and len(str(error.value)) < 200
    if charset.isascii() and charset.isprintable():  # then nothing else in the text depends on its charset
        assert parse(game(charset, "nobody").encode())[0].moves == MOVES
        assert parse(game(charset, TRAILS))[0].black == TRAILS, "what is text already has no charset"


def test_a_charset_of_seven_bits_that_is_not_known_is_refused_too():
    with pytest.raises(BrokenSGF, match=r"CA\[ISO-2022-CN\]"):
        parse(b"(;SZ[9]CA[ISO-2022-CN]PB[\x1b$)A\x0e\\]\x0f];B[ee])")


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_more_than_ca(codec):
    for charset in ("", "Shift_JIS", "klingon", "UTF-16"):
        [record] = parse(game(charset, TRAILS).encode(codec))
        assert (record.black, record.moves) == (TRAILS, MOVES)
    big = codecs.BOM_UTF16_BE + game("", TRAILS).encode("utf-16-be")
    assert parse(big)[0].black == TRAILS
    assert parse(big + b"\xd8")[0].moves == MOVES, "half a letter at the end"


def test_each_game_of_a_collection_has_its_own(tmp_path: Path):
    games = [("Shift_JIS", "cp932", TRAILS), ("Big5", "cp950", BIG5), ("", "utf-8", "José"), ("", "cp950", BIG5)]
    games += [("nobodys", "cp932", TRAILS), ("UTF-8", "utf-8", TRAILS), ("latin-1", "latin-1", "José")]
    path = tmp_path / "games.sgf"
    path.write_bytes(b"\r\n".join(game(charset, name).encode(codec) for charset, codec, name in games))
    collection = read_collection(path, on_error="skip")
    read = [(record.black, record.moves) for record in collection]
    assert read == [(name, MOVES) for charset, _, name in games if charset != "nobodys"]
    [error] = collection.skipped
    assert str(error).startswith(f"{path}, line 5, game 5: CA[nobodys] names no charset")


def test_blanks_without_end_are_no_problem():
    blanks = " " * 200_000
    text = f"({blanks}x(;SZ[9]{blanks}CA{blanks}[{blanks}]KM[{blanks}x]HA[2{blanks}x]RE[B{blanks}+1{blanks}];B[ee])"
    for data in (text.encode("utf-16"), text.encode().replace(b"B[ee]", b"B[ee]C[\x90\\]")):
        [record] = parse(data)
        assert (record.moves, record.handicap, record.margin) == (MOVES[:1], 2, 1.0)
    assert to_utf8(b"\x90\\]" + b" ;" * 200_000 + b"x")[1] == []


def test_a_damaged_letter_costs_itself():
    assert parse(b"(;SZ[9]CA[UTF-8]PB[a\xff];B[ee])")[0].black == "a\N{REPLACEMENT CHARACTER}"
    assert parse(b"(;SZ[9]CA[GB2312]PB[a\xff];B[ee])")[0].black == "aÿ"
    assert to_utf8(b"") == (b"", []) and to_utf8(b"no game \xe9") == ("no game é".encode(), [])


def test_a_file_s_name_is_shown_and_does_nothing_to_the_terminal(tmp_path):
    path = tmp_path / "a\x1b[2J.sgf"
    path.write_text("(;SZ[0])")
    with pytest.raises(BrokenSGF, match=r"a\\x1b\[2J\.sgf, line 1, game 1: SZ\[0\]"):
        next(read_collection(path))
