"""Contacts: links, hosts, email addresses, and numbers to call or to pay to, as a text shows them."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from shared.checks.characters import fold, separate
from shared.checks.rendering import CELL, Link, top_level_domains
from shared.domain import to_ascii_host

MIN_WHOLE = 5  # a known number beside another one
MIN_DIGITS = 7  # shorter numbers are quantities, prices, rooms

_URL = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}:(?://|\\\\)[^\s<>\"{}|^`\[\]、。」』]{1,2000}"
)
_OPAQUE = re.compile(
    r"(?<![A-Za-z0-9])(?:mailto|tel|sms|javascript|data|payto|skype|whatsapp|tg):[^\s<>\"]{1,2000}",
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}"
)
_HANDLE = re.compile(r"(?<![\w@.])@[A-Za-z][A-Za-z0-9_.]{2,30}")
_NAME = re.compile(
    r"(?<![\w-])[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}(?P<rest>:\d{2,5}(?:/[^\s<>\"、。」』]{0,2000})?|[/?#][^\s<>\"、。」』]{0,2000})?"
)
_DEFANGED = re.compile(
    r"(?<=[^\W_])\s?(?:[\[({]\s?(?:\.|dot|punkt|punto|point)\s?[\])}]|\s(?:dot|punkt|punto|point)(?=\s(?:com|org|info|biz|co|io)(?![^\W_]))|\s\.(?=\s(?:com|net|org|info|biz)(?![^\W_])))\s?",
    re.IGNORECASE,
)
_DEFANGED_AT = re.compile(r"(?<=[^\W_])\s?[\[({]\s?(?:at|@|ät)\s?[\])}]\s?(?=[^\W_])", re.IGNORECASE)
_BROKEN = re.compile(r"(?<=[@/_-])[\n\t](?=[^\W_])|(?<=[^\W_])[\n\t](?=[@./_-][^\W_])")
_STRAY = re.compile(r"[*~`]{1,4}")  # emphasis that is none, within a word
_BROKEN_NAME = re.compile(r"(?<=[^\W_]\.)[\n\t](?=(?:com|net|org|info|biz|co\.[a-z]{2})(?![^\W_]))")
_BROKEN_HYPHENATED = re.compile(r"(?<![\w-])(\w{1,40}-[\w-]{1,40}\.)[\n\t](?=[a-z]{2,10}(?![^\W_]))")
_END = ".,;:!?*_~'\")"
_IPV6 = re.compile(
    r"(?<![\w:.])(?=[0-9a-fA-F:]{0,39}::)(?=[0-9a-fA-F:]{0,39}[0-9a-fA-F])[0-9a-fA-F:]{3,39}(?![\w:])"
)
_IP = re.compile(r"(?<![\w.])(?:10|127|169|172|192)(?:\.\d{1,3}){3}(?!\.?\w)")

# Not hosts, though their last part is a top-level domain.
_ABBREVIATIONS = frozenset(
    [
        "asp.net",
        "ado.net",
        "vb.net",
        "ml.net",
        "f#.net",
        "dr.med",
        "dipl.ing",
        "co.ltd",
        "e.kfm",
        "ing.st",
        "prof.em",
        "bl.med",
        "th.ds",
        "art.no",
        "art.nr",
        "best.nr",
        "kd.nr",
        "tel.nr",
        "hr.nr",
        "id.nr",
        "p.es",
        "m.in",
    ]
)
_NUMBERED = frozenset({"no", "nr"})
_SHORT = 4

_MARKUP = re.compile(r"[*_~`\\]+")
_GROUP = re.compile(r"\d+")
_BETWEEN = frozenset(" \u00a0-./()·•|_*~+',")
_MAX_BETWEEN = 3
_INTERNATIONAL = re.compile(r"\+\d{7,15}")
_RUN = re.compile(r"\d[\d \u00a0./()|·•'+\n,-]{0,80}")
_MAX_GROUPS = 14
_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
_TO = r"\s?[-/]\s?"
_DATE = re.compile(
    rf"(?<![\d.,])(?:"
    rf"{_YEAR}(?:-{_MONTH}-{_DAY}|/{_MONTH}/{_DAY}|\.\s?{_MONTH}\.\s?{_DAY}\.?(?:-{_DAY}\.?)?)"
    rf"|(?:{_DAY}\.?{_TO})?{_DAY}(?:\.\s?{_MONTH}\.\s?|/{_MONTH}[/ -]|-{_MONTH}-){_YEAR}"
    rf"|{_DAY}[./]{_MONTH}\.?{_TO}{_DAY}[./]{_MONTH}[./]{_YEAR}"
    rf"|{_MONTH}/{_DAY}/{_YEAR}|{_YEAR}{_TO}{_YEAR}|{_YEAR}/\d\d)"
    rf"(?!\d)(?![./]\d)(?!-\d{{3}})"
)
_SHORT_DATE = rf"{_DAY}[./]\s?{_MONTH}(?:\.|[./]\d\d)?"
_HOURS = r"(?:[01]?\d|2[0-4])(?:[.:][0-5]\d)?"
_TIMES = re.compile(
    rf"(?:{_SHORT_DATE}|{_HOURS})(?:\s?[-/]\s?(?:{_SHORT_DATE}|{_HOURS})|\s(?:{_SHORT_DATE}|{_HOURS})){{0,3}}"
)
_CURRENCY = (
    r"(?:€|\$|£|¥|₹|₩|₽|₴|₺|₪|zł|zl|EUR|USD|GBP|CHF|SEK|NOK|DKK|PLN|CZK|HUF|RON|BGN|RUB|UAH|TRY|JPY|CNY|KRW|INR|THB|VND|IDR|BRL|"
    r"kr|Kč|Kc|Ft|lei|лв|руб|грн|TL|Rp|Rs|đ|円|元|원|บาท|دينار|ريال|ש\"ח)"
)
_AMOUNT_AFTER = re.compile(
    rf"{_CURRENCY}\s?(?:\d{{1,3}}(?:[., ']\d{{3}}){{0,3}}|\d{{1,9}})(?:[.,]\d\d?)?(?!\d)"
)
_AMOUNT_BEFORE = re.compile(
    rf"(?<![\d.,'])(?:\d{{1,3}}(?:[., ']\d{{3}}){{1,3}}|\d{{1,9}})(?:[.,]\d\d?)?[.,]?-?\s?{_CURRENCY}"
)
_STANDARD = re.compile(
    r"(?<![A-Za-z])(?:ISO|IEC|EN|DIN|NF|BS|UNE|UNI|SFS|ČSN|PN|NBR|ABNT|IEEE|ASTM|JIS|GB/T|ГОСТ|ДСТУ|RFC|СТО)"
    r"[ /-]?\d{3,5}(?:-\d{1,3}){0,2}(?:[.:-](?:19|20)\d\d|\.\d)?(?!\d)"
)
_NUMBER_LINE = re.compile(r"\n(?=[+(]?\d[\d ()./-]{0,40}(?:\n|$))")
_AMID_NUMBER_LINES = re.compile(r"\n(\d[\d ()./-]{0,40})\n(?=\d)")
_ACCOUNT_START = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Z]{2}[ -]?\d{2}(?=[\s|./_*-]{0,3}[A-Z0-9])|[a-z]{2}\d{2}(?=[a-z0-9]))"
)
_ACCOUNT_GROUP = re.compile(r"[\s\-.|_*/]{0,3}([A-Z0-9]{1,34})(?![a-z])")
_SMALL_ACCOUNT_GROUP = re.compile(r"([a-z0-9]{1,34})")
_ACCOUNT_LENGTHS = {
    code: int(length)
    for code, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18FR27GB22GE22GI23"
        "GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LI21LT20LU20LV21MC27MD24ME22MK19MR27MT31NL18NO15PK24"
        "PL28PS29PT25QA29RO24RS22SA24SE24SI19SK24SM27TN24TR26UA29VA22XK20",
    )
}


@dataclass(frozen=True, slots=True)
class Number:
    """A number to call or to pay to: its groups of digits, and how it is written."""

    groups: tuple[str, ...]
    text: str
    is_international: bool = False

    @property
    def spellings(self) -> frozenset[str]:
        """Its digits, without zeros before the area code, with the country code and without."""
        digits = "".join(self.groups)
        sizes = range(1, 4) if self.is_international else ()
        return frozenset(digits[size:].lstrip("0") for size in (0, *sizes))


@dataclass(frozen=True, slots=True)
class Contacts:
    """What a text shows to go to, to write to, to call and to pay to.

    `places` are links and names of hosts with a path, without scheme and `www.`; `hosts` names without one.
    """

    places: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    numbers: tuple[Number, ...] = ()
    accounts: tuple[str, ...] = ()


def read_contacts(text: str, links: Sequence[Link] = ()) -> Contacts:
    """Everything of a shown text and of its links' targets."""
    plain = fold(text)
    found = _Finder()
    for link in links:
        found.add_link(link)
    broken = _BROKEN_NAME.sub("", _BROKEN.sub("", _STRAY.sub("", plain)))
    broken = _BROKEN_HYPHENATED.sub(r"\1", broken)
    joined = _DEFANGED_AT.sub("@", _DEFANGED.sub(".", broken))
    rest = found.read_names(separate(plain))
    if joined != plain:
        found.read_names(separate(joined))
    return Contacts(
        frozenset(found.places),
        frozenset(found.hosts),
        frozenset(found.addresses),
        (*found.numbers, *find_numbers(rest)),
        tuple(find_accounts(separate(plain))),
    )


