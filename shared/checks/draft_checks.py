"""Draft checks: what must not be in a reply, decided in code, before it may leave."""

import functools
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum

MAX_REPLY_CHARACTERS = 8_000
PHONE_DIGITS = 7  # shorter numbers are quantities, prices, rooms
LEFT_OUT = "[link left out]"
ECHO_WORDS = 9  # this many words in a row from the instructions are an echo, not a coincidence


class DraftCheck(StrEnum):
    """What is wrong with a draft, as a code."""

    EMPTY = "empty"
    TOO_LONG = "too_long"
    FOREIGN_LINK = "foreign_link"
    FOREIGN_ADDRESS = "foreign_address"
    FOREIGN_NUMBER = "foreign_number"
    PLACEHOLDER = "placeholder"
    REMARK = "remark"
    INSTRUCTIONS = "instructions"
    KEY = "key"
    MARKUP = "markup"
    BLANK_LINES = "blank_lines"
    INVISIBLE = "invisible"


SENTENCES: Mapping[DraftCheck, str] = {
    DraftCheck.EMPTY: "it is empty",
    DraftCheck.TOO_LONG: f"it is longer than {MAX_REPLY_CHARACTERS} characters",
    DraftCheck.FOREIGN_LINK: "it contains a link from neither the thread nor approved knowledge",
    DraftCheck.FOREIGN_ADDRESS: "it contains an address from neither the thread nor approved knowledge",
    DraftCheck.FOREIGN_NUMBER: "it contains a phone or account number from neither the thread nor knowledge",
    DraftCheck.PLACEHOLDER: "it contains a placeholder",
    DraftCheck.REMARK: "it begins with a remark about the draft",
    DraftCheck.INSTRUCTIONS: "it repeats the instructions",
    DraftCheck.KEY: "it contains something that looks like a key",
    DraftCheck.MARKUP: "it contains markup or an image",
    DraftCheck.BLANK_LINES: "it contains a long run of blank lines",
    DraftCheck.INVISIBLE: "it contains invisible characters",
}

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
TOKEN_LETTERS = 28
_LONG_TOKEN = re.compile(rf"(?<![\w/+-])[\w/+-]{{{TOKEN_LETTERS},}}={{0,2}}")
# Joiners belong to emoji and to some scripts, one at a time.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\u3164\ufeff\uffa0\ufff9-\ufffb]"
    "|[\U000e0000-\U000e0fff\ud800-\udfff]|[\u200c\u200d]{2}|[\ufe00-\ufe0f]{2}|[\x00-\x08\x0b-\x1f\x7f]"
)
GAP_LINES = 8
_GAP = re.compile(rf"(?:\n[^\S\n]*){{{GAP_LINES}}}")  # what follows is out of the approver's view
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")


def find_failed_checks(
    reply_markdown: str, known_texts: Sequence[str], known_addresses: Collection[str], instructions: str
) -> tuple[DraftCheck, ...]:
    """Say which checks a draft fails; empty when it may leave.

    `known_texts` are the thread and the knowledge as the draft saw them; a link, address, phone number or
    IBAN must be in them.
    """
    if len(reply_markdown) > MAX_REPLY_CHARACTERS:
        return (DraftCheck.TOO_LONG,)
    known = _plain("\n".join(known_texts))
    draft = _plain(reply_markdown)
    # A known key format is never repeated; another long random-looking token only if the thread has it.
    known_format = _SECRET_PHRASE.search(draft) or _SECRET_WORD.search(draft)
    tokens = [match.group() for match in _LONG_TOKEN.finditer(_URL.sub(" ", draft))]
    random_looking = [token for token in tokens if re.search(r"\d", token) and re.search("[A-Za-z]", token)]
    # No markup are `<https://...>` and `<name@host>`, judged as links, and code spans. Code stays in
    # where a backtick could pair with one of another line.
    markup = re.sub(r"<(?:https?://[^>\s]+|[^>\s@]+@[^>\s]+)>", " ", reply_markdown)
    if not ("``" in markup or "\\`" in markup or any(line.count("`") % 2 for line in markup.split("\n"))):
        markup = re.sub("`[^`]*`", " ", markup)
    checks: Mapping[DraftCheck, bool] = {
        DraftCheck.EMPTY: not reply_markdown.strip(),
        DraftCheck.FOREIGN_LINK: _KnownLinks(known, known_addresses).leaves_out(draft),
        DraftCheck.FOREIGN_ADDRESS: not find_addresses(draft)
        <= find_addresses(known) | {address.lower() for address in known_addresses},
        DraftCheck.FOREIGN_NUMBER: _has_foreign_number(draft, known),
        DraftCheck.PLACEHOLDER: any(match.group() not in known for match in _PLACEHOLDER.finditer(draft)),
        DraftCheck.REMARK: _LEAD_IN.match(reply_markdown) is not None,
        DraftCheck.INSTRUCTIONS: not _find_runs(reply_markdown).isdisjoint(
            _find_instruction_runs(instructions)
        ),
        DraftCheck.KEY: known_format is not None or any(token not in known for token in random_looking),
        DraftCheck.MARKUP: _MARKUP.search(markup) is not None,
        DraftCheck.BLANK_LINES: _GAP.search(reply_markdown) is not None,
        DraftCheck.INVISIBLE: _INVISIBLE.search(reply_markdown) is not None,
    }
    return tuple(check for check, fails in checks.items() if fails)


def find_addresses(text: str) -> set[str]:
    """Every email address in a text, in lower case."""
    return {match.group().lower().rstrip(".") for match in _ADDRESS.finditer(text)}


def drop_foreign_links(text: str, known_texts: Sequence[str]) -> str:
    """The text without the links, images included, that are in none of the known texts."""
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
    links = [match.group() for match in (*_URL.finditer(text), *_BARE_DOMAIN.finditer(text))]
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


def _has_foreign_number(draft: str, known: str) -> bool:
    """Numbers of seven digits and more must be in the thread, whole or group by group; dates and times
    of day are free.
    """
    found = [match.group() for match in _NUMBER.finditer(_DATE.sub(" ; ", draft))]
    numbers = [number for number in found if len(re.sub(r"\D", "", number)) >= PHONE_DIGITS]
    runs = {re.sub(r"\D", "", match.group()) for match in _NUMBER.finditer(known)}
    groups = set(re.findall(r"\d+", known))
    for number in numbers:
        digits = re.sub(r"\D", "", number)
        if not groups.issuperset(re.findall(r"\d+", number)) and not any(digits in run for run in runs):
            return True
    accounts = [re.sub(r"[\s-]", "", match.group()).upper() for match in _IBAN.finditer(draft)]
    known_plain = re.sub(r"[\s-]", "", known).upper()
    return any(account not in known_plain for account in accounts)


def _find_runs(text: str) -> set[tuple[str, ...]]:
    """Every run of ECHO_WORDS words in the text."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + ECHO_WORDS]) for start in range(len(words) - ECHO_WORDS + 1)}


# A profile's instructions are the same for all of its emails.
_find_instruction_runs = functools.lru_cache(maxsize=64)(_find_runs)
