"""How the CPU time of what reads hostile text grows with its length: `python -m tests.growth NAME` measures one."""

import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from local.approval.reading import read_text
from shared.checks.carried_words import find_carried
from shared.checks.contacts import Known, find_addresses
from shared.checks.draft_checks import MAX_REPLY_CHARACTERS, check_draft
from shared.checks.evidence import MAX_QUOTE_CHARACTERS, Source, SourceKind, judge_claims
from shared.domain import MAX_HEADER_CHARACTERS, NO_USAGE, Claim, Email, parse_address
from shared.knowledge.word_index import WordIndex
from shared.knowledge.words import find_words
from shared.mail.contact_forms import ContactForm, find_respondent, looks_like_form
from shared.mail.machine_mail import is_machine_sender, is_machine_subject
from shared.mail.own_words import show_link_targets, split_own_words
from shared.model.chat import ChatCompletion
from shared.model.prompting import clean_line, clean_sentence, clean_text, cut_text, fit_untrusted
from shared.model.tokens import estimate_tokens
from shared.operator.asking import drop_foreign_links
from shared.profiles.disclosure import drop_disclosures
from shared.profiles.profiles import MailboxProfile
from shared.replying.draft_request import parse_draft
from shared.replying.triage import parse_triage, triage_email

MAX_RATIO = 8
FACTOR = 4
REPEATS = 2
SMALLEST_SECONDS = 0.02  # below, the clock's steps are seen
FAMILIES = ("=", " ", "\n> ", "a", "a.", "1 ", "<a ", "[](", "a@", "www.", "{{", "\u0301漢")
QUOTES = (
    "On ", "\n", "From: x\n", "Disclaimer: mail ", "Thanks,\n", "--\n", "_", "\\", "/v3/__",
    "Am " + "schrieb " * 36 + "\n", "Den " + "skrev " * 48 + "\n", "https://urldefense.com/v3/__",
)  # fmt: skip
TAGS = (
    "<p>",
    "<div>",
    "<b><i>",
    "<ul><li>",
    "<a><div>",
    "<table><tr><td>",
    "<style>",
    "<!--",
    "&nbsp;",
    "<p> \n",
)
BODY = 40_000
_FORM = ContactForm("form@ours.example", "Email")
_INDEX = WordIndex([("Delivery", "It takes 3 days.", "shared")])
_CALLS = itertools.count()
_OLD_LURE = re.compile(r"\S*(?:://|@|www\.)\S*", re.IGNORECASE)


def _email(text: str) -> Email:
    now = datetime(2026, 3, 2, tzinfo=UTC)
    return Email("e", "ann@customer.example", (), text[:MAX_HEADER_CHARACTERS], "unread", now, text)


def _read_answer(parse: Callable[[str], object]) -> Callable[[str], None]:
    def read(text: str) -> None:
        with suppress(ValueError, RecursionError):
            parse(text)

    return read


def _draft_answer(text: str) -> str:
    answer = {"reply_markdown": text, "claims": [], "open_points": [text], "follow_up": text, "confidence": 1}
    return json.dumps(answer)


def _triage(text: str) -> None:
    answer = {"action": "ignore", "category": "other", "confidence": 1, "summary": text, "reason": text}
    completion = ChatCompletion(json.dumps(answer), "stop", NO_USAGE, "model")
    profile = MailboxProfile(escalate_words=("legal action", "Kündigung"))
    triage_email(_email(text), lambda _: completion, deployment="d", min_confidence=0.5, profile=profile)


def _judge(text: str) -> None:
    claims = [Claim(text[:300], "K1", text[:MAX_QUOTE_CHARACTERS]), Claim(text, "E1", text[:200])]
    sources = [Source("K1", SourceKind.APPROVED, "", text), Source("E1", SourceKind.SENDER, "", text)]
    judge_claims(text, claims, sources)


def _judge_table(text: str) -> None:
    """Sentences, each with its claim, on rows of a table twenty times as long; in no call those of another."""
    count, first = len(text) // 40, 100_000 * next(_CALLS)
    rows = [f"| P{n}-A | {n} days |" for n in range(first, first + 20 * count)]
    source = Source("K1", SourceKind.APPROVED, "", "\n".join(["| Part | Delivery |", "|---|---|", *rows]))
    sentences = [f"Part P{n}-A has a delivery of {n} days {text[:10]}." for n in range(first, first + count)]
    claims = [Claim(sentence, "K1", row) for sentence, row in zip(sentences, rows, strict=False)]
    judge_claims(" ".join(sentences), claims, [source])


