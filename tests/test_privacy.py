"""Personal data goes: after RETENTION_DAYS by the tracking timer, at once by `forget`; no email comes back."""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import pytest

from local.commands.forget import SETTLES_WITHIN, Forgetting
from local.multimail.emails import Outgoing
from local.multimail.faults import always, answer_with, no_fault
from local.testing.azurite import Azurite
from local.testing.world import START, WEBHOOK_SECRET, World
from shared.domain import Cause, Outcome
from shared.errors import TransientError
from shared.ledger.entries import LedgerEntry
from shared.ledger.keys import SHARDS
from shared.ledger.ledger import Ledger
from shared.ledger.rows import to_row
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.ledger.table_store import build_table_ledger
from shared.operator.trust import Fate, build_report
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.replying.reporting import REJECT_REASON_TAG
from shared.watching import retention

SECRETS = ("ann@customer.example", "Ann Lee", "grandmother", "Dear Ann", "shorter please", "delivery time")
PROFILES = Profiles(MailboxProfile(reply_all=("customer.example",)))


@pytest.fixture(params=["sqlite", "table"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    ledger = None
    if request.param == "table":
        azurite: Azurite = request.getfixturevalue("azurite")
        azurite.clear()
        ledger = build_table_ledger(azurite.endpoint, azurite.credential)
    with World(tmp_path, ledger, PROFILES) as world:
        world.model.triage |= {"reason": "It is about her grandmother.", "summary": "Grandmother waits."}
        yield world


def dump(ledger: Ledger) -> str:
    """All that is in the ledger's partitions of emails and days, as text."""
    partitions = [*SHARDS, *(f"days|{shard}" for shard in SHARDS)]
    return repr([(row.key, row.fields) for row in ledger._store.scan(partitions, "", "~")])


def find_secrets(ledger: Ledger) -> list[str]:
    text = dump(ledger).lower()
    return [secret for secret in SECRETS if secret.lower() in text]


def answer(world: World, **fields: str) -> str:
    """An email that is answered: rejected once with a reason, redrafted, approved, delivered."""
    email_id = world.deliver("My grandmother waits.", **fields)
    world.run_until_idle()
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    world.simulator.set_tags(world.box, reply_id, {REJECT_REASON_TAG: "shorter please"}, "a reviewer")
    world.simulator.decide(reply_id, "reject")
    world.clock.advance(minutes=6)
    world.tracker.track()
    world.run_until_idle()
    approve(world, email_id)
    return email_id


def submit(world: World) -> tuple[str, str]:
    """An email and its reply, which is pending."""
    email_id = world.deliver("My grandmother waits.")
    world.run_until_idle()
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    return email_id, reply_id


def approve(world: World, email_id: str) -> None:
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    world.simulator.decide(reply_id, "approve")
    world.clock.advance(minutes=40)
    world.tracker.track()


def forget(world: World, address: str = "ann@customer.example") -> Forgetting:
    forgetting = Forgetting(world.multimail, world.multimail, world.ledger, address, world.clock)
    forgetting.run()
    return forgetting


def count_fates(world: World) -> Counter[Fate]:
    mailboxes = world.agent.pipeline.mailboxes.read().values()
    (report,) = build_report(mailboxes, world.ledger.entries, now=world.clock.now, days=30).mailboxes
    return Counter(report.total.counts)


def announce(world: World, email_id: str) -> None:
    """A signed webhook event that the email arrived."""
    data = {
        "email_id": email_id,
        "mailbox_id": world.box,
        "from": "ann@customer.example",
        "direction": "inbound",
    }
    body = json.dumps({"event": "message.received", "data": data}).encode()
    signature = hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert world.webhooks.receive(body, f"sha256={signature}") is HTTPStatus.NO_CONTENT


# Retention


def test_after_the_retention_only_a_row_without_personal_data_remains(world: World) -> None:
    email_id = answer(world)
    before = world.entry(email_id)
    assert before.reply_settled_at is not None
    assert len(find_secrets(world.ledger)) == len(SECRETS) - 1  # the sender's name is not stored at all
    world.clock.advance(days=89)
    world.agent.track()
    assert world.entry(email_id) == before
    world.clock.advance(days=2)
    world.agent.track()
    assert find_secrets(world.ledger) == []
    after = world.entry(email_id)
    assert after.erased_at == world.clock.now
    kept = ("email_id", "thread_id", "received_at", "finished_at", "outcome", "cause", "reply_id", "usage")
    assert all(getattr(after, name) == getattr(before, name) for name in kept)
    assert "slots|" not in dump(world.ledger)


def test_an_erased_email_is_not_taken_for_new(world: World) -> None:
    email_id = answer(world)
    world.clock.advance(days=91)
    world.agent.track()
    asked = len(world.model.requests)
    announce(world, email_id)
    world.run_until_idle()
    assert len(world.model.requests) == asked
    assert world.entry(email_id).erased_at is not None


def test_an_erased_email_that_was_deleted_at_multimail_is_not_opened_when_it_is_listed(world: World) -> None:
    email_id = world.deliver("My grandmother waits.")
    world.poller.poll()
    entry = world.entry(email_id)
    gone = replace(entry, outcome=Outcome.SKIPPED, cause=Cause.DELETED, finished_at=world.clock.now)
    done = world.ledger.finish(gone)
    world.ledger.erase(done, world.clock.now)
    assert world.ledger.add(replace(entry, version="")) is None
    world.run_until_idle()
    assert world.model.requests == []


def test_the_trust_report_counts_erased_drafts_as_before(world: World) -> None:
    answer(world)
    mailboxes = world.agent.pipeline.mailboxes.read().values()

    later = world.clock.now + timedelta(days=91)

    def count() -> object:
        return build_report(mailboxes, world.ledger.entries, now=later, days=365).mailboxes

    before = count()
    world.clock.advance(days=91)
    world.agent.track()
    assert find_secrets(world.ledger) == []
    assert count() == before


def test_a_pending_reply_keeps_its_row_until_it_is_decided(world: World) -> None:
    email_id = world.deliver("My grandmother waits.")
    world.run_until_idle()
    world.clock.advance(minutes=6)
    world.agent.track()
    world.clock.advance(days=200)
    world.agent.track()
    assert world.entry(email_id).erased_at is None
    approve(world, email_id)
    world.clock.advance(days=1)
    world.agent.track()
    world.clock.advance(days=1)
    world.agent.track()
    assert find_secrets(world.ledger) == []


def test_an_open_row_is_never_erased(world: World) -> None:
    email_id = answer(world)
    world.clock.advance(days=50)
    world.ledger.defer(world.entry(email_id).redriven(world.clock.now))
    world.clock.advance(days=80)
    world.agent.track()
    assert world.entry(email_id).erased_at is None
    assert world.entry(email_id).sender == "ann@customer.example"


def test_a_run_erases_a_bounded_number_of_rows_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_PER_RUN", 4)
    with World(tmp_path) as world:
        world.model.triage["action"] = "ignore"
        boxes = [world.box, *(world.simulator.add_mailbox(f"box{n}@northwind.example") for n in range(5))]
        emails = [world.deliver(box=box, sender=f"ann{n}.{box}@x.example") for box in boxes for n in range(3)]
        world.run_until_idle()
        world.clock.advance(days=91)
        left = [len(emails)]
        while left[-1] and len(left) < 20:
            world.agent.track()
            left.append(sum(world.entry(email_id).erased_at is None for email_id in emails))
            assert left[-2] - left[-1] <= 4
        assert left[-1] == 0
        for _ in range(20):
            world.agent.track()
        assert "@x.example" not in dump(world.ledger)


# Forget


def test_what_is_forgotten_stays_forgotten_and_nothing_is_submitted(world: World) -> None:
    pending = world.deliver("My grandmother waits.")
    bob = world.deliver("A question.", sender="bob@other.example")
    world.run_until_idle()
    waiting = world.deliver("More of my grandmother.", sender="ann+news@customer.example")
    world.poller.poll()
    bobs = world.entry(bob)
    done = forget(world)
    assert set(done.erased) == {pending, waiting}
    assert done.cancelled == [world.entry(pending).reply_id]
    assert done.unfinished == []
    for email_id in (pending, waiting):
        entry = world.entry(email_id)
        assert (entry.outcome, entry.cause) == (Outcome.NEEDS_HUMAN, Cause.ERASED)
        assert entry.erased_at is not None
        assert not any(secret in str(to_row(entry)) for secret in SECRETS)
    assert {world.tags(email_id)["agent.outcome"] for email_id in (pending, waiting)} == {"needs_human"}
    assert world.entry(bob) == bobs
    assert "@customer.example" not in dump(world.ledger)

    asked, sent = len(world.model.requests), len(world.simulator.accepted)
    for email_id in (pending, waiting):
        announce(world, email_id)
    for _ in range(3):
        world.run_until_idle()
        world.clock.advance(hours=1)
        world.agent.track()
    assert (len(world.model.requests), len(world.simulator.accepted)) == (asked, sent)
    assert all(world.entry(email_id).erased_at is not None for email_id in (pending, waiting))


def test_what_a_cancelled_reply_was_to_answer_too_is_left_to_a_person(world: World) -> None:
    first = world.deliver("My grandmother waits.")
    world.run_until_idle()
    second = world.deliver("She still waits.", in_reply_to=first)
    world.run_until_idle()
    settled = replace(world.entry(first), reply_status="cancelled", reply_settled_at=world.clock.now)
    reply_id = world.entry(second).reply_id
    world.ledger.save(replace(settled, outcome=Outcome.SKIPPED, cause=Cause.COVERED, depends_on=reply_id))
    forget(world)
    assert world.entry(first).cause is Cause.ERASED
    assert world.tags(first)["agent.outcome"] == "needs_human"


def test_a_reply_that_was_rejected_before_is_left_to_a_person(world: World) -> None:
    email_id, reply_id = submit(world)
    world.simulator.decide(reply_id, "reject")
    done = forget(world)
    assert (done.cancelled, done.not_cancelled) == ([], [])
    assert world.tags(email_id)["agent.outcome"] == "needs_human"


def test_a_reply_that_left_is_named(world: World) -> None:
    email_id, reply_id = submit(world)
    world.simulator.decide(reply_id, "approve")
    done = forget(world)
    assert (done.cancelled, done.not_cancelled) == ([], [reply_id])
    assert f"Reply {reply_id} could not be cancelled" in "\n".join(done.describe())
    assert find_secrets(world.ledger) == []
    assert world.entry(email_id).outcome is Outcome.REPLY_SUBMITTED


@pytest.mark.parametrize("arrived", [True, False])
def test_a_reply_that_may_be_on_its_way_is_looked_for(world: World, *, arrived: bool) -> None:
    """A worker on another machine has stored its intent, and its POST arrives or does not."""
    email_id = world.deliver("My grandmother waits.")
    world.run_until_idle()
    entry = world.entry(email_id)
    reply_id, submitted_at = entry.reply_id, entry.submit_intent_at
    assert reply_id is not None
    if not arrived:
        world.simulator.erase(reply_id)
    for note in world.ledger.tracked_replies():
        world.ledger.drop_reply(note)
    open_again = replace(entry.judged_again(world.clock.now), reply_id=None, triage=entry.triage)
    world.ledger.defer(replace(open_again, draft=entry.draft, submit_intent_at=submitted_at))
    done = forget(world)
    if arrived:
        assert done.cancelled == [reply_id]
    else:
        assert done.erased == []
        assert "run forget again in 15 minutes" in "\n".join(done.describe())
        assert world.entry(email_id).cause is Cause.ERASED
        world.clock.now += SETTLES_WITHIN
        assert forget(world).erased == [email_id]
    assert find_secrets(world.ledger) == []


def test_what_waits_to_go_to_others_too_is_named_and_left(world: World) -> None:
    outgoing = Outgoing("Dear both.", ("ann@customer.example", "bob@other.example"), subject="News")
    written = world.simulator.send(world.box, outgoing, "a colleague")[0].id
    done = forget(world)
    assert (done.with_others, done.cancelled) == ([written], [])
    assert f"Email {written} waits for approval and goes to others too" in "\n".join(done.describe())


def test_a_reply_that_cannot_be_cancelled_yet_keeps_its_row(world: World) -> None:
    email_id, reply_id = submit(world)
    world.simulator.fault = always(answer_with(409), matching=lambda _, path: path.endswith("/cancel"))
    done = forget(world)
    assert (done.erased, done.not_cancelled) == ([], [])
    assert f"Reply {reply_id} could not be cancelled yet" in "\n".join(done.describe())
    world.simulator.fault = no_fault
    assert forget(world).erased == [email_id]


def test_a_reply_that_left_before_its_email_was_tagged_stays_an_answer(world: World) -> None:
    email_id = world.deliver("My grandmother waits.")
    world.simulator.fault = always(answer_with(503), matching=lambda _, path: path.endswith("/tags"))
    world.poll_and_work()
    world.simulator.fault = no_fault
    entry = world.entry(email_id)
    assert (entry.outcome, entry.finished_at) == (Outcome.REPLY_SUBMITTED, None)
    assert entry.reply_id is not None
    world.simulator.decide(entry.reply_id, "approve")
    world.clock.advance(minutes=40)
    forget(world)
    assert world.entry(email_id).outcome is Outcome.REPLY_SUBMITTED
    assert find_secrets(world.ledger) == []


def test_who_is_in_copy_of_other_peoples_replies_is_named(world: World) -> None:
    email_id = world.deliver("A question.", sender="bob@other.example", cc=["ann@customer.example"])
    world.run_until_idle()
    assert forget(world).mentioned == [email_id]


def test_whose_address_is_in_a_draft_to_somebody_else_is_named(world: World) -> None:
    world.model.draft = world.model.draft | {
        "reply_markdown": "Dear Bob, we wrote to Ann at ann@customer.example."
    }
    email_id = world.deliver("Did you write to ann@customer.example?", sender="bob@other.example")
    world.run_until_idle()
    world.deliver("A question.", sender="joann@customer.example")
    assert forget(world).mentioned == [email_id]
    assert "The ledger has no email of that address" in "\n".join(forget(world).describe())


def test_an_old_email_that_is_erased_does_not_make_copies_of_a_new_one_unknown(world: World) -> None:
    other = world.simulator.add_mailbox("sales@northwind.example", "gated_send")
    for _ in range(2):
        world.deliver("My grandmother waits.")
        world.run_until_idle()
        world.simulator.decide(world.simulator.accepted[-1].email_id, "approve")
        world.clock.advance(minutes=40)
        world.tracker.track()
        world.clock.advance(days=91)
    newest = world.deliver("My grandmother waits.")
    world.run_until_idle()
    world.agent.track()  # erases the old ones
    answered = len(world.simulator.accepted)
    copy = world.deliver("My grandmother waits.", box=other)
    world.run_until_idle()
    assert len(world.simulator.accepted) == answered
    assert world.entry(copy).cause is Cause.SAME_EMAIL
    assert newest in world.entry(copy).detail


def test_a_forget_that_broke_off_before_the_tag_is_finished_by_the_next(world: World) -> None:
    email_id = world.deliver("My grandmother waits.")
    world.poller.poll()
    world.simulator.fault = always(answer_with(503), matching=lambda _, path: path.endswith("/tags"))
    with pytest.raises(TransientError):
        forget(world)
    world.simulator.fault = no_fault
    assert forget(world).erased == [email_id]
    assert world.tags(email_id)["agent.outcome"] == "needs_human"


def test_a_reply_that_left_before_is_still_counted(world: World) -> None:
    email_id, reply_id = submit(world)
    world.simulator.decide(reply_id, "approve")
    forget(world)
    world.clock.advance(minutes=40)
    world.tracker.track()
    entry = world.entry(email_id)
    assert (entry.reply_status, find_secrets(world.ledger)) == ("delivered", [])
    assert count_fates(world)[Fate.APPROVED] == 1


def test_an_erased_row_is_not_opened_when_its_reply_bounces(world: World) -> None:
    email_id, reply_id = submit(world)
    world.simulator.decide(reply_id, "approve")
    assert forget(world).not_cancelled == [reply_id]
    stored = world.simulator._emails.find(reply_id)
    assert stored is not None
    stored.delivered_at, stored.bounced_at = None, world.clock.now
    world.clock.advance(minutes=40)
    world.tracker.track()
    entry = world.entry(email_id)
    assert (entry.reply_status, world.ledger.next_due_at()) == ("bounced", None)
    assert entry.finished_at is not None


def test_a_rejection_that_nobody_saw_yet_is_still_counted(world: World) -> None:
    _, reply_id = submit(world)
    world.simulator.decide(reply_id, "reject")
    forget(world)
    assert count_fates(world)[Fate.REJECTED] == 1


def test_a_worker_at_the_email_is_named(world: World) -> None:
    email_id = world.deliver("My grandmother waits.")
    world.poller.poll()
    unfinished: list[str] = []
    world.model.steps = [lambda: unfinished.extend(forget(world).unfinished)]
    world.work()
    assert [email_id in line and "run forget again" in line for line in unfinished] == [True]
    forget(world)
    assert find_secrets(world.ledger) == []


def test_what_a_colleague_wrote_to_the_person_is_cancelled_and_the_email_left_to_a_person(
    world: World,
) -> None:
    email_id = world.deliver("My grandmother waits.")
    world.clock.advance(minutes=10)
    outgoing = Outgoing("Dear Ann, I look after it.")
    written = world.simulator.reply(world.box, email_id, outgoing, "a colleague")[0].id
    world.run_until_idle()
    done = forget(world)
    assert written in done.cancelled
    assert world.tags(email_id)["agent.outcome"] == "needs_human"


def test_the_file_holds_nothing_of_what_was_erased(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with closing(open_sqlite_ledger(path)) as ledger, World(tmp_path, ledger, PROFILES) as world:
        answer(world)
        forget(world)
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("ledger.sqlite*"))
    assert b"ann@customer.example" not in stored
    assert b"Dear Ann" not in stored


def test_every_field_of_a_row_is_either_erased_or_known_to_be_harmless() -> None:
    """A new field needs a decision: erase it in `LedgerEntry.erased`, or name it here."""
    assert set(to_row(_full().erased(_full().received_at))) == {
        "mailbox_id", "email_id", "received_at", "sender", "thread_id", "due_at", "attempts", "waiting_detail",
        "finished_at", "fingerprint", "detail", "missing", "rejections", "digest_key", "erased_at",
        "usage__calls", "usage__input_tokens", "usage__output_tokens", "usage__cached_input_tokens", "usage__dollars",
        "is_observed",
    }  # fmt: skip


def _full() -> LedgerEntry:
    return LedgerEntry("mb", "em", START, "ann@customer.example", "th", START, finished_at=START)
