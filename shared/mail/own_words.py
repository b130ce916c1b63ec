"""What the sender wrote: new words apart from quotes, signature and disclaimers; links without wrappers."""

import html
import json
import re
import string
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from urllib.parse import parse_qs, unquote, urlsplit

from mailparser_reply.constants import MAIL_LANGUAGES
from mailparser_reply.parser import EmailMessage, EmailReply

# What the library reads of an email: its patterns take quadratic time in the length of a line.
MAX_LINE_CHARACTERS = 300
MAX_READ_CHARACTERS = 12_000
MIN_LIST_LINES = 3
MAX_SIGNATURE_LINES = 15
MAX_SIGNATURE_TRIES = 3  # a closing word may begin a sentence, too
MIN_DISCLAIMER_CHARACTERS = 100
MAX_LAST_PARAGRAPHS = 6
MAX_WRAPPINGS = 3  # of one link

_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")  # as Markdown writes what would be a mark
_TIME_OR_ADDRESS = re.compile(r"\d[:.h]\d\d|@")
_RULE = re.compile(r"[-_*=\s]{3,}|-{3,}[^-]{3,60}-{3,}")  # drawn, or "----- Original message -----"
# What a mail program calls sender, time, recipient and subject of a quoted email, in languages that the
# library has no header for.
_MORE_LABELS = re.compile(
    r"^[* ]*(?:差出人|送信者|送信日時|日時|宛先|件名|发件人|发送时间|收件人|主题|寄件者|收件者|主旨"
    r"|Lähettäjä|Lähetetty|Vastaanottaja|Aihe|От|От кого|Отправлено|Кому|Тема|Feladó|Küldve|Címzett|Tárgy"
    r"|Kimden|Gönderildi|Kime|Konu)[* ]*[:：][* ]*"
)
_DELIMITER = re.compile(r"[-_]{2,3}")
# What no signature has: a line of eight words, a sentence of five, a question, a full stop of Japanese.
MANY_WORDS, SENTENCE_WORDS = 8, 5
_QUESTION = re.compile(r"[?？。！]")
# A disclaimer speaks of secrecy and of whom the email is for.
_SECRECY = re.compile(
    r"confiden[tc]|privileged|vertraulich|riservat|vertrouwelijk|poufn|důvěrn|fortrolig|konfiden|sekretess"
    r"|luottamuksell|конфиденц|gizli|機密|秘密|机密|保密|기밀",
    re.IGNORECASE,
)
_ADDRESSEE = re.compile(
    r"intended|addressee|recipient|meant for|empfänger|adressat|destinat|geadresseerde|adresat|příjemc"
    r"|mottagare|modtager|mottaker|vastaanottaj|получател|адресат|alıcı|受信者|受取人|宛|收件人|接收|수신",
    re.IGNORECASE,
)
_OUTSIDE = re.compile(r"\b(?:external|outside|extern\w*|außerhalb|extérieur|esterno)\b", re.IGNORECASE)
_LINK = re.compile(r"https?://[^\s<>()\[\]\"'`]{1,4000}", re.IGNORECASE)
_PROOFPOINT_SIGNS = str.maketrans("-_", "%/")
_RUN_LENGTHS = f"{string.ascii_uppercase}{string.ascii_lowercase}{string.digits}-_"


@dataclass(frozen=True, slots=True)
class OwnWords:
    """An email's text in two parts, each line in one of them: nothing of it is lost.

    `rest`: earlier emails, signature and disclaimers, in their order.
    """

    own: str
    rest: str = ""


def split_own_words(text: str) -> OwnWords:
    """Part the sender's new words from the rest, whether they stand above, below or between what they answer.

    Lines end with a line feed alone. A text in which nothing seems new is the sender's own as a whole: who
    forwards an email means what it says.
    """
    lines = text.split("\n")
    shown = [_ESCAPED.sub(r"\1", line[: 2 * MAX_LINE_CHARACTERS]).strip() for line in lines]
    new = _find_new_lines([line[:MAX_LINE_CHARACTERS] for line in shown])
    own, rest = (
        "\n".join(line for line, is_new in zip(lines, new, strict=True) if is_new is wanted).strip()
        for wanted in (True, False)
    )
    return OwnWords(own, rest) if own else OwnWords(text.strip())


