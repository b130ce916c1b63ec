"""The demo's mail: what it promises to a person who watches it being handled."""

from datetime import UTC, datetime, timedelta

from local.commands.demo_mail import DEMO_EMAILS, DEMO_MAILBOXES, DemoEmail, seed_demo
from local.multimail.emails import Listing
from local.multimail.simulator import MultiMailSimulator
from shared.domain import Decision, Email, parse_address
from shared.replying.guardrails import find_skip

NOW = datetime(2026, 11, 20, 16, 0, tzinfo=UTC)
LONGEST_AGE = timedelta(hours=20)
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
    return find_skip(as_read, own_addresses=own, is_too_old=False)


def test_exactly_the_mail_from_machines_and_the_spam_is_skipped_by_the_guard() -> None:
    skipped = {parse_address(email.sender).split("@")[0] for email in RECEIVED if find_skip_of(email)}
    assert skipped == {"newsletter", "b.kowalski", "mailer-daemon", "no-reply", "claims"}
