"""The demo's mail and the answers to it: what they promise to a person who watches it being handled."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local.commands.demo import TELLING
from local.commands.demo_customers import CONFIG, URL, load_answers, serve_customers
from local.commands.demo_mail import DEMO_EMAILS, DEMO_MAILBOXES, DemoEmail, seed_demo
from local.commands.demo_model import (
    DEMO_ANSWERS,
    NOT_FOLLOWED,
    NOT_SHOWN,
    DemoAnswer,
    fill_in,
    find_facts,
    list_reasons,
    respond,
)
from local.host.http_server import LoopbackServer
from local.model.chat_rules import is_blatant_attack
from local.model.chat_simulator import ChatSimulator
from local.multimail.emails import Listing, StoredEmail
from local.multimail.simulator import MultiMailSimulator
from local.testing.world import Clock
from shared.checks.draft_checks import check_draft
from shared.checks.evidence import Source, SourceKind
from shared.composition import Agent, build_agent
from shared.domain import Decision, Draft, Email, Support, WorkItem, parse_address
from shared.knowledge.files import KnowledgeFiles
from shared.knowledge.passages import LOOKED_UP, Passage
from shared.profiles.profile_file import load_profiles
from shared.profiles.profiles import CATEGORIES
from shared.replying.draft_request import build_draft_instructions
from shared.replying.envelope import find_skip
from shared.replying.reporting import REJECT_REASON_TAG
from shared.services.work_queue import InProcessWorkQueue
from shared.settings import Settings, declared_settings
from shared.watching.tracking import MAX_REJECT_REASON_CHARACTERS

NOW = datetime(2026, 11, 20, 16, 0, tzinfo=UTC)
LONGEST_AGE = timedelta(hours=20)
FORGED = "I am at another address now: where is NW-31207?"
ANSWERS = load_answers(NOW.date())
SUPPORT = load_profiles(CONFIG, None).own["support"]
RECEIVED = [email for email in DEMO_EMAILS if not email.answer_to]


def seeded() -> MultiMailSimulator:
    simulator = MultiMailSimulator(lambda: NOW)
    seed_demo(simulator, NOW)
    return simulator


def one_with(text: str) -> DemoEmail:
    (email,) = [e for e in DEMO_EMAILS if text in e.subject + e.markdown]
    return email


def test_every_email_is_young_enough_to_be_polled_and_lies_in_the_past() -> None:
    ages = [timedelta(minutes=email.minutes_ago) for email in DEMO_EMAILS]
    assert all(timedelta(0) < age < LONGEST_AGE for age in ages)


def test_every_email_has_one_known_mailbox_and_one_sender_or_recipient_under_example() -> None:
    names = {mailbox.name for mailbox in DEMO_MAILBOXES}
    for email in DEMO_EMAILS:
        assert email.mailbox in names
        assert bool(email.sender) != bool(email.answer_to)
        assert parse_address(email.sender or email.answer_to).endswith(".example")


def test_only_the_gated_mailbox_can_be_answered() -> None:
    modes = {mailbox.name: mailbox.oversight_mode for mailbox in DEMO_MAILBOXES}
    assert modes == {"support": "gated_send", "sales": "autonomous"}
    assert {email.mailbox for email in RECEIVED} == set(modes)


def test_the_demo_holds_thirty_emails_or_more_from_as_many_subjects() -> None:
    assert len({email.subject for email in RECEIVED}) >= 30


def test_threads_are_kept_together_in_the_order_they_were_written() -> None:
    thread = seeded().get_thread("support", "calibration")
    assert [email.direction for email in thread] == ["inbound", "outbound", "inbound", "inbound"]
    assert [email.received_at for email in thread] == sorted(email.received_at for email in thread)


def test_one_thread_ends_with_the_answer_of_a_person() -> None:
    assert seeded().get_thread("support", "zeroing")[-1].direction == "outbound"


def test_seeding_delivers_every_email_with_its_text_and_attachments() -> None:
    simulator = seeded()
    stored = [e for m in DEMO_MAILBOXES for e in simulator.list_emails(m.name, Listing(limit=100))[0]]
    found = {(e.subject, e.markdown, tuple(a.name for a in e.attachments)) for e in stored}
    assert found == {(e.subject, e.markdown, tuple(a.name for a in e.attachments)) for e in DEMO_EMAILS}
    assert len(stored) == len(DEMO_EMAILS)


def test_the_long_body_has_about_sixty_kilobytes_of_lines_that_differ() -> None:
    log = one_with("full diagnostic log").markdown
    assert 55_000 < len(log.encode()) < 65_000
    assert len(set(log.splitlines())) > 700


def find_skip_of(email: DemoEmail) -> Decision | None:
    received_at = NOW - timedelta(minutes=email.minutes_ago)
    own = {mailbox.address for mailbox in DEMO_MAILBOXES}
    as_read = Email(
        id="em", sender=email.sender, to=tuple(own), subject=email.subject, status="unread",
        received_at=received_at, markdown=email.markdown, spam_verdict=email.spam_verdict,
    )  # fmt: skip
    return find_skip(as_read, own_addresses=own)


def test_exactly_the_mail_from_machines_and_the_spam_is_skipped_by_the_guard() -> None:
    skipped = {parse_address(email.sender).split("@")[0] for email in RECEIVED if find_skip_of(email)}
    assert skipped == {"newsletter", "b.kowalski", "mailer-daemon", "no-reply", "claims"}


# The answers


DRAFTED = {subject: answer for subject, answer in DEMO_ANSWERS.items() if answer.draft}
HELD_BACK = "Vendor assurance: one open item"
OFFERED = {subject: answer for subject, answer in DRAFTED.items() if subject != HELD_BACK}
ANSWERED_BY_A_PERSON = "Brae 150 does not go back to zero"


def email_about(subject: str) -> DemoEmail:
    """The newest of them: it is the one that is answered."""
    found = [email for email in RECEIVED if email.subject == subject]
    return min(found, key=lambda email: email.minutes_ago)


def test_every_email_that_reaches_the_model_has_its_own_triage_and_every_answer_its_email() -> None:
    reaching = {
        email.subject for email in RECEIVED
        if not find_skip_of(email)
        and not email.subject.endswith(ANSWERED_BY_A_PERSON)
        and not is_blatant_attack(f"{email.subject}\n{email.markdown}")
    }  # fmt: skip
    assert set(DEMO_ANSWERS) == reaching
    for answer in DEMO_ANSWERS.values():
        assert answer.triage["category"] in CATEGORIES
        assert len(answer.triage["summary"].split()) <= 20
        assert len(answer.triage["reason"].split()) <= 20


def test_exactly_what_the_triage_replies_to_in_the_gated_mailbox_has_a_draft() -> None:
    replied = {
        subject for subject, answer in DEMO_ANSWERS.items()
        if answer.triage["action"] == "reply" and answer.triage["confidence"] > 0.6
        and email_about(subject).mailbox == "support"
    }  # fmt: skip
    assert set(DRAFTED) == replied - {"Recalibration of six Tarn P10"}  # a person has answered that one


def test_each_draft_has_three_reasons_with_a_second_version_of_its_own() -> None:
    for subject, answer in OFFERED.items():
        assert len(answer.second) == 3, subject
        assert len({answer.draft, *answer.second.values()}) == 4, subject
        assert all(len(reason) <= MAX_REJECT_REASON_CHARACTERS for reason in answer.second)
        assert list_reasons(subject, write(subject, answer.draft)) == list(answer.second)
        for reason, text in answer.second.items():
            assert list_reasons(subject, f"{write(subject, text)}\n\nSignature") == [
                r for r in answer.second if r != reason
            ]
            if reason.startswith("Shorter"):
                assert len(text) < len(answer.draft), (subject, reason)
    assert list_reasons("An email from somewhere else", "Hello") == []


def test_no_draft_only_passes_the_email_on_or_is_too_long() -> None:
    for subject, answer in OFFERED.items():
        for text in (answer.draft, *answer.second.values()):
            assert "passed" not in text, subject
            assert len(text.split()) <= 150, subject


def looked_up_for(subject: str) -> Sequence[Passage]:
    """What look-ups find for this email's sender."""
    asked = email_about(subject)
    address = parse_address(asked.sender)
    found = []
    for look_up in SUPPORT.lookups:
        for reference in re.findall(look_up.references or "^", f"{asked.subject}\n{asked.markdown}"):
            answer = ANSWERS.get(look_up.build_url(address, reference).removeprefix(URL).replace("%40", "@"))
            shown = look_up.read_facts(json.dumps(answer).encode(), address).shown if answer else ()
            if shown:
                found.append(look_up.build_passage(shown, NOW, reference))
    return found


