"""What reviewers corrected: why they rejected drafts and what they wrote instead, as lines for a profile."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import NamedTuple

from shared.checks.evidence import split_sentences
from shared.ledger.entries import LedgerEntry
from shared.model.prompting import clean_line

MAX_LINE_CHARACTERS = 300
REJECTED = "rejected"  # the status of a reply that a reviewer turned down
NO_CATEGORY = "none"


@dataclass(frozen=True, slots=True)
class Correction:
    """What a reviewer said of a draft or changed in it.

    `line` is for the profile, `sentences` are what it is made of, `said` are those of them that the reviewer
    wrote: what the agent wrote states nothing.
    """

    entry: LedgerEntry
    category: str
    kind: str
    line: str = field(repr=False)
    sentences: tuple[str, ...] = field(repr=False)
    said: tuple[str, ...] = field(repr=False)


def list_corrections(entry: LedgerEntry) -> Iterator[Correction]:
    """The corrections of an email's drafts, in their order; none of a row that was erased.

    Where a draft may hold looked-up facts, what a person wrote of it is one customer's too.
    """
    category = (entry.triage.category if entry.triage is not None else "") or NO_CATEGORY
    if entry.erased_at is not None or entry.holds_facts:
        return
    written = entry.draft or entry.edit  # an edit may wait to be submitted, or be refused
    final = written.reply_markdown if written is not None else ""
    texts = [*(said.reply_markdown for said in entry.rejections), final]
    for number, said in enumerate(entry.rejections):
        if said.is_edit and texts[number + 1]:
            for line, sentences, new in _describe_edit(texts[number], texts[number + 1]):
                yield Correction(entry, category, "edited", f"For {category}: {line}", sentences, new)
        elif said.reason:
            yield _describe_reason(entry, category, said.reason)
    review = entry.review
    is_last = review is not None and review.reply_id == entry.reply_id and entry.reply_status == REJECTED
    if review is not None and is_last and review.reason:
        yield _describe_reason(entry, category, review.reason)


def _describe_reason(entry: LedgerEntry, category: str, reason: str) -> Correction:
    line = clean_line(f"For {category}: {reason}", MAX_LINE_CHARACTERS)
    return Correction(entry, category, "rejected", line, (reason,), (reason,))


class _Change(NamedTuple):
    line: str
    sentences: tuple[str, ...]
    new: tuple[str, ...]


def _describe_edit(before: str, after: str) -> Iterator[_Change]:
    """An instruction for each sentence that an edit took out, put in or replaced."""
    old, new = split_sentences(before), split_sentences(after)
    for tag, first, last, start, end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        removed, added = old[first:last], new[start:end]
        if tag == "equal":
            continue
        if len(removed) == len(added):
            pairs = zip(removed, added, strict=True)
            changes = [_Change(f"instead of “{out}” write “{put}”", (out, put), (put,)) for out, put in pairs]
        else:
            changes = [_Change(f"do not write “{out}”", (out,), ()) for out in removed]
            changes += [_Change(f"write “{put}”", (put,), (put,)) for put in added]
        yield from (change for change in changes if len(change.line) <= MAX_LINE_CHARACTERS)


def group_corrections(corrections: Iterable[Correction]) -> dict[str, dict[str, list[Correction]]]:
    """By category and line, those that most emails share first."""
    found: defaultdict[str, defaultdict[str, list[Correction]]] = defaultdict(lambda: defaultdict(list))
    for correction in corrections:
        found[correction.category][correction.line].append(correction)
    return {
        category: dict(sorted(lines.items(), key=lambda item: -len(item[1])))
        for category, lines in sorted(found.items())
    }
