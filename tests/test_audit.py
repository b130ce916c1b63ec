"""The audit trail: what was changed, cut off or never written is found, and erasing leaves it whole."""

import io
import json
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local.audit.checking import compare_with_ledger, compare_with_service
from local.audit.command import build_trail, find_reasons
from local.host.http_server import LoopbackServer
from local.multimail.faults import always, answer_with
from local.multimail.simulator import MultiMailSimulator
from local.testing.azurite import Azurite
from local.testing.world import AUDIT_KEY, World
from shared.domain import AuditLogEntry, WorkItem
from shared.errors import ConfigurationError, TransientError
from shared.ledger.audit_chains import (
    CHAINS,
    MAX_RECORDS,
    AuditChain,
    AuditChains,
    AuditRecord,
    check_anchor,
    find_anchor,
    find_problems,
    parse_facts,
    read_facts,
)
from shared.ledger.audit_trail import MOST_WAITING, AuditTrail
from shared.ledger.sqlite_store import SqliteStore
from shared.ledger.store import Change, Row, Store, Verb
from shared.ledger.table_store import build_table_ledger
from shared.mail.multimail import MultiMailClient
from shared.services.secrets import SecretFile, SecretSource, StaticSecret
from shared.settings import Secret
from shared.telemetry import AUDIT_ANCHORED, EMAIL_DECIDED, EVENT_LOGGER, record

ROOT = Path(__file__).parent.parent
KEY, OTHER_KEY = Secret("a-key"), Secret("another-key")
AT = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "table"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        made: Store = SqliteStore(tmp_path / "ledger.sqlite")
    else:
        azurite: Azurite = request.getfixturevalue("azurite")
        azurite.clear()
        made = build_table_ledger(azurite.endpoint, azurite.credential)._store
    with closing(made):
        yield made


@pytest.fixture
def file_store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "ledger.sqlite")) as made:
        yield made


def facts(number: int) -> str:
    return json.dumps({"at": f"2026-11-27T12:00:{number:02}", "email_id": f"em_{number}", "actor": "agent"})


def write(store: Store, count: int, key: Secret = KEY) -> AuditChains:
    chains = AuditChains(store, "ledger")
    for number in range(1, count + 1):
        chains.append([facts(number)], key)
    return chains


def problems(store: Store, key: Secret = KEY) -> list[str]:
    return list(find_problems(AuditChains(store, "ledger").read(), key))


def row(store: Store, key: str) -> Row:
    found = store.get("audit|00", key)
    assert found is not None
    return found


def change(store: Store, key: str, **fields: Any) -> None:
    """Do what somebody may do who can write the store and has no key."""
    found = row(store, key)
    store.write([Change(Verb.REPLACE, replace(found, fields={**found.fields, **fields}))])


def cut(store: Store, *numbers: int) -> None:
    for number in numbers:
        store.write([Change(Verb.DELETE, Row("audit|00", f"record|{number:012}"))])


# The chains


def test_records_are_read_back_in_order_and_nothing_is_wrong_with_them(store: Store) -> None:
    chains = write(store, 3)
    chains.append([facts(number) for number in range(4, 9)], KEY)
    assert problems(store) == []
    assert [one["email_id"] for one in read_facts(chains.read())] == [f"em_{n}" for n in range(1, 9)]


def test_a_process_goes_on_where_another_one_stopped_and_two_at_once_keep_apart(store: Store) -> None:
    write(store, 2)
    one, other = AuditChains(store, "ledger"), AuditChains(store, "ledger")
    for number in range(3):
        one.append([facts(number)], KEY)
        other.append([facts(number)], KEY)
    assert problems(store) == []
    assert [len(chain.records) for chain in one.read()][:3] == [7, 3, 1]  # each begins with an empty one


def test_a_changed_record_is_named(store: Store) -> None:
    write(store, 4)
    change(store, f"record|{2:012}", facts=facts(2).replace("agent", "reviewer"))
    assert problems(store) == ["Record 2 of chain 00, which is about em_2, was changed, or put there."]


def test_a_record_from_elsewhere_is_named(store: Store) -> None:
    write(store, 4)
    first, third = row(store, f"record|{1:012}"), row(store, f"record|{3:012}")
    store.write([Change(Verb.REPLACE, replace(third, fields={**first.fields, "number": 3}))])
    named = problems(store)
    assert named[0].startswith("Record 3 of chain 00, which is about em_1,")


