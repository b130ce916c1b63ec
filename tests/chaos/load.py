"""The load run: a flood of mail over many mailboxes, a fault at every fifth call, and one death after another.

The account and the people live in this process, the agent in one of its own: it is really killed, in the
midst of whatever it does, and its memory is its own. Once half of the mail is worked off the killing stops,
so that one process lives through the other half and shows whether its memory grows.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import IO, TYPE_CHECKING, Any

from local.commands.demo_mail import DEMO_EMAILS
from local.host.http_server import LoopbackServer
from local.multimail.emails import StoredEmail
from local.multimail.simulator import MultiMailSimulator
from local.testing.world import START, Clock, build_settings
from shared.domain import Cause, Outcome, WorkItem
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.telemetry import REPLY_SETTLED
from tests.chaos.invariants import (
    DOUBLED,
    ENDLESS,
    LOST,
    UNGATED,
    UNSEEN,
    Violation,
    check_requests,
    find_violations,
)
from tests.chaos.marks import mark_email
from tests.chaos.stage import POLL_EVERY, Act
from tests.test_corpus import read_corpus

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAILBOXES = 50
MODES = ("gated_send",) * 40 + ("gated_all",) * 4 + ("autonomous",) * 3 + ("monitored",) + ("read_only",) * 2
ARRIVALS_A_ROUND = 40
REQUESTS_BETWEEN_DEATHS = (200, 1000)
KILLED_AFTER_SECONDS = 0.05  # at most: somewhere in what the agent makes of an answer
FOLLOW_UP_SHARE, PARTNER_SHARE, HUMAN_SHARE = 0.15, 0.05, 0.3
MAX_ROUNDS_AN_EMAIL = 2
TRACK_EVERY = timedelta(minutes=5)
LAST_LOOKS, LOOKED_AGAIN_AFTER = 3, timedelta(hours=1)  # what people decided last is noticed by then
REPORT_EVERY_ROUNDS = 20
MACHINE_MAIL = (
    Cause.OWN_ADDRESS,
    Cause.MACHINE_SENDER,
    Cause.MACHINE_SUBJECT,
    Cause.MACHINE_HEADERS,
    Cause.SPAM,
)
MAX_GROWTH = 1.05  # of the memory, from the second to the last quarter of the long life


@dataclass(slots=True)
class LoadFigures:
    """What the load run did and what broke.

    `megabytes`: the long-lived process' memory, round by round while mail arrives; `megabytes_after`: from
    then on, while it works off what waits.
    """

    emails: int
    calls: int = 0
    faults: int = 0
    deaths: int = 0
    seconds: float = 0.0
    accepted: int = 0
    settled: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    megabytes: list[float] = field(default_factory=list)
    megabytes_after: list[float] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    @property
    def quarters(self) -> tuple[float, ...]:
        """The mean memory in each quarter of the long life."""
        count = len(self.megabytes)
        bounds = [n * count // 4 for n in range(5)]
        return tuple(mean(self.megabytes[a:b] or [0.0]) for a, b in pairwise(bounds))

    @property
    def growth(self) -> float:
        """The memory of the last quarter by that of the second: the first one warms up."""
        _, second, _, last = self.quarters
        return last / second if second else 1.0


class Account:
    """The simulated account over HTTP, and what the agent left behind, for the judges."""

    def __init__(self, directory: Path, build_app: "Callable[[WSGIApplication], WSGIApplication]") -> None:
        self.clock = Clock()
        self.settings = build_settings(directory)
        self.simulator = MultiMailSimulator(self.clock)
        self.inbound: dict[str, str] = {}
        self.acts: list[Act] = []
        self.has_lost_mailbox = False
        self.bugs: list[str] = []
        self.settled_counts: Counter[str] = Counter()
        self.key = self.simulator.add_key()
        self.server = LoopbackServer(build_app(self.simulator.app))
        self._ledger: Ledger | None = None

    @property
    def ledger(self) -> Ledger:
        """The ledger's file, read while the agent may still hold it."""
        if self._ledger is None:
            self._ledger = open_sqlite_ledger(self.settings.ledger_path, read_only=True)
        return self._ledger

    @property
    def nothing_asked(self) -> Collection[str]:
        """What the model took for mail without a question, and the guard for mail of machines.

        Both judge texts of the demo, or of real people, that nobody else has judged.
        """
        rows = ((email_id, self.entry(email_id)) for email_id in self.inbound.values())
        return {
            id_ for id_, row in rows if row and (row.outcome == Outcome.IGNORED or row.cause in MACHINE_MAIL)
        }

    def entry(self, email_id: str) -> LedgerEntry | None:
        """The row of an email."""
        email = self.simulator.find_email(email_id)
        return self.ledger.get(WorkItem(email.mailbox_id, email_id)) if email else None

    def close(self) -> None:
        """Stop serving."""
        self.server.stop()
        if self._ledger is not None:
            self._ledger.close()


