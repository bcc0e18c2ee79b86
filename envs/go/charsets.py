"""The charset of an SGF file: its text in UTF-8, whatever it was written in.

In Shift_JIS, Big5, GBK and others the second byte of a letter may be that of a backslash (5C), which in SGF takes a
bracket its meaning. Read in a wrong charset, a name that ends in such a letter has no end, and the next move is lost in
it. So what is doubtful is decided for the brackets' sake; wrong letters in a name are the lesser evil.
"""

import codecs
import functools
import re
from itertools import pairwise

ROOT = re.compile(rb"\(\s*(?:;\s*)?(?:FF|GM|SZ|CA|AP|ST)\s*\[", re.IGNORECASE)
"""where a game begins: properties that only its root may have"""

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
_MARKS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # UTF-32's begins with it
_NAMED = re.compile(rb"(?<![A-Za-z])CA\s*\[([^\\\]]{1,80})\]", re.IGNORECASE)
_NAMES = {"iso88591": "latin-1", "windows1251": "cp1251", "windows1252": "cp1252", "windows31j": "cp932"}
"""what Python does not know of the names in use, in small letters and without signs"""
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "cp950", "shift_jis": "cp932", "euc_kr": "cp949"}
"""charsets in whose name people write more letters than it has"""
_HIGH = bytes(range(128, 256))
_SYNTAX = b"AZaz09 ()[];:.,-+1/ \t\r\n \\\\ \\u0041 \\x41 +9.5 .."  # UTF-7, escapes and domain names change it
_SECOND_BYTE = re.compile(rb"(?<=[\x80-\xff])\\(?=\]\s*(?:[;()]\s*)*(?:[A-Z][A-Za-z]*\s*\[|\Z))")
"""a backslash that may be half a letter, before a bracket behind which the game goes on, and no text"""


def to_utf8(data: bytes) -> tuple[bytes, list[tuple[int, int, str]]]:
    """(the text in UTF-8, [(begin, end, reason)] of pieces of it that cannot be read, in the order of the text).

    A text with a byte order mark is in UTF-8, UTF-16 or UTF-32. In others each game has the charset that its CA names,
    by any name that Python knows, and a game without CA that of the game before it, unless it is UTF-8 as it stands.
    Where nothing is said, or where it cannot be true, it is UTF-8 if that decodes all of it, else Latin-1.
    """
    for mark, charset in _MARKS.items():
        if data.startswith(mark):
            return data.decode(charset, "replace").encode(), []
    pieces, unknown, length, codec = [], [], 0, None
    for begin, end in pairwise([0, *(root.start() for root in ROOT.finditer(data)), len(data)]):
        piece, name = data[begin:end], ""
        if found := _NAMED.search(piece):
            name = found[1].decode("latin-1").strip()
            codec = codec_of(name) if name else codec
        pieces.append(_decoded(piece, codec, bool(name)).encode())
        if name and not codec and (not piece.isascii() or b"\x1b" in piece):  # else every charset reads it alike
            reason = f"CA[{name}] names no charset that this can be in: correct it, or save the text as UTF-8"
            unknown.append((length, length + len(pieces[-1]), reason))
        length += len(pieces[-1])
    return b"".join(pieces), unknown


@functools.lru_cache(maxsize=100)
def codec_of(name: str) -> str | None:
    """Python's codec of a charset; None for one that it does not know, or in which SGF's own signs are others."""
    squeezed = name.lower().translate(str.maketrans("", "", " -_"))
    for word in (name, name.lower().removeprefix("x-"), squeezed, _NAMES.get(squeezed, "")):
        try:
            if _SYNTAX.decode(word) == _SYNTAX.decode() and not any(map(str.isascii, _HIGH.decode(word, "ignore"))):
                return codecs.lookup(word).name
        except (LookupError, ValueError):  # no such name, or none of a charset
            pass
    return None


def _decoded(data: bytes, codec: str | None, is_said: bool) -> str:
    """A piece of text in this charset (None: none is known) as far as that can be. is_said: of this very piece."""
    own, utf8 = codec and _whole(data, codec), _whole(data, "utf-8")
    if utf8 is not None and not (own and is_said and _is_proven(data, own)):
        return utf8
    if own is None and codec in _WIDER:
        own = _whole(data, _WIDER[codec])
    if own is not None and len(own) < len(data):
        return own
    # Charsets of one byte a letter fit any text, also one whose letters have two.
    data = _SECOND_BYTE.sub(rb"\\\\", data)
    if codec is not None and own is not None:
        return data.decode(codec)
    return data.decode("utf-8", "replace") if codec == "utf-8" else data.decode("latin-1")


def _is_proven(data: bytes, own: str) -> bool:
    """Whether a charset that decodes what is UTF-8, too, is to be believed.

    Not one of single bytes, which fits everything, nor one that makes half a letter of a bracket.
    """
    return data.isascii() or (len(own) < len(data) and own.encode("ascii", "ignore") == data.translate(None, _HIGH))


def _whole(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return None
