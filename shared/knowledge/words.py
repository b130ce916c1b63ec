"""Words as they are compared: whatever their case, accents, width, invisible characters and line breaks."""

import re
import unicodedata

MAX_QUERY_CHARACTERS = 8_000
MAX_QUERY_WORDS = 64  # of those that leave this process

# Scripts that are written without spaces, or whose words change at their end with every use.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{UNSPACED}]+|[^\W_{UNSPACED}]{{2,}}")
_BREAK_IN_WORD = re.compile(rf"(?<=[{UNSPACED}])\s+(?=[{UNSPACED}])")

# Controls, fillers and variation selectors, which cannot be seen; accents, which mail often lacks and capital
# letters of some languages have none of. Of other combining marks a word may be made.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u0300-\u036f\u115f\u1160\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_UNSEEN_CATEGORIES = frozenset({"Cf", "Co", "Cs"})
_ALIKE = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("‘’ʼ´", "'"),
        **dict.fromkeys("“”„", '"'),
        "ı": "i",  # a capital I stands for it in one language and for i in the others
    }
)


def fold(text: str) -> str:
    """The text on one line, as it is compared with other text that was folded."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text.translate(_ALIKE))
        text = "".join(c for c in decomposed if unicodedata.category(c) not in _UNSEEN_CATEGORIES)
    composed = unicodedata.normalize("NFC", _UNSEEN.sub("", text))
    return _BREAK_IN_WORD.sub("", " ".join(composed.casefold().split()))


def find_words(text: str) -> list[str]:
    """The distinct words of a text in lower case, without any sign that a query language could know."""
    return list(dict.fromkeys(list_words(text)))[:MAX_QUERY_WORDS]


def list_words(text: str) -> list[str]:
    """The words in the order of the text, which is read up to its limit, with those that repeat."""
    return [match.group().casefold() for match in _WORD.finditer(text[:MAX_QUERY_CHARACTERS])]
