"""The command as an operator runs it: a process of its own, real clients, both SDKs, faults and kills."""

import fcntl
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from flask.typing import ResponseReturnValue
from rich.cells import cell_len

from local.commands.demo_mail import seed_demo
from local.host.http_server import LoopbackServer
from local.model.chat_simulator import ChatSimulator, hang_until
from local.multimail.faults import Fault, FaultSource, always, answer_with
from local.multimail.simulator import MultiMailSimulator
from shared.domain import Cause, Outcome, parse_address
from shared.ledger.entries import LedgerEntry
from shared.ledger.sqlite_store import open_sqlite_ledger

ROOT = Path(__file__).parent.parent
CHAT_KEY = "model-key-of-the-test"


class Services:
    """A simulated MultiMail and chat endpoint, and the command that works against them."""

    def __init__(self, tmp_path: Path) -> None:
        self.multimail = MultiMailSimulator(lambda: datetime.now(UTC))
        self.chat = ChatSimulator(api_key=CHAT_KEY, shields=True)
        self.multimail_server = LoopbackServer(self.multimail.app)
        self.chat_server = LoopbackServer(self.chat.app)
        self.ledger_path = tmp_path / "ledger.sqlite"
        self.folder = tmp_path

    def environment(self, **changes: str | None) -> dict[str, str]:
        values: dict[str, str | None] = {
            "PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(ROOT),
            "MULTIMAIL_API_URL": self.multimail_server.url, "MULTIMAIL_API_KEY": self.multimail.add_key(),
            "MODEL_ENDPOINT": self.chat_server.url, "MODEL_API_KEY": CHAT_KEY, "TRIAGE_DEPLOYMENT": "small",
            "LEDGER_PATH": str(self.ledger_path), "RETRY_BASE_SECONDS": "0.2", "RETRY_MAX_SECONDS": "1",
        }  # fmt: skip
        return {name: value for name, value in (values | changes).items() if value is not None}

    def start(self, **changes: str | None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "local", "run", "--until-idle"],
            cwd=self.folder, env=self.environment(**changes), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, **changes: str | None) -> tuple[int, str]:
        process = self.start(**changes)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def call(self, *words: str, **changes: str | None) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "local", *words],
            cwd=self.folder, env=self.environment(**changes), capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def entries(self) -> dict[str, LedgerEntry]:
        ledger = open_sqlite_ledger(self.ledger_path, read_only=True)
        return {entry.email_id: entry for box in self.multimail.mailboxes for entry in ledger.entries(box)}

    def check_promises(self) -> None:
        """Asserted on the simulator's own log, whatever the agent says of itself."""
        posts = [r for r in self.multimail.requests if r.method == "POST"]
        assert all("/reply/" in r.path for r in posts)
        assert all(isinstance(r.body, dict) and set(r.body) == {"markdown", "idempotency_key"} for r in posts)
        answered = [accepted.in_reply_to for accepted in self.multimail.accepted]
        assert len(answered) == len(set(answered))
        for accepted in self.multimail.accepted:
            inbound = self.multimail.find_email(accepted.in_reply_to or "")
            assert inbound is not None
            assert accepted.recipients == (parse_address(inbound.sender),)
            assert accepted.mode in ("gated_send", "gated_all")
            assert not accepted.approval_bypassed


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path)
    with made.multimail_server, made.chat_server:
        yield made


def test_run_says_before_it_polls_how_far_back_it_reads_and_what_is_paused(services: Services) -> None:
    services.multimail.add_mailbox("support@northwind.example")
    assert services.call("pause", "support@northwind.example")[0] == 0
    status, output = services.run(INITIAL_LOOKBACK_HOURS="3")
    assert status == 0, output
    lines = output.splitlines()
    assert lines[1].startswith("First read of support@northwind.example: what it received since 20")
    assert lines[1].endswith("is handled, what is older is left alone (INITIAL_LOOKBACK_HOURS=3).")
    assert lines[2] == "support@northwind.example is paused: its new mail waits, unread."
    assert "First read" not in services.run()[1]


