"""Contacts: links, hosts, email addresses, and numbers to call or to pay to, as a text shows them."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from shared.checks.characters import SEPARATOR, fold, separate
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
# Emphasis that is none, within a name; in the path of a link it belongs to the link.
_STRAY = re.compile(
    r"((?<![\w.-])[\w-]{1,63}(?:\.[\w-]{1,63}){0,7}\.[^\W\d_]{2,63}(?::\d{2,5})?/\S{1,2000})|[*~`]{1,4}"
)
_BROKEN_NAME = re.compile(r"(?<=[^\W_]\.)[\n\t](?=(?:com|net|org|info|biz|co\.[a-z]{2})(?![^\W_]))")
_BROKEN_HYPHENATED = re.compile(r"(?<![\w-])(\w{1,40}-[\w-]{1,40}\.)[\n\t](?=[a-z]{2,10}(?![^\W_]))")
_END = ".,;:!?*_~'\")"
_IPV6 = re.compile(
    r"(?<![\w:.])(?=[0-9a-fA-F:]{0,39}::)(?=[0-9a-fA-F:]{0,39}[0-9a-fA-F])[0-9a-fA-F:]{3,39}(?![\w:])"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
# Not every four numbers: the parts of a version begin lower.
_IP = re.compile(rf"(?<![\w.])(?=10\.|1\d\d\.|2\d\d\.){_OCTET}(?:\.{_OCTET}){{3}}(?!\.?\w)")

# Not hosts, though their last part is a top-level domain.
_ABBREVIATIONS = frozenset([
    "asp.net", "ado.net", "vb.net", "ml.net", "f#.net", "dr.med", "bl.med", "dipl.ing", "ing.st",
    "prof.em", "co.ltd", "co.kg", "e.kfm", "th.ds", "m.in", "m.st", "p.es", "c.so", "p.za", "n.ro",
    "e.kr", "f.kr", "st.th", "st.tv", "sig.na", "gent.ma", "gent.mo", "art.no", "best.no", "cat.no",
    "id.no", "item.no", "kat.no", "order.no", "part.no", "po.no", "ref.no", "reg.no", "tel.no",
    "art.nr", "best.nr", "hr.nr", "id.nr", "kd.nr", "ord.nr", "org.nr", "ref.nr", "tel.nr",
])  # fmt: skip
_UNITS = frozenset({"am", "cm", "kg", "km", "mm", "pm"})  # "10.30.am"
_ORDINALS = frozenset({"do", "er", "mo", "ro", "sz", "th", "to", "tv"})  # after one digit: "3.er", "2.th"

_MARKUP = re.compile(r"[*_~`\\]+")
_ESCAPE = re.compile(r"\\(?=[!-/:-@\[-`{-~])")
_EMPHASIS = re.compile(r"(?<![^\s(\[<\"',;:])[*_~`]{1,4}|[*_~`]{1,4}(?![^\s)\]>\"',;:.!?])")
_GROUP = re.compile(r"\d+")
_BETWEEN = frozenset(" \u00a0-./()·•|_*~+',")
_BETWEEN_PARTS = _BETWEEN | frozenset(f":;=&\u2192{CELL}")  # of a number that begins as one to call
_PART = re.compile(rf"[;=&\u2192{CELL}]")
_MAX_BETWEEN = 3
_INTERNATIONAL = re.compile(r"\+\d{7,15}")
_RUN = re.compile(r"\d[\d \u00a0./()|·•'+\n,-]{0,80}")
_MAX_GROUPS = 14
_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
_TO = r"\s?[-/]\s?"
_NEXT_YEARS = "|".join(f"{year:02}/{(year + 1) % 100:02}" for year in range(100))  # "2026/27"
_DATE = re.compile(
    rf"(?<![\d.,])(?:"
    rf"{_YEAR}(?:-{_MONTH}-{_DAY}|/{_MONTH}/{_DAY}|\.\s?{_MONTH}\.\s?{_DAY}\.?(?:-{_DAY}\.?)?)"
    rf"|(?:{_DAY}\.?{_TO})?{_DAY}(?:\.\s?{_MONTH}\.\s?|/{_MONTH}[/ -]|-{_MONTH}-){_YEAR}"
    rf"|{_DAY}[./]{_MONTH}\.?{_TO}{_DAY}[./]{_MONTH}[./]{_YEAR}"
    rf"|{_MONTH}/{_DAY}/{_YEAR}|{_YEAR}{_TO}{_YEAR}|(?:19|20)(?:{_NEXT_YEARS}))"
    rf"(?!\d)(?![./]\d)(?!-\d{{3}})"
)
_SHORT_DATE = rf"{_DAY}[./]\s?{_MONTH}(?:\.|[./]\d\d)?"
_HOUR = r"(?:2[0-4]|[01]?\d)"
_TIME = (
    rf"(?:{_HOUR}:[0-5]\d:[0-5]\d(?:[.,]\d{{1,3}})?(?:\s?[+-](?:0\d|1[0-4]):?(?:00|30|45))?"
    rf"|{_HOUR}[.:][0-5]\d)"
)
_SPAN = rf"(?:{_TIME}|{_HOUR})\s?-\s?(?:{_TIME}|{_HOUR})"
_SPANS = re.compile(rf"{_SPAN}(?:(?:\s?[,/]\s?|\s){_SPAN}){{0,3}}")
_DATES = re.compile(
    rf"{_SHORT_DATE}(?:(?:\s?-\s?|\s?/\s?(?={_DAY}\.)){_SHORT_DATE})?"
    rf"(?::?\s(?:{_SPAN}(?:\s{_SPAN})?|{_TIME}))?|{_TIME}|{_DAY}[./]{_MONTH}[./][23]\d\s{_HOUR}"
)
_CLOCK = re.compile(rf"({_HOUR})(?:[.:](\d\d))?")
_LETTER = r"[^\W\d_]"
_CURRENCY = (
    rf"(?:[€$£¥₹₩₽₴₺₪円元원]|บาท|دينار|ريال|(?<!{_LETTER})(?:zł(?:otych)?|zl|EUR|[Ee]uro[as]?|USD|GBP|CHF|SEK|NOK|DKK|PLN|CZK|HUF|RON|"
    r"BGN|RUB|UAH|TRY|JPY|CNY|KRW|INR|THB|VND|IDR|BRL|kr|kron(?:er|or)|Kč|Kc|korun|Ft|forint|lei|лв|лева|руб(?:л\w{1,3})?|грн|гривень|TL|"
    rf"Rp|Rs|đ|ש\"ח)(?!{_LETTER}))"
)
_AMOUNT_AFTER = re.compile(
    rf"{_CURRENCY}\s?(?:\d{{1,3}}(?:[., ']\d{{3}}){{0,3}}|\d{{1,9}})(?:[.,]\d\d?)?(?!\d)"
)
_AMOUNT_BEFORE = re.compile(
    rf"(?<![\d.,'])(?:\d{{1,3}}(?:[., ']\d{{3}}){{1,3}}|\d{{1,9}})(?:[.,]\d\d?)?[.,]?-?\s?{_CURRENCY}"
)
_STANDARD = re.compile(
    r"(?<![A-Za-z])(?:ISO|IEC|EN|DIN|NF|BS|UNE|UNI|SFS|ČSN|PN|NBR|ABNT|IEEE|ASTM|JIS|GB/T|ГОСТ|ДСТУ|RFC|СТО)"
    r"[ /-]?[1-9]\d{2,4}(?:-[1-9]\d{0,2}(?:-[1-9]\d?)?)?(?:[.:-](?:19|20)\d\d|\.\d)?(?!-?\d)"
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
    broken = _BROKEN_NAME.sub("", _BROKEN.sub("", _STRAY.sub(r"\1", plain)))
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
        rest = _OPAQUE.sub(SEPARATOR, text)
        for found in _URL.findall(rest):
            self.add_place(found.rstrip(_END))
        rest = _URL.sub(SEPARATOR, rest)
        self.addresses.update(map(normalise_address, _ADDRESS.findall(rest)))
        rest = _ADDRESS.sub(SEPARATOR, rest)
        self.addresses.update(found.lower().rstrip(".") for found in _HANDLE.findall(rest))
        rest = _HANDLE.sub(SEPARATOR, rest)
        for pattern in (_IPV6, _IP):
            self.hosts.update(pattern.findall(rest))
        return _NAME.sub(self._take_name, rest)

    def _take_name(self, match: re.Match[str]) -> str:
        """Note the host in a dotted name, as far as its last top-level domain, unless it is no host."""
        rest = (match["rest"] or "").rstrip(_END)
        whole = match.group()[: match.end() - match.start() - len(match["rest"] or "")]
        name = whole.lstrip("-_")
        labels = [label.strip("_") for label in name.lower().split(".")]
        if ".-" in name or "-." in name:  # "Mo.-Do."
            return match.group()
        if all(label.isdigit() for label in labels):
            if not rest or len(labels) != 4:  # noqa: PLR2004 - the parts of an address
                return match.group()
            self.add_place(name + rest)
            return SEPARATOR
        last = len(labels) - 1
        while last and labels[last] not in top_level_domains():
            after = name.split(".")[last]  # the next sentence, without a space, or emphasis
            last = last - 1 if after[:1].isupper() or after.startswith("_") else 0
        host, domain = ".".join(labels[: last + 1]), labels[last]
        # Mail programs make a link of every other name, however short it is and whatever follows.
        is_measure = all(label.isdigit() for label in labels[:last]) and (
            domain in _UNITS or (domain in _ORDINALS and len(host) == len("2.th"))
        )
        is_word = (host in _ABBREVIATIONS or is_measure) and not rest.startswith(("/", "?", "#"))
        if not last or is_word:
            return match.group()
        self.add_place(host + rest if whole.lower().strip("_-").endswith(host) else host)
        return SEPARATOR


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
    return to_ascii_host(text.strip(".")).rstrip(".")


def find_addresses(text: str) -> set[str]:
    """Every email address in a text, as `parse_address` gives it."""
    return {to_ascii_host(match.group().rstrip(".")) for match in _ADDRESS.finditer(separate(text))}


def find_numbers(text: str) -> Iterator[Number]:
    """Runs of seven digits and more that are neither date nor time, amount or standard."""
    plain = _AMID_NUMBER_LINES.sub(r" \1 ", text.replace("(0)", " "))
    plain = _NUMBER_LINE.sub(" ", plain)
    for pattern in (_STANDARD, _DATE, _AMOUNT_AFTER, _AMOUNT_BEFORE):
        plain = pattern.sub(SEPARATOR, plain)
    for between in (_BETWEEN, _BETWEEN_PARTS):
        for groups, whole, is_international in _join_groups(plain, between):
            is_call = is_international or (groups[0].startswith("0") and len(groups[0]) > 1)
            is_long = sum(map(len, groups)) >= MIN_DIGITS and (is_call or between is _BETWEEN)
            # Dates with their hours, or opening hours one after another.
            clocks = {part.strip(): _CLOCK.findall(part) for part in _PART.split(whole)}
            is_time = all(
                _DATES.fullmatch(part)
                or (
                    _SPANS.fullmatch(part)
                    and (
                        clock == sorted(clock, key=lambda time: (int(time[0]), time[1]))
                        or all(minute in ("00", "30") for _, minute in clock)
                    )
                )
                for part, clock in clocks.items()
            )
            if is_long and not is_time:
                yield Number(groups, whole, is_international)


def _join_groups(
    text: str, allowed: frozenset[str] = _BETWEEN
) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """The runs of groups of digits: the groups, the whole, and whether a plus stands before it."""
    run: list[re.Match[str]] = []
    for match in (*_GROUP.finditer(text), None):
        if match is not None and run:
            between = text[run[-1].end() : match.start()]
            if len(between) <= _MAX_BETWEEN and allowed.issuperset(between) and ", " not in between:
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
        text = "\n".join(texts)
        # As it is written and as it is shown: `_` within a link or an address belongs to it.
        shown = _EMPHASIS.sub("", _ESCAPE.sub("", text))
        contacts = read_contacts(text if shown == text else f"{text}\n{shown}")
        plain = fold(_MARKUP.sub("", text))
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
        wholes = (Number(*found).spellings for found in _join_groups(separate(plain).replace("(0)", " ")))
        return cls(
            contacts,
            contacts.hosts | hosts,
            frozenset(runs),
            frozenset().union(*wholes),
            re.sub(r"[\W_]", "", plain).upper(),
        )

    @classmethod
    def join(cls, parts: Sequence["Known"]) -> "Known":
        """What several sources show together."""
        shown = [part.contacts for part in parts]
        contacts = Contacts(
            frozenset().union(*(one.places for one in shown)),
            frozenset().union(*(one.hosts for one in shown)),
            frozenset().union(*(one.addresses for one in shown)),
            tuple(number for one in shown for number in one.numbers),
            tuple(account for one in shown for account in one.accounts),
        )
        return cls(
            contacts,
            frozenset().union(*(part.hosts for part in parts)),
            frozenset().union(*(part.runs for part in parts)),
            frozenset().union(*(part.wholes for part in parts)),
            " ".join(part.squeezed for part in parts),
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