class _Finder:
    """Collects the contacts of a text whose names are apart from letters of other scripts."""

    def __init__(self) -> None:
        self.places: set[str] = set()
        self.hosts: set[str] = set()
        self.addresses: set[str] = set()
        self.numbers: list[Number] = []

    def add_link(self, link: Link) -> None:
        """Note where a link leads."""
        if link.is_found:
            return  # it is read in the text, where letters of other scripts end it
        target = link.target.strip()
        scheme, _, rest = target.partition(":")
        if scheme.lower() == "mailto" and "?" not in rest:
            self.addresses.add(normalise_address(unquote(rest)))
        elif scheme.lower() in ("tel", "sms") and not re.search("[^0-9+().;%/-]", rest):
            self.numbers.append(Number(tuple(_GROUP.findall(rest)), rest, rest.startswith("+")))
        else:
            self.add_place(target)

    def add_place(self, target: str) -> None:
        place = normalise_place(target)
        if "/" in place or "?" in place or "#" in place or ":" in place or not place:
            self.places.add(place)
        else:
            self.hosts.add(place)

    def read_names(self, text: str) -> str:
        """Note all names in a text; what is left of it."""
        for found in _OPAQUE.findall(text):
            self.add_link(Link(found.rstrip(_END), ""))
        rest = _OPAQUE.sub(" ; ", text)
        for found in _URL.findall(rest):
            self.add_place(found.rstrip(_END))
        rest = _URL.sub(" ; ", rest)
        self.addresses.update(map(normalise_address, _ADDRESS.findall(rest)))
        rest = _ADDRESS.sub(" ; ", rest)
        self.addresses.update(found.lower().rstrip(".") for found in _HANDLE.findall(rest))
        rest = _HANDLE.sub(" ; ", rest)
        for pattern in (_IPV6, _IP):
            self.hosts.update(pattern.findall(rest))
        return _NAME.sub(self._take_name, rest)

    def _take_name(self, match: re.Match[str]) -> str:
        rest = (match["rest"] or "").rstrip(_END)
        name = match.group()[: match.end() - match.start() - len(match["rest"] or "")]
        host = find_host(name, rest, match.string[match.end() : match.end() + 3])
        if not host:
            return match.group()
        self.add_place(host + rest if name.lower().strip("_-").endswith(host) else host)
        return " ; "