@pytest.mark.parametrize("sdk", ["azure-ai-inference", "openai"])
def test_the_demo_mail_comes_to_its_outcomes_and_an_approved_reply_is_delivered(
    services: Services, sdk: str
) -> None:
    seed_demo(services.multimail, datetime.now(UTC))
    status, output = services.run(MODEL_SDK=sdk)
    assert status == 0, output
    services.check_promises()
    entries = services.entries()
    assert all(entry.finished_at is not None for entry in entries.values())
    outcomes = {entry.outcome for entry in entries.values()}
    assert outcomes == {
        Outcome.REPLY_SUBMITTED, Outcome.IGNORED, Outcome.ESCALATED, Outcome.SKIPPED,
        Outcome.BLOCKED_UNGATED, Outcome.BLOCKED_CONTENT_SAFETY,
    }  # fmt: skip
    for email_id, entry in entries.items():
        email = services.multimail.find_email(email_id)
        assert email is not None
        assert email.tags["agent.outcome"] == entry.outcome
    reply_id = next(entry.reply_id for entry in entries.values() if entry.reply_id)
    services.multimail.decide(reply_id, "approve")
    reply = services.multimail.find_email(reply_id)
    assert reply is not None
    assert reply.delivered_at is not None
    before = len(services.multimail.accepted)
    assert services.run(MODEL_SDK=sdk)[0] == 0
    assert len(services.multimail.accepted) == before
    assert CHAT_KEY not in output


def test_a_process_killed_at_any_moment_loses_nothing_and_sends_nothing_twice(services: Services) -> None:
    seed_demo(services.multimail, datetime.now(UTC))
    for kill_at in (3, 9, 14, 22, 35, 60, 90):
        process = services.start()
        services.multimail.fault = kill_after(process, len(services.multimail.requests) + kill_at)
        process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL)
    services.multimail.fault = lambda _method, _path, _number: None
    status, output = services.run()
    assert status == 0, output
    services.check_promises()
    entries = services.entries()
    assert set(entries) == set(emails_of(services))
    assert all(
        entry.finished_at is not None and entry.outcome is not Outcome.FAILED for entry in entries.values()
    )
    assert all(entry.reply_id for entry in entries.values() if entry.outcome is Outcome.REPLY_SUBMITTED)


def test_an_email_that_kills_the_process_each_time_is_given_up_and_the_others_get_their_turn(
    services: Services,
) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    poison, *others = (
        services.multimail.deliver(box, f"{name}@customer.example", "Delivery", "How long does it take?")
        for name in ("eve", "ann", "bob", "cem")
    )
    started = 0
    while True:
        process = services.start(MAX_ATTEMPTS="3")
        started += 1
        services.multimail.fault = kill_at_email(process, poison)
        output, _ = process.communicate(timeout=120)
        if process.returncode != -signal.SIGKILL:
            break
    assert (started, process.returncode) == (4, 1), output
    entries = services.entries()
    assert (entries[poison].outcome, entries[poison].cause) == (Outcome.FAILED, Cause.CRASHED)
    assert {entries[other].outcome for other in others} == {Outcome.REPLY_SUBMITTED}


def kill_at_email(process: "subprocess.Popen[str]", email_id: str) -> FaultSource:
    """A fault source that kills the process whenever it reads that email."""

    def source(method: str, path: str, _at: int) -> Fault | None:
        if method == "GET" and path.endswith(email_id):
            process.kill()
        return None

    return source


def test_a_run_that_its_operator_stops_in_the_midst_of_an_email_counts_no_attempt(services: Services) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    email_id = services.multimail.deliver(box, "ann@customer.example", "Delivery", "How long does it take?")
    process = services.start()

    def stop_twice(_method: str, path: str, _at: int) -> Fault | None:
        if path.endswith(email_id) and process.poll() is None:
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            assert any("Press Ctrl-C again" in line for line in process.stdout)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
        return None

    services.multimail.fault = stop_twice
    process.communicate(timeout=120)
    entry = services.entries()[email_id]
    assert (entry.attempts, entry.lease_until, entry.outcome) == (0, None, None)


def emails_of(services: Services) -> list[str]:
    client = services.multimail.app.test_client()
    key = {"Authorization": f"Bearer {services.multimail.add_key(('read',))}"}
    return [
        email["id"]
        for box in services.multimail.mailboxes
        for email in client.get(
            f"/v1/mailboxes/{box}/emails?direction=inbound&limit=100", headers=key
        ).get_json()["emails"]
    ]


