"""Attacks on the audit trail and accidents: each is named, none is taken for another, and mail goes on."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from local.audit.checking import compare_with_service
from local.audit.command import build_trail
from local.audit.verify import check_trail
from local.testing.world import AUDIT_KEY, World, build_settings
from shared.composition import open_audit_key, open_trail
from shared.domain import AuditLogEntry
from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.ledger.audit_chains import AuditChains, check_anchor, find_anchor, find_problems, read_facts
from shared.ledger.audit_trail import AuditTrail
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger, build_email_row
from shared.ledger.sqlite_store import SqliteStore
from shared.ledger.store import Change, Row, Verb
from shared.services.secrets import StaticSecret
from shared.settings import Secret
from shared.telemetry import EMAIL_DECIDED, record

ROOT = Path(__file__).parent.parent
KEY = Secret(AUDIT_KEY)
AT = datetime(2026, 11, 27, 12, tzinfo=UTC)
LOST = "the process ended before it was written, or the row was changed."


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "chains.sqlite")) as made:
        yield made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world, world.agent.trail:
        yield world


class Meddling:
    """A store that does something at a write or a scan of the chains, once, before it goes on."""

    def __init__(self, store: Any, *, write: Callable[..., None] | None = None, scan: Any = None) -> None:
        self._store, self._write, self._scan = store, write, scan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, changes: Sequence[Change]) -> Any:
        if self._write is not None:
            self._write(changes)
        return self._store.write(changes)

    def scan(self, partitions: Sequence[str], first: str, last: str) -> Iterator[Row]:
        found = list(self._store.scan(partitions, first, last))
        meddle, self._scan = (None, self._scan) if partitions != ["audit|00"] else (self._scan, None)
        if meddle is not None:
            meddle()
            found = list(self._store.scan(partitions, first, last))
        return iter(found)


def facts(number: int) -> str:
    return json.dumps({"at": f"2026-11-27T12:00:{number:02}", "email_id": f"em_{number}", "actor": "agent"})


def write(store: Any, *numbers: int, key: Secret = KEY, ledger: str = "ledger") -> AuditChains:
    chains = AuditChains(store, ledger)
    for number in numbers:
        chains.append([facts(number)], key)
    return chains


def problems(store: Any, key: Secret = KEY) -> list[str]:
    return list(find_problems(AuditChains(store, "ledger").read(), key))


def change(store: Any, key: str, **fields: Any) -> None:
    """Do what somebody may do who can write the store and has no key; None takes a field away."""
    row = store.get("audit|00", key)
    changed = {name: value for name, value in {**row.fields, **fields}.items() if value is not None}
    store.write([Change(Verb.REPLACE, replace(row, fields=changed))])


def remove_chain(store: Any, chain: str) -> None:
    for row in list(store.scan([f"audit|{chain}"], "", "~")):
        store.write([Change(Verb.DELETE, Row(row.partition, row.key))])


# The chains


def test_a_chain_that_was_removed_with_its_head_is_named_with_or_without_decisions(
    store: SqliteStore,
) -> None:
    chains = write(store, 1)
    write(store, 2)
    chains.append([facts(3)], KEY)  # the other one was faster: into the next chain
    assert [len(chain.records) for chain in chains.read()][:2] == [3, 2]
    for chain in ("00", "05"):
        remove_chain(store, chain)
    write(store, 4)  # by a process that would write to the first
    assert problems(store) == [
        f"Chain {chain} is missing: somebody removed it with its head." for chain in ("00", "05")
    ]


def test_a_trail_without_any_record_is_sound(world: World, store: SqliteStore) -> None:
    assert problems(store) == []
    assert check_trail(world.ledger, KEY).differences == []


def test_a_beginning_that_was_cut_short_is_made_up_for(store: SqliteStore) -> None:
    begun: list[str] = []

    def end_the_process(changes: Sequence[Change]) -> None:
        begun.append(changes[0].row.partition)
        if len(begun) == 4:
            raise TransientError("the process ended")

    with pytest.raises(TransientError, match="the process ended"):
        write(Meddling(store, write=end_the_process), 1)
    write(store, 1)
    assert problems(store) == []
    assert len(AuditChains(store, "ledger").find_heads()) == 8


def test_a_chain_of_another_ledger_under_the_same_key_is_named(store: SqliteStore) -> None:
    write(store, 1, 2, ledger="observed")
    assert problems(store)[0] == "Record 0 of chain 00 was changed, or put there."
    assert "The head of chain 00 was changed: its end is not known." in problems(store)


@pytest.mark.parametrize("key_id", [KEY.fingerprint, "00000000"])
def test_a_head_that_was_made_to_fit_is_not_borne_out_by_the_next_record(
    store: SqliteStore, key_id: str
) -> None:
    write(store, 1, 2, 3)
    second = store.get("audit|00", f"record|{2:012}")
    assert second is not None
    store.write([Change(Verb.DELETE, Row("audit|00", f"record|{3:012}"))])
    change(store, "head", number=2, mac=second.fields["mac"], key_id=key_id)
    write(store, 4)  # by a new process
    assert len(problems(store)) == 1
    assert read_facts(AuditChains(store, "ledger").read())[-1]["email_id"] == "em_4"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"mac": None}, "Record 2 of chain 00 cannot be read: it was changed."),
        ({"number": "two"}, "Record 2 of chain 00 cannot be read: it was changed."),
        ({"facts": "[" * 100_000}, "Record 2 of chain 00 was changed, or put there."),
        ({"mac": "\ud800"}, "Record 2 of chain 00, which is about em_2, was changed, or put there."),
    ],
)
def test_a_damaged_record_is_named(store: SqliteStore, fields: dict[str, Any], named: str) -> None:
    write(store, 1, 2, 3)
    change(store, f"record|{2:012}", **fields)
    assert problems(store)[0] == named


def test_a_record_that_is_there_twice_is_named(store: SqliteStore) -> None:
    write(store, 1, 2, 3)
    second = store.get("audit|00", f"record|{2:012}")
    assert second is not None
    store.write([Change(Verb.INSERT, replace(second, key=f"{second.key}x"))])
    assert problems(store) == ["Record 2 of chain 00 is there twice: one was put there."]


def test_what_is_appended_while_the_chains_are_read_is_not_missing(store: SqliteStore) -> None:
    writer = write(store, 1, 2)
    read = AuditChains(Meddling(store, scan=lambda: writer.append([facts(3)], KEY)), "ledger").read()
    assert next(len(chain.records) for chain in read) == 4
    assert list(find_problems(read, KEY)) == []


def test_an_anchor_of_an_empty_trail_holds(store: SqliteStore) -> None:
    anchor = find_anchor({}, KEY)
    assert list(check_anchor(anchor, write(store, 1).read(), KEY)) == []


# Writing


def decide(number: int) -> None:
    record(EMAIL_DECIDED, {"mailbox_id": "mb_1", "email_id": f"em_{number}", "actor": "agent"})


def list_emails(store: Any) -> list[str]:
    return sorted(one["email_id"] for one in read_facts(AuditChains(store, "ledger").read()))


def test_a_damaged_head_stops_no_mail_and_its_chain_is_left_as_it_is(world: World) -> None:
    world.deliver()
    world.run_until_idle()
    store = world.ledger._store
    change(store, "head", seal=None)
    other = world.deliver(sender="bob@customer.example")
    world.run_until_idle()
    world.agent.track()
    assert world.entry(other).finished_at is not None
    assert other in list_emails(store)
    assert problems(store) == ["The head of chain 00 was changed: its end is not known."]


def test_a_record_that_the_store_refuses_is_left_out_alone(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    is_away = True

    def refuse(changes: Sequence[Change]) -> None:
        if is_away:
            raise TransientError("away")
        if any("em_1" in str(change.row.fields.get("facts")) for change in changes):
            raise PermanentError("too large")

    with AuditTrail(AuditChains(Meddling(store, write=refuse), "ledger"), StaticSecret(KEY)):
        for number in range(3):
            decide(number)
        is_away = False
        decide(3)
    assert "the audit trail lacks a decision about em_1 for good: too large" in caplog.text
    assert list_emails(store) == ["em_0", "em_2", "em_3"]


def test_whatever_the_trail_meets_stops_no_mail(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    def break_down(_: Sequence[Change]) -> None:
        raise RuntimeError("text of an email")

    with AuditTrail(AuditChains(Meddling(store, write=break_down), "ledger"), StaticSecret(KEY)) as trail:
        decide(1)
    assert trail.waiting == 1
    assert "about em_1: RuntimeError" in caplog.text
    assert "text of an email" not in caplog.text


def test_what_waits_is_written_at_the_end(store: SqliteStore) -> None:
    tries: list[str] = []

    def fail_once(_: Sequence[Change]) -> None:
        tries.append("")
        if len(tries) == 1:
            raise TransientError("away")

    with AuditTrail(AuditChains(Meddling(store, write=fail_once), "ledger"), StaticSecret(KEY)) as trail:
        decide(1)
        assert trail.waiting == 1
    assert list_emails(store) == ["em_1"]
    assert trail.waiting == 0


# The key


def test_a_key_is_made_for_a_new_trail_on_this_machine_alone(tmp_path: Path) -> None:
    settings, key_file = build_settings(tmp_path), tmp_path / "audit.key"
    with closing(SqliteStore(settings.ledger_path)) as store:
        tables = replace(settings, ledger_table_endpoint="https://a.table.core.windows.net")
        for elsewhere in (open_trail(tables, Ledger(store))._key, open_audit_key(settings)):
            with pytest.raises(ConfigurationError, match=r"AUDIT_KEY_FILE: .*KEY_VAULT_URL"):
                elsewhere.get()
        with open_trail(settings, Ledger(store)):
            decide(1)
        key_file.unlink()
        with open_trail(settings, Ledger(store)) as trail:
            decide(2)
        assert (trail.waiting, key_file.exists(), list_emails(store)) == (1, False, ["em_1"])


def test_a_command_whose_record_is_lost_does_its_work_and_says_so(world: World, tmp_path: Path) -> None:
    world.model.triage["action"] = "escalate"
    email_id = world.deliver()
    world.run_until_idle()
    world.ledger.close()
    done = subprocess.run(
        [sys.executable, "-m", "local", "done", email_id], cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path),
            "MULTIMAIL_API_URL": world.url, "MULTIMAIL_API_KEY": world.key,
            "MODEL_ENDPOINT": "http://127.0.0.1:9", "MODEL_API_KEY": "unused", "TRIAGE_DEPLOYMENT": "small",
            "LEDGER_PATH": str(world.settings.ledger_path), "COLUMNS": "200",
        },
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "escalation closed" in done.stdout
    assert "Records of the audit trail that could not be written, and are lost: 1." in done.stdout
    assert "AUDIT_KEY_FILE" in done.stderr
    assert done.returncode == 1


# The ledger


def differences(world: World) -> list[str]:
    return list(check_trail(world.ledger, KEY).differences)


def answer(world: World) -> LedgerEntry:
    """An email with a reply that waits for approval."""
    email_id = world.deliver()
    world.run_until_idle()
    return world.entry(email_id)


def track(world: World) -> None:
    world.clock.advance(minutes=6)
    world.agent.track()


CHANGES: Sequence[tuple[Callable[[LedgerEntry], LedgerEntry], str]] = [
    (lambda row: replace(row, digest_key="", sender="eve@evil.example"), "another sender or reply"),
    (lambda row: replace(row, outcome=None, cause=None), "another outcome, cause"),
    (lambda row: replace(row, reply_id="re_0"), "another reply id"),
    (lambda row: row.erased(AT), "no record of its erasure"),
    (lambda row: replace(row, finished_at=AT + timedelta(days=9)), "no record of its last decision"),
    (lambda row: replace(row, finished_at=AT - timedelta(days=999)), "the row was put back"),
    (
        lambda row: replace(row, reply_status="delivered", reply_settled_at=AT),
        "no record of the end of reply",
    ),
]


@pytest.mark.parametrize(("tamper", "named"), CHANGES)
def test_a_row_that_was_changed_is_named(
    world: World, tamper: Callable[[LedgerEntry], LedgerEntry], named: str
) -> None:
    row = answer(world)
    assert differences(world) == []
    world.ledger.save(tamper(row))
    (found,) = differences(world)
    assert found.startswith(f"Email {row.email_id}: ")
    assert named in found


def test_a_rejection_that_was_put_into_a_row_is_named(world: World) -> None:
    row = answer(world)
    assert row.draft is not None
    made_up = row.draft.rejected("re_0", "", submitted_at=AT, decided_at=AT)
    world.ledger.save(replace(row, rejections=(made_up,)))
    assert differences(world) == [
        f"Email {row.email_id}: the trail has no record of the end of reply re_0: {LOST}",
        f"Email {row.email_id}: the ledger has another revision than the trail recorded: the row was changed.",
    ]


def test_another_end_of_a_reply_is_named(world: World) -> None:
    row = answer(world)
    world.simulator.decide(row.reply_id or "", "approve")
    track(world)
    row = world.entry(row.email_id)
    world.ledger.save(replace(row, reply_status="bounced"))
    (found,) = differences(world)
    assert f"reply {row.reply_id} is bounced in the ledger, and delivered in the trail" in found
    row = world.entry(row.email_id)
    world.ledger.save(replace(row, reply_status=None, reply_settled_at=None))
    (found,) = differences(world)
    assert f"the trail has the end of reply {row.reply_id}, the ledger has not" in found


def test_a_row_that_was_deleted_or_cannot_be_read_is_named(world: World) -> None:
    row = build_email_row(answer(world))
    store: Any = world.ledger._store
    held = store.get(row.partition, row.key)
    for damage in ({"received_at": "x"}, {"rejections": '["x"]'}, {"draft__claims__1": '["x"]'}):
        store.write([Change(Verb.UPSERT, replace(held, fields={**held.fields, **damage}))])
        assert "cannot" in differences(world)[0]
    with closing(sqlite3.connect(world.settings.ledger_path)) as connection, connection:
        connection.execute("UPDATE rows SET fields = '{' WHERE key = ?", (row.key,))
    assert differences(world) == [
        "Rows of emails that the ledger cannot read: 1. They were changed.",
        f"Email {held.fields['email_id']}: the trail has records of it, and the ledger no row: it was deleted.",
    ]
    store.write([Change(Verb.DELETE, row)])
    assert len(differences(world)) == 1


def test_an_erasure_that_was_taken_back_is_named(world: World) -> None:
    row = answer(world)
    world.simulator.decide(row.reply_id or "", "approve")
    track(world)
    row = world.entry(row.email_id)
    world.clock.advance(days=world.settings.retention_days + 1)
    world.agent.track()
    assert differences(world) == []
    world.ledger.save(replace(row, version=world.entry(row.email_id).version))
    (found,) = differences(world)
    assert "the trail has its erasure, and the ledger still has the email" in found


@pytest.mark.parametrize("action", ["ignore", "reply"])
def test_a_second_decision_that_was_lost_is_not_called_a_change(world: World, action: str) -> None:
    world.model.triage["action"] = "escalate"
    email_id = world.deliver()
    world.run_until_idle()
    world.clock.advance(minutes=1)
    world.ledger.defer(world.entry(email_id).redriven(world.clock()))
    world.model.triage["action"] = action
    world.agent.trail.detach()  # the process ends between the row and its record
    world.run_until_idle()
    assert differences(world) == [f"Email {email_id}: the trail has no record of its last decision: {LOST}"]


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_an_end_of_a_reply_that_was_lost_is_named(world: World, decision: Any) -> None:
    row = answer(world)
    world.simulator.set_tags(world.box, row.reply_id or "", {"agent.reject_reason": "Say please."}, "person")
    world.simulator.decide(row.reply_id or "", decision)
    world.agent.trail.detach()
    track(world)
    world.agent.trail.attach()
    world.run_until_idle()  # a rejected one is drafted again
    assert world.entry(row.email_id).finished_at is not None
    assert differences(world) == [
        f"Email {row.email_id}: the trail has no record of the end of reply {row.reply_id}: {LOST}"
    ]


def test_what_an_agent_decides_during_the_check_is_no_difference(world: World) -> None:
    answer(world)
    ledger = Ledger(Meddling(world.ledger._store, scan=lambda: answer(world)))
    assert list(check_trail(ledger, KEY).differences) == []
    assert len(read_facts(world.ledger.audit.read())) == 2


def test_facts_that_somebody_wrote_are_shown_or_left_out(store: SqliteStore) -> None:
    write(store, 1, 2, 3)
    change(store, f"record|{1:012}", facts=json.dumps({"at": "x", "email_id": ["em_1"]}))
    change(store, f"record|{2:012}", facts=json.dumps({"at": "x", "input_tokens": "9", "reply_id": 4}))
    found = read_facts(AuditChains(store, "ledger").read())
    assert len(found) == 2
    assert build_trail(found, 80, {})
    assert list(compare_with_service(found, [logged("email.replied")])) == []


# MultiMail's log


def logged(action: str, email_id: str = "re_1", key: str = "agent", minutes: int = 0) -> AuditLogEntry:
    return AuditLogEntry(action, email_id, key, AT + timedelta(minutes=minutes))


def told(event: str = EMAIL_DECIDED, **more: Any) -> dict[str, Any]:
    return {"at": (AT + timedelta(seconds=2)).isoformat(), "event": event, "email_id": "em_1", **more}


OLDEST = logged("mailbox.created", "box", "admin", minutes=-120)
REPLIED, ASKED = told(reply_id="re_1"), told("tool.called", reply_id="re_1")
BY_AGENT, BY_PERSON = (logged("oversight.approve", key=key, minutes=1) for key in ("agent", "person"))


def ended(status: str) -> dict[str, Any]:
    return told("reply.settled", reply_id="re_1", reply_status=status)


@pytest.mark.parametrize("known", [[REPLIED], [ASKED], [REPLIED, ended("unknown")], [REPLIED, ended("gone")]])
def test_a_decision_by_the_agents_key_is_named_whatever_the_trail_has(known: list[dict[str, Any]]) -> None:
    log = [logged("email.replied"), BY_AGENT]
    assert list(compare_with_service(known, log)) == [
        "Reply re_1 was decided with a key that submits replies (agent)."
    ]
    assert list(compare_with_service(known, [logged("email.replied"), BY_PERSON])) == []


def test_a_decision_by_another_of_the_agents_keys_is_named() -> None:
    log = [
        logged("email.replied"),
        logged("email.replied", "re_2", "agent's next"),
        logged("oversight.approve", key="agent's next", minutes=1),
    ]
    assert list(compare_with_service([REPLIED, told(reply_id="re_2")], log)) == [
        "Reply re_1 was decided with a key that submits replies (agent's next)."
    ]


def test_a_decision_on_what_the_agent_cancelled_is_named() -> None:
    assert list(
        compare_with_service([REPLIED, ended("cancelled")], [logged("email.replied"), BY_PERSON])
    ) == ["Reply re_1 is cancelled in the trail, and oversight.approve in MultiMail's log."]


@pytest.mark.parametrize(
    "action", ["send.approved", "oversight.approve_send", "pending_send.approve", "reply.approved"]
)
def test_a_decision_is_no_submission_whatever_else_its_name_says(action: str) -> None:
    log = [logged("email.replied"), logged(action, key="person", minutes=1)]
    assert list(compare_with_service([REPLIED, ended("delivered")], [*log, OLDEST])) == []
    assert list(compare_with_service([REPLIED, ended("delivered")], log[1:])) == []  # it begins after that


def test_a_delivery_that_is_logged_as_sent_is_no_submission() -> None:
    log = [logged("email.sent", minutes=1), BY_PERSON, logged("email.replied"), OLDEST]
    assert list(compare_with_service([REPLIED, ended("delivered")], log)) == []


def test_a_stolen_key_is_known_by_its_tags() -> None:
    log = [logged("email.sent", "re_9", minutes=1), logged("email.tags_set", "em_1")]
    found = list(compare_with_service([told()], log))
    assert [one.partition("(")[0] for one in found] == ["Email re_9 was submitted with the agent's key "]
    later = logged("email.tags_set", "em_1", "person", minutes=30)  # who tags it too
    assert list(compare_with_service([told()], [later, logged("email.sent", "re_9", "person", 31)])) == []


def test_a_log_that_begins_between_a_submission_and_its_record_is_no_difference() -> None:
    log = [logged("email.tags_set", "em_1"), BY_PERSON]
    assert list(compare_with_service([REPLIED, ended("delivered")], log)) == []
    assert len(list(compare_with_service([REPLIED, ended("delivered")], [*log, OLDEST]))) == 1
