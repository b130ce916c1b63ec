"""What the evidence check knows of words: the tables of lexicon.toml, and text as they are searched in it."""

import functools
import re
import tomllib
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u3005"

_ALIKE = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—―−〜～", "-"),
        **dict.fromkeys("‘’ʼ´`", "'"),
        **dict.fromkeys("“”„«»", '"'),
        **dict.fromkeys("¹⁰⁴⁵⁶⁷⁸⁹®™©", ""),  # footnotes and marks
        "ß": "ss",
        "İ": "I",
        "ı": "i",
    }
)
_KANJI_DIGITS = {kanji: value for value, kanji in enumerate("〇一二三四五六七八九")}
_KANJI_PLACES = {"十": 10, "百": 100, "千": 1000}
_KANJI_NUMBER = re.compile(
    r"(?!十分|一度|一部|一般|千円)[〇一二三四五六七八九十百千]{1,8}"
    r"(?=(?:日|週|か月|ヶ月|カ月|ヵ月|箇月|月|年|時|分|秒|個|台|名|人|回|円|割|万|営業日|つ|パーセント))"
)
_SEAM = re.compile(rf"(?<=[{CJK}])(?=[^\s{CJK}])|(?<=[^\s{CJK}])(?=[{CJK}])")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def plain(text: str) -> str:
    """The text on one line without accents, its digits those of ASCII, its case kept.

    Where a script without spaces meets another one, there is a space: words of both have their limits.
    """
    text = _KANJI_NUMBER.sub(_read_kanji_number, unicodedata.normalize("NFKC", text.translate(_ALIKE)))
    if not text.isascii():
        decomposed = unicodedata.normalize("NFD", text.translate(_ALIKE))
        kept = (c for c in decomposed if not "\u0300" <= c <= "\u036f" and unicodedata.category(c) != "Cf")
        composed = unicodedata.normalize("NFC", "".join(kept))
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in composed)
    return _SEAM.sub(" ", " ".join(text.split()))


def lower(text: str) -> str:
    """The text in lower case, of the same length: places in one are places in the other."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(c.lower()[:1] for c in text)


def _read_kanji_number(match: re.Match[str]) -> str:
    total, digits = 0, 0
    for kanji in match.group():
        if kanji in _KANJI_PLACES:
            total, digits = total + (digits or 1) * _KANJI_PLACES[kanji], 0
        else:
            digits = digits * 10 + _KANJI_DIGITS[kanji]
    return str(total + digits)


@functools.cache
def load_table(name: str) -> dict[str, Any]:
    """A table of lexicon.toml by its name ("opposites.order" is one of several); "" is the whole."""
    outer, _, inner = name.rpartition(".")
    if inner:
        table: dict[str, Any] = load_table(outer)[inner]
        return table
    return tomllib.loads(Path(__file__).with_name("lexicon.toml").read_text(encoding="utf-8"))


def write_alternatives(words: str) -> str:
    """A list of lexicon.toml as a regular expression for text that is plain and in lower case.

    It takes time in proportion to the text: an ending has letters only, since a word may begin after a digit,
    and nothing that could fail comes after a last ending.
    """
    spaced: list[str] = []
    unspaced: list[str] = []
    for word in sorted(words.split(), key=len, reverse=True):
        text = lower(plain(word.replace("_", " ")))
        pattern = re.escape(text).replace(r"\*", r"[^\W\d_]*").replace(r"\ ", " ")
        if re.search(f"[{CJK}]", text):
            unspaced.append(pattern)
        else:
            spaced.append(pattern if text.endswith("*") else rf"{pattern}(?!\w)")
    parts = []
    if spaced:
        parts.append(rf"(?<![^\W\d_])(?:{'|'.join(spaced)})")
    parts += unspaced
    return f"(?:{'|'.join(parts)})" if parts else r"(?!)"


@functools.cache
def find_pattern(table: str, key: str) -> re.Pattern[str]:
    """The pattern of one list; a language without a list, "" too, has the words of all languages."""
    lists = load_table(table)
    return re.compile(write_alternatives(lists[key] if key in lists else " ".join(lists.values())))


def find_language(text: str, likely: str = "") -> str:
    """The language of a text that is plain, by its frequent words; "" when none of them is in it.

    Of two that have as many of them, or almost, it is the one that is `likely`.
    """
    if re.search("[\u3040-\u30ff]", text):
        return "ja"
    low = lower(text)
    for table in ("languages", "light"):
        counts = Counter(
            {
                language: sum(1 for _ in find_pattern(table, language).finditer(low))
                for language in load_table(table)
            }
        )
        counts[likely] += counts[likely] > 0
        language, count = counts.most_common(1)[0]
        if count:
            return likely if counts[likely] == count else language
    return ""


def find_words(text: str) -> list[str]:
    """The words of a text that is plain and in lower case, numbers left out."""
    return _WORD.findall(text)