def kill_after(process: "subprocess.Popen[str]", number: int) -> FaultSource:
    """A fault source that lets every call go well and kills the process when call `number` arrives."""

    def source(_method: str, _path: str, at: int) -> Fault | None:
        if at == number:
            process.kill()
        return None

    return source


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"MODEL_ENDPOINT": None}, "MODEL_ENDPOINT is not set"),
        ({"TRIAGE_DEPLOYMENT": None}, "TRIAGE_DEPLOYMENT is not set"),
        ({"MULTIMAIL_API_KEY": None}, "MULTIMAIL_API_KEY"),
        ({"MODEL_SDK": "other"}, "MODEL_SDK"),
        ({"MULTIMAIL_API_KEY": "mm_test_wrong"}, "MULTIMAIL_API_KEY"),
        ({"MODEL_API_KEY": "wrong"}, "MODEL_API_KEY"),
        ({"MULTIMAIL_MAILBOX_IDS": "mb_nowhere"}, "mb_nowhere"),
        ({"POLL_SCHEDULE": "every minute"}, "every minute"),
        ({"LEDGER_PATH": "/dev/null/ledger.sqlite"}, "LEDGER_PATH"),
    ],
)
def test_a_wrong_setting_is_named_and_loses_nothing(
    services: Services, changes: dict[str, str | None], word: str
) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    email_id = services.multimail.deliver(
        box, "ann@customer.example", "Delivery time", "How long does it take?"
    )
    status, output = services.run(**changes)
    assert status == 2, output
    assert word in output
    assert "Traceback" not in output
    assert services.run()[0] == 0
    assert services.entries()[email_id].outcome is Outcome.REPLY_SUBMITTED


def test_a_service_that_is_down_is_named_and_loses_nothing(services: Services) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    email_id = services.multimail.deliver(
        box, "ann@customer.example", "Delivery time", "How long does it take?"
    )
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for name in ("MODEL_ENDPOINT", "MULTIMAIL_API_URL"):
        status, output = services.run(**{name: nowhere})
        assert status == 2, output
        assert name in output
        assert "Traceback" not in output
    assert services.run()[0] == 0
    assert services.entries()[email_id].outcome is Outcome.REPLY_SUBMITTED


def test_a_model_that_keeps_failing_ends_the_run_with_a_failed_email_and_a_bad_status(
    services: Services,
) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    email_id = services.multimail.deliver(
        box, "ann@customer.example", "Delivery time", "How long does it take?"
    )
    services.chat.script(*[lambda _answer: ("no", 422)])
    status, output = services.run()
    assert status == 1, output
    assert services.entries()[email_id].outcome is Outcome.FAILED


def test_failed_emails_are_listed_and_set_back_by_one_command(services: Services) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    email_id = services.multimail.deliver(
        box, "ann@customer.example", "Delivery time", "How long does it take?"
    )
    services.chat.script(*[lambda _answer: ("no", 422)])
    assert services.run()[0] == 1
    status, output = services.call("redrive")
    assert status == 0
    assert email_id in output
    assert "422" in output
    assert services.call("redrive", "em_unknown")[0] == 1
    assert services.call("redrive", email_id)[0] == 0
    assert services.run()[0] == 0
    assert services.entries()[email_id].outcome is Outcome.REPLY_SUBMITTED
    status, output = services.call("redrive", email_id)
    assert status == 1
    assert "redriving would send a second reply" in output


def test_a_person_is_forgotten_by_one_command_and_stays_so(services: Services) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    email_id = services.multimail.deliver(
        box, "ann@customer.example", "Delivery time", "How long does it take?"
    )
    assert services.run()[0] == 0
    with closing(open_sqlite_ledger(services.ledger_path)):  # as a running agent holds it
        status, output = services.call("forget", "ann@customer.example")
    assert status == 2
    assert "Stop it, then run forget again." in output
    status, output = services.call("forget", "Ann <ann@customer.example>")
    assert status == 0, output
    assert "Erased in the ledger: 1 emails." in output
    assert "Cancelled: 1 pending replies." in output
    assert "MultiMail still holds" in output
    posts = len([r for r in services.multimail.requests if r.method == "POST"])
    assert services.run()[0] == 0
    assert len([r for r in services.multimail.requests if r.method == "POST"]) == posts
    assert services.entries()[email_id].cause is Cause.ERASED
    assert b"ann@customer.example" not in services.ledger_path.read_bytes()
    assert email_id not in services.call("redrive")[1]
    status, output = services.call("redrive", email_id)
    assert status == 1
    assert "the ledger has erased it" in output
    assert "has erased the texts" in services.call("audit", email_id)[1]
    assert services.call("forget", "no address")[0] == 2


