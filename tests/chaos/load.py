"""The load run: a flood of mail over many mailboxes, a fault at every fifth call, and one death after another."""

import os
import random
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from local.demo_mail import DEMO_EMAILS
from local.multimail_emails import StoredEmail
from shared.chat import ChatCompletion, ChatRequest
from tests.chaos.faults import FAULTS, KILLS, MODEL, MULTIMAIL, Call, Fault
from tests.chaos.invariants import DOUBLED, ENDLESS, LOST, UNGATED, Violation, check_requests, find_violations
from tests.chaos.stage import POLL_EVERY, Stage
from tests.test_corpus import read_corpus
from tests.world import DRAFT, START, TRIAGE, ScriptedModel

MAILBOXES = 50
MODES = ("gated_send",) * 40 + ("gated_all",) * 4 + ("autonomous",) * 3 + ("monitored",) + ("read_only",) * 2
ARRIVALS_A_ROUND = 40
FAULTY_SHARE, FAULTY_STORE_SHARE = 0.2, 0.02
CALLS_BETWEEN_DEATHS = (200, 1000)
FOLLOW_UP_SHARE, PARTNER_SHARE, HUMAN_SHARE = 0.15, 0.05, 0.3
MAX_ROUNDS_AN_EMAIL = 2
REPORT_EVERY = timedelta(minutes=30)  # on the stage's clock


@dataclass(slots=True)
class LoadFigures:
    """What the load run did and what broke."""

    emails: int
    calls: int = 0
    faults: int = 0
    deaths: int = 0
    seconds: float = 0.0
    accepted: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    resident_megabytes: list[tuple[int, float]] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)


class Weather:
    """A plan that strikes at random, and kills every few hundred calls, unless the weather `is_fine`."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._calls_to_live = 0
        self.is_fine = False
        self._be_born()

    def __call__(self, call: Call) -> Fault | None:
        if self.is_fine:
            return None
        self._calls_to_live -= 1
        if self._calls_to_live <= 0:
            self._be_born()
            return self._chance.choice(KILLS)
        share = FAULTY_SHARE if call.seam in (MULTIMAIL, MODEL) else FAULTY_STORE_SHARE
        if self._chance.random() >= share:
            return None
        return self._chance.choice([fault for fault in FAULTS[call.seam] if fault not in KILLS])

    def _be_born(self) -> None:
        self._calls_to_live = self._chance.randint(*CALLS_BETWEEN_DEATHS)


class HashedModel(ScriptedModel):
    """Decides by the text it is shown, so that the same email is always judged the same."""

    def complete(self, request: ChatRequest) -> ChatCompletion:
        """Reply to six of ten, escalate two, ignore two."""
        action = ("reply",) * 6 + ("escalate",) * 2 + ("ignore",) * 2
        self.triage = TRIAGE | {"action": action[zlib.crc32(request.user.encode()) % 10]}
        self.draft = dict(DRAFT)
        self.steps.clear()
        self.requests.clear()
        return super().complete(request)


class Flood:
    """The mail that arrives, and the people who approve, reject, release and answer meanwhile."""

    def __init__(self, stage: Stage, emails: int, chance: random.Random) -> None:
        self._stage, self._chance = stage, chance
        self._texts = load_texts()
        self._to_come = emails
        self._senders = max(10, emails // 3)
        self._boxes = [self._open_mailbox(n) for n in range(MAILBOXES)]
        self._labels: list[str] = []

    @property
    def is_over(self) -> bool:
        """Whether everything has arrived."""
        return self._to_come == 0

    def flow(self) -> None:
        """Let one round's mail arrive, and people do their part.

        Mail waits while a round's worth is due already. A new process first adds every unread email
        again: with a backlog it would die, every few hundred calls, before it had done anything else.
        """
        if len(self._stage.ledger.due(self._stage.clock(), ARRIVALS_A_ROUND)) < ARRIVALS_A_ROUND:
            for _ in range(min(ARRIVALS_A_ROUND, self._to_come)):
                self._arrive()
        for waiting in self._stage.simulator.list_awaiting_decision():
            if self._chance.random() < HUMAN_SHARE:
                self._decide(waiting)
        if self._labels and self._chance.random() < HUMAN_SHARE:
            answered = self._stage.inbound[self._chance.choice(self._labels[-100:])]
            self._stage.simulator.human_reply(answered, "I looked into it myself: two weeks.")

    def _arrive(self) -> None:
        label = f"email {self._to_come}"
        self._to_come -= 1
        subject, text = self._chance.choice(self._texts)
        if self._labels and self._chance.random() < FOLLOW_UP_SHARE:
            earlier = self._stage.inbound[self._chance.choice(self._labels[-300:])]
            before = self._stage.simulator.find_email(earlier)
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
        self._stage.deliver(label, f"{text}\n\nReference {label}", subject=subject, **fields)
        self._labels.append(label)

    def _decide(self, waiting: StoredEmail) -> None:
        approve = waiting.direction == "inbound" or self._chance.random() < 0.9
        self._stage.simulator.decide(waiting.id, "approve" if approve else "reject")

    def _open_mailbox(self, number: int) -> str:
        mode = MODES[number % len(MODES)]
        box = self._stage.simulator.add_mailbox(f"box{number}@northwind.example", mode)
        if number % 2:
            self._stage.simulator.allow(box, "*@partner.example")
        return box


def run_load(
    directory: Path, emails: int, *, seed: int = 0, progress: Callable[[str], None] = lambda _line: None
) -> LoadFigures:
    """Deliver the emails over some hours of the stage's clock, and work until nothing is open."""
    chance = random.Random(seed)
    weather = Weather(chance)
    stage = Stage(directory, weather)
    stage.model = HashedModel()
    flood = Flood(stage, emails, chance)
    figures = LoadFigures(emails)
    started = time.monotonic()
    _work_off(stage, flood, weather, figures, progress)
    figures.seconds, figures.deaths = time.monotonic() - started, stage.deaths
    _judge(stage, figures)
    stage.close()
    return figures


