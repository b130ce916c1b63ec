"""Carried words: whether a text to be sent repeats what another correspondent wrote."""

import html
import re
import unicodedata
from collections.abc import Collection, Sequence

RUN_WEIGHT = 15  # five words in a row, or as many characters of a script that has no spaces
WORD_WEIGHT = 3
MIN_DIGITS = 4
MIN_CODE_CHARACTERS = 5

NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
)
_WORD = re.compile(rf"{NO_SPACES.pattern}|[^\W\d_]+|\d+")
_DIGITS = re.compile(r"\d(?:\W{0,3}\d)*")
_CODE = re.compile(r"[^\W_]+(?:[-./#][^\W_]+)*")
_CHANGE = re.compile(r"[^\W\d_]\d|\d[^\W\d_]")
_YEAR = re.compile(r"(?:19|20)\d\d")
_EMPHASIS = str.maketrans("", "", "*_~`\\")


def find_carried(text: str, foreign: Collection[str], free: Collection[str]) -> bool:
    """Whether the text has a run of words, a number or a code of a foreign text that is in no free one.

    All are compared as a reader would see them: invisible characters, emphasis, accents, letter case and what
    stands between digits make no difference. Years are no codes.
    """
    own = _Traits([text])
    others, known = _Traits(foreign), _Traits(free)
    if own.runs & (others.runs - known.runs) or own.numbers & (others.numbers - known.numbers):
        return True
    return any(code in own.letters for code in others.codes if code not in known.letters)


class _Traits:
    """What of some texts tells them from others."""

    def __init__(self, texts: Collection[str]) -> None:
        plain = [_plain(text) for text in texts]
        folded = [text.casefold() for text in plain]
        self.runs = {run for text in folded for run in _find_runs(_WORD.findall(text))}
        self.numbers = {number for text in folded for number in _find_numbers(text)}
        self.codes = {code for text in plain for code in _find_codes(text)}
        self.letters = "\n".join(re.sub(r"[\W_]", "", text) for text in folded)


def _plain(text: str) -> str:
    visible = html.unescape(text).translate(_EMPHASIS)
    return "".join(
        str(unicodedata.decimal(c)) if c.isdecimal() else c
        for c in unicodedata.normalize("NFKD", visible)
        if unicodedata.category(c) not in ("Cf", "Mn", "Me")
    )


def _find_runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    runs, start, weight = set(), 0, 0
    weights = [1 if NO_SPACES.match(word) else WORD_WEIGHT for word in words]
    for end, of_word in enumerate(weights, 1):
        weight += of_word
        while weight - weights[start] >= RUN_WEIGHT:
            weight -= weights[start]
            start += 1
        if weight >= RUN_WEIGHT:
            runs.add(tuple(words[start:end]))
    return runs


def _find_numbers(text: str) -> set[str]:
    """Every MIN_DIGITS digits that follow each other, so that a part of a number is found too."""
    streams = [re.sub(r"\D", "", found) for found in _DIGITS.findall(text)]
    parts = {s[at : at + MIN_DIGITS] for s in streams for at in range(len(s) - MIN_DIGITS + 1)}
    return {part for part in parts if not _YEAR.fullmatch(part)}


def _find_codes(text: str) -> set[str]:
    """Words of letters and digits that are in capitals or mix both more than once: "QX7-PLM", "k9x2m"."""
    codes = set()
    for found in _CODE.findall(text):
        code = re.sub(r"[-./#]", "", found)
        is_mixed = re.search(r"\d", code) and re.search(r"[^\W\d]", code)
        is_code = code.isupper() or (code == found and len(_CHANGE.findall(code)) > 1)
        if len(code) >= MIN_CODE_CHARACTERS and is_mixed and is_code:
            codes.add(code.casefold())
    return codes