def _find_new_lines(lines: Sequence[str]) -> list[bool]:
    """Say of each line whether it is new."""
    sample: list[int] = []  # what the library is given: one line of each run of quoted and of empty lines
    room = MAX_READ_CHARACTERS
    for number, line in enumerate(lines):
        is_repeated = sample and line[:1] in ("", ">") and lines[sample[-1]][:1] == line[:1]
        room -= 0 if is_repeated else len(line) + 1
        if room < 0:
            break
        if not is_repeated:
            sample.append(number)
    texts = [
        ">" if lines[number].startswith(">") else _MORE_LABELS.sub("From:", lines[number])
        for number in sample
    ]
    judged = dict(zip(sample, _judge(texts), strict=True))
    new, is_new = [], True
    for number, line in enumerate(lines):
        is_quoted = line.startswith(">")
        if line and not is_quoted:  # what was not given to the library goes with what stands above it
            is_new = judged.get(number, is_new)
        new.append(is_new and not is_quoted and not _RULE.fullmatch(line))
    return new


def _judge(texts: Sequence[str]) -> list[bool]:
    """Say of each line of a whole email whether it is new; quoted lines are ">" alone."""
    new = [True] * len(texts)
    position, is_new = 0, True
    for reply in _read(texts):
        content, header = _list_lines(reply.content), _list_lines(reply.headers or "")
        left = range(position, len(texts))
        # The library also parts a header: its pieces are no whole lines.
        whole = [number for number in left if content and texts[number] == content[0]]
        found = whole or [number for number in left if content and content[0] in texts[number]]
        if not found:
            continue
        # A customer's own list may look like a header: "From: Hamburg, To: Oslo, Date: 3 May".
        if len(header) >= MIN_LIST_LINES and not _TIME_OR_ADDRESS.search(" ".join(header)):
            header = []
        numbers = [number for number in range(found[0], len(texts)) if texts[number]][: len(content)]
        position = numbers[-1]
        below = numbers[len(header) :]
        if header:
            # Then quote marks say how far the other email goes.
            is_new = bool(below) and texts[below[0]] == ">"
        cut = {
            number for number, after in pairwise(below)
            if texts[after] == ">" and texts[number].endswith((":", "："))
            and _TIME_OR_ADDRESS.search(texts[number])
        }  # fmt: skip
        cut |= _find_disclaimers(texts, below, reply)
        cut |= _find_signature(texts, [number for number in below if number not in cut])
        for number in numbers:
            new[number] = is_new and number in below and number not in cut
    return new


def _find_disclaimers(texts: Sequence[str], numbers: Sequence[int], reply: EmailReply) -> set[int]:
    """Find the paragraphs at the beginning and the end of an email that a mail server put there."""
    paragraphs: list[list[int]] = []
    for number in numbers:
        if not paragraphs or paragraphs[-1][-1] != number - 1:
            paragraphs.append([])
        paragraphs[-1].append(number)
    labelled = [_list_lines(disclaimer)[0] for disclaimer in reply.disclaimers or () if disclaimer]
    found: set[int] = set()
    for paragraph in (*paragraphs[:1], *paragraphs[1:][-MAX_LAST_PARAGRAPHS:]):
        text = " ".join(texts[number] for number in paragraph)
        is_labelled = any(label in text for label in labelled)
        is_secret, names_addressee = _SECRECY.search(text), _ADDRESSEE.search(text)
        if (is_labelled and (is_secret or names_addressee or _OUTSIDE.search(text))) or (
            len(text) >= MIN_DISCLAIMER_CHARACTERS and is_secret and names_addressee
        ):
            found.update(paragraph)
    return found


def _find_signature(texts: Sequence[str], numbers: Sequence[int]) -> set[int]:
    """Find the signature at the end: anything short after a delimiter, no prose after a closing."""
    numbers = numbers[-3 * MAX_SIGNATURE_LINES :]
    for _ in range(MAX_SIGNATURE_TRIES):
        found = _list_lines(_read([texts[number] for number in numbers])[-1].signatures or "")
        if not found:
            break
        block = numbers[-len(found) :]
        is_marked = _DELIMITER.fullmatch(texts[block[0]])
        # Prose: seven words and more, a sentence of four that ends, or a question.
        lines = [(texts[number], len(texts[number].split())) for number in block]
        has_prose = any(
            words >= MANY_WORDS
            or (words >= SENTENCE_WORDS and line.rstrip(" \"')”»").endswith((".", "!", "…")))
            or _QUESTION.search(line)
            for line, words in lines
        )
        if len(block) <= MAX_SIGNATURE_LINES and (is_marked or not has_prose):
            return set(block)
        numbers = block  # its first line now begins the text, where the library looks for no signature
    return set()


