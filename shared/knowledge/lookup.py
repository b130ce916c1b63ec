"""A look-up: what a profile says of one, and the facts that its answer becomes."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from shared.domain import LookedUp, parse_address
from shared.knowledge.passages import LOOKED_UP, LOOKUP_MARK, Passage
from shared.model.prompting import clean_line
from shared.services.judged_https import check_host

ADDRESS, REFERENCE = "{address}", "{reference}"
MAX_VALUE_CHARACTERS = 300
MAX_LIST_VALUES = 20  # of a field that is a list
MAX_REFERENCE_CHARACTERS = 64
CONTINUE, WAIT = "continue", "wait"
EMPTY: tuple[Any, ...] = (None, "", [], {})  # what systems answer where they have nothing
DEFAULT_SCOPE = "/.default"  # what is added to an audience to ask for a token
_MISSING = object()
# How query parameters are called that services take keys in: api-key, accessToken, client_secret and so on.
# A url is no place for one: it is in the repository and in logs.
_KEY_PARAMETER = re.compile(
    r"(?:code|pass|pw)|.*(?:key|secret|token|passw(?:or)?d|passphrase|pwd|auth|authorization|jwt|sig|signature"
    r"|credentials?)\d*",
    re.IGNORECASE,
)

# Marks that some servers read as parts of a path or a query although they are percent-encoded.
_RISKY = re.compile(r"[/\\?#%\x00-\x20\x7f]|\.\.|^\.$")
# An address that is no query in the languages of databases and search engines, and ends no quote in one.
_PLAIN = re.compile(r"\w[\w.+=@-]*", re.ASCII)


class Result(StrEnum):
    """What a look-up gave for an email, as it is counted."""

    FACTS = "facts"
    NOTHING = "nothing"
    OTHER_CUSTOMER = "other_customer"
    MISMATCHED = "mismatched"
    REFUSED = "refused"
    NO_ANSWER = "no_answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says of one customer.

    `shown`: the shown fields, as label and text. `missing`: the paths that lead to no value though the answer
    is not empty there; `parts`: those of them that lead to an object or a list of such. `is_about_customer`:
    its address is the customer's; otherwise none of it is used. `has_address`: there is one. `is_unlike`: it
    lacks the address's field, or all that is shown, as after a mistake in a path.
    """

    shown: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    is_about_customer: bool = True
    has_address: bool = True
    is_unlike: bool = False

    @property
    def result(self) -> Result:
        """As it is counted."""
        if self.is_unlike:
            return Result.MISMATCHED
        if not self.is_about_customer:
            return Result.OTHER_CUSTOMER
        return Result.FACTS if self.shown else Result.NOTHING


@dataclass(frozen=True, slots=True)
class LookUp:
    """A read of a customer's facts from another system, as a mailbox's profile describes it.

    `url`: with `{address}`, the bare address that the reply goes to, or `{reference}`, what the pattern
    `references` finds in the email, or both. `show`: by label, the path of a field of the answer
    (`orders.0.status`). `address_field`: the path of the one that must be that address. `categories`: of the
    emails that it is for; empty for all. `only_for`: tags of the contacts that it is for; empty for all.
    `audience`: what the managed identity signs in to; or `secret`, the name of a secret that is sent in
    `header`. `ca_file`: a file with the authority of the server's certificate. `time_limit` is in seconds.

    Raises ValueError for what cannot work.
    """

    url: str
    show: tuple[tuple[str, str], ...]
    name: str = ""
    categories: tuple[str, ...] = ()
    only_for: tuple[str, ...] = ()
    references: str = ""
    address_field: str = ""
    audience: str = ""
    header: str = ""
    secret: str = field(default="", repr=False)
    ca_file: str = ""
    allow_private: bool = False
    time_limit: float = 3.0
    cache: timedelta = timedelta(0)
    on_failure: str = CONTINUE

    def __post_init__(self) -> None:
        _check_url(self.url)
        has_reference = REFERENCE in self.url
        if has_reference is not bool(self.references):
            raise ValueError(f"must have both {REFERENCE} in its url and references, or neither")
        if has_reference and not self.address_field:
            raise ValueError(
                "has references and no address_field: name the field of the answer that must be the sender's "
                "address, or every customer's facts could be asked for"
            )
        if bool(self.header) is not bool(self.secret):
            raise ValueError("must have both header and secret, or neither")
        if self.audience and self.header:
            raise ValueError("has both audience and header: sign in one way")
        if self.audience.endswith(DEFAULT_SCOPE):
            raise ValueError(f"has an audience that ends with {DEFAULT_SCOPE}: write it without")

    def build_passage(
        self, shown: Sequence[tuple[str, str]], at: datetime, reference: str = "", ordinal: str = ""
    ) -> Passage:
        """Its facts as a draft is shown them, under its name as people read it, and when they were read.

        `ordinal`: of the reference in the email, where there are several. The title does not have the
        reference itself: it is the sender's, and a title outlives a draft that is erased. The text has it,
        for the facts of two references to be told apart.
        """
        part = f" of the {ordinal} reference" if ordinal else ""
        name = self.name.replace("-", " ").capitalize()
        title = f"{name}{part}{LOOKED_UP}{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        is_named = reference.casefold() in (text.casefold() for _, text in shown)
        own = (("Reference", clean_line(reference, MAX_REFERENCE_CHARACTERS)),)
        fields = shown if is_named or not reference else (*own, *shown)
        text = "\n".join(f"{label}: {text}" for label, text in fields)
        return Passage(f"{LOOKUP_MARK}{self.name}", title, text)

    def build_url(self, address: str, reference: str = "") -> str:
        """The address to read; "" where the values could lead to another place, or another's facts.

        Databases take letters such as ä for a, and read marks such as `|` as a part of the query: then only
        the answer can tell whose it is.
        """
        is_quoted = "'" in unquote(self.url)  # there an apostrophe, as of O'Brien, ends the value
        if not (self.address_field or _PLAIN.fullmatch(address if is_quoted else address.replace("'", ""))):
            return ""
        parts = [part for part, mark in ((address, ADDRESS), (reference, REFERENCE)) if mark in self.url]
        if len(reference) > MAX_REFERENCE_CHARACTERS or any(map(_RISKY.search, parts)) or not all(parts):
            return ""
        return self.url.replace(ADDRESS, quote(address, safe="")).replace(
            REFERENCE, quote(reference, safe="")
        )

    def read_facts(self, content: bytes, address: str) -> Answer:
        """What an answer says of the customer with this address. Raises ValueError for what is not JSON."""
        try:
            # Numbers stay as they are written: 12.50 is a price.
            answer = json.loads(content, parse_float=str, parse_int=str, parse_constant=str)
        except RecursionError:
            raise ValueError("it is nested too deep") from None
        if self.address_field:
            found = _find(answer, self.address_field)
            if not (isinstance(found, str) or found in EMPTY):
                where = (self.address_field,)
                in_parts = where if isinstance(found, dict | list) else ()
                return Answer((), where, in_parts, is_about_customer=False, is_unlike=True)
            its_address = parse_address(found or "")
            if its_address != address:
                return Answer(is_about_customer=False, has_address=bool(its_address))
        fields = [(label, path, _find(answer, path)) for label, path in self.show]
        missing = tuple(path for _, path, value in fields if _is_missing(value))
        parts = tuple(path for _, path, value in fields if path in missing and value is not _MISSING)
        shown = tuple((label, text) for label, _, value in fields if (text := _show(value)))
        return Answer(shown, missing, parts, is_unlike=not shown and len(missing) == len(fields))


