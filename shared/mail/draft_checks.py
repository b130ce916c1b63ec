"""Draft checks: what must not stand in a reply, decided in code, before it may leave."""

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence

MAX_REPLY_CHARACTERS = 8_000
PHONE_DIGITS = 7  # shorter numbers are quantities, prices, rooms
LEFT_OUT = "[link left out]"
ECHO_WORDS = 9  # this many words in a row from the instructions are an echo, not a coincidence

# Top-level domains under which a bare name is taken for a link; mail programs link those by themselves.
_LINKED_TLDS = (
    "com|net|org|info|biz|io|ai|app|dev|co|me|tv|cc|ly|gg|to|sh|xyz|top|site|online|shop|store|tech|cloud|live|"
    "link|click|example|test|invalid|onion|eu|de|at|ch|fr|uk|it|es|nl|be|pl|se|no|dk|fi|ie|pt|cz|ru|ua|tr|cn|jp|"
    "kr|in|br|mx|au|nz|ca|us|za|ng|tk|ml|ga|cf|gq|pw|su"
)
_REST = r"[^\s<>\"')\]}`]"
_URL = re.compile(
    rf"\b[a-z][a-z0-9+.-]{{1,20}}:(?://|\\\\){_REST}+|\b(?:mailto|tel|javascript|data):\S+", re.IGNORECASE
)
# A name under such a domain, in small or in capital letters ("thanks.It" is neither); any name that starts
# with www or has a path, unless it is a file's; and a numeric address with a port or a path.
_BARE_DOMAIN = re.compile(
    r"(?<![\w@-])(?<![\w@-]\.)(?:"
    rf"(?:[\w-]+\.)+(?:{_LINKED_TLDS}|{_LINKED_TLDS.upper()})(?![A-Za-z0-9-])(?:[/?#:]{_REST}*)?"
    rf"|(?:[\w-]+\.)+(?!(?:js|py|ts|md|html|json|xml|ya?ml|txt|csv|pdf)\b)[A-Za-z]{{2,}}/{_REST}+"
    rf"|[wW]{{3}}\.(?:[\w-]+\.)+[A-Za-z]{{2,}}(?:[/?#:]{_REST}*)?"
    rf"|\d{{1,3}}(?:\.\d{{1,3}}){{3}}[:/]{_REST}+)"
)
_LINK_TARGET = re.compile(r"\]\(\s*<?([^)\s>]+)|^\s{0,3}\[[^\]\n]+\]:\s*(\S+)", re.MULTILINE)
_ADDRESS = re.compile(r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]+@[\w-]+(?:\.[\w-]+)+")
_NUMBER = re.compile(r"(?<![\w])\+?\(?\d[\d\s()./·•-]{5,40}\d(?!\w)")
_DATE = re.compile(
    r"(?<![\d./])(?<!\d-)(?:\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./]\s?\d{1,2}[./]\s?\d{2,4}|\d{1,2}\.\d{1,2}\."
    r"|\d{1,2}[:.]\d{2}\s*-\s*\d{1,2}[:.]\d{2})(?![./]?\d)(?!-\d{3})"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}\b|\b[a-z]{2}\d{2}[a-z0-9]{11,30}\b")
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
_SECRET_WORD = re.compile(
    r"\b(?:(?:sk|pk|rk)[-_][\w-]{16,}|mm_(?:live|test)_\w+|whsec_\w+|gh[pousr]_\w{20,}|xox[abprs]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}\b|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,})",
    re.IGNORECASE,
)
_SECRET_PHRASE = re.compile(
    r"\b(?:(?:AccountKey|SharedAccessKey|SharedAccessSignature)\s*[=:]\s*\S{6,}"
    r"|(?:api[_ -]?key|password|passwort|secret)\s*=\s*\S{6,}"
    r"|(?:api[_ -]?key|password|passwort|secret)\s*:\s*(?=\S*(?:\d|[^\w\s]\w))\S{6,}"  # no plain word
    r"|Bearer\s+[\w.~+/-]{16,})|-----BEGIN [A-Z ]+-----",
    re.IGNORECASE,
)
_LONG_TOKEN = re.compile(r"(?<![\w/+-])[\w/+-]{28,}={0,2}")
# Joiners belong to emoji and to some scripts, one at a time.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\u3164\ufeff\uffa0\ufff9-\ufffb]"
    "|[\U000e0000-\U000e0fff\ud800-\udfff]|[\u200c\u200d]{2}|[\ufe00-\ufe0f]{2}|[\x00-\x08\x0b-\x1f\x7f]"
)
_GAP = re.compile(r"(?:\n[^\S\n]*){8}")  # what follows is out of the approver's view
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")


def find_draft_problems(
    reply_markdown: str, known_texts: Sequence[str], known_addresses: Collection[str], instructions: str
) -> tuple[str, ...]:
    """Say what is wrong with a draft, one short phrase each; empty when it may leave.

    `known_texts` are the thread and the knowledge as the draft saw them; a link, address, phone number or
    IBAN must stand in them. The phrases never quote the draft: they end in tags and logs.
    """
    if len(reply_markdown) > MAX_REPLY_CHARACTERS:
        return (f"it is longer than {MAX_REPLY_CHARACTERS} characters",)
    known = _plain("\n".join(known_texts))
    draft = _plain(reply_markdown)
    checks: dict[str, bool] = {
        "it is empty": not reply_markdown.strip(),
        "it holds a link that is not in the thread": _has_foreign_link(draft, known, known_addresses),
        "it holds an address that is not in the thread": _has_foreign_address(draft, known, known_addresses),
        "it holds a phone or account number that is not in the thread": _has_foreign_number(draft, known),
        "it holds a placeholder": _has_foreign_placeholder(draft, known),
        "it begins with a remark about the draft": _LEAD_IN.match(reply_markdown) is not None,
        "it repeats the instructions": _echoes(reply_markdown, instructions),
        "it holds something that looks like a key": _has_secret(draft, known),
        "it holds markup or an image": _MARKUP.search(_without_code_and_autolinks(reply_markdown))
        is not None,
        "it holds a gap of many empty lines": _GAP.search(reply_markdown) is not None,
        "it holds invisible characters": _INVISIBLE.search(reply_markdown) is not None,
    }
    return tuple(problem for problem, found in checks.items() if found)


