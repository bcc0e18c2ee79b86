"""Numbers in words, English and Korean: pairs of sentences that nobody has to fetch, and whose grammar is known.

english(48_213)     "forty-eight thousand two hundred thirteen"
korean(48_213)      "사만 팔천이백십삼"

English counts by thousands and Korean by ten-thousands, so that no word of one stands for one of the other.
"""

import numpy as np

MOST = 99_999_999
ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
DIGITS = "영일이삼사오육칠팔구"


def english(number: int) -> str:
    """American, without "and". Raises ValueError outside 0 .. MOST."""
    _check(number)
    words = []
    for unit, name in ((1_000_000, "million"), (1_000, "thousand"), (1, "")):
        hundreds, rest = divmod(number // unit % 1000, 100)
        if hundreds:
            words += [ONES[hundreds], "hundred"]
        if rest >= 20:
            words.append(TENS[rest // 10 - 2] + ("-" + ONES[rest % 10] if rest % 10 else ""))
        elif rest:
            words.append(ONES[rest])
        if name and (hundreds or rest):
            words.append(name)
    return " ".join(words) or ONES[0]


def korean(number: int) -> str:
    """Sino-Korean, spaced by ten-thousands (Hangul orthography, article 44). Raises ValueError outside 0 .. MOST.

    일, one, is left out before 십, 백, 천, and before 만 where nothing stands before it: 11,000 is 만 천.
    """
    _check(number)
    high, low = divmod(number, 10_000)
    parts = []
    if high:
        parts.append(("" if high == 1 else _below_ten_thousand(high)) + "만")
    if low:
        parts.append(_below_ten_thousand(low))
    return " ".join(parts) or DIGITS[0]


def _below_ten_thousand(number: int) -> str:
    out = ""
    for unit, name in ((1000, "천"), (100, "백"), (10, "십"), (1, "")):
        if digit := number // unit % 10:
            out += ("" if digit == 1 and name else DIGITS[digit]) + name
    return out


def _check(number: int) -> None:
    if not 0 <= number <= MOST:
        raise ValueError(f"words are known for 0 to {MOST:,}, not for {number:,}")


def splits(count: int, held: int, seed: int) -> dict[str, list[tuple[str, str]]]:
    """(English, Korean) of `count` numbers to "train" on, `held` to "valid" and `held` to "test": no number twice.

    Those below 100 are for training, as each has a word of its own. The others have 3 to 8 digits, and more zeros
    than chance would give: the gaps that they leave among the words are what is hard.
    """
    rng = np.random.default_rng(seed)
    wanted = max(count - 100, 0) + 2 * held
    drawn: dict[int, None] = {}
    while len(drawn) < wanted:
        digits = rng.integers(10, size=(wanted, 8)) * (rng.random((wanted, 8)) > 0.25)
        digits[:, 0] = rng.integers(1, 10, wanted)
        number = digits @ 10 ** np.arange(7, -1, -1) // 10 ** (8 - rng.integers(3, 9, wanted))
        drawn |= dict.fromkeys(number.tolist())
    numbers = list(drawn)[:wanted]
    chosen = {
        "train": [*range(min(100, count)), *numbers[2 * held :]],
        "valid": numbers[:held],
        "test": numbers[held : 2 * held],
    }
    return {name: [(english(n), korean(n)) for n in part] for name, part in chosen.items()}