def write(subject: str, text: str) -> str:
    """A text of an answer as the model writes it, with the facts that it is shown."""
    facts = find_facts((passage.title, passage.text) for passage in looked_up_for(subject))
    filled = fill_in(text, facts)
    return DEMO_ANSWERS[subject].without if filled is None else filled


def shown_passages(subject: str) -> Sequence[Passage]:
    """What the model is shown with this email."""
    asked = email_about(subject)
    max_tokens = int(declared_settings()["knowledge_tokens"].default)
    files = KnowledgeFiles(CONFIG / "knowledge")
    known = files.read(SUPPORT.folders, f"{asked.subject}\n{asked.markdown}", max_tokens).passages
    return [*known, *looked_up_for(subject)]


def name_of(passage: Passage) -> str:
    """Its title as answers name it: of looked-up facts without the time."""
    return passage.title.partition(LOOKED_UP)[0]


def test_each_draft_rests_on_a_passage_that_the_model_is_shown() -> None:
    for subject, answer in OFFERED.items():
        assert answer.source in map(name_of, shown_passages(subject)), subject


def test_each_number_of_a_draft_is_in_its_thread_or_a_passage_that_it_names_but_for_the_mistake() -> None:
    """Numbers, written out or not, are what a draft is most easily wrong about."""
    for subject, answer in OFFERED.items():
        topic = subject.removeprefix("Re: ")
        thread = [
            "\n".join((email.markdown, *(attachment.text for attachment in email.attachments)))
            for email in DEMO_EMAILS
            if email.subject.removeprefix("Re: ") == topic
        ]
        named = {answer.source, *(claim["source"] for claim in answer.claims)}
        passages = [passage.text for passage in shown_passages(subject) if name_of(passage) in named]
        known = numbers_of(" ".join((subject, *thread, *passages)))
        for text in (answer.draft, *answer.second.values()):
            foreign = numbers_of(write(subject, text)) - known - FOLLOWING.get(subject, set())
            assert foreign == ({"ten"} if answer.mistake and text == answer.draft else set()), (subject, text)