def test_a_key_that_may_not_reply_leaves_the_run_unfinished_and_the_remedy_readable(
    services: Services,
) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    services.multimail.deliver(box, "ann@customer.example", "Delivery time", "How long does it take?")
    refused = "the mailbox's oversight mode forbids this, or the MultiMail key lacks the send scope"
    services.multimail.fault = always(
        answer_with(403), matching=lambda method, path: method == "POST" and "/reply/" in path
    )
    status, output = services.run()
    assert status == 1, output
    assert "needs_human  MultiMail refused the reply: " in output
    assert refused in " ".join(output.split())
    assert "`redrive` lists them" in output
    status, output = services.call("redrive")
    assert status == 0
    assert refused in " ".join(output.split())


def test_each_command_wants_only_the_settings_that_it_uses(services: Services) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    services.multimail.deliver(box, "ann@customer.example", "Delivery time", "How long does it take?")
    assert services.run()[0] == 0
    (email_id,) = services.entries()
    no_model = {"MODEL_ENDPOINT": None, "MODEL_API_KEY": None, "TRIAGE_DEPLOYMENT": None}
    status, output = services.call("ask", "What waits?", **no_model)
    assert (status, output.count(" is not set: ")) == (2, 2)
    assert services.call("notify", "--test", box, **no_model)[1].startswith("The profile of ")
    for words in (["open"], ["redrive"], ["report"], ["pause", box], ["resume", box]):
        status, output = services.call(*words, **no_model)
        assert status == 0, output
    for words in (["audit"], ["audit", "verify"]):
        status, output = services.call(*words, **no_model, MULTIMAIL_API_KEY=None)
        assert status == 0, output
    assert "is not set" not in services.call("done", email_id, **no_model, MULTIMAIL_API_KEY=None)[1]


def test_an_error_that_ends_a_run_is_printed_once(services: Services) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    for number in range(3):
        services.multimail.deliver(box, f"ann{number}@customer.example", "Delivery time", "How long?")
    status, output = services.run(MODEL_API_KEY="wrong")
    assert status == 2, output
    said = " ".join(output.split())
    assert said.count("MODEL_API_KEY") == 1, output
    assert "Configuration errors. Emails listed above are done or wait; nothing is lost. Fix these" in said


def test_a_host_name_that_is_unknown_is_said_to_be_and_no_email_is_touched(services: Services) -> None:
    status, output = services.run(MODEL_ENDPOINT="https://nothing.invalid")
    said = " ".join(output.split())
    assert status == 2, output
    assert "Configuration errors. No email was touched. Fix these and run again:" in said
    assert "MODEL_ENDPOINT: the host name in https://nothing.invalid is unknown: correct the address" in said


def test_a_question_while_an_agent_runs_is_sent_to_that_agent(services: Services) -> None:
    services.multimail.add_mailbox("support@northwind.example")
    ledger = open_sqlite_ledger(services.ledger_path)
    status, output = services.call("ask", "Which drafts are pending?")
    ledger.close()
    assert status == 1
    assert "Ask that run: it printed its address and its key" in output


@pytest.mark.parametrize("command", ["run", "demo"])
def test_a_full_disk_at_the_start_is_named(services: Services, command: str) -> None:
    """Seen by a process that may not write to files."""
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", sys.executable, "-m", "local", command, "--until-idle"],
        cwd=services.folder, env=services.environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "free space on its disk" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr


def test_two_runs_on_one_ledger_are_refused(services: Services) -> None:
    services.multimail.add_mailbox("support@northwind.example")
    ledger = open_sqlite_ledger(services.ledger_path)
    status, output = services.run()
    ledger.close()
    assert status == 2
    assert "LEDGER_PATH" in output


