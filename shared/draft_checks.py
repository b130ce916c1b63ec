"""Draft checks: what must not stand in a reply, decided in code, before it may leave."""

import re
from collections.abc import Iterable, Iterator, Sequence

MAX_REPLY_CHARACTERS = 8_000
PHONE_DIGITS = 7  # shorter numbers are quantities, prices, rooms
ECHO_WORDS = 9  # this many words in a row from the instructions are an echo, not a coincidence

# Top-level domains under which a bare name is taken for a link; mail programs link those by themselves.
_LINKED_TLDS = (
    "com|net|org|info|biz|io|ai|app|dev|co|me|tv|cc|ly|gg|to|sh|xyz|top|site|online|shop|store|tech|cloud|live|"
    "link|click|example|test|invalid|onion|eu|de|at|ch|fr|uk|it|es|nl|be|pl|se|no|dk|fi|ie|pt|cz|ru|ua|tr|cn|jp|"
    "kr|in|br|mx|au|nz|ca|us|za|ng|tk|ml|ga|cf|gq|pw|su"
)
_URL = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}:(?://|\\\\)[^\s<>\"')\]}]+|\b(?:mailto|tel|javascript|data):\S+", re.IGNORECASE
)
_BARE_DOMAIN = re.compile(rf"(?<![\w@.-])(?:[\w-]+\.)+(?:{_LINKED_TLDS})(?![\w-])(?:[/?#:][^\s<>\"')\]}}]*)?")
_LINK_TARGET = re.compile(r"\]\(\s*<?([^)\s>]+)|^\s{0,3}\[[^\]\n]+\]:\s*(\S+)", re.MULTILINE)
_ADDRESS = re.compile(r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]+@[\w-]+(?:\.[\w-]+)+")
_NUMBER = re.compile(r"(?<![\w])\+?\(?\d[\d\s()./-]{5,40}\d(?!\w)")
_DATE = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./]\s?\d{1,2}[./]\s?\d{2,4}|\d{1,2}[:.]\d{2}\s*[-–]\s*\d{1,2}[:.]\d{2}"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}\b")
_PLACEHOLDER = re.compile(
    r"\[(?![ xX]?\])[^\]\n]{1,60}\](?![(\[:])|\{\{[^}\n]{0,60}\}\}"
    r"|\bX{3,}\b|\bTODO\b|\bTBD\b|(?i:lorem ipsum)"
)
_LEAD_IN = re.compile(
    r"\s*(?:(?:sure|certainly|of course|absolutely|ok(?:ay)?)\b[,!.:\s]*)?"
    r"(?:here(?:'s| is| are)\b[^.\n]{0,40}\b(?:draft|reply|response|email|answer)\b"
    r"|(?:draft|suggested|proposed) (?:reply|response|email)\b|as an ai\b|subject:|betreff:|件名"
    r"|hier ist (?:der|ein|eine|die) (?:entwurf|antwort)|以下(?:は|が)[^\n]{0,20}(?:返信|下書き|案))",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"<\s*[a-z/!?][^>]*>?|!\[", re.IGNORECASE)
_SECRET = re.compile(
    r"\b(?:sk|pk|rk)[-_](?:[\w-]{16,})|\bmm_(?:live|test)_\w+|\bwhsec_\w+|\bgh[pousr]_\w{20,}|\bxox[abprs]-[\w-]{10,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{30,}|\beyJ[\w-]{10,}\.[\w-]{10,}|-----BEGIN [A-Z ]+-----"
    r"|\b(?:AccountKey|SharedAccessKey|SharedAccessSignature|api[_-]?key|password|passwort|secret)\s*[=:]\s*\S{6,}"
    r"|\bBearer\s+[\w.~+/-]{16,}",
    re.IGNORECASE,
)
_LONG_TOKEN = re.compile(r"(?<![\w/+-])[\w/+-]{28,}={0,2}")
_INVISIBLE = re.compile(
    "[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]|[\x00-\x08\x0b-\x1f\x7f]"
)