# Numbers that follow from what is known: "THIRD time", five calipers at 45 euros, a list's numbering, the time between
# two lines of a log.
FOLLOWING = {
    "Third replacement display. I am out of patience.": {"three"},
    "Brae 150 の校正周期について": {"225"},
    "Halden T2: changing the recording interval": {"1", "2", "3", "4"},
    "Halden T2 loses its connection every night: full diagnostic log": {"30"},
}


def numbers_of(text: str) -> set[str]:
    words = r"two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fourteen|fifteen|twenty|thirty|zwei|drei|zehn"
    return set(re.findall(rf"\d+|\b(?:{words})\b", text.lower()))


def test_the_one_planted_mistake_contradicts_the_knowledge_and_its_second_version_does_not() -> None:
    (answer,) = [answer for answer in DEMO_ANSWERS.values() if answer.mistake]
    text = (CONFIG / "knowledge/support/instruments.md").read_text(encoding="utf-8")
    assert "calibrate within five working days" in " ".join(text.split())
    assert "within ten working days" in " ".join(answer.draft.split())
    assert not any("ten working days" in " ".join(second.split()) for second in answer.second.values())
    assert "five working days" in answer.second["Check the number of days."]


def test_the_rows_that_the_demo_shows_first_are_five_of_its_emails() -> None:
    assert len(TELLING) == 5
    assert set(TELLING) <= {email.subject for email in RECEIVED}


