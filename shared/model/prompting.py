"""Prompts: trusted instructions from files, untrusted email text as escaped, bounded data."""

import functools
import hashlib
import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from shared.model.tokens import estimate_tokens

PROMPTS = Path(__file__).parent / "prompts"
VERSION_DIGITS = 12

# Invisible to a reader but not to a model: format characters (zero-width, bidi, Unicode tags),
# controls, private use and lone surrogates. Line breaks and tabs stay.
_INVISIBLE_CATEGORIES = frozenset({"Cf", "Cc", "Co", "Cs"})
_LURES = ("://", "@", "www.")
_JOINERS = "\u200c\u200d"
_JOINED = frozenset({"Lo", "Mn", "Mc", "So", "Sk"})  # letters without capitals, their marks, emoji
_KEPT = frozenset("\n\t")
_WITHOUT_KEPT = str.maketrans(dict.fromkeys(_KEPT))


@functools.cache
def load_prompt(name: str) -> str:
    """The instructions in `prompts/NAME.md`, without the comments (lines that begin with `<!--`)."""
    lines = (PROMPTS / f"{name}.md").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("<!--")).strip()


@functools.cache
def text_version(instructions: str) -> str:
    """Which instructions these are: the first 12 hex digits of their SHA-256."""
    return hashlib.sha256(instructions.encode()).hexdigest()[:VERSION_DIGITS]


def clean_text(text: str) -> str:
    """The text without characters that a human reader would not see; joiners that a script needs stay."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    if unified.translate(_WITHOUT_KEPT).isprintable():  # most texts, without a look at each character
        return unified
    shown: list[str] = []
    for char, after in zip(unified, (*unified[1:], " "), strict=True):
        is_invisible = char not in _KEPT and unicodedata.category(char) in _INVISIBLE_CATEGORIES
        if not is_invisible or (shown and char in _JOINERS and takes_joiner(shown[-1], after)):
            shown.append(char)
    return "".join(shown)


def takes_joiner(before: str, after: str) -> bool:
    """Whether a joiner belongs between these two: in scripts that need it, and in emoji; one at a time."""
    is_joined = not before.isascii() and unicodedata.category(before) in _JOINED
    return is_joined and after not in _JOINERS and (not after.isascii() or after.isspace())


def clean_line(text: str, limit: int) -> str:
    """The visible text on one line of at most `limit` characters, fit for a tag or a listing."""
    line = " ".join(clean_text(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def clean_sentence(text: str, limit: int) -> str:
    """What a model said about an email, as one line without links and addresses to be lured by."""
    words = clean_text(text).split()
    shown = ("[…]" if any(lure in word.lower() for lure in _LURES) else word for word in words)
    return clean_line(" ".join(shown), limit)


def escape_untrusted(text: str) -> str:
    r"""The text as one line of JSON-escaped data in which no delimiter can be forged.

    Prompt Shields wants documents JSON-escaped; JSON leaves `</documents>` alone, hence `\u003c`.
    Letters outside ASCII stay as they are: escaped they would cost several tokens each.
    """
    return (
        json.dumps(clean_text(text), ensure_ascii=False)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e")
    )


def unescape_untrusted(line: str) -> str:
    """The text that `escape_untrusted` or `fit_untrusted` made the line from, as far as it is in it."""
    text: str = json.loads(f'"{line}"')
    return text


def cut_text(text: str, max_tokens: int, render: Callable[[str], str] = str) -> str:
    """The text as a reader sees it, bounded: of a longer one the beginning and the end.

    It is bounded as `render` shows it.
    """
    text = clean_text(text)
    tokens = estimate_tokens(render(text))
    keep = len(text)
    shown = text
    while tokens > max_tokens:
        keep = min(keep - 1, int(keep * max_tokens / tokens * 0.95))
        head, tail = keep - keep // 4, keep // 4
        shown = f"{text[:head]}\n[{len(text) - keep} characters left out]\n{text[-tail:] if tail else ''}"
        if keep <= 0:
            break
        tokens = estimate_tokens(render(shown))
    return shown


def fit_untrusted(text: str, max_tokens: int) -> str:
    """The text as `escape_untrusted` makes it, bounded with its escapes, none of which is cut."""
    return escape_untrusted(cut_text(text, max_tokens, escape_untrusted))


def build_documents(lines: Sequence[str]) -> str:
    """The block that Azure's Prompt Shields scans for indirect attacks, one escaped document a line.

    Source of the delimiters: Azure OpenAI, "document embedding in prompts".
    """
    return '""" <documents>\n' + "\n".join(lines) + '\n</documents> """'