def test_a_run_shows_its_spans_when_asked_and_its_decisions_afterwards(services: Services) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    email_id = services.multimail.deliver(
        box, "ann@customer.example", "Delivery time", "How long does it take?"
    )
    status, output = services.run(OTEL_TRACES_EXPORTER="console")
    assert status == 0
    assert f"agent.email_id='{email_id}'" in next(
        line for line in output.splitlines() if " ms  process email " in line
    )
    assert "gen_ai.usage.input_tokens=" in output
    status, output = services.call("audit", email_id, "--json")
    assert status == 0
    assert f'"email_id": "{email_id}"' in output
    assert '"outcome": "reply_submitted"' in output
    assert email_id in services.call("audit")[1]
    status, output = services.call("audit", "em_unknown")
    assert status == 1
    assert "No decisions about em_unknown" in output
    assert "Did you mean" not in output
    assert "Did you mean verify?" in services.call("audit", "verifiy")[1]


def test_nothing_is_traced_unless_asked(services: Services) -> None:
    services.multimail.add_mailbox("support@northwind.example")
    assert " ms  " not in services.run()[1]


def test_the_demo_shows_a_summary_five_emails_and_what_to_do_next(services: Services) -> None:
    status, output = services.call("demo", "--until-idle")
    assert status == 0
    shown = (
        "44 emails processed",
        "Five of them",
        "Where is order NW-31207?",
        "its draft: 3 verified; facts of look-ups: orders 20",
        "I am at another address now: where is NW-31207?",
        "its draft: 2 verified; facts of look-ups: none",
        "its proposal, not submitted: ",
        "What a Teams channel was told",
        "support@northwind-instruments.example: 1 email needs a person",
        "A person is needed now",
        "What to do next",
        "contains a mistake: find it",
        "ARGS=--all",
    )
    positions = [output.index(text) for text in shown]
    assert positions == sorted(positions)
    assert "Audit trail of one email" not in output
    assert "sales@northwind-instruments.example: 2 emails need a person" in output
    assert "Digest" not in output


def test_the_whole_demo_shows_every_email_the_audit_a_question_and_the_trust_report(
    services: Services,
) -> None:
    status, output = services.call("demo", "--until-idle", "--all")
    assert status == 0
    for shown in (
        "Every email", "お礼と電池のご質問", "facts of look-ups: contracts 20", "facts of look-ups: invoices 20",
        "statement-october.pdf: read ", "order NW-29640.pdf: not read: the content is not what the name says",
        "open point: 2 pictures not looked at: ", "from attachment 1: SP-55120 of 3 October",
        "Audit trail of one email", "Submitted for approval", "verified: ",
        "None is changed or missing; the ledger agrees.", "statements in these drafts are verified",
        "Asked: Which drafts are pending?", "list_pending  ok", "At least 20 waiting for approval",
        "Recommendation: keep the current mode",
    ):  # fmt: skip
        assert shown in output