class Killer:
    """Kills the agent around every few hundredth request: before it is answered, or while it reads the answer."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._turn = threading.Lock()
        self._victim: subprocess.Popen[str] | None = None
        self._requests_to_live = 0
        self.is_resting = False

    def wait_for(self, victim: "subprocess.Popen[str]") -> None:
        """Count a new process' requests from now on."""
        with self._turn:
            self._victim = victim
            self._requests_to_live = self._chance.randint(*REQUESTS_BETWEEN_DEATHS)

    def wrap(self, app: "WSGIApplication") -> "WSGIApplication":
        """The app that counts its requests and kills whoever has made enough."""

        def serve(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            victim = self._choose()
            if victim is not None and self._chance.random() < 0.5:
                threading.Timer(self._chance.random() * KILLED_AFTER_SECONDS, victim.kill).start()
            elif victim is not None:
                victim.kill()  # the request arrived all the same
            return app(environ, start_response)

        return serve

    def _choose(self) -> "subprocess.Popen[str] | None":
        with self._turn:
            self._requests_to_live -= 1
            if self._requests_to_live != 0 or self.is_resting:
                return None
            return self._victim


class AgentUnderFire:
    """The agent's process; whoever finds it dead starts another."""

    def __init__(self, account: Account, events: IO[str], killer: Killer, seed: int) -> None:
        self._account, self._events, self._killer, self._seed = account, events, killer, seed
        self.deaths = 0
        self._process = self._start()

    def play_round(self, *, tracks: bool, is_fine: bool) -> dict[str, Any] | None:
        """Have it do one round, and return what it says of it; None when it died instead."""
        order = {"now": self._account.clock().isoformat(), "tracks": tracks, "is_fine": is_fine}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer.endswith("\n"):
            return dict(json.loads(answer))
        self._bury()
        self._process = self._start()
        return None

    def stop(self) -> None:
        """Let it end."""
        self._process.communicate()

    def _bury(self) -> None:
        self.deaths += 1
        if self._process.wait() >= 0:  # nobody killed it
            self._account.bugs.append(f"the agent ended by itself with {self._process.returncode}")

    def _start(self) -> "subprocess.Popen[str]":
        self._seed += 1
        options = {
            "url": self._account.server.url, "key": self._account.key,
            "ledger_path": str(self._account.settings.ledger_path), "seed": self._seed,
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.agent_process", json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._events, text=True,
        )  # fmt: skip
        self._killer.wait_for(process)
        return process


class Flood:
    """The mail that arrives, and the people who approve, reject, release and answer meanwhile."""

    def __init__(self, account: Account, emails: int, chance: random.Random) -> None:
        self._account, self._chance = account, chance
        self._texts = load_texts()
        self._senders = max(10, emails // 3)
        self._boxes = [self._open_mailbox(n) for n in range(MAILBOXES)]
        self._labels: list[str] = []

    @property
    def arrived(self) -> int:
        """How many emails have arrived."""
        return len(self._labels)

    def flow(self, until: int) -> None:
        """Let one round's mail arrive, up to `until` emails in all, and people do their part."""
        for _ in range(min(ARRIVALS_A_ROUND, until - self.arrived)):
            self._arrive()
        for waiting in self._account.simulator.list_awaiting_decision():
            if self._chance.random() < HUMAN_SHARE:
                self._decide(waiting)
        if self._labels and self._chance.random() < HUMAN_SHARE:
            answered = self._account.inbound[self._chance.choice(self._labels[-100:])]
            self._account.simulator.human_reply(answered, "I looked into it myself: two weeks.")

    def _arrive(self) -> None:
        label = f"email {self.arrived + 1}"
        subject, text = self._chance.choice(self._texts)
        if self._labels and self._chance.random() < FOLLOW_UP_SHARE:
            earlier = self._account.inbound[self._chance.choice(self._labels[-300:])]
            before = self._account.simulator.find_email(earlier)
            assert before is not None
            fields: dict[str, Any] = {
                "box": before.mailbox_id,
                "sender": before.sender,
                "in_reply_to": earlier,
            }
        else:
            host = "partner.example" if self._chance.random() < PARTNER_SHARE else "customer.example"
            sender = f"Guest <guest{self._chance.randrange(self._senders)}@{host}>"
            fields = {"box": self._chance.choice(self._boxes), "sender": sender}
        box, sender = fields.pop("box"), fields.pop("sender")
        self._account.inbound[label] = self._account.simulator.deliver(
            box, sender, subject, mark_email(text, label), **fields
        )
        self._labels.append(label)

    def _decide(self, waiting: StoredEmail) -> None:
        approve = waiting.direction == "inbound" or self._chance.random() < 0.9
        self._account.simulator.decide(waiting.id, "approve" if approve else "reject")

    def _open_mailbox(self, number: int) -> str:
        mode = MODES[number % len(MODES)]
        box = self._account.simulator.add_mailbox(f"box{number}@northwind.example", mode)
        if number % 2:
            self._account.simulator.allow(box, "*@partner.example")
        return box


class LoadRun:
    """One load run: the account, the people, the agent, and how it goes."""

    def __init__(self, directory: Path, emails: int, *, seed: int, progress: Callable[[str], None]) -> None:
        chance = random.Random(seed)
        self.figures = LoadFigures(emails)
        self._killer = Killer(chance)
        self._account = Account(directory, self._killer.wrap)
        self._flood = Flood(self._account, emails, chance)
        self._events = directory / "events.log"
        self._seed = seed
        self._progress = progress
        self._bytes_of: dict[str, str] = {}
        self._track_at = START

    def run(self) -> LoadFigures:
        """Deliver the emails over some hours of the account's clock, work until nothing is open, and judge."""
        figures, started = self.figures, time.monotonic()
        self._account.server.start()
        with self._events.open("a", encoding="utf-8") as events:
            agent = AgentUnderFire(self._account, events, self._killer, self._seed)
            try:
                self._work_off(agent)
            finally:
                agent.stop()
        figures.seconds, figures.deaths = time.monotonic() - started, agent.deaths
        self._judge()
        self._account.close()
        return figures

    def _work_off(self, agent: AgentUnderFire) -> None:
        """Go on until nothing is open; then faults and people stop, and the last looks must leave nothing open."""
        to_come, is_fine, said, report_at, looks = self.figures.emails // 2, False, None, 0, 0
        was_open = False
        for number in range(1000 + MAX_ROUNDS_AN_EMAIL * self.figures.emails):
            if not looks and (
                said is not None or not self._flood.arrived
            ):  # with a dead agent the clock stands still
                self._flood.flow(to_come)
            is_arriving = self._flood.arrived < to_come
            tracks = self._account.clock() >= self._track_at
            said = agent.play_round(tracks=tracks, is_fine=is_fine)
            self._check_requests()
            if said is None:
                continue
            self._take_notes(said, tracks=tracks, is_arriving=is_arriving)
            due_at = datetime.fromisoformat(said["due_at"]) if said["due_at"] else None
            was_open = was_open or due_at is not None
            is_over = (
                was_open and due_at is None and not is_arriving
            )  # nothing is over that no poll found yet
            if number >= report_at or is_over:
                report_at = number + REPORT_EVERY_ROUNDS
                self._report(said, agent)
            if is_over and to_come < self.figures.emails:
                to_come, is_over, self._killer.is_resting = self.figures.emails, False, True
            if is_over and is_fine and said["went_well"]:
                looks += 1
                self._account.clock.now += LOOKED_AGAIN_AFTER
            if looks > LAST_LOOKS:
                return
            is_fine = is_over or looks > 0
            self._account.clock.now = self._find_next_round(due_at, is_arriving=is_arriving)
        self.figures.violations.append(Violation(ENDLESS, "the work did not end"))

    def _find_next_round(self, due_at: datetime | None, *, is_arriving: bool) -> datetime:
        """The clock stands almost still while work is due: mail must not grow old for want of a processor."""
        now = self._account.clock()
        if due_at is not None and due_at <= now:
            return now + timedelta(seconds=1)
        return now + POLL_EVERY if is_arriving or due_at is None else max(due_at, now + POLL_EVERY)

    def _check_requests(self) -> None:
        """Read what the round left in the account's log and empty that: it would be most of the memory."""
        requests = self._account.simulator.requests
        seen = len(requests)
        self.figures.violations += check_requests(self._account, self._bytes_of)
        del requests[:seen]

    def _take_notes(self, said: dict[str, Any], *, tracks: bool, is_arriving: bool) -> None:
        self.figures.calls += said["calls"]
        self.figures.faults += said["faults"]
        self._account.bugs += said["bugs"]
        if tracks:
            self._track_at = self._account.clock() + TRACK_EVERY
        if self._killer.is_resting:
            figures = self.figures
            (figures.megabytes if is_arriving else figures.megabytes_after).append(said["megabytes"])

    def _report(self, said: dict[str, Any], agent: AgentUnderFire) -> None:
        hours = (self._account.clock() - START) / timedelta(hours=1)
        self._progress(
            f"{hours:6.1f} h  {self._flood.arrived:6} emails arrived, {len(self._account.simulator.accepted):6} replies, "
            f"{agent.deaths:4} deaths, {said['megabytes']:6.1f} MB resident"
        )

    def _judge(self) -> None:
        figures, account = self.figures, self._account
        for line in self._events.read_text(encoding="utf-8").splitlines():
            event, _, facts = line.partition(" ")
            if event == REPLY_SETTLED:
                reply_id = dict(fact.split("=", 1) for fact in facts.split(" "))["reply_id"]
                account.settled_counts[reply_id] += 1
            elif not event[:1].isalpha() or "." not in event:
                account.bugs.append(f"the agent's stderr has {line!r}")
        figures.violations += find_violations(account)
        figures.accepted, figures.settled = len(account.simulator.accepted), len(account.settled_counts)
        for email_id in account.inbound.values():
            entry = account.entry(email_id)
            figures.outcomes[str(entry.outcome) if entry else "no row"] += 1


def run_load(
    directory: Path, emails: int, *, seed: int = 0, progress: Callable[[str], None] = lambda _line: None
) -> LoadFigures:
    """Play one load run."""
    return LoadRun(directory, emails, seed=seed, progress=progress).run()


def print_load(figures: LoadFigures) -> int:
    """Print the figures; 1 when a promise was broken or the memory grew."""
    broken = Counter(violation.kind for violation in figures.violations)
    after = figures.megabytes_after or [0.0]
    quarters = ", ".join(f"{megabytes:.1f}" for megabytes in figures.quarters)
    print(
        f"\n{figures.emails} emails in {MAILBOXES} mailboxes, {figures.calls} outside calls and {figures.faults} faults "
        f"in rounds that ended, process killed {figures.deaths} times\n"
        f"outcomes: {', '.join(f'{name} {count}' for name, count in figures.outcomes.most_common())}\n"
        f"replies accepted: {figures.accepted}, of which {figures.settled} are settled\n"
        f"memory of the process that lived through the second half, by quarters: {quarters} MB; "
        f"last by second {figures.growth:.3f} (at most {MAX_GROWTH}); from {after[0]:.1f} to {after[-1]:.1f} MB "
        "after the last email had arrived\n"
        f"lost {broken[LOST]}, unseen {broken[UNSEEN]}, doubled {broken[DOUBLED]}, ungated {broken[UNGATED]}, "
        f"violations {len(figures.violations)}\n"
        f"{figures.seconds:.0f} s, {1000 * figures.seconds / figures.emails:.1f} ms per email"
    )
    for violation in figures.violations[:20]:
        print(f"  {violation}")
    return 1 if figures.violations or figures.growth > MAX_GROWTH else 0


def load_texts() -> Sequence[tuple[str, str]]:
    """Subjects and bodies of the demo's mail and, where EMAIL_CORPUS_DIR is set, of the real mail in it."""
    demo = [(mail.subject, mail.markdown[:2000]) for mail in DEMO_EMAILS if mail.sender]
    if not os.environ.get("EMAIL_CORPUS_DIR"):
        return demo
    return demo + [(mail["subject"][:900], mail["markdown"][:2000]) for mail in read_corpus()]
