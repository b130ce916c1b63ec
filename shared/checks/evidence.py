"""Evidence: what carries each sentence of a reply, found in the sources that it names."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import accumulate, takewhile, zip_longest

from shared.checks.agreement import Evidence, Gap, denies, find_gap, find_members
from shared.checks.lexicon import CJK, find_language, find_pattern, lower, plain
from shared.checks.values import CODE, NUMBER, Value, find_carriers, read_values
from shared.domain import Claim, JudgedClaim, Quote, Support
from shared.knowledge.passages import LOOKUP_MARK, TITLE_MARK

MAX_REPLY_CHARACTERS = 20_000
MAX_SOURCE_CHARACTERS = 200_000
MAX_QUOTE_CHARACTERS = 1_500
MAX_CLAIMS = 200
MAX_SENTENCES = 200  # of a reply that are judged; what lies beyond is asserted
MAX_VALUES = 50  # of a sentence; one with more is asserted
MAX_TOLD_VALUES = 500  # of the customer's that a sentence may repeat
MAX_ROWS = 100  # of a table, before and after a quote, with which it is compared
MAX_CELLS = 50
MAX_PLACES = 3  # at which a quote that occurs several times is looked at
MAX_PARTS = 8  # sentences or rows that a quote may touch
MAX_PART_CHARACTERS = 2_000
MAX_AROUND_CHARACTERS = 4_000  # of the source in which another passage is looked for
MAX_CLAIMS_OF_SENTENCE = 4
MAX_COURTESY_WORDS = 14
MAX_OPENING_CHARACTERS = 500  # of a document, in which the units of its tables may stand
MAX_EDGE_LINES = 3  # at the end of a reply: a closing, a name, a team
MAX_EDGE_WORDS = 8


class SourceKind(StrEnum):
    """Whose words a source is made of."""

    APPROVED = "approved"  # knowledge
    OURS = "ours"  # an email that we sent in the thread
    SENDER = "sender"  # inbound mail


@dataclass(frozen=True, slots=True)
class Source:
    """A text that the draft was shown, under the id by which a claim names it."""

    id: str
    kind: SourceKind
    title: str
    text: str = field(repr=False)

    @property
    def is_knowledge(self) -> bool:
        """Whether it is an approved passage: the same for every draft, and nothing personal, as facts are."""
        is_passage = self.kind is SourceKind.APPROVED and self.id.startswith("K")
        return is_passage and not self.title.startswith(LOOKUP_MARK)


def judge_claims(
    reply_markdown: str, claims: Sequence[Claim], sources: Sequence[Source]
) -> tuple[JudgedClaim, ...]:
    """Say of every sentence of a reply what carries it, in their order.

    A claim counts for the sentences of the reply that are in it, and for one of which it is the greater part.
    It carries one when its quote is in the source that it names and nothing in the sentence goes beyond the
    words there; several claims may carry a sentence together. What goes beyond the limits of this module, as
    sentences, characters or values, is asserted.
    """
    inbound = (source.text for source in sources if source.kind is SourceKind.SENDER)
    told = plain(" ; ".join(inbound))[:MAX_REPLY_CHARACTERS]
    told_values = read_values(told)[:MAX_TOLD_VALUES]
    shared = _Shared.read(told, sources)
    named = {claim.source for claim in claims}  # of many passages: only these are read
    documents = {source.id: _Document(source, shared) for source in sources if source.id in named}
    # The short lines at both ends that are no sentences: a greeting, a closing, a name.
    lines = [
        _strip_marks(line) for line in reply_markdown[:MAX_REPLY_CHARACTERS].splitlines() if line.strip()
    ]
    edges = {
        line
        for line in (*lines[:1], *lines[-MAX_EDGE_LINES:])
        if not line.endswith((".", ":", ";", "?", "。")) and len(line.split()) <= MAX_EDGE_WORDS
    }
    known = [(split_sentences(claim.sentence[:MAX_QUOTE_CHARACTERS]), claim) for claim in claims[:MAX_CLAIMS]]
    compact = [[_compact(plain(part)) for part in parts] for parts, _ in known]
    language = find_language(plain(reply_markdown[:MAX_PART_CHARACTERS]))
    judged: dict[str, JudgedClaim] = {}
    sentences = split_sentences(reply_markdown[:MAX_REPLY_CHARACTERS])
    for sentence in dict.fromkeys(sentences[:MAX_SENTENCES]):
        text = plain(sentence[: MAX_PART_CHARACTERS + 1])
        if len(sentence) > MAX_PART_CHARACTERS or len(read_values(text)) > MAX_VALUES:
            continue
        whole = _compact(text)
        own = [
            claim
            for claim, parts in zip(known, compact, strict=True)
            if any(part and part in whole and 2 * len(part) >= len(whole) for part in parts)
        ]
        if own:
            judged[sentence] = _judge(sentence, language, own[:MAX_CLAIMS_OF_SENTENCE], documents)
        else:
            is_edge = len(lines) > MAX_EDGE_LINES and sentence in edges
            is_free = is_courtesy(sentence, told, told_values, is_edge=is_edge)
            judged[sentence] = JudgedClaim(sentence, Support.FREE if is_free else Support.ASSERTED)
    return tuple(judged.get(sentence, JudgedClaim(sentence, Support.ASSERTED)) for sentence in sentences)


def _judge(
    sentence: str,
    language: str,
    claims: Sequence[tuple[Sequence[str], Claim]],
    documents: dict[str, "_Document"],
) -> JudgedClaim:
    """The best support that a sentence finds in the quotes of its claims, each by itself or all together.

    `language` is that of the reply.
    """
    text = plain(sentence)
    found = []
    for parts, claim in claims:
        document = documents.get(claim.source)
        if document is not None and (places := document.find(claim.quote)):
            found.append((parts, claim, document.source, places))
    ours = [entry for entry in found if entry[2].kind is not SourceKind.SENDER]
    for some, support in ((ours, Support.VERIFIED), (found, Support.FROM_SENDER)):
        for parts, claim, source, places in some:
            if any(_is_carried(text, language, parts, place) for place in places):
                return JudgedClaim(sentence, support, (Quote(source.title, claim.quote),))
        if len(some) < 2:  # noqa: PLR2004 - two together
            continue
        firsts = [places[0] for *_, places in some]
        together = replace(
            firsts[0],
            quote=" ; ".join(place.quote for place in firsts),
            body=" ; ".join(place.body for place in firsts),
            context=" ; ".join(place.context for place in firsts),
            names=" ; ".join(place.names for place in firsts),
            columns=tuple(column for place in firsts for column in place.columns),
            units=" ; ".join(place.units for place in firsts),
            other_rows=(),
            elsewhere="",
        )
        if _is_carried(text, language, (text,), together):
            quotes = tuple(Quote(source.title, claim.quote) for _, claim, source, _ in some)
            return JudgedClaim(sentence, support, quotes)
    claim = claims[0][1]
    named = documents.get(claim.source)
    return JudgedClaim(sentence, Support.ASSERTED, (Quote(named.source.title, claim.quote),) if named else ())


def _is_carried(text: str, language: str, parts: Sequence[str], place: Evidence) -> bool:
    """Whether a quote carries a sentence, one of several in its claim.

    Of several, one may deny something that another one does not: then the quote has as many such sentences.
    """
    gap = find_gap(text, place, language)
    if gap is not Gap.NEGATION or len(parts) == 1:
        return gap is None
    denials = [sum(denies(plain(part), "") for part in parts)]
    denials.append(sum(denies(part, place.language) for part in _split_line(place.quote)))
    return denials[0] == denials[1] and find_gap(plain(" ".join(parts)), place, language) is None


# ---- Sentences --------------------------------------------------------------------------------------

_END = re.compile(r"(?<=[.!?…])[\"'”»)*_]*\s+(?=[^a-z\s])|(?<=[。！？])\s*(?=[^」』）)\s])")
_NO_END = re.compile(
    r"(?:\b(?:z\.\s?b|bzw|ca|nr|no|dr|mr|mrs|ms|hr|fr|st|str|inkl|zzgl|max|min|e\.g|i\.e|approx|art|tel|godz|np"
    r"|ul|sr|sra|mme|p\.\s?ej|d\.\s?h|u\.\s?a|vs|incl|jan|feb|mar|apr|aug|sept?|oct|nov|dec|\w)"
    r"|\b(?:am|im|der|die|das|den|dem|des|vom|zum|zur|bis|ab|jede[rn]|le|el) \d{1,2})\.$",
    re.IGNORECASE,
)
_MARKS = re.compile(
    r"^\s{0,12}(?:[-*+•]|\d{1,3}[.)]|\((?:[a-z]|\d{1,2})\)|>)\s+|^\s{0,3}#{1,6}\s+"
    r"|\*{1,3}|`{1,3}|~~|(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w)"
)
_LINK = re.compile(r"!?\[([^\[\]\n]{0,300})\]\(<?([^()<>\s]{0,300})>?(?:[ \t][^()\n]{0,100})?\)")


def split_sentences(markdown: str) -> list[str]:
    """The sentences of a text without its Markdown marks; a row of a table is one sentence."""
    sentences = []
    for line in markdown.splitlines():
        if not re.fullmatch(r"[\s|:=*_-]*", line):
            sentences += _split_line(_strip_marks(line))
    return sentences


def _strip_marks(line: str) -> str:
    bare = _LINK.sub(lambda match: match[1] if match[1] == match[2] else f"{match[1]} {match[2]}", line)
    return _MARKS.sub("", bare).strip()


def _split_line(line: str) -> list[str]:
    if line.startswith("|"):
        return [line]
    parts, last = [], 0
    for match in _END.finditer(line):
        if not _NO_END.search(line[max(last, match.start() - 12) : match.start()]):
            parts.append(line[last : match.end()].strip())
            last = match.end()
    return [part for part in (*parts, line[last:].strip()) if part]


def is_courtesy(
    sentence: str, told: str = "", told_values: Sequence[Value] = (), *, is_edge: bool = False
) -> bool:
    """Whether a sentence has nothing in it that a source would have to carry.

    `told` is what the customer wrote, whose values (`told_values`) a sentence may repeat; `is_edge`: it is a
    short line at the beginning or end of the reply.
    """
    text = plain(sentence)
    low = lower(text)
    is_lead_in = low.endswith(":") and len(low.split()) <= MAX_COURTESY_WORDS
    values = [value for value in read_values(text) if not value.is_soft]
    if is_lead_in:  # "three questions:"
        values = [value for value in values if value.kinds != {NUMBER}]
    if not all(find_carriers(value, told_values, told) for value in values):
        return False
    if low.endswith("?"):
        return _only_asks(low)
    # It says that a colleague will answer what is open, or is a plain request.
    rest, admits = find_pattern("unclaimed", "admits").subn(" ", low)
    company, tells, please, asks = (
        find_pattern("unclaimed", key) for key in ("company", "tells", "please", "asks")
    )
    is_handed_over = hands_over(rest)
    is_open = (is_handed_over or admits) and not company.search(rest)
    is_request = please.search(low) and not company.search(low) and not tells.search(low)
    if (is_handed_over and asks.match(low)) or ((is_open or is_request) and not _states(rest)):
        return True
    if (is_lead_in or is_edge) and not _states(low):
        return True
    rest, count = find_pattern("courtesy", "all").subn(" ", low)
    if not count or len(rest.split()) > MAX_COURTESY_WORDS or any(CODE not in v.kinds for v in values):
        return False
    return not _grants(rest) and find_pattern("condition", "").search(rest) is None


def hands_over(sentence: str) -> bool:
    """Whether a sentence says that a colleague will look into something, and does not ask it."""
    low = lower(plain(sentence))
    keys = ("colleague", "looks_into")
    return not low.endswith("?") and all(find_pattern("unclaimed", key).search(low) for key in keys)


def promises(sentence: str) -> bool:
    """Whether a sentence says that a colleague, or who writes it, will look into something, write or call."""
    low = lower(plain(sentence))
    if low.endswith("?") or hands_over(sentence):
        return not low.endswith("?")
    is_own = find_pattern("unclaimed", "own_future").search(low) is not None
    return is_own and any(find_pattern("unclaimed", key).search(low) for key in ("looks_into", "calls"))


def _only_asks(low: str) -> bool:
    """Whether a question states nothing: it begins as one, and nothing around that is a statement."""
    unclaimed = {
        key: find_pattern("unclaimed", key)
        for key in ("asks", "inverts", "leads", "please", "interrogates", "reminds")
    }
    if unclaimed["reminds"].search(low):
        return False
    clauses = [clause.strip(" \"'(¿¡*") for clause in re.split(r"[,;:.!、]", low)]
    for index, clause in enumerate(clauses):
        bare = unclaimed["leads"].sub("", clause, count=1).strip() if index == 0 else clause
        is_opening = any(
            unclaimed[key].match(begin) for key in ("asks", "inverts") for begin in (bare, clause)
        )
        if is_opening or unclaimed["interrogates"].search(clause):
            return not any(map(_grants, clauses[:index] + clauses[index + 1 :]))
        is_lead = any(unclaimed[key].match(clause) for key in ("leads", "please"))
        if not (is_lead or re.search(f"[{CJK}]", clause) or find_pattern("courtesy", "all").search(clause)):
            return False
    return False


def _states(low: str) -> bool:
    """Whether a text says one of two things of which a source may say the other one, or grants something."""
    groups = find_members(low)
    return _grants(low) or any(not group.startswith(("topic ", "subject")) for group in groups)


def _grants(low: str) -> bool:
    """Whether a text denies or promises something, or says what is free or costs."""
    return (
        find_pattern("negation", "").search(low) is not None
        or find_pattern("unclaimed", "grants").search(low) is not None
        or "charge" in find_members(low)
    )


# ---- Sources ----------------------------------------------------------------------------------------

_DROPPED = re.compile(r"[\s\"'*_`~#|>\\]+")


def _compact(text: str) -> str:
    """Plain text as quotes are looked for in it: small letters without spaces and marks."""
    return _DROPPED.sub("", lower(text)).strip(".,;:!?。、-")


@dataclass(frozen=True, slots=True)
class _Part:
    """A sentence or row with the headings and the line it stands under; `note` is before its table."""

    text: str
    headings: tuple[str, ...] = ()
    lead_in: str = ""
    header: tuple[str, ...] = ()
    note: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        cells = self.text.strip("| ").split("|", MAX_CELLS)[:MAX_CELLS]
        return tuple(cell.strip() for cell in cells) if self.header else ()


def _read_parts(text: str) -> Iterator[_Part]:
    """The sentences and rows of a Markdown text, each with what it stands under."""
    headings: list[tuple[int, str]] = []
    header: tuple[str, ...] = ()
    lead_in, previous, note = "", "", ""
    for line in text.splitlines():
        if heading := re.match(r"\s{0,3}(#{1,6})\s+(.*)", line):
            headings = [(level, title) for level, title in headings if level < len(heading[1])]
            headings.append((len(heading[1]), plain(_strip_marks(heading[2][:MAX_PART_CHARACTERS]))))
            header, lead_in, note = (), "", ""
        is_row = line.lstrip().startswith("|")
        if line.lstrip().startswith("|") and "-" in line and not line.strip(" \t|:-"):
            cells = plain(_strip_marks(previous[:MAX_PART_CHARACTERS])).strip("| ").split("|")
            header = tuple(cell.strip() for cell in cells[:MAX_CELLS])
            continue
        header = header if is_row else ()
        is_item = re.match(r"\s{0,12}(?:[-*+•]|\d{1,3}[.)])\s", line) is not None
        lead_in = lead_in if is_item or not line.strip() or is_row else ""
        titles = tuple(title for _, title in headings)
        for sentence in _split_line(_strip_marks(line)):
            for start in range(0, len(sentence), MAX_PART_CHARACTERS):
                piece = plain(sentence[start : start + MAX_PART_CHARACTERS])
                yield _Part(piece, titles, lead_in if is_item else "", header, note if is_row else "")
        short = line[:MAX_PART_CHARACTERS]
        if line.rstrip(" *_").endswith((":", "：")) and not is_item:
            lead_in = plain(_strip_marks(short))
        previous = line if line.strip() else previous
        if not is_row and line.strip():  # the last line before a table may have its units
            note = plain(_strip_marks(short))


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all sources share: the customer's words, how each document begins, names next to codes."""

    told: str
    openings: dict[str, str]
    names: dict[str, str]

    @classmethod
    def read(cls, told: str, sources: Sequence[Source]) -> "_Shared":
        """Gather it from all sources; names and codes only from approved tables."""
        openings: dict[str, str] = {}
        names: dict[str, str] = {}
        for source in sources:
            openings.setdefault(
                _find_document(source), plain(source.text[:MAX_OPENING_CHARACTERS].partition("|")[0])
            )
            if source.kind is SourceKind.APPROVED:
                text = source.text[:MAX_SOURCE_CHARACTERS]
                for pair in re.findall(r"^\s*\|([^|\n]{1,60})\|([^|\n]{1,60})\|", text, re.MULTILINE):
                    cells = [plain(_strip_marks(cell.strip())) for cell in pair]
                    for name, code in (cells, cells[::-1]):
                        if _CODE_CELL.fullmatch(code) and _NAME_CELL.match(name):
                            names.setdefault(code, name)
        return cls(told, openings, names)


