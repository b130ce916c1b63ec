"""Tells mail that a program wrote (automatic replies, bounces, no-reply senders) from people's mail."""

import re
import unicodedata
from collections.abc import Mapping
from itertools import chain

from shared.domain import MAX_HEADER_CHARACTERS
from shared.mail import machine_phrases

_BULK_PRECEDENCE = frozenset({"bulk", "list", "junk", "auto_reply"})
_SUPPRESSED = frozenset({"all", "autoreply", "oof"})
# Letters that are the same to a reader: a dotless i, and Arabic letters that Persian keyboards write.
_SAME_LETTERS = str.maketrans({"ı": "i", "ی": "ي", "ک": "ك", "ـ": "", "’": "'", "‘": "'"})
# What gateways and lists put in front: [External], {Spam?}, ***SPAM***, EXT:, 【外部】.
_TAG = re.compile(
    r"""\s*(?:
    [\[{<【(](?P<inside>[^\[\]{}<>【】()]{1,60})[\]}>】)]:?
    | (?P<edge>[*#=_~-]{1,6})(?P<between>[^*#=_~:]{1,30})(?P=edge)
    | (?:ext|extern[eo]?|external(?:\ e?-?mail)?|(?:suspected\ )?spam|junk|bulk|caution)(?::|\ -)
    )\s*""",
    re.VERBOSE,
)
_DASHES = re.compile("[‐‑‒–—―−]")
_SEPARATOR = re.compile(r"\s-+\s|[|/,;:()~·•]")
# Gmail puts the words that a person chose in front of the answered subject: "Out of office Re: Your offer".
_REPLY_MARK = re.compile(r"\s(?:re|aw|sv|antw|vs|odp|ynt|rif|fwd?)$")
# Exim numbers the message that waits; Domino says when its user returns.
_SERVER_SENTENCE = re.compile(r"warning: message \S+ delayed|.{1,100} is out of the office \(returning ")
_MICROSOFT_EXCHANGE = re.compile("microsoftexchange[0-9a-f]{32}")
_MAX_JOINED = 6  # parts of a local part: vui-long-khong-tra-loi has five


def _fold(text: str) -> str:
    """Take out of a text what does not count in a comparison: case, accents, invisible marks, white space."""
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(letter for letter in letters if unicodedata.category(letter) not in ("Mn", "Cf"))
    return " ".join(_DASHES.sub("-", kept.translate(_SAME_LETTERS)).split())


def _fold_phrase(text: str) -> str:
    """Fold a phrase further: hyphens, spaces and outer punctuation vary from program to program."""
    return re.sub(r"[-\s]+", "", _fold(text)).strip(".\"'*")


def _fold_all(table: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    return frozenset(_fold_phrase(phrase) for phrase in chain.from_iterable(table.values()))


_AUTOMATIC_REPLIES = _fold_all(machine_phrases.AUTOMATIC_REPLIES)
_BEFORE_COLON = _AUTOMATIC_REPLIES | _fold_all(machine_phrases.UNDELIVERABLE)
_ALONE = _AUTOMATIC_REPLIES | _fold_all(machine_phrases.ABSENCES) | _fold_all(machine_phrases.BOUNCES)
_OPENINGS = tuple(_fold(opening) for opening in machine_phrases.SERVER_OPENINGS)
_SENDER_PARTS = machine_phrases.MACHINE_PARTS | _fold_all(machine_phrases.NO_REPLY)


def is_machine_sender(address: str) -> bool:
    """Say whether a bare address is that of a program, or one that asks for no answer in some language."""
    local_part = _fold(address.rpartition("@")[0])
    parts = [part.strip("0123456789") for part in re.split(r"[-_.+=]+", local_part)]
    joined = {"".join(parts[at : at + count]) for at in range(len(parts)) for count in range(1, _MAX_JOINED)}
    return bool(
        joined & _SENDER_PARTS
        or "".join(parts) in machine_phrases.MACHINE_LOCAL_PARTS
        or _MICROSOFT_EXCHANGE.fullmatch(local_part)
    )


def is_machine_subject(subject: str, sender: str) -> bool:
    """Say whether a subject is an automatic reply's or a bounce's, given the From value it came with.

    Only what programs write word for word counts, at the very beginning or as the whole subject: people, too,
    write about automatic replies and failed deliveries. "Re:" in front is a person's.
    """
    text = _fold(subject[:MAX_HEADER_CHARACTERS])
    start = 0
    while tag := _TAG.match(text, start):
        start = tag.end()
        if _fold_phrase(tag["inside"] or tag["between"] or "") in _AUTOMATIC_REPLIES:
            return True
    text = text[start:].lstrip("*")
    if text.startswith(_OPENINGS) or _SERVER_SENTENCE.match(text):
        return True
    head, colon, _ = text.partition(":")
    names = frozenset(re.findall(r"\w+", _fold(sender[:MAX_HEADER_CHARACTERS])))
    before_colon = colon != "" and _consists_of(_REPLY_MARK.sub("", head), _BEFORE_COLON, names)
    return before_colon or _consists_of(text, _ALONE, names)


def _consists_of(text: str, phrases: frozenset[str], names: frozenset[str]) -> bool:
    """Say whether a text is phrases, in one language or several, and names of its sender."""
    parts = [part.strip("! ") for part in _SEPARATOR.split(text)]
    rests = [part for part in parts if part and _fold_phrase(part) not in phrases]
    named = []
    for rest in rests:
        words = rest.split()
        while words and words[0] in names:
            del words[0]
        while words and words[-1] in names:
            del words[-1]
        named.append(_fold_phrase("".join(words)))
    is_found = any(named) or len(rests) < sum(part != "" for part in parts)
    return is_found and all(rest in phrases for rest in named if rest)


def is_machine_mail(headers: Mapping[str, str]) -> bool:
    """Say whether headers (lower-case names) mark automatic or list mail, after RFC 3834 and practice.

    `Auto-Submitted: no` and `X-Auto-Response-Suppress: None` are what a person's mail may carry.
    """
    values = {name: value.strip().lower() for name, value in headers.items()}
    suppressed = {part.strip() for part in values.get("x-auto-response-suppress", "").split(",")}
    return bool(
        values.get("auto-submitted", "no").partition(";")[0].strip() not in ("no", "")
        or values.get("precedence") in _BULK_PRECEDENCE
        or suppressed & _SUPPRESSED
        or values.get("return-path") == "<>"
        or values.get("content-type", "").startswith("multipart/report")
        or values.keys() & {"list-id", "list-unsubscribe", "x-autoreply", "x-autorespond", "x-loop"}
    )