def test_records_that_were_taken_out_are_named(store: Store) -> None:
    write(store, 5)
    cut(store, 2, 3)
    assert problems(store) == ["Records 2 to 3 of chain 00 are missing."]


def test_a_truncated_trail_is_named(store: Store) -> None:
    write(store, 5)
    cut(store, 4, 5)
    assert problems(store) == ["Records 4 to 5 of chain 00 are missing at its end."]


def test_a_head_that_was_made_to_fit_a_truncated_trail_is_named(store: Store) -> None:
    write(store, 5)
    cut(store, 4, 5)
    change(store, "head", number=3, mac=row(store, f"record|{3:012}").fields["mac"])
    assert problems(store) == ["The head of chain 00 was changed: its end is not known."]
    store.write([Change(Verb.DELETE, Row("audit|00", "head"))])
    assert problems(store) == ["Chain 00 has 3 records and no head: its end is not known."]


def test_an_older_head_that_is_put_back_is_shown_by_an_anchor_alone(store: Store) -> None:
    chains = write(store, 3)
    old_head = row(store, "head").fields
    chains.append([facts(4)], KEY)
    anchor = find_anchor(chains.find_heads(), KEY)
    assert list(check_anchor(anchor, chains.read(), KEY)) == []
    chains.append([facts(5)], KEY)
    assert list(check_anchor(anchor, chains.read(), KEY)) == []  # what is new does no harm
    cut(store, 4, 5)
    change(store, "head", **old_head)
    assert problems(store) == []
    assert list(check_anchor(anchor, chains.read(), KEY)) == [
        "Record 4 of chain 00 is missing: the anchor has seen them.",
        "The trail is not the one that the anchor was taken of, or the key is another one.",
    ]


def test_a_trail_that_was_begun_again_is_shown_by_an_anchor(file_store: SqliteStore) -> None:
    anchor = find_anchor(write(file_store, 3).find_heads(), KEY)
    cut(file_store, 0, 1, 2, 3)
    file_store.write([Change(Verb.DELETE, Row("audit|00", "head"))])
    begun_again = AuditChains(file_store, "ledger")
    for number in (4, 5, 6):
        begun_again.append([facts(number)], KEY)
    assert problems(file_store) == []
    assert len(list(check_anchor(anchor, begun_again.read(), KEY))) == 1


@pytest.mark.parametrize("text", ["", "1.2-abc", "x.0.0.0.0.0.0.0-abc"])
def test_what_is_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|not an anchor"):
        list(check_anchor(text, [AuditChain("ledger", name, None, []) for name in CHAINS], KEY))


def test_under_another_key_nothing_is_borne_out(file_store: SqliteStore) -> None:
    write(file_store, 2)
    # Each of the chains begins with an empty record.
    told = f"10 records are under another key ({KEY.fingerprint}), which this one cannot check."
    assert problems(file_store, OTHER_KEY) == [told]
    AuditChains(file_store, "ledger").append([facts(3)], OTHER_KEY)  # the key was replaced
    assert problems(file_store, OTHER_KEY) == [told]
    change(file_store, f"record|{3:012}", facts="{}")
    assert len(problems(file_store, OTHER_KEY)) == 2


def test_facts_that_are_no_facts_are_left_out() -> None:
    assert [parse_facts(AuditRecord(1, text, "", "")) for text in ("{", "[]", '{"at": ""}')] == [
        {}, {}, {"at": ""},
    ]  # fmt: skip


# Writing


class FailingKey:
    """A key that cannot be had while `is_away`."""

    is_away = False

    def get(self) -> Secret:
        if self.is_away:
            raise ConfigurationError("AUDIT_KEY_SECRET_NAME: store the key there.")
        return KEY

    def refresh(self, stale: Secret) -> Secret:
        raise AssertionError(stale)


def decide(number: int) -> None:
    record(EMAIL_DECIDED, {"mailbox_id": "mb_1", "email_id": f"em_{number}", "actor": "agent"})


def read_ids(store: Store) -> list[str]:
    return [one["email_id"] for one in read_facts(AuditChains(store, "ledger").read())]


