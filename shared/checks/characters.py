"""Characters: what of a text is invisible, and how the text is read, however it is disguised."""

import re
import unicodedata
from itertools import pairwise

from shared.model.prompting import takes_joiner

# Unicode's default-ignorable characters: no reader sees them.
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
SEPARATOR = "\x1f"  # white space to a pattern, but not what stands between two parts of a number
IGNORABLE = re.compile(f"[{_IGNORABLE}]")
_SUSPECT = re.compile(f"[{_IGNORABLE}\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ue000-\uf8ff]")
# What emoji and scripts need is no disguise: whole flags of regions, keycaps, and the marks below.
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e007a]{2,6}\U000e007f")
_KEYCAP = re.compile("[0-9#*]\ufe0f?\u20e3")
_JOINERS, _MARKS, _SPACE_OF_NO_WIDTH = "\u200c\u200d", "\u200e\u200f\u061c", "\u200b"
_SELECTORS = "\ufe0e\ufe0f"
_SCRIPTS_WITHOUT_SPACES = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE")
_RIGHT_TO_LEFT = ("R", "AL")

# Letters of other scripts that look like a Latin one. In a word with Latin letters they stand for it.
_CYRILLIC_AND_GREEK = "аеорсухіјѕԁһԛԝкмтвнгпАВЕКМНОРСТХУІЈЅαοριυκνγτηβεχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"
_THEIR_LATIN = "aeopcyxijsdhqwkmtbhrnABEKMHOPCTXYIJSaopiuKvytnbexABEZHIKMNOPTYX"
_LOOK_ALIKE = str.maketrans(_CYRILLIC_AND_GREEK, _THEIR_LATIN)
_MIXED = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
# Greek letters that are not used in formulas.
_LOOKS_LATIN = re.compile("[\u0400-\u052fοΟΑΒΕΖΗΙΚΜΝΡΤΥΧν]")
_GREEK_OR_CYRILLIC = re.compile("[\u0370-\u052f]")
_PLAIN = str.maketrans(
    {
        **dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0x2043, 0x30FC, 0xFE58, 0xFE63), "-"),
        **dict.fromkeys("\u2215\u2044\u29f8", "/"),
        **dict.fromkeys("\u2236\u02d0\ua789", ":"),
        **dict.fromkeys("\u2024\u06d4\ua4f8", "."),
        **dict.fromkeys("\u3014\u27e6\u2772\u301a", "["),
        **dict.fromkeys("\u3015\u27e7\u2773\u301b", "]"),
        **dict.fromkeys("\u2018\u2019\u02bc\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"'),
        "\u2800": " ",
    }
)
_WIDE_DOT = re.compile(r"(?<=[A-Za-z0-9])[\u3002\uff61](?=[A-Za-z0-9])")
_NUMERALS = str.maketrans("〇零一二三四五六七八九", "00123456789")
_NUMERAL_RUN = re.compile("[〇零一二三四五六七八九]{6,}")
_LETTER_IN_NUMBER = re.compile(r"(?<![^\W_])(?=[OolI]{0,40}\d)[\dOolI]+(?![^\W_])")
_AS_DIGITS = str.maketrans("OolI", "0011")
_AS_LETTERS = str.maketrans("0135i|", "olesll")

# What carries or reorders text unseen: tags, selectors in a row, overrides of the direction, markup that
# hides. Programs and phones leave single invisible characters in mail, which say nothing of its sender.
_CARRIER = re.compile(
    "[\U000e0020-\U000e007e]|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2}|[\u202d\u202e]"
    r"|<[a-z][^<>]{0,400}?(?:display:\s*none|visibility:\s*hidden|(?:font-size|opacity):\s*0(?![\d.]*[1-9]))"
    r"|<!--\s*[^\s\[]",
    re.IGNORECASE,
)
_INSIDE_WORD = re.compile("(?<=[a-z])[\u200b\u2060-\u2064\ufeff\u200c\u200d](?=[a-z])", re.IGNORECASE)
_WORDS_SPLIT = 3  # so many words with something invisible inside are no accident