def find_host(name: str, rest: str = "", after: str = "") -> str:
    """The host in a dotted name, as far as its last top-level domain; empty when it is none."""
    name = name.lstrip("-_")
    if ".-" in name or "-." in name:  # "Mo.-Do."
        return ""
    labels = [label.strip("_") for label in name.lower().split(".")]
    is_ip = all(label.isdigit() for label in labels)
    if is_ip:
        return name if rest and len(labels) == 4 else ""  # noqa: PLR2004 - the parts of an address
    last = len(labels) - 1
    while last and labels[last] not in top_level_domains():
        last = last - 1 if name.split(".")[last][:1].isupper() else 0  # the next sentence, without a space
    host = ".".join(labels[: last + 1])
    if not last or host in _ABBREVIATIONS:
        return ""
    before, domain = labels[:last], labels[last]
    if rest.startswith(("/", "?", "#", ":")) or before[0] == "www":
        return host
    is_abbreviation = all(len(label) == 1 for label in before) and domain not in (
        "com",
        "org",
        "net",
        "co",
        "me",
    )
    is_number = domain in _NUMBERED and len(labels[0]) <= _SHORT and re.match(r"[.:]?\s?[\d:]", after)
    is_measure = all(label.isdigit() for label in before) and len(domain) == 2  # noqa: PLR2004 - kg, am, pm
    return "" if is_abbreviation or is_number or is_measure else host


