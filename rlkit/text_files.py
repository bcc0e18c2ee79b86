"""Texts and pairs of sentences from files, with the line of whatever is wrong in them."""

from pathlib import Path

from rlkit.data_files import unpacked


def read_text(path: str | Path) -> str:
    """A UTF-8 text, its line ends made "\\n". Raises FileNotFoundError, and ValueError with the line of a byte that is
    no UTF-8.
    """
    return decoded(unpacked(Path(path)), str(path))


def decoded(data: bytes, where: str) -> str:
    """The same of bytes that were read from `where`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text_bytes, at = error.object, error.start  # without the mark at the beginning, which the data has
        line = len((text_bytes[:at] + b".").splitlines())
        raise ValueError(
            f"{where}, line {line}: byte {text_bytes[at]:#04x} is no UTF-8; save it in that encoding"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_pairs(source: str | Path, target: str | Path | None = None) -> list[tuple[str, str]]:
    """Sentences and their translations: from two files, line by line, or from one with a tab between the two (further
    columns do not count). Lines that are empty on both sides are left out.

    Raises FileNotFoundError, and ValueError for unequal files and for a line that has no pair.
    """
    lines = read_text(source).rstrip("\n").split("\n")
    if target is None:
        both = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            left, right, *_ = [*map(str.strip, line.split("\t")), ""]
            if not left or not right:
                raise ValueError(f"{source}, line {number}: no pair, where a sentence, a tab and another were expected")
            both.append((left, right))
    else:
        others = read_text(target).rstrip("\n").split("\n")
        if len(lines) != len(others):
            raise ValueError(f"{source} has {len(lines):,} lines and {target} has {len(others):,}: they are no pairs")
        both = []
        for number, (left, right) in enumerate(zip(lines, others, strict=True), 1):
            if bool(left.strip()) != bool(right.strip()):
                raise ValueError(f"{target if left.strip() else source}, line {number} is empty, and its pair is not")
            if left.strip():
                both.append((left.strip(), right.strip()))
    if not both:
        raise ValueError(f"{source} has no sentences in it")
    return both
