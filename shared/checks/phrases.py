"""Phrases: placeholders, remarks about drafting, and sentences that ask for secrets, in many languages."""

import functools
import re
import tomllib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from shared.checks.characters import fold, separate

WORDS = Path(__file__).with_suffix(".toml")
ECHO_WORDS = 9  # this many words in a row from the instructions are an echo, not a coincidence
ECHO_LETTERS = 14  # and so many letters, where a script has no spaces
ECHO_WORDS_ALONE, ECHO_LETTERS_ALONE = 6, 10  # a paragraph this long is one when it is repeated whole
ENTRY = 40  # characters of a line that is an entry of a form, not a sentence
NEAR = 200  # characters between a secret and what asks for it

_SENTENCE = re.compile(r"[^.!?\u3002\uff01\uff1f\n]+")
_CAPITALS = re.compile(r"[A-Za-z\u0370-\u052f]")
_BRACKETS = re.compile(
    r"\[(?![ xX]?\])(?P<inner>[^\[\]]{1,80})\]|【(?P<wide>[^【】]{1,80})】|<<(?P<angles>[^<>]{1,60})>>"
)
_BRACES = re.compile(
    r"\{\{[^{}]{0,80}\}\}|\{%[^{}]{0,80}%\}|\$\{[^{}]{0,60}\}|\{[^\W\d_][\w .-]{1,40}\}|#\{[^{}]{0,60}\}"
)
_ANGLES = re.compile(
    r"<[A-Z][A-Z0-9]{0,30}(?:[ _-][A-Z0-9]{1,30}){1,5}>"
    r"|<(?:your|insert|ihr|votre|su|nombre|name|nom) ?[^<>]{0,40}>",
    re.IGNORECASE,
)
_MARKS = re.compile(
    r"%[A-Z][A-Z_]{2,30}%|%\([a-z_]{2,30}\)s|\*\|[A-Z_:]{2,30}\|\*|#[A-Z]{3,20}#|__[A-Z][A-Z_]{1,30}__|_{4,}|\?{4,}"
    r"|(?<![^\W_])(?:X{3,}|XX(?:[./-]XX){1,3}|N{3,}|TBD|TBA|FIXME|(?:DD|TT|JJ)[./-]MM[./-](?:YY|JJ|AA){1,2})(?![^\W_])"
)
_NAMES_TO_FILL_IN = re.compile(
    r"(?<![^\W_])(?:[A-Z]{2,20}_(?:HERE|NAME|ID|DATE|NUMBER|NUMMER|NOMBRE|FECHA)"
    r"|(?i:(?:insert|enter|add|your) (?:[a-z]{1,15} ){0,3}here|lorem ipsum))(?![^\W_])"
)
_TO_DO = re.compile(
    r"(?:^|[.!?:;(\n-] ?)(?:TODO|TO DO|À FAIRE|A FAIRE|POR HACER|DA FARE)(?=$|[\s.:;)!?])(?! [a-z])",
    re.MULTILINE,
)
_LEAD_IN = re.compile(
    r"\s{0,20}(?:(?:sure|certainly|of course|absolutely|ok(?:ay)?)\b[,!.:\s]{0,5})?"
    r"(?:here(?:'s| is| are)\b[^.\n]{0,40}\b(?:draft|reply|response|email)\b"
    r"|(?:draft|suggested|proposed) (?:reply|response|email|answer)\b|as an ai\b"
    r"|subject:|betreff:|objet ?:|asunto:|oggetto:|assunto:|тема:|件名|主题|主題"
    r"|hier ist (?:der|ein|eine|die|mein|ihr) (?:entwurf|antwort)|entwurf(?: der antwort)?:"
    r"|voici (?:un|une|le|la) (?:brouillon|projet|proposition)"
    r"|aqui (?:tienes|tiene|esta) (?:un|el) borrador"
    r"|ecco (?:una|la) bozza|以下(?:は|が)[^\n]{0,20}(?:返信|下書き|案)|以下是(?:回复|草稿|邮件))",
    re.IGNORECASE,
)
_MACHINE = re.compile(
    r"(?<![^\W_])(?:as an? (?:ai|artificial|language) ?(?:language)? ?"
    r"(?:model|assistant|intelligence)?(?=[ ,.])(?! of)"
    r"|i am an ai|i'm an ai"
    r"|als ki(?:-sprachmodell|-assistent|-modell)|en tant qu'(?:ia|intelligence artificielle)"
    r"|como (?:ia|modelo de lenguaje|inteligencia artificial)"
    r"|in quanto (?:ia|modello linguistico))(?![^\W_])",
    re.IGNORECASE,
)


def plain_words(text: str) -> str:
    """The text in small letters without accents, to look for words in it."""
    letters = unicodedata.normalize("NFKD", fold(text).lower())
    kept = "".join(c for c in letters if unicodedata.category(c) != "Mn")
    return (
        unicodedata.normalize("NFC", kept)
        .replace("ß", "ss")
        .replace("ø", "o")
        .replace("ł", "l")
        .replace("ı", "i")
    )