_CODE_CELL = re.compile(r"(?=[^\d]*\d)[A-Z][A-Z\d]{0,9}(?:-[A-Z\d]{1,9}){0,3}")
_NAME_CELL = re.compile(r"[A-Z][^\W\d_]+")


def _find_document(source: Source) -> str:
    """The document that a passage is from, by its title."""
    return source.title.partition(TITLE_MARK)[0]


class _Document:
    """A source cut into its parts, in which quotes are found."""

    def __init__(self, source: Source, shared: _Shared) -> None:
        self.source = source
        self._shared = shared
        self._parts = list(_read_parts(source.text[:MAX_SOURCE_CHARACTERS]))
        compact = [_DROPPED.sub("", lower(part.text)) for part in self._parts]
        self._text = "".join(compact)
        self._language = find_language(plain(source.text[:MAX_PART_CHARACTERS]))
        self._starts = [0, *accumulate(map(len, compact))]
        self._found: dict[str, tuple[Evidence, ...]] = {}

    def find(self, quote: str) -> tuple[Evidence, ...]:
        """The places at which a quote is in the source, looked for once."""
        if quote not in self._found:
            self._found[quote] = tuple(self._find(quote)) if len(quote) <= MAX_QUOTE_CHARACTERS else ()
        return self._found[quote]

    def _find(self, quote: str) -> Iterator[Evidence]:
        text = plain(" ".join(map(_strip_marks, quote.splitlines())).strip(" |\"'“”„«»"))
        wanted = _compact(text)
        if not wanted:
            return
        at = self._text.find(wanted)
        for _ in range(MAX_PLACES):
            if at < 0:
                return
            first = bisect_right(self._starts, at) - 1
            last = bisect_right(self._starts, at + len(wanted) - 1) - 1
            if last - first < MAX_PARTS:
                yield self._build_evidence(text, first, last)
            at = self._text.find(wanted, at + 1)

    def _build_evidence(self, quote: str, first: int, last: int) -> Evidence:
        parts = self._parts[first : last + 1]
        headers = {part.header for part in parts if part.header}
        context = dict.fromkeys(
            text for part in parts for text in (*part.headings, part.lead_in, *part.header) if text
        )
        codes = (quote[value.start : value.end] for value in read_values(quote) if CODE in value.kinds)
        names = [name for code in codes if (name := self._shared.names.get(code))]
        context |= dict.fromkeys(names)
        openings = {self._shared.openings[_find_document(self.source)]} if headers else set()
        # The nearest parts before and after, as many as there is room for.
        before = self._parts[max(0, first - MAX_ROWS) : first][::-1]
        after = self._parts[last + 1 : last + 1 + MAX_ROWS]
        pairs = zip_longest(before, after, fillvalue=_Part(""))
        sizes = accumulate(len(left.text) + len(right.text) for left, right in pairs)
        reach = 1 + sum(1 for _ in takewhile(lambda size: size < MAX_AROUND_CHARACTERS, sizes))
        if first and find_pattern("pronouns", "").match(lower(parts[0].text)):
            context[self._parts[first - 1].text] = None
        return Evidence(
            language=self._language,
            quote=quote,
            body=" ".join(
                dict.fromkeys([*(p.lead_in for p in parts if p.lead_in), *(p.text for p in parts)])
            ),
            context=" ; ".join([*context, plain(self.source.title)]),
            columns=tuple(pair for part in parts for pair in zip(part.header, part.cells, strict=False)),
            other_rows=tuple(
                part.cells for part in (*before, *after) if part.header in headers and part not in parts
            ),
            elsewhere=" ".join(part.text for part in (*before[:reach][::-1], *after[:reach])),
            told=self._shared.told,
            names=" ; ".join(names),
            units=" ; ".join({part.note for part in parts} | openings),
        )