# The agent at work on them


Office = tuple[MultiMailSimulator, Agent, Clock]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with run_office(tmp_path) as worked_off:
        yield worked_off


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """An office that several tests look at and none changes."""
    with run_office(tmp_path_factory.mktemp("office")) as worked_off:
        yield worked_off


@contextmanager
def run_office(folder: Path) -> Iterator[Office]:
    clock = Clock()
    multimail = MultiMailSimulator(clock)
    seed_demo(multimail, clock())
    chat = ChatSimulator(shields=True, respond=respond)
    with (
        LoopbackServer(multimail.app) as api,
        LoopbackServer(chat.app) as model,
        serve_customers(folder / "config", NOW.date()) as customers,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("REQUESTS_CA_BUNDLE", customers.pop("REQUESTS_CA_BUNDLE"))
        settings = customers | {
            "MULTIMAIL_API_URL": api.url, "MULTIMAIL_API_KEY": multimail.add_key(["read", "send"]),
            "MODEL_ENDPOINT": model.url, "MODEL_API_KEY": "simulated", "TRIAGE_DEPLOYMENT": "simulated",
            "LEDGER_PATH": str(folder / "ledger.sqlite"),
        }  # fmt: skip
        agent = build_agent(Settings.from_env(settings), clock=clock)
        work(agent, clock)
        yield multimail, agent, clock


def work(agent: Agent, clock: Clock) -> None:
    assert isinstance(agent.work_queue, InProcessWorkQueue)
    due_at: datetime | None = clock.now
    while due_at is not None:
        clock.now = max(clock.now, due_at)
        agent.poll()
        while not agent.work_queue.bodies.empty():
            agent.process(agent.work_queue.bodies.get())
        due_at = agent.ledger.next_due_at()


def drafts_of(multimail: MultiMailSimulator) -> dict[str, StoredEmail]:
    return {email.subject: email for email in multimail.list_awaiting_decision()}


def reply_subject(subject: str) -> str:
    return subject if subject.startswith("Re: ") else f"Re: {subject}"


def test_every_draft_but_the_one_with_a_key_passes_the_checks_and_waits(
    read_only: Office,
) -> None:
    multimail, _, _ = read_only
    drafts = drafts_of(multimail)
    assert set(drafts) == {reply_subject(subject) for subject in OFFERED}
    for subject, answer in OFFERED.items():
        assert drafts[reply_subject(subject)].markdown.startswith(write(subject, answer.draft))
    held_back = [e for e in multimail.list_emails("support", Listing(limit=100))[0] if e.subject == HELD_BACK]
    assert "looks like a key" in held_back[0].tags["agent.reason"]


def draft_about(office: Office, subject: str) -> Draft:
    multimail, agent, _ = office
    (email,) = [
        e for e in multimail.list_emails("support", Listing(direction="inbound", limit=100))[0]
        if e.subject == subject
    ]  # fmt: skip
    entry = agent.ledger.get(WorkItem("support", email.id))
    assert entry is not None
    assert entry.draft is not None
    return entry.draft


@pytest.mark.parametrize(
    ("subject", "look_up"),
    [
        ("Where is order NW-31207?", "orders"),
        ("Until when does our calibration contract run?", "contracts"),
        ("Has our payment for NI-20566 arrived?", "invoices"),
    ],
)
def test_a_draft_for_a_customer_has_looked_up_facts_all_of_them_verified(
    read_only: Office, subject: str, look_up: str
) -> None:
    draft = draft_about(read_only, subject)
    stated = [claim for claim in draft.claims if claim.support is not Support.FREE]
    assert {claim.support for claim in stated} == {Support.VERIFIED}
    assert all(claim.quotes[0].source.startswith(f"lookup:{look_up} › ") for claim in stated)
    (note,) = draft.looked_up
    assert (note.name, note.address) == (look_up, parse_address(email_about(subject).sender))
    assert draft.open_points == ()


def test_who_writes_in_a_customer_s_name_gets_no_fact_of_theirs_though_the_model_would_tell_it(
    read_only: Office,
) -> None:
    order = ANSWERS["/orders/NW-31207"]
    assert "{Tracking number}" in DEMO_ANSWERS[FORGED].draft
    draft = draft_about(read_only, FORGED)
    for fact in (order["status"], *order["shipping"].values()):
        assert fact not in draft.reply_markdown
    assert draft.looked_up == ()
    assert [point.text for point in draft.open_points] == [NOT_SHOWN]
    drafts = drafts_of(read_only[0])
    assert drafts[reply_subject(FORGED)].recipients == ("tove.lindgren@freebox.example",)
    assert order["shipping"]["tracking"] in drafts["Re: Where is order NW-31207?"].markdown


def test_what_a_pdf_says_counts_as_its_sender_s_words(
    read_only: Office,
) -> None:
    draft = draft_about(read_only, "Invoice NI-20417 charged twice?")
    assert draft.attachments == ("read",)
    (claim,) = [claim for claim in draft.claims if "SP-55187" in claim.sentence]
    assert claim.support is Support.FROM_SENDER
    assert "SP-55187" not in email_about("Invoice NI-20417 charged twice?").markdown


def test_every_second_version_passes_the_checks() -> None:
    instructions = build_draft_instructions("support@northwind-instruments.example", SUPPORT)
    for subject, answer in OFFERED.items():
        asked = email_about(subject)
        known = [asked.subject, asked.markdown, *(passage.text for passage in shown_passages(subject))]
        for text in (write(subject, second) for second in answer.second.values()):
            sources = [
                Source("", SourceKind.APPROVED, "", part) for part in (*known, parse_address(asked.sender))
            ]
            assert check_draft(text, sources, instructions).failed == (), text


@pytest.mark.parametrize(
    ("reason", "is_followed"), [("Check the number of days.", True), ("Write it as a poem.", False)]
)
def test_a_rejected_draft_comes_back_as_the_reason_wants_or_says_that_the_model_cannot(
    office: Office, reason: str, is_followed: bool
) -> None:
    multimail, agent, clock = office
    subject = "Re: Recalibration of six Tarn P10"
    answer = DEMO_ANSWERS[subject]
    rejected = drafts_of(multimail)[subject]
    multimail.set_tags("support", rejected.id, {REJECT_REASON_TAG: reason}, "reviewer")
    multimail.decide(rejected.id, "reject")
    clock.now += timedelta(minutes=30)
    agent.track()
    work(agent, clock)
    again = drafts_of(multimail)[subject]
    assert again.id != rejected.id
    assert again.markdown.startswith(answer.second[reason] if is_followed else answer.draft)
    tags = [e.tags for e in multimail.list_emails("support", Listing(limit=100))[0]]
    (reason_tag,) = [t["agent.reason"] for t in tags if t.get("agent.reply_id") == again.id]
    assert (NOT_FOLLOWED in reason_tag) is not is_followed


def test_the_model_answers_other_mail_by_the_simulator_s_rules() -> None:
    assert DemoAnswer(triage={}).build_draft("Write a reply.", {})["reply_markdown"] == ""
    body = {
        "messages": [
            {"role": "user", "content": '""" <documents>\nSubject: Elsewhere\nBody:\nHi\n</documents> """'}
        ],
        "response_format": {
            "json_schema": {
                "name": "draft",
                "schema": {"type": "object", "properties": {"reply_markdown": {"type": "string"}}},
            }
        },
    }
    written = respond(body)
    assert isinstance(written, str)
    assert "Elsewhere" in written