def test_the_observing_demo_finds_a_gap_and_closes_it_in_the_next_backtest(services: Services) -> None:
    status, output = services.call("demo", "--observe")
    assert status == 0
    shown = (
        "Observing only: ",
        "46 emails processed",
        "44 emails, of which 6 could not be answered. Others: ",
        "2  recycling ",
        "Proposed .data/demo/config/knowledge/proposed/em_",
        "would have answered 2 of 2 emails of its group",
        "# Recycling used instruments costs nothing",
        "Backtest: ",
        "Of what was answered, it would answer 3 of 4,",
        "Of what was answered, it would answer 4 of 4,",
        "Cases that flip: 2 of 46,",
    )
    positions = [output.index(text) for text in shown]
    assert positions == sorted(positions)
    assert output.count("Would have left to a person → Would have answered") == 2
    folder = services.folder / ".data" / "demo"
    (proposed,) = (folder / "config" / "knowledge" / "proposed").iterdir()
    text = proposed.read_text(encoding="utf-8")
    assert [word for word in ("Nadia", "T2-08812", "Ingrid", "gladly") if word in text] == []
    assert (folder / "learned" / "knowledge" / "support" / "recycling.md").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_what_the_terminal_cannot_show_is_replaced_by_as_many_columns(
    services: Services, encoding: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local", "demo", "--until-idle", "--all"], cwd=services.folder,
        env=services.environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0"), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    output = done.stdout.decode(encoding)
    table = output[output.index("Every email") : output.index("Audit trail of one email")].splitlines()
    rows = [row for row in table if " reply_submitted " in row]
    assert len({cell_len(row[: row.index(" reply_submitted ")]) for row in rows}) == 1
    assert len(rows) == 23  # with the two Japanese ones
    assert ("????????" in output) is (encoding != "utf-8")


# On a terminal


class Terminal:
    """The command on a terminal of so many columns."""

    def __init__(self, services: Services, columns: int, *words: str, **changes: str | None) -> None:
        self.output, of_process = pty.openpty()
        fcntl.ioctl(of_process, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local", *words], cwd=services.folder,
            env=services.environment(TERM="xterm-256color", **changes),
            stdin=of_process, stdout=of_process, stderr=of_process, start_new_session=True,
        )  # fmt: skip
        os.close(of_process)
        self.text, self._received = "", b""

    def read_until(self, words: str) -> None:
        """Read on until the words have come, or to the end."""
        while words not in self.text and self._read():
            pass
        assert words in self.text, self.text

    def read_to_end(self) -> int:
        """Read what is left; return the exit status."""
        while self._read():
            pass
        os.close(self.output)
        return self.process.wait(60)

    def _read(self) -> bool:
        """False at the end; a terminal whose last program has ended answers with an error."""
        try:
            data = os.read(self.output, 65_536)
        except OSError:
            return False
        self._received += data  # a character or an escape may come in two pieces
        self.text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._received.decode(errors="ignore"))
        return bool(data)

    def press_ctrl_c(self) -> None:
        self.process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_of_the_demo_is_wider_than_the_terminal(services: Services, columns: int) -> None:
    terminal = Terminal(services, columns, "demo", "--until-idle", "--all", LANG="C.UTF-8")
    assert terminal.read_to_end() == 0, terminal.text
    lines = [line.rsplit("\r", 1)[-1] for line in terminal.text.split("\r\n")]
    emails = "\n".join(lines[lines.index("Every email") : lines.index("Audit trail of one email")])
    assert [line for line in lines if cell_len(line) > columns] == []
    assert all(
        shown in emails for shown in ("LINE DOWN", "お礼", "blink code", "山本 さくら")
    )  # nothing is cut
    assert "category    submitted  pending  held back" in terminal.text  # no word is cut


def test_the_page_s_address_comes_first_and_ctrl_c_ends_the_demo(services: Services) -> None:
    terminal = Terminal(services, 80, "demo")
    terminal.read_until("AGENT_KEY=")
    first, *_ = terminal.text.splitlines()
    page = requests.get(first.split()[5], timeout=10).text
    assert first.startswith("Approve or reject the drafts: http://127.0.0.1:")
    assert "One of the drafts contains a mistake" in page
    terminal.press_ctrl_c()
    assert terminal.read_to_end() == 0, terminal.text
    assert "Stopping: no email is being processed." in terminal.text
    assert "Traceback" not in terminal.text


def test_ctrl_c_says_what_is_being_finished_and_a_second_one_ends_at_once(services: Services) -> None:
    box = services.multimail.add_mailbox("support@northwind.example")
    email_id = services.multimail.deliver(
        box, "ann@customer.example", "Delivery time", "How long does it take?"
    )
    asked, released = threading.Event(), threading.Event()

    def hang(answer: Callable[[], dict[str, object]]) -> ResponseReturnValue:
        asked.set()
        return hang_until(released)(answer)

    services.chat.script(hang)
    terminal = Terminal(services, 80, "run")
    assert asked.wait(60)
    terminal.press_ctrl_c()
    terminal.read_until("Stopping: 1 email is being finished.")
    terminal.press_ctrl_c()
    assert terminal.read_to_end() == 130
    released.set()
    assert "Stopped at once" in terminal.text
    assert "Traceback" not in terminal.text
    assert services.run()[0] == 0
    assert services.entries()[email_id].outcome is Outcome.REPLY_SUBMITTED


def test_a_run_that_ends_by_itself_does_not_wait_as_long_as_the_file_allows(services: Services) -> None:
    """Seen by a value in the file that could not be read, were it used."""
    services.multimail.add_mailbox("support@northwind.example")
    (services.folder / "local.settings.json").write_text('{"Values": {"RETRY_MAX_SECONDS": "unused"}}')
    status, output = services.run(RETRY_MAX_SECONDS=None)
    assert status == 0, output