def find_addresses(text: str) -> set[str]:
    """Every email address in a text, in lower case."""
    return {match.group().lower().rstrip(".") for match in _ADDRESS.finditer(text)}


def drop_foreign_links(text: str, known_texts: Sequence[str]) -> str:
    """The text without the links, images included, that stand in none of the known texts."""
    known, plain = _KnownLinks(_plain("\n".join(known_texts)), ()), _plain(text)
    if not known.leaves_out(plain):
        return text
    for pattern in (_URL, _BARE_DOMAIN):
        plain = pattern.sub(
            lambda match: LEFT_OUT if known.leaves_out(match.group()) else match.group(), plain
        )
    return plain


def _plain(text: str) -> str:
    """The text with wide letters, dashes and dots as the plain ones that they are read as."""
    narrow = unicodedata.normalize("NFKC", text).translate(_DASHES)
    return re.sub(r"(?<=[A-Za-z0-9])[\u3002\uff61](?=[A-Za-z])", ".", narrow)


def _links(text: str) -> Iterator[str]:
    """Every link in a text, scheme and `www.` taken off, lower case: the same place is the same string."""
    links = [match.group() for pattern in (_URL, _BARE_DOMAIN) for match in pattern.finditer(text)]
    links += [group for match in _LINK_TARGET.finditer(text) for group in match.groups() if group]
    for link in links:
        bare = re.sub(r"^(?:https?://)?(?:www\.)?", "", link.strip().lower())
        yield bare.lstrip("*_").rstrip(".,;:!?*_/")


class _KnownLinks:
    """The links of the known texts: a link must be one of them; a bare host may also be that of a link or
    an address in them.
    """

    def __init__(self, known: str, known_addresses: Collection[str]) -> None:
        self._links = set(_links(known))
        self._hosts = {re.split("[/?#:]", link, maxsplit=1)[0] for link in self._links}
        self._hosts |= {a.rpartition("@")[2] for a in (*known_addresses, *find_addresses(known))}

    def leaves_out(self, text: str) -> bool:
        """Whether the text has a link that is none of them."""
        return any(link not in self._links and link not in self._hosts for link in _links(text))


def _has_foreign_link(draft: str, known: str, known_addresses: Collection[str]) -> bool:
    return _KnownLinks(known, known_addresses).leaves_out(draft)


def _has_foreign_address(draft: str, known: str, known_addresses: Collection[str]) -> bool:
    allowed = find_addresses(known) | {address.lower() for address in known_addresses}
    return not find_addresses(draft) <= allowed


def _has_foreign_number(draft: str, known: str) -> bool:
    """Numbers of seven digits and more must stand in the thread, whole or group by group; dates and times
    of day are free.
    """
    found = [match.group() for match in _NUMBER.finditer(_DATE.sub(" ; ", draft))]
    numbers = [number for number in found if len(re.sub(r"\D", "", number)) >= PHONE_DIGITS]
    if numbers:
        runs = {re.sub(r"\D", "", match.group()) for match in _NUMBER.finditer(known)}
        groups = set(re.findall(r"\d+", known))
        for number in numbers:
            digits = re.sub(r"\D", "", number)
            if not groups.issuperset(re.findall(r"\d+", number)) and not any(digits in run for run in runs):
                return True
    accounts = [re.sub(r"[\s-]", "", match.group()).upper() for match in _IBAN.finditer(draft)]
    known_plain = re.sub(r"[\s-]", "", known).upper() if accounts else ""
    return any(account not in known_plain for account in accounts)


def _has_foreign_placeholder(draft: str, known: str) -> bool:
    return any(match.group() not in known for match in _PLACEHOLDER.finditer(draft))


def _has_secret(draft: str, known: str) -> bool:
    """A known key format is never repeated; another long random-looking token only if the thread has it."""
    if _SECRET_PHRASE.search(draft) or _SECRET_WORD.search(draft):
        return True
    no_links = _URL.sub(" ", draft)
    tokens = (match.group() for match in _LONG_TOKEN.finditer(no_links))
    return any(
        re.search(r"\d", token) and re.search(r"[A-Za-z]", token) and token not in known for token in tokens
    )


def _without_code_and_autolinks(text: str) -> str:
    """The text less what is not markup: `<https://...>` and `<name@host>`, judged as links, and code spans.

    Code stays in where a backtick could pair with one of another line.
    """
    text = re.sub(r"<(?:https?://[^>\s]+|[^>\s@]+@[^>\s]+)>", " ", text)
    if "``" in text or "\\`" in text or any(line.count("`") % 2 for line in text.split("\n")):
        return text
    return re.sub("`[^`]*`", " ", text)


def _echoes(draft: str, instructions: str) -> bool:
    """Whether ECHO_WORDS words in a row of the draft are in a row in the instructions, too."""
    return not _find_runs(draft).isdisjoint(_find_runs(instructions))


def _find_runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + ECHO_WORDS]) for start in range(len(words) - ECHO_WORDS + 1)}