@dataclass(frozen=True, slots=True)
class Facts:
    """What look-ups gave for one email: passages for its draft, and notes that say from when they are.

    `gaps`: what the draft is written without, and why, as its approver is told.
    """

    passages: tuple[Passage, ...] = ()
    looked_up: tuple[LookedUp, ...] = ()
    gaps: tuple[str, ...] = ()


NO_FACTS = Facts()


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("has a url that cannot be read: write it as https://HOST/PATH") from None
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError("has a url that is not https: write it as https://HOST/PATH")
    if parts.username is not None or parts.fragment or port == 0:
        raise ValueError("has a url with a user, a port 0 or a fragment: remove it")
    if not url.isascii() or any(character.isspace() for character in url):
        raise ValueError("has a url with spaces or letters outside ASCII: percent-encode them")
    rest = url.replace(ADDRESS, "").replace(REFERENCE, "")
    if "{" in rest or "}" in rest or "{" in parts.netloc:
        raise ValueError(
            f"may have {ADDRESS} and {REFERENCE} in its url, after the host, and no other braces"
        )
    if rest == url:
        raise ValueError(
            f"has neither {ADDRESS} nor {REFERENCE} in its url: what is the same for everybody "
            "belongs into the knowledge"
        )
    query = urlsplit(rest).query.replace(";", "&")  # which some servers take for the same
    for name, _ in parse_qsl(query):  # without {reference}, which may well be a code
        if _KEY_PARAMETER.fullmatch(name.strip()):
            raise ValueError(
                f"has a key in its url ({name}=): remove it there, store it as a secret, and name "
                "header and secret"
            )
    check_host(parts.hostname)


def _find(answer: Any, path: str) -> Any:
    """What the path leads to: None where a list ends before, or the answer is empty there."""
    for step in path.split("."):
        if answer in EMPTY:
            return None
        if isinstance(answer, dict):
            answer = answer.get(step, _MISSING)
        elif isinstance(answer, list) and step.isdecimal():
            answer = answer[int(step)] if int(step) < len(answer) else None
        else:
            return _MISSING
    return answer


def _is_missing(value: Any) -> bool:
    """Whether a path leads to nothing, or to a part of the answer that is no value."""
    parts = value if isinstance(value, list) else [value]
    return bool(parts) and all(part is _MISSING or (part and isinstance(part, dict | list)) for part in parts)


def _show(value: Any) -> str:
    """A value on one line; "" for what is no value."""
    values = value[:MAX_LIST_VALUES] if isinstance(value, list) else [value]
    return clean_line(", ".join(filter(None, map(_show_one, values))), MAX_VALUE_CHARACTERS)


def _show_one(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else ""