def _work_off(
    stage: Stage, flood: Flood, weather: Weather, figures: LoadFigures, progress: Callable[[str], None]
) -> None:
    """Go on until nothing is open; then the faults stop, and a last look must find nothing left."""
    bytes_of: dict[str, str] = {}
    report_at = stage.clock()
    for _ in range(1000 + MAX_ROUNDS_AN_EMAIL * figures.emails):
        flood.flow()
        is_idle = stage.play_round()
        _take_notes(stage, figures, bytes_of)
        due_at = stage.ledger.next_due_at()
        if stage.clock() >= report_at or is_idle:
            report_at = stage.clock() + REPORT_EVERY
            _report(stage, figures, progress)
        if flood.is_over and is_idle:
            return
        weather.is_fine = flood.is_over and due_at is None
        stage.clock.now = _next_round_at(stage, is_arriving=not flood.is_over, due_at=due_at)
    figures.violations.append(Violation(ENDLESS, "the work did not end"))


def _next_round_at(stage: Stage, *, is_arriving: bool, due_at: datetime | None) -> datetime:
    """The clock stands almost still while work is due: mail must not grow old for want of a processor."""
    now = stage.clock()
    if due_at is not None and due_at <= now:
        return now + timedelta(seconds=1)
    return now + POLL_EVERY if is_arriving or due_at is None else max(due_at, now + POLL_EVERY)


def print_load(figures: LoadFigures) -> int:
    """Print the figures; 1 when a promise was broken."""
    broken = Counter(violation.kind for violation in figures.violations)
    print(
        f"\n{figures.emails} emails in {MAILBOXES} mailboxes, {figures.calls} outside calls, {figures.faults} faults, "
        f"process killed {figures.deaths} times\n"
        f"outcomes: {', '.join(f'{name} {count}' for name, count in figures.outcomes.most_common())}\n"
        f"replies accepted: {figures.accepted}\n"
        f"lost {broken[LOST]}, doubled {broken[DOUBLED]}, ungated {broken[UNGATED]}, violations {len(figures.violations)}\n"
        f"{figures.seconds:.0f} s, {1000 * figures.seconds / figures.emails:.1f} ms per email"
    )
    for violation in figures.violations[:20]:
        print(f"  {violation}")
    return 1 if figures.violations else 0


def load_texts() -> Sequence[tuple[str, str]]:
    """Subjects and bodies of the demo's mail and, where EMAIL_CORPUS_DIR is set, of the real mail in it."""
    demo = [(mail.subject, mail.markdown[:2000]) for mail in DEMO_EMAILS if mail.sender]
    if not os.environ.get("EMAIL_CORPUS_DIR"):
        return demo
    return demo + [(mail["subject"][:900], mail["markdown"][:2000]) for mail in read_corpus()]


def _take_notes(stage: Stage, figures: LoadFigures, bytes_of: dict[str, str]) -> None:
    """Read what the round left in the logs and empty them: they would be most of the memory."""
    figures.calls += len(stage.seams.calls)
    figures.faults += len(stage.seams.injected)
    figures.violations += check_requests(stage, bytes_of)
    stage.seams.calls.clear()
    stage.seams.injected.clear()
    stage.simulator.requests.clear()


def _report(stage: Stage, figures: LoadFigures, progress: Callable[[str], None]) -> None:
    megabytes = read_resident_megabytes()
    arrived = len(stage.inbound)
    figures.resident_megabytes.append((arrived, megabytes))
    hours = (stage.clock() - START) / timedelta(hours=1)
    progress(
        f"{hours:6.1f} h  {arrived:6} emails arrived, {figures.calls:8} calls, {stage.deaths:5} deaths, "
        f"{megabytes:6.1f} MB resident"
    )


def _judge(stage: Stage, figures: LoadFigures) -> None:
    figures.violations += find_violations(stage)
    figures.accepted = len(stage.simulator.accepted)
    for email_id in stage.inbound.values():
        entry = stage.entry(email_id)
        figures.outcomes[str(entry.outcome) if entry else "no row"] += 1


def read_resident_megabytes() -> float:
    """The memory that this process holds now."""
    if sys.platform != "linux":
        import resource  # noqa: PLC0415 - Windows has none

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