# Each with the longest text that it is ever given, or that is worth trying.
FUNCTIONS: Mapping[str, tuple[Callable[[str], object], int]] = {
    "check_draft": (lambda text: check_draft(text, [], "instructions"), MAX_REPLY_CHARACTERS),
    "judge_claims": (_judge, MAX_REPLY_CHARACTERS),
    "judge_claims, table": (_judge_table, 8_000),
    "check_draft, sources": (
        lambda text: check_draft("See a.example", [Source("E1", SourceKind.SENDER, "", text)], ""), BODY,
    ),
    "Known.read": (lambda text: Known.read([text]), BODY),
    "drop_foreign_links": (lambda text: drop_foreign_links(text, ["https://a.example"]), MAX_REPLY_CHARACTERS),
    "find_addresses": (find_addresses, BODY),
    "parse_address": (parse_address, MAX_HEADER_CHARACTERS),
    "is_machine_subject": (lambda text: is_machine_subject(text, "ann@customer.example"), MAX_HEADER_CHARACTERS),
    "is_machine_sender": (lambda text: is_machine_sender(f"{text}@customer.example"), MAX_HEADER_CHARACTERS),
    "looks_like_form": (lambda text: looks_like_form(text, "x@y.example", []), BODY),
    "find_respondent": (lambda text: find_respondent(_FORM, f"Email: {text}", []), BODY),
    "clean_text": (clean_text, BODY),
    "clean_line": (lambda text: clean_line(text, 200), BODY),
    "clean_sentence": (lambda text: clean_sentence(text, 200), BODY),
    "cut_text": (lambda text: cut_text(text, 1_000), BODY),
    "fit_untrusted": (lambda text: fit_untrusted(text, 1_000), BODY),
    "estimate_tokens": (estimate_tokens, BODY),
    "find_words": (find_words, BODY),
    "read_text": (lambda text: read_text(f"<p>{text}"), BODY),
    "split_own_words": (lambda text: show_link_targets(split_own_words(text).own), BODY),
    "drop_disclosures": (drop_disclosures, MAX_REPLY_CHARACTERS),
    "WordIndex.rank": (lambda text: _INDEX.rank(text, ["shared"]), BODY),
    "find_carried": (lambda text: find_carried(text, [text[::-1]], [f"b{text}"]), MAX_REPLY_CHARACTERS),
    "triage_email": (_triage, BODY),
    "parse_draft": (_read_answer(lambda text: parse_draft(_draft_answer(text))), BODY),
    "parse_draft, no JSON": (_read_answer(parse_draft), BODY),
    "parse_triage": (_read_answer(parse_triage), BODY),
}  # fmt: skip
MORE_FAMILIES: Mapping[str, Sequence[str]] = {"split_own_words": QUOTES, "read_text": TAGS}
# What the test must find: a pattern that looks for a mark from every place of a long word.
QUADRATIC: Mapping[str, tuple[Callable[[str], object], int]] = {
    "the old lure": (lambda text: _OLD_LURE.sub("", text), 16_000)
}


def measure(name: str) -> dict[str, float]:
    """The ratio of CPU time, text four times as long to text, for each family that takes long enough to tell."""
    function, limit = {**FUNCTIONS, **QUADRATIC}[name]
    function("warm up")
    ratios = {}
    for family in (*FAMILIES, *MORE_FAMILIES.get(name, ())):
        text = (family * limit)[:limit]
        if ratio := compare(function, text, text[: limit // FACTOR]):
            ratios[family] = ratio
    return ratios


def compare(function: Callable[[str], object], long: str, short: str) -> float:
    """How many times as much CPU time the long text takes as the short one, FACTOR times shorter; 0 if too little to tell."""
    seconds = _time(function, long)
    return seconds / max(_time(function, short), 1e-6) if seconds >= SMALLEST_SECONDS else 0.0


def _time(function: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        function(text)
        best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