def normalise_place(target: str) -> str:
    """A link in one spelling: host in ASCII, no scheme, no `www.`; a `?` before what is no link to a page."""
    try:
        parts = urlsplit(target if "://" in target or target.startswith("//") else f"//{target}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return f"?{target}"
    is_web = parts.scheme in ("http", "https", "")
    if not is_web or not host or "@" in parts.netloc or "\\" in target or re.search(r"\s", target):
        return f"?{target}"
    host = to_ascii_host(host.lower()).removeprefix("www.").rstrip(".")
    port_text = f":{port}" if port not in (None, 80, 443) else ""
    path = unquote(parts.path).rstrip("/")
    query = f"?{unquote(parts.query)}" if parts.query else ""
    fragment = f"#{unquote(parts.fragment)}" if parts.fragment else ""
    return f"{host}{port_text}{path}{query}{fragment}".lower()


def normalise_address(text: str) -> str:
    """An email address in one spelling."""
    return to_ascii_host(text.lower().strip(".")).rstrip(".")


def find_addresses(text: str) -> set[str]:
    """Every email address in a text, in lower case."""
    return {match.group().lower().rstrip(".") for match in _ADDRESS.finditer(separate(text))}


def find_numbers(text: str) -> Iterator[Number]:
    """Runs of seven digits and more that are neither date nor time, amount or standard."""
    plain = _AMID_NUMBER_LINES.sub(r" \1 ", text.replace("(0)", " "))
    plain = _NUMBER_LINE.sub(" ", plain)
    for pattern in (_STANDARD, _DATE, _AMOUNT_AFTER, _AMOUNT_BEFORE):
        plain = pattern.sub(" ; ", plain)
    for groups, whole, is_international in _join_groups(plain):
        if sum(map(len, groups)) >= MIN_DIGITS and not _TIMES.fullmatch(whole):
            yield Number(groups, whole, is_international)
    for line in plain.split("\n"):  # over the cells of a table only what begins as a phone number does
        if CELL in line:
            for groups, whole, is_international in _join_groups(line.replace(CELL, " ")):
                if sum(map(len, groups)) >= MIN_DIGITS and (groups[0].startswith("0") or is_international):
                    yield Number(groups, whole, is_international)


def _join_groups(text: str) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """The runs of groups of digits: the groups, the whole, and whether a plus stands before it."""
    run: list[re.Match[str]] = []
    for match in (*_GROUP.finditer(text), None):
        if match is not None and run:
            between = text[run[-1].end() : match.start()]
            if len(between) <= _MAX_BETWEEN and _BETWEEN.issuperset(between) and ", " not in between:
                run.append(match)
                continue
        if run:
            before = text[max(0, run[0].start() - 2) : run[0].start()]
            whole = text[run[0].start() : run[-1].end()]
            yield tuple(found.group() for found in run), whole, before.strip(" (").endswith("+")
        run = [match] if match is not None else []


def find_accounts(text: str) -> Iterator[str]:
    """International account numbers: their letters and digits, over the cells and lines of a text."""
    plain = text.replace(CELL, " ").replace("\n", " ")
    for start in _ACCOUNT_START.finditer(plain):
        account, end = re.sub("[ -]", "", start.group()), start.end()
        group_of = _SMALL_ACCOUNT_GROUP if account.islower() else _ACCOUNT_GROUP
        length = _ACCOUNT_LENGTHS.get(account[:2].upper(), 0)
        while len(account) < length and (group := group_of.match(plain, end)):
            account, end = account + group[1], group.end()
        if length and len(account) >= length and sum(map(str.isdigit, account)) >= MIN_DIGITS:
            yield account[:length].upper()


@dataclass(frozen=True, slots=True)
class Known:
    """What the texts of some sources show, to compare a draft with."""

    contacts: Contacts
    hosts: frozenset[str]
    runs: frozenset[str]
    wholes: frozenset[str]
    squeezed: str = field(repr=False)

    @classmethod
    def read(cls, texts: Collection[str]) -> "Known":
        """Read the texts of some sources."""
        text = _MARKUP.sub("", "\n".join(texts))
        contacts, plain = read_contacts(text), fold(text)
        hosts = {re.split("[/?#:]", place, maxsplit=1)[0] for place in contacts.places}
        hosts |= {address.rpartition("@")[2] for address in contacts.addresses}
        runs: set[str] = set()
        for match in _INTERNATIONAL.finditer(plain):
            runs |= Number((match.group()[1:],), "", is_international=True).spellings
        for match in _RUN.finditer(plain):
            # The digits of all groups that follow one another.
            groups = _GROUP.findall(match.group().replace("(0)", " "))[: 4 * _MAX_GROUPS]
            for first in range(len(groups)):
                for last in range(first + 1, min(first + _MAX_GROUPS, len(groups)) + 1):
                    runs.add("".join(groups[first:last]).lstrip("0"))
        wholes = ("".join(groups) for groups, *_ in _join_groups(separate(plain).replace("(0)", " ")))
        return cls(
            contacts,
            contacts.hosts | hosts,
            frozenset(runs),
            frozenset(digits.lstrip("0") for digits in wholes),
            re.sub(r"[\W_]", "", plain).upper(),
        )

    def has_number(self, number: Number) -> bool:
        """Whether the number is there, however it is grouped, or whole numbers that it is made of."""
        if not self.runs.isdisjoint(number.spellings):
            return True
        unknown, start, groups = 0, 0, number.groups
        while start < len(groups):
            sizes = range(min(len(groups) - start, _MAX_GROUPS), 0, -1)
            pieces = (groups[start : start + n] for n in sizes)
            whole = next((piece for piece in pieces if "".join(piece).lstrip("0") in self.wholes), ())
            is_whole = sum(map(len, whole)) >= MIN_WHOLE
            unknown = 0 if is_whole else unknown + len(groups[start])
            if unknown >= MIN_DIGITS:
                return False
            start += len(whole) if is_whole else 1
        return True