@functools.cache
def load_tables() -> dict[str, dict[str, list[str]]]:
    """The tables of words, by name."""
    return tomllib.loads(WORDS.read_text(encoding="utf-8"))


@functools.cache
def build_patterns(table: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The words of a table: those of scripts with capitals begin a word, others may stand anywhere."""
    lists = load_tables()[table]
    words = [plain_words(word) for word in lists["words"]]
    spaced = "|".join(re.escape(word) for word in words if _CAPITALS.match(word))
    unspaced = "|".join(re.escape(word) for word in words if not _CAPITALS.match(word))
    whole = "|".join(lists.get("whole", ()))
    pattern = rf"(?<![^\W_])(?:{spaced}" + (rf"|(?:{whole})(?![^\W_]))" if whole else ")")
    return re.compile(pattern), re.compile(unspaced or "(?!)")


def find_words(table: str, text: str) -> list[re.Match[str]]:
    """Where words of a table stand in a text that `plain_words` made."""
    spaced, unspaced = build_patterns(table)
    return [*spaced.finditer(separate(text)), *unspaced.finditer(text)]


def asks_for_secret(shown: str) -> bool:
    """Whether a text asks its reader for a password, a card's numbers or a code.

    A sentence that says never to tell one, or how to get a new one, does not.
    """
    text = plain_words(shown)
    return _asks(text) or _asks(re.sub(r"(?<=[^\W_])\n(?=[^\W_])", "", text))


def _asks(text: str) -> bool:
    for table in ("secrets", "passwords"):
        for match in find_words(table, text):
            start = max(text.rfind(mark, 0, match.start()) for mark in ".!?\n\u3002") + 1
            end = _SENTENCE.match(text, match.start())
            sentence = text[
                max(start, match.start() - NEAR) : min(end.end() if end else NEAR, match.end() + NEAR)
            ]
            is_entry = len(sentence.strip()) <= ENTRY  # of a form, a list or a table
            around = text[max(0, match.start() - NEAR) : match.end() + NEAR]
            is_asked = bool(find_words("asks", around if is_entry or table == "secrets" else sentence))
            if is_asked and not find_words("never", sentence) and not find_words("harmless", sentence):
                return True
    return False


def find_placeholders(shown: str) -> list[str]:
    """What was to be filled in: brackets, braces and their like, as they stand in the folded text.

    Brackets round the last line alone are a signature, unless they name what is to be filled in.
    """
    text = fold(shown)
    found = [
        match.group()
        for pattern in (_BRACES, _ANGLES, _MARKS, _NAMES_TO_FILL_IN, _TO_DO)
        for match in pattern.finditer(text)
    ]
    end = len(text.rstrip())
    for match in _BRACKETS.finditer(text):
        inner = match["inner"] or match["wide"] or match["angles"] or ""
        is_field = bool(find_words("fields", plain_words(inner)))
        is_last = match.end() == end and text[: match.start()].endswith("\n")
        is_heading = match["wide"] is not None
        if not re.search(r"[^\W\d_]", inner):
            continue
        if is_field or not (is_last or is_heading):
            found.append(match.group())
    return found


def names_field(placeholder: str) -> bool:
    """Whether what stands in brackets says what is to be filled in."""
    return bool(find_words("fields", plain_words(placeholder)))


def is_remark(shown: str) -> bool:
    """Whether a text begins with a remark about itself, or says that a machine wrote it."""
    text = fold(shown)
    return (
        _LEAD_IN.match(plain_words(shown)) is not None
        or _LEAD_IN.match(text) is not None
        or _MACHINE.search(text) is not None
    )


def repeats(shown: str, said: str) -> bool:
    """Whether a text repeats a run of words of another, or of letters where a script has no spaces.

    A paragraph that is shorter than a run counts when it is repeated whole, unless a few words are all of it.
    """
    words, letters = _split(shown)
    runs = _find_runs(said)
    own: set[Sequence[str]] = {
        words[i : i + n] for n in set(map(len, runs)) for i in range(len(words) - n + 1)
    }
    own |= {letters[i : i + n] for n in set(map(len, runs)) for i in range(len(letters) - n + 1)}
    return not runs.isdisjoint(own)


@functools.lru_cache(maxsize=64)
def _find_runs(said: str) -> frozenset[Sequence[str]]:
    runs: set[Sequence[str]] = set()
    for paragraph in said.split("\n\n"):
        words, letters = _split(paragraph)
        if len(words) >= ECHO_WORDS_ALONE:
            size = min(ECHO_WORDS, len(words))
            runs |= {words[i : i + size] for i in range(len(words) - size + 1)}
        if len(letters) >= ECHO_LETTERS_ALONE:
            size = min(ECHO_LETTERS, len(letters))
            runs |= {letters[i : i + size] for i in range(len(letters) - size + 1)}
    return frozenset(runs)


def _split(text: str) -> tuple[tuple[str, ...], str]:
    """A text's words, and its letters of scripts without spaces."""
    plain = fold(text).lower()
    letters = "".join(c for c in plain if unicodedata.category(c) == "Lo")
    return tuple(re.findall(r"[^\W_]+", separate(plain))), letters