def test_a_decision_that_cannot_be_written_is_named_and_written_with_the_next(
    file_store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    key = FailingKey()
    with AuditTrail(AuditChains(file_store, "ledger"), key):
        decide(1)
        key.is_away = True
        decide(2)
        assert "lacks 1 decisions until it can be written" in caplog.text
        assert "about em_2: AUDIT_KEY_SECRET_NAME: store the key there." in caplog.text
        key.is_away = False
        record("poll.succeeded", {"mailboxes": 1})  # nobody's decision
        decide(3)
    decide(4)  # after the trail was closed
    assert sorted(read_ids(file_store)) == ["em_1", "em_2", "em_3"]
    assert problems(file_store) == []


def test_what_waits_for_long_is_bounded_and_said(
    file_store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    key = FailingKey()
    key.is_away = True
    with AuditTrail(AuditChains(file_store, "ledger"), key):
        for number in range(MOST_WAITING + 1):
            decide(number)
        assert (
            f"lacks {MOST_WAITING + 1} decisions until it can be written, 1 of them for good" in caplog.text
        )
        key.is_away = False
        decide(-1)
    assert MOST_WAITING + 1 > MAX_RECORDS
    assert len(read_ids(file_store)) == MOST_WAITING + 1
    assert problems(file_store) == []


def test_the_anchor_is_logged_once_for_each_length_of_the_trail(
    file_store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, EVENT_LOGGER)
    chains = AuditChains(file_store, "ledger")
    trail = AuditTrail(chains, StaticSecret(KEY))
    trail.note_anchor()  # not attached: a process that writes nothing
    with trail:
        decide(1)
        for _ in range(2):
            trail.note_anchor()
        decide(2)
        trail.note_anchor()
    noted = [
        found.__dict__ for found in caplog.records if found.__dict__.get("agent.event") == AUDIT_ANCHORED
    ]
    assert [found["agent.records"] for found in noted] == [1, 2]
    assert list(check_anchor(noted[0]["agent.anchor"], chains.read(), KEY)) == []
    assert noted[1]["agent.anchor"] == find_anchor(chains.find_heads(), KEY)


def test_the_key_is_made_once_for_its_owner_alone_and_never_by_a_check(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.key"
    with pytest.raises(ConfigurationError, match=r"AUDIT_KEY_FILE: .*put the key back there"):
        SecretFile(path, "AUDIT_KEY_FILE", may_create=lambda: False).get()
    made = SecretFile(path, "AUDIT_KEY_FILE", may_create=lambda: True, new_secret=lambda: "made").get()
    assert made == Secret("made")
    assert path.stat().st_mode & 0o777 == 0o600
    again: SecretSource = SecretFile(path, "AUDIT_KEY_FILE", may_create=lambda: False)
    assert again.get() == again.refresh(made) == made
    path.write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty"):
        SecretFile(path, "AUDIT_KEY_FILE", may_create=lambda: False).get()
    assert len(SecretFile(tmp_path / "k", "X", may_create=lambda: True).get().value) == 64


# The ledger


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world, world.agent.trail:
        yield world


def find_differences(world: World) -> list[str]:
    entries = list(world.ledger.entries())
    chains = world.ledger.audit.read()
    broken = list(find_problems(chains, Secret(AUDIT_KEY)))
    return broken + list(compare_with_ledger(read_facts(chains), entries))


def test_what_the_agent_decides_is_in_the_trail_and_agrees_with_the_ledger(world: World) -> None:
    first = world.deliver()
    world.run_until_idle()
    reply_id = world.entry(first).reply_id or ""
    world.simulator.decide(reply_id, "approve")
    world.clock.advance(minutes=6)
    world.agent.track()
    assert find_differences(world) == []
    found = read_facts(world.ledger.audit.read())
    assert [(one["event"], one["actor"]) for one in found] == [
        ("email.decided", "agent"), ("reply.settled", "reviewer"),
    ]  # fmt: skip


def end(world: World, email_id: str, action: str) -> None:
    world.simulator.decide(world.entry(email_id).reply_id or "", action)
    world.clock.advance(minutes=6)
    world.agent.track()
    world.run_until_idle()


def test_the_trail_says_which_reviewer_edited_rejected_and_why_without_their_words(world: World) -> None:
    edited, rejected = world.deliver("How long?"), world.deliver("Where?", sender="bob@customer.example")
    with world.agent.trail:
        world.run_until_idle()
        first, second = (world.entry(email_id).reply_id or "" for email_id in (edited, rejected))
        world.agent.reviews.edit(WorkItem(world.box, edited), first, "a0000001", "It takes two weeks.")
        end(world, edited, "reject")
        end(world, edited, "approve")
        world.agent.reviews.reject(WorkItem(world.box, rejected), second, "b0000002", "Name the street.")
        end(world, rejected, "reject")
    facts = read_facts(world.ledger.audit.read())
    ends = [one for one in facts if one["event"] == "reply.settled"]
    assert [(one["decision"], one.get("reviewer")) for one in ends] == [
        ("edited", "a0000001"), ("approved", None), ("rejected with a reason", "b0000002"),
    ]  # fmt: skip
    assert "Name the street" not in json.dumps(facts)
    decided = [one for one in facts if one["event"] == "email.decided" and one["email_id"] == edited]
    assert [one.get("edited_by") for one in decided] == [None, "a0000001"]
    assert [{"draft_model", "triage_model"} <= one.keys() for one in decided] == [True, False]
    assert list(compare_with_ledger(facts, world.ledger.entries())) == []
    shown = io.StringIO()
    reasons = {**find_reasons(world.entry(edited)), **find_reasons(world.entry(rejected))}
    Console(file=shown, width=120).print(build_trail(facts, 120, reasons))
    text = " ".join(shown.getvalue().split())
    assert f"who reviewer email {edited} what edited {first} key a0000001" in text
    assert f"who reviewer email {edited} what approved, delivered {world.entry(edited).reply_id}" in text
    assert f"email {rejected} what rejected {second} why Name the street. key b0000002" in text
    assert "model and prompts none: the text of reviewer a0000001" in text


def test_a_text_that_was_changed_in_the_ledger_is_named(world: World) -> None:
    email_id = world.deliver()
    world.run_until_idle()
    entry = world.entry(email_id)
    assert entry.draft is not None
    world.ledger.save(replace(entry, draft=replace(entry.draft, reply_markdown="Dear Ann, no.")))
    assert find_differences(world) == [
        f"Email {email_id}: the ledger has another sender or reply than the trail recorded: "
        "the row was changed."
    ]


def test_a_row_that_the_trail_has_no_word_of_is_named(world: World) -> None:
    world.deliver()
    world.run_until_idle()
    world.agent.trail.__exit__()
    unrecorded = world.deliver(sender="bob@customer.example")
    world.run_until_idle()
    assert find_differences(world) == [
        f"Email {unrecorded}: the trail has no record of its last decision: "
        "the process ended before it was written, or the row was changed."
    ]


def test_rows_from_before_the_trail_are_counted_in_one_sentence(world: World) -> None:
    world.agent.trail.__exit__()
    for name in ("ann", "bob"):
        world.deliver(sender=f"{name}@customer.example")
    world.run_until_idle()
    older = (
        "Emails that ended before the trail's first record, and of which it has none: 2. "
        "They are from before an update that began the trail, or its first records were removed."
    )
    assert find_differences(world) == [older]
    world.clock.advance(hours=1)
    world.agent.trail.__enter__()
    world.deliver(sender="cy@customer.example")
    world.run_until_idle()
    world.agent.trail.__exit__()
    lost = world.deliver(sender="dee@customer.example")
    world.run_until_idle()
    found = find_differences(world)
    assert len(found) == 2
    assert found[0].startswith(f"Email {lost}: the trail has no record of its last decision")
    assert found[1] == older


def test_erasing_leaves_the_trail_whole_and_its_digest_without_a_meaning(world: World) -> None:
    email_id = world.deliver()
    world.run_until_idle()
    entry = world.entry(email_id)
    (decided,) = read_facts(world.ledger.audit.read())
    assert decided["content_digest"] == entry.content_digest
    assert "ann@customer.example" not in json.dumps(decided)
    same = replace(entry, digest_key="another")
    assert same.content_digest != entry.content_digest  # the address alone does not find it
    world.simulator.decide(entry.reply_id or "", "approve")
    world.clock.advance(minutes=6)
    world.agent.track()
    world.clock.advance(days=world.settings.retention_days + 1)
    world.agent.track()
    erased = world.entry(email_id)
    assert (erased.digest_key, erased.content_digest) == ("", "")
    assert find_differences(world) == []


# MultiMail's log


def settle(reply_id: str, status: str = "delivered", at: datetime = AT) -> dict[str, Any]:
    return {"at": at.isoformat(), "event": "reply.settled", "reply_id": reply_id, "reply_status": status}


def logged(action: str, email_id: str = "re_1", key: str = "agent", minutes: int = 0) -> AuditLogEntry:
    return AuditLogEntry(action, email_id, key, AT + timedelta(minutes=minutes))


OLDEST = logged("mailbox.created", "box", "admin", minutes=-120)
SUBMITTED, APPROVED = logged("email.replied"), logged("oversight.approve", key="reviewer")


@pytest.mark.parametrize(
    ("entries", "status", "differences"),
    [
        ([SUBMITTED, APPROVED, logged("email.tags_set")], "delivered", []),
        ([SUBMITTED, logged("oversight.reject", key="reviewer")], "rejected", []),
        ([SUBMITTED, logged("email.cancelled")], "cancelled", []),
        ([APPROVED], "delivered", ["Reply re_1: MultiMail's log has 0 submissions of it, not 1."]),
        (
            [SUBMITTED, SUBMITTED, APPROVED], "delivered",
            ["Reply re_1: MultiMail's log has 2 submissions of it, not 1."],
        ),
        (
            [SUBMITTED], "delivered",
            ["Reply re_1 is delivered: MultiMail's log has 0 decisions on it, not 1."],
        ),
        (
            [SUBMITTED, logged("oversight.approve")], "delivered",
            ["Reply re_1 was decided with a key that submits replies (agent)."],
        ),
        (
            [SUBMITTED, logged("oversight.reject", key="reviewer")], "delivered",
            ["Reply re_1 is delivered in the trail, and oversight.reject in MultiMail's log."],
        ),
        (
            [SUBMITTED, APPROVED], "rejected",
            ["Reply re_1 is rejected in the trail, and oversight.approve in MultiMail's log."],
        ),
        ([], "delivered", ["MultiMail's audit log is empty: there is nothing to compare the trail with."]),
    ],
)  # fmt: skip
def test_every_reply_that_left_has_one_submission_and_one_decision_by_another_key(
    entries: Sequence[AuditLogEntry], status: str, differences: list[str]
) -> None:
    log = [*entries, OLDEST] if entries else []
    assert list(compare_with_service([settle("re_1", status)], log)) == differences


def test_a_decision_without_a_key_is_no_decision_with_the_key_of_the_agent() -> None:
    at_the_dashboard = [logged("email.replied", key=""), logged("oversight.approve", key=""), OLDEST]
    assert list(compare_with_service([settle("re_1")], at_the_dashboard)) == []


def test_what_the_agents_key_sent_past_the_trail_is_named() -> None:
    unknown = logged("email.sent", "re_2", minutes=1)
    others = logged("email.sent", "re_3", "a colleague", minutes=1)
    before = logged("email.replied", "re_0", minutes=-1)
    found = list(compare_with_service([settle("re_1")], [unknown, others, SUBMITTED, APPROVED, before]))
    assert found == [
        "Email re_2 was submitted with the agent's key (email.sent, 2026-11-27 12:01 UTC), "
        "and the trail has no record of it."
    ]


def test_the_whole_log_is_read_page_by_page_and_never_for_ever() -> None:
    simulator = MultiMailSimulator(lambda: AT)
    box = simulator.add_mailbox("support@northwind.example")
    email_id = simulator.deliver(box, "ann@customer.example", "Time", "How long?")
    for number in range(250):
        simulator.set_tags(box, email_id, {"n": str(number)}, "a key")
    with LoopbackServer(simulator.app) as server:
        client = MultiMailClient(server.url, StaticSecret(Secret(simulator.add_key(["admin"]))))
        assert len(list(client.list_audit_log())) == 250
        simulator.fault = always(answer_with(200, {"entries": [], "cursor": "1"}))
        with pytest.raises(TransientError, match="same cursor twice"):
            list(client.list_audit_log())


# The command


@dataclass
class Desk:
    """An agent's world, and the command line of whoever audits it."""

    world: World
    folder: Path
    environment: dict[str, str]

    def verify(self, *words: str, **changes: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "local", "audit", "verify", *words], cwd=self.folder,
            env=self.environment | changes, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    def tamper(self, statement: str) -> None:
        with closing(sqlite3.connect(self.folder / "ledger.sqlite")) as connection, connection:
            assert connection.execute(statement).rowcount == 1


@pytest.fixture
def desk(world: World, tmp_path: Path) -> Desk:
    """Two replies, one approved and one rejected, and the key of the trail in a file."""
    ids = [world.deliver(), world.deliver(sender="bob@customer.example")]
    world.run_until_idle()
    for email_id, action in zip(ids, ("approve", "reject"), strict=True):
        world.simulator.decide(world.entry(email_id).reply_id or "", action)
    world.clock.advance(minutes=6)
    world.agent.track()
    (tmp_path / "kept-elsewhere.key").write_text(f"{AUDIT_KEY}\n")
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path),
        "MULTIMAIL_API_URL": world.url, "MULTIMAIL_API_KEY": world.key, "MODEL_ENDPOINT": "http://127.0.0.1:9",
        "MODEL_API_KEY": "unused", "TRIAGE_DEPLOYMENT": "small", "LEDGER_PATH": str(tmp_path / "ledger.sqlite"),
        "AUDIT_KEY_FILE": str(tmp_path / "kept-elsewhere.key"),
    }  # fmt: skip
    return Desk(world, tmp_path, environment)


def test_the_command_checks_the_trail_next_to_a_running_agent_and_prints_an_anchor(desk: Desk) -> None:
    before = len(desk.world.simulator.requests)
    admin = desk.world.simulator.add_key(["admin"])
    status, output = desk.verify("--multimail", ADMIN_KEY=admin)
    assert status == 0, output
    assert "Records checked: 4. None is changed or missing" in output
    assert "the ledger and MultiMail's audit log agree" in output
    assert admin not in output
    asked = {(r.method, r.path) for r in desk.world.simulator.requests[before:]}
    assert asked == {("GET", "/v1/audit-log")}
    anchor = output.splitlines()[-1]
    assert desk.verify("--anchor", anchor)[0] == 0
    assert "--anchor is not what this command printed" in desk.verify("--anchor", anchor[2:])[1]


def test_the_command_catches_a_tampered_and_a_truncated_trail(desk: Desk) -> None:
    last = "partition = 'audit|00' AND key = 'record|000000000004'"
    desk.tamper(f"UPDATE rows SET fields = replace(fields, 'reviewer', 'service') WHERE {last}")
    status, output = desk.verify()
    assert status == 1
    assert "Record 4 of chain 00" in output
    assert "Records checked: 4. Differences: 1." in output
    desk.tamper(f"DELETE FROM rows WHERE {last}")
    status, output = desk.verify()
    assert status == 1
    assert "Record 4 of chain 00 is missing at its end." in output


def test_a_reply_that_multimail_knows_otherwise_is_listed(desk: Desk) -> None:
    agent = desk.world.simulator.find_key_id(desk.world.key) or ""
    desk.world.simulator.audit[:] = [
        replace(entry, actor_key_id=agent) if entry.action == "oversight.approve" else entry
        for entry in desk.world.simulator.audit
    ]
    status, output = desk.verify("--multimail", ADMIN_KEY=desk.world.simulator.add_key(["admin"]))
    assert status == 1
    assert "was decided with a key that submits replies" in output


def test_a_key_that_is_missing_or_too_weak_is_named(desk: Desk) -> None:
    status, output = desk.verify("--multimail")
    assert (status, "ADMIN_KEY is not set" in output) == (2, True)
    status, output = desk.verify("--multimail", ADMIN_KEY=desk.world.key)
    assert (status, "the key lacks the admin scope" in output) == (2, True)
    status, output = desk.verify(AUDIT_KEY_FILE=str(desk.folder / "lost.key"))
    assert (status, "AUDIT_KEY_FILE:" in output) == (2, True)
    desk.world.simulator.fault = always(answer_with(503))
    status, output = desk.verify("--multimail", ADMIN_KEY="mm_test_any")
    assert (status, "MultiMail's audit log could not be read" in output) == (1, True)