def find_hidden(text: str) -> bool:
    """Whether a text has characters that a reader does not see and no script needs, or takes for others."""
    rest = _KEYCAP.sub("", _FLAG.sub("", text))
    padded = f"\n{rest}\n"
    for match in _SUSPECT.finditer(padded, 1, len(padded) - 1):
        at = match.start()
        if not _belongs(padded[at], padded[at - 1], padded[at + 1], padded, at):
            return True
    words = _MIXED.findall(_drop(text))
    return any(_LATIN.search(word) and _LOOKS_LATIN.search(word) for word in words)


def hides_text(text: str) -> bool:
    """Whether an email that we received has text that its readers do not see, or see in another order."""
    shown = _FLAG.sub("", text)
    return bool(_CARRIER.search(shown)) or len(_INSIDE_WORD.findall(shown)) >= _WORDS_SPLIT


def _belongs(char: str, before: str, after: str, text: str, at: int) -> bool:
    """Whether a script or an emoji needs this character between these two."""
    if char in _JOINERS:
        is_shown = before in _SELECTORS or not IGNORABLE.match(before)
        return is_shown and takes_joiner(before, after) and not IGNORABLE.match(after)
    if char in _SELECTORS:
        return unicodedata.category(before) in ("So", "Sm", "Po", "Sk", "Pd") and not before.isascii()
    if char in _MARKS:
        start, end = text.rfind("\n", 0, at), text.find("\n", at)
        line = text[max(start, at - 400) : min(end, at + 400)]
        return after not in _MARKS and any(unicodedata.bidirectional(c) in _RIGHT_TO_LEFT for c in line)
    if char == _SPACE_OF_NO_WIDTH:
        names = (unicodedata.name(before, ""), unicodedata.name(after, ""))
        return all(name.startswith(_SCRIPTS_WITHOUT_SPACES) for name in names)
    return False


def _drop(text: str) -> str:
    return IGNORABLE.sub("", text)


def fold(text: str) -> str:
    """The text as it is read: plain letters, dashes and digits of every script, nothing invisible.

    Look-alike letters stand for the Latin ones where a word has both.
    """
    plain = unicodedata.normalize("NFKC", _drop(_KEYCAP.sub(lambda key: key.group()[0], text)))
    plain = _WIDE_DOT.sub(".", _drop(plain)).translate(_PLAIN)
    if plain.isascii():
        return _LETTER_IN_NUMBER.sub(lambda number: number.group().translate(_AS_DIGITS), plain)
    plain = "".join(_read_digit(before, char) for before, char in pairwise(f" {plain}"))
    plain = _NUMERAL_RUN.sub(lambda run: run.group().translate(_NUMERALS), plain)
    plain = _MIXED.sub(
        lambda word: (
            word.group().translate(_LOOK_ALIKE)
            if _GREEK_OR_CYRILLIC.search(word.group()) and _LATIN.search(word.group())
            else word.group()
        ),
        plain,
    )
    return _LETTER_IN_NUMBER.sub(lambda number: number.group().translate(_AS_DIGITS), plain)


def read_as_latin(word: str) -> str:
    """A word as a hurried reader takes it: small Latin letters for what looks like them, no accents."""
    plain = unicodedata.normalize("NFKD", _drop(word).translate(_LOOK_ALIKE))
    letters = "".join(char for char in plain if unicodedata.category(char) != "Mn")
    return letters.lower().translate(_AS_LETTERS)


def _read_digit(before: str, char: str) -> str:
    """An ASCII digit for a digit; nothing for a mark that is set on an ASCII character."""
    if char.isascii():
        return char
    digit = unicodedata.digit(char, None)
    if digit is not None:
        return str(digit)
    return "" if before.isascii() and unicodedata.category(char) in ("Mn", "Me") else char


def separate(text: str) -> str:
    """The text with a separator for each letter of a script without capitals, and for their marks.

    Han, Thai or Arabic letters next to an ASCII name, number or word are no part of it.
    """
    if text.isascii():
        return text
    return "".join(
        SEPARATOR if not c.isascii() and unicodedata.category(c) in ("Lo", "Mn", "Mc", "Lm") else c
        for c in text
    )