def _read(lines: Sequence[str]) -> list[EmailReply]:
    """Let the library find earlier emails, signatures and disclaimers. What it cannot read is one email."""
    text = "\n".join(lines)
    try:
        replies = EmailMessage(text=text, languages=[*MAIL_LANGUAGES], keep_hyphen_lists=True).read().replies
    except Exception:  # noqa: BLE001 - a text that the library fails on must not stop its email
        return [EmailReply(content=text)]
    return list(replies)


def _list_lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def show_link_targets(text: str) -> str:
    """The text with the target in place of each link that a mail filter or a mailing tool wrapped around it.

    A link that does not hold its target stays as it is.
    """
    return _LINK.sub(lambda link: _find_target(link[0]), text)


def _find_target(link: str) -> str:
    for _ in range(MAX_WRAPPINGS):
        try:
            host = urlsplit(link).hostname or ""
            wrapper = next(
                (read for name, read in _WRAPPERS.items() if f".{host}".endswith(f".{name}")), lambda _: ""
            )
            target = wrapper(link)
        except (ValueError, TypeError, KeyError, RecursionError):  # no link of this kind after all
            break
        if not _LINK.fullmatch(target):
            break
        link = target
    return link


def _read_parameter(*names: str) -> Callable[[str], str]:
    """A reader of the first of these parameters that a link has."""

    def read(link: str) -> str:
        values = parse_qs(urlsplit(html.unescape(link)).query)
        return next((values[name][0] for name in names if name in values), "")

    return read


def _read_path(link: str) -> str:
    """The part of the path that is an escaped link."""
    return next((unquote(part) for part in link.split("/")[3:] if part.startswith("http")), "")


def _read_proofpoint(link: str) -> str:
    """URL Defense, in its three versions: https://help.proofpoint.com, "URL Decoder API"."""
    if "/v3/" not in link:
        target = _read_parameter("u")(link)
        return unquote(target.translate(_PROOFPOINT_SIGNS)) if "/v2/" in link else target
    inner, end, rest = link.partition("/v3/__")[2].partition("__;")
    letters, mark, _ = rest.partition("!")
    if not inner or not end or not mark:
        return ""
    hidden = iter(urlsafe_b64decode(letters + "==").decode())  # "*" stands for one of these, "**X" for a run
    return re.sub(
        r"\*(?:\*(.))?",
        lambda mark: "".join(islice(hidden, _RUN_LENGTHS.index(mark[1]) + 2 if mark[1] else 1)),
        re.sub(r"^(https?:/)(?=[^/])", r"\1/", inner),
    )


def _decode_parameter(name: str, link: str) -> str:
    return urlsafe_b64decode(_read_parameter(name)(link) + "==").decode()


# By host, subdomains included.
_WRAPPERS: Mapping[str, Callable[[str], str]] = {
    "safelinks.protection.outlook.com": _read_parameter("url"),
    "safelinks.protection.office365.us": _read_parameter("url"),
    "urldefense.proofpoint.com": _read_proofpoint,
    "urldefense.com": _read_proofpoint,
    "urldefense.us": _read_proofpoint,
    # No more than the host is in the link.
    "mimecast.com": lambda link: f"https://{_read_parameter('domain')(link)}",
    "mimecastprotect.com": lambda link: f"https://{_read_parameter('domain')(link)}",
    "linkprotect.cudasvc.com": _read_parameter("a"),
    "protection.sophos.com": lambda link: _decode_parameter("u", link),
    "secure-web.cisco.com": _read_path,
    "google.com": lambda link: _read_parameter("q", "url")(link) if "/url?" in link else "",
    "awstrack.me": _read_path,
    "mandrillapp.com": lambda link: str(json.loads(json.loads(_decode_parameter("p", link))["p"])["url"]),
}
