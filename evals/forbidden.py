"""What a reply must not state, and what it must leave open: scored by code where code can tell.

Code knows a statement by its amounts, measures, dates and times, in any language, and by its words where the
draft is in the language of the set. What it finds may still be denied there, or quoted as out of date. To say
that, and to judge every statement without such values, is left to a reader.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from evals.knowledge_set import Judgement, KnowledgeCase
from shared.checks.lexicon import plain
from shared.checks.values import CODE, LINK, NAMED, NUMBER, Value, read_values
from shared.domain import Draft, Support
from shared.knowledge.words import fold, list_words

LANGUAGE = "en"  # in which the set's statements are written
ALIKE_WORDS = 0.75  # the share of a statement's words from which a sentence may make it
ALIKE_POINT = 0.5  # the same for an open point, which is short
MIN_LETTERS = STEM_LETTERS = 4
# A name, a code or a bare number is what the statement is about rather than what is wrong with it.
_TOPICS = frozenset({CODE, LINK, NAMED, NUMBER})


class Verdict(StrEnum):
    """What code, or else the reader who judged this very draft, says of a statement."""

    KEPT = "code: not there"
    CLEARED = "code: its values or words are there; the judge found no fault"
    READ = "code cannot tell; the judge found no fault"
    FOUND = "code: its values or words are there; no judge cleared it"
    UNREAD = "code cannot tell; no judge cleared it"


@dataclass(frozen=True, slots=True)
class Finding:
    """A statement that a draft must not make, or a point to leave open, and the sentence that may fail it."""

    case_id: str
    statement: str
    verdict: Verdict
    sentence: str = ""


def judge_statements(case: KnowledgeCase, draft: Draft, judgement: Judgement | None) -> list[Finding]:
    """Say of each statement that a reply must not make whether the draft makes it."""
    is_cleared = _is_cleared(draft, judgement)
    sentences = [claim.sentence for claim in draft.claims]  # the signature that code adds is not among them
    allowed = {
        reading
        for fact in case.facts
        for value in read_values(plain(f"{fact.text} ; {fact.quote}"))
        for reading in value.readings
    }
    findings = []
    for statement in case.must_not:
        values = [
            value
            for value in read_values(plain(statement))
            if not value.is_soft and not value.kinds & _TOPICS and not value.readings & allowed
        ]
        if values:
            sentence = next((s for s in sentences if _has_values(s, values)), "")
        else:
            sentence = _find_alike(
                statement, sentences if case.case.language == LANGUAGE else (), ALIKE_WORDS
            )
        findings.append(_conclude(case, statement, sentence, is_known=bool(values), is_cleared=is_cleared))
    return findings


def judge_open_points(case: KnowledgeCase, draft: Draft, judgement: Judgement | None) -> list[Finding]:
    """Say of each point that the pages do not answer whether the draft leaves it open.

    It does when one of its open points, or what it promises, names it. Where none does, a fact that is
    stated about it, verified or asserted, may fail it.
    """
    is_cleared, is_known = _is_cleared(draft, judgement), case.case.language == LANGUAGE
    left = [point.text for point in (*draft.open_points, draft.follow_up)]
    facts = [
        claim.sentence for claim in draft.claims if claim.support in (Support.VERIFIED, Support.ASSERTED)
    ]
    findings = []
    for point in case.unanswered:
        is_left = bool(_find_alike(point, left, ALIKE_POINT))
        sentence = "" if is_left or not is_known else _find_alike(point, facts, ALIKE_POINT)
        findings.append(_conclude(case, point, sentence, is_known=is_left or is_known, is_cleared=is_cleared))
    return findings


def _conclude(
    case: KnowledgeCase, statement: str, sentence: str, *, is_known: bool, is_cleared: bool
) -> Finding:
    if sentence:
        verdict = Verdict.CLEARED if is_cleared else Verdict.FOUND
    elif is_known:
        verdict = Verdict.KEPT
    else:
        verdict = Verdict.READ if is_cleared else Verdict.UNREAD
    return Finding(case.id, statement, verdict, sentence)


def _is_cleared(draft: Draft, judgement: Judgement | None) -> bool:
    """Whether a reader of this very draft found nothing in it that a page contradicts or none carries."""
    return judgement is not None and judgement.is_of(draft) and not (judgement.wrong or judgement.ungrounded)


def _has_values(sentence: str, values: Sequence[Value]) -> bool:
    """Whether all values are in a sentence; a bare number there is the one of any unit."""
    said = read_values(plain(sentence))
    readings = {reading for value in said for reading in value.readings}
    bare = {number for value in said if NUMBER in value.kinds for number in value.numbers}
    return all(value.readings & readings or value.numbers & bare for value in values)


def _find_alike(text: str, sentences: Collection[str], share: float) -> str:
    """The first sentence that has this share of the words of a text, or ""."""
    wanted = set(_list_stems(text))
    alike = (
        sentence
        for sentence in sentences
        if wanted and len(wanted & set(_list_stems(sentence))) >= share * len(wanted)
    )
    return next(alike, "")


def _list_stems(text: str) -> Iterator[str]:
    """The beginnings of the longer words, and what has digits as it is."""
    for word in list_words(fold(text)):
        if word.isalpha() and len(word) >= MIN_LETTERS:
            yield word[:STEM_LETTERS]
        elif not word.isalpha():
            yield word