def find_draft_problems(
    reply_markdown: str, known_texts: Sequence[str], known_addresses: Iterable[str], instructions: str
) -> tuple[str, ...]:
    """Say what is wrong with a draft, one short phrase each; empty when it may leave.

    `known_texts` are the thread's texts as the draft saw them; a link, address, phone number or IBAN
    must stand in them. The phrases never quote the draft: they end in tags and logs.
    """
    if len(reply_markdown) > MAX_REPLY_CHARACTERS:
        return (f"it is longer than {MAX_REPLY_CHARACTERS} characters",)
    known = "\n".join(known_texts)
    checks: dict[str, bool] = {
        "it is empty": not reply_markdown.strip(),
        "it holds a link that is not in the thread": _has_foreign_link(reply_markdown, known),
        "it holds an address that is not in the thread": _has_foreign_address(
            reply_markdown, known, known_addresses
        ),
        "it holds a phone or account number that is not in the thread": _has_foreign_number(
            reply_markdown, known
        ),
        "it holds a placeholder": _has_foreign_match(_PLACEHOLDER, reply_markdown, known),
        "it begins with a remark about the draft": _LEAD_IN.match(reply_markdown) is not None,
        "it repeats the instructions": _echoes(reply_markdown, instructions),
        "it holds something that looks like a key": _has_secret(reply_markdown, known),
        "it holds markup or an image": _MARKUP.search(_without_autolinks(reply_markdown)) is not None,
        "it holds invisible characters": _INVISIBLE.search(reply_markdown) is not None,
    }
    return tuple(problem for problem, found in checks.items() if found)


def _links(text: str) -> Iterator[str]:
    """Every link in a text, scheme and `www.` taken off, lower case: the same place is the same string."""
    targets = (group for match in _LINK_TARGET.finditer(text) for group in match.groups() if group)
    found = (match.group() for pattern in (_URL, _BARE_DOMAIN) for match in pattern.finditer(text))
    for link in (*found, *targets):
        bare = re.sub(r"^(?:https?://)?(?:www\.)?", "", link.strip().lower())
        yield bare.rstrip(".,;:!?*_/")


def _has_foreign_link(draft: str, known: str) -> bool:
    allowed = set(_links(known))
    return any(link not in allowed for link in _links(draft))


def _has_foreign_address(draft: str, known: str, known_addresses: Iterable[str]) -> bool:
    allowed = {address.lower() for address in known_addresses}
    allowed |= {match.group().lower().rstrip(".") for match in _ADDRESS.finditer(known)}
    return any(match.group().lower().rstrip(".") not in allowed for match in _ADDRESS.finditer(draft))


def _has_foreign_number(draft: str, known: str) -> bool:
    """Numbers of seven digits and more must stand in the thread; dates and times of day are free."""
    runs = {re.sub(r"\D", "", match.group()) for match in _NUMBER.finditer(known)}
    for match in _NUMBER.finditer(_DATE.sub(" ", draft)):
        digits = re.sub(r"\D", "", match.group())
        if len(digits) >= PHONE_DIGITS and not any(digits in run for run in runs):
            return True
    known_plain = re.sub(r"[\s-]", "", known).upper()
    return any(re.sub(r"[\s-]", "", match.group()) not in known_plain for match in _IBAN.finditer(draft))


def _has_foreign_match(pattern: re.Pattern[str], draft: str, known: str) -> bool:
    return any(match.group() not in known for match in pattern.finditer(draft))


def _has_secret(draft: str, known: str) -> bool:
    """A known key format is never repeated; another long random-looking token only if the thread has it."""
    if _SECRET.search(draft):
        return True
    tokens = (match.group() for match in _LONG_TOKEN.finditer(_URL.sub(" ", draft)))
    return any(
        re.search(r"\d", token) and re.search(r"[A-Za-z]", token) and token not in known for token in tokens
    )


def _without_autolinks(text: str) -> str:
    """`<https://...>` and `<name@host>` are markdown links, judged as links, not as markup."""
    return re.sub(r"<(?:https?://[^>\s]+|[^>\s@]+@[^>\s]+)>", " ", text)


def _echoes(draft: str, instructions: str) -> bool:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + ECHO_WORDS]) for i in range(len(words) - ECHO_WORDS + 1)}

    return not runs(draft).isdisjoint(runs(instructions))
