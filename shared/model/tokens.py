"""An estimate of how many tokens a text has, where the model's own vocabulary is not at hand."""

import math
import re

# A piece of text is priced by its script: tokens for each letter, with some room above what ordinary text
# of the script takes (o200k). A script that is not named is priced by its bytes.
_LETTER_TOKENS = {
    "umlaut": 0.55,
    "latin": 0.85,
    "cyrillic": 0.4,
    "greek": 0.62,
    "semitic": 0.6,
    "indic": 0.6,
    "thai": 0.65,
    "han": 1.15,
    "hangul": 0.9,
    "signs": 1.0,
}
_BYTE_TOKENS = 1.0
_SLACK = 2  # a short text may consist of unusual words
_PIECE = re.compile(
    r"""
      (?P<word>[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[A-Z])
    | (?P<space>\ (?=[^\s0-9]))
    | (?P<blank>\s+)
    | (?P<digits>[0-9]+)
    | (?P<ascii>[\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]+)
    | (?P<umlaut>[äöüßÄÖÜéèàçñ]+)
    | (?P<latin>[\u00c0-\u024f\u0300-\u036f\u1e00-\u1eff]+)
    | (?P<signs>[\u00a0-\u00bf\u00d7\u00f7\u2010-\u2027\u2030-\u203a\u20ac\u2122]+)
    | (?P<cyrillic>[\u0410-\u044f\u0401\u0451\u0404-\u0407\u0454-\u0457\u0490\u0491]+)
    | (?P<greek>[\u0386-\u03ce]+)
    | (?P<semitic>[\u05d0-\u05ea\u060c-\u061f\u0620-\u0652\u0660-\u0669\u067e\u0686\u06af\u06cc]+)
    | (?P<indic>[\u0901-\u0970]+)
    | (?P<thai>[\u0e01-\u0e5b]+)
    | (?P<han>[\u3001-\u3011\u3041-\u3096\u30a1-\u30fc\u4e00-\u9fff\uff01-\uff5e]+)
    | (?P<hangul>[\uac00-\ud7a3]+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_UNLIKE_A_WORD = re.compile(r"[b-df-hj-np-tv-xz]{5}|[jqxz]|[A-Z]{2}|^[^aeiouyAEIOUY]+$")


def estimate_tokens(text: str) -> int:
    """About how many tokens a chat or embedding model counts: rather too many than too few.

    For text in a natural language; rare letters and random strings may have more.
    """
    estimated = sum(_estimate_piece(found.lastgroup, found[0]) for found in _PIECE.finditer(text))
    return math.ceil(estimated + _SLACK) if text else 0


def _estimate_piece(kind: str | None, piece: str) -> float:
    length = len(piece)
    match kind:
        case "space":  # a part of the word behind it
            tokens = 0.0
        case "word" if length > 1 and _UNLIKE_A_WORD.search(piece):
            tokens = max(1.0, 0.6 * length)
        case "word":
            tokens = 1 + 0.1 * min(max(length - 4, 0), 4) + 0.2 * max(length - 8, 0)
        case "digits":
            tokens = math.ceil(length / 3)
        case "blank":
            tokens = 1 + length / 8
        case "ascii":
            tokens = 1 + 0.75 * (length - 1)
        case None | "other":
            tokens = _BYTE_TOKENS * len(piece.encode(errors="replace"))
        case _:
            tokens = _LETTER_TOKENS[kind] * length
    return tokens
