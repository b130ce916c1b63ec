"""Keys: API keys, tokens and passwords that a text gives away."""

import re
from collections.abc import Iterable, Iterator

from shared.checks.characters import separate
from shared.checks.phrases import find_words, plain_words

TOKEN_LETTERS = 28
PASSWORD_LETTERS = 8
MIN_DISCLOSED = 6
NEAR, NEAR_CODE = 60, 36  # characters between a password, a code and the word for it

# Formats of services: such a key is repeated from no source.
_FORMAT = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|key|tok|pat|api|live|test)[-_](?=[A-Za-z0-9_-]{0,60}\d)[A-Za-z0-9_-]{9,}|mm_(?:live|test)_\w+|whsec_\w+|gh[pousr]_\w{10,}"
    r"|github_pat_\w{10,}|glpat-[\w-]{10,}|xox[abeprs]-[\w-]{10,}|hf_\w{10,}|npm_\w{10,}|SG\.[\w-]{10,}|ya29\.[\w-]{10,}|dop_v1_\w{10,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{12,}|AIza[\w-]{20,}|eyJ[\w-]{8,}(?:\.[\w-]{8,})?|shp(?:at|ss)_\w{10,}|sq0[a-z]{3}-[\w-]{10,}|EAA[A-Za-z0-9]{20,})",
)
_FORMAT_ANY_CASE = re.compile(r"(?<![A-Za-z0-9])(?:sk|pk|rk)[-_][\w-]{16,}", re.IGNORECASE)
_PHRASE = re.compile(
    r"(?<![^\W_])(?:(?:AccountKey|SharedAccessKey|SharedAccessSignature)\s{0,3}[=:]\s{0,3}\S{6,}"
    r"|(?:api[_ -]?key|password|passwort|secret|token|kennwort|client[_ ]secret|access[_ ]key)"
    r"\s{0,3}=\s{0,3}\S{6,}"
    r"|(?:api[_ -]?key|password|passwort|secret|kennwort)"
    r"\s{0,3}:\s{0,3}(?=\S{0,200}(?:\d|[^\w\s]\w))\S{6,}"  # no plain word
    r"|Bearer\s{1,3}[\w.~+/-]{16,})|-----BEGIN [A-Z ]{1,40}-----",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[^\s\"<>()\[\]{}|,;:\u201e\u201c\u201d]{4,400}")
_PIECE = re.compile(r"[A-Za-z0-9]+")
_PLACE = re.compile(r"[^\s@/]+\.[A-Za-z]{2,20}(?:/\S*)?|[^\s@]+@[^\s@]+|[A-Za-z]{2,10}:\S+")
_FILE = re.compile(r"\S+\.[A-Za-z0-9]{2,5}")
_SIGN_WITHIN = re.compile(r"[^\W_][!#$&*^=~+?\\][^\W_]")
_LICENCE = re.compile(r"[A-Z0-9]{4,6}(?:-[A-Z0-9]{4,6}){2,8}")
_HEX_WALLET = re.compile(r"0x[0-9a-fA-F]{16,}|bc1[0-9a-z]{16,}")
_BROKEN = re.compile(r"(?<=[\w/+=-]{14})\n(?=[A-Za-z0-9])")
_CODE = re.compile(r"(?<![\w.,/-])(?!(?:19|20)\d\d(?!\d))\d{4,8}(?![\w/-]|[.,]\d)")
_LINES = re.compile(r"[\s:]{0,5}((?:\S{1,12}\n){1,6}\S{1,12})(?!\S)")
_END = "。、.,!?'*_`"


def has_known_format(plain: str) -> bool:
    """Whether a folded text has a key in a format of a service; no source allows it."""
    text = separate(plain)
    return any(pattern.search(text) for pattern in (_FORMAT, _FORMAT_ANY_CASE, _PHRASE))


def list_secrets(plain: str) -> Iterator[str]:
    """What in a folded text looks like a password or a token: it may be known from a source."""
    for text in (separate(plain), separate(_BROKEN.sub("", plain))):
        for match in _TOKEN.finditer(text):
            token = match.group().strip(_END)
            # Long, and of pieces that mix letters and digits: those of a compound or a path are words.
            mixed = [piece for piece in _PIECE.findall(token) if not piece.isdigit() and not piece.isalpha()]
            is_long = len(token) >= TOKEN_LETTERS and not _PLACE.fullmatch(token)
            looks_random = is_long and sum(map(len, mixed)) >= TOKEN_LETTERS // 2
            if looks_random or _looks_like_password(token):
                yield token
    yield from _list_disclosed(plain)


def drop_known(secrets: Iterable[str], source_text: str) -> list[str]:
    """Those of the secrets that a folded text of sources does not have."""
    unknown = [secret for secret in secrets if secret not in source_text]
    lower = plain_words(source_text) if unknown else ""
    return [secret for secret in dict.fromkeys(unknown) if secret not in lower]


def _looks_like_password(token: str) -> bool:
    if len(token) < PASSWORD_LETTERS or not any(map(str.isdigit, token)) or not any(map(str.isalpha, token)):
        return False
    if _HEX_WALLET.fullmatch(token):
        return True
    if _PLACE.fullmatch(token) or _FILE.fullmatch(token):
        return False
    if _SIGN_WITHIN.search(token) or "_" in token or _LICENCE.fullmatch(token):
        return True
    # A word with digits within, or with letters of both sizes between digits.
    words = [word for word in re.findall(r"[^\W_]+", token) if len(word) >= PASSWORD_LETTERS]
    return any(
        re.search(r"[^\W\d_]\d{2,}[^\W\d_]{2,}", word)
        or (
            any(map(str.islower, word))
            and any(map(str.isupper, word[1:]))
            and sum(map(str.isdigit, word)) >= 2  # noqa: PLR2004 - one may end a name
        )
        for word in words
    )


def _list_disclosed(plain: str) -> Iterator[str]:
    """What follows a word for a password or a code and has digits or signs, as no word of a sentence has."""
    text = plain_words(plain)
    for table in ("passwords", "secrets", "codes"):
        for match in find_words(table, text):
            near = separate(text[match.end() : match.end() + NEAR])
            yield from (
                found.group() for found in _CODE.finditer(near if table != "codes" else near[:NEAR_CODE])
            )
            lines = _LINES.match(near)
            near += " " + lines[1].replace("\n", "") if lines else ""
            for found in _TOKEN.finditer(near) if table == "passwords" else ():
                token = found.group().strip(_END)
                has_digit = any(map(str.isdigit, token)) and any(map(str.isalpha, token))
                if len(token) >= MIN_DISCLOSED and (has_digit or _SIGN_WITHIN.search(token)):
                    yield token
