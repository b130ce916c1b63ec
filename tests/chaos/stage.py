"""The stage: the real poller, pipeline, ledger and client, in one thread, on a clock that jumps."""

import logging
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter
from werkzeug.test import Client

from local.multimail.emails import Refusal, StoredEmail
from local.multimail.faults import FaultSource, no_fault, until
from local.multimail.simulator import MultiMailSimulator
from local.multimail.state import MultiMailAccount
from local.testing.azurite import Azurite
from local.testing.world import (
    NO_TARGETS,
    Clock,
    ScriptedModel,
    assemble,
    build_settings,
    find_no_secret,
    find_nothing,
)
from shared.composition import Adapters
from shared.domain import WorkItem, parse_address
from shared.errors import AgentError, ConfigurationError, TransientError
from shared.knowledge.files import KnowledgeFiles
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.ledger.sqlite_store import SqliteStore
from shared.ledger.store import Store
from shared.ledger.table_store import build_table_ledger
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.model.chat import ChatCompletion, ChatRequest
from shared.services.health import ServiceHealth
from shared.services.secrets import StaticSecret
from shared.settings import Secret
from shared.telemetry import EVENT_LOGGER, REPLY_SETTLED
from tests.chaos.faults import (
    END,
    MODEL,
    MULTIMAIL,
    Killed,
    Plan,
    SeamedQueue,
    SeamedStore,
    SeamedVault,
    Seams,
    build_answer,
)
from tests.chaos.marks import find_marks, mark_draft, mark_email

POLL_EVERY = timedelta(minutes=1)
MAX_ROUNDS = 300
ROUNDS_WITHOUT_HOPE = 20
READ_AND_ANSWERED_IN = timedelta(minutes=3)
# How long after its end a story is looked at again, step by step: what people decided is noticed meanwhile.
AFTERMATH = (timedelta(minutes=6), timedelta(hours=2))

Wait = timedelta | Literal["replies settled"] | None
Story = Generator[Wait, None, None]
"""What people do. `yield` waits until nothing is left to do, `yield timedelta` until that has passed,
`yield "replies settled"` until the end of every reply is known.
"""


@dataclass(frozen=True, slots=True)
class Act:
    """What a person did that a submission must take note of, and after how many requests to the account.

    `what` is "opened" or "allowed" (then `subject` is the mailbox) or "answered" (the email).
    """

    what: Literal["opened", "allowed", "answered"]
    subject: str
    requests: int


class SettledEvents(logging.Handler):
    """Counts, by reply, how often the agent says that one is settled."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self._counts = counts

    def emit(self, record: logging.LogRecord) -> None:
        """Take one event."""
        if record.__dict__.get("agent.event") == REPLY_SETTLED:
            self._counts[record.__dict__["agent.reply_id"]] += 1


def quiet_logs() -> None:
    """Thousands of runs log what they survive: only the events go on, to whom a stage hands them."""
    logging.getLogger().setLevel(logging.CRITICAL + 1)
    events = logging.getLogger(EVENT_LOGGER)
    events.setLevel(logging.INFO)
    events.propagate = False


class InProcessTransport(BaseAdapter):
    """Carries the real client's requests to the simulator without a socket."""

    def __init__(self, simulator: MultiMailSimulator, seams: Seams) -> None:
        super().__init__()
        self._service = Client(simulator.app, use_cookies=False)
        self._seams = seams

    def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:
        """Answer as the simulator does, or as a fault would have it."""
        parts = (request.path_url or "").partition("?")[0].split("/")[2:]
        lane = next((part for part in parts if part.startswith("mb_")), "")
        name = f"{request.method} {'/'.join('*' if '_' in part else part for part in parts)}"
        return self._seams.meet(MULTIMAIL, lane, name, lambda: self._ask(request))

    def close(self) -> None:
        """Nothing is held open."""

    def _ask(self, request: PreparedRequest) -> Response:
        answer = self._service.open(
            request.path_url, method=request.method, headers=dict(request.headers), data=request.body
        )
        response = build_answer(answer.status_code, answer.get_data(), dict(answer.headers))
        response.request, response.url = request, request.url or ""
        return response


class Stage:
    """One account, one ledger and one agent at a time: after its death there is a new one.

    A `simulator` that is handed in is used again, with nothing in its account. The ledger is in a file, or in an
    `azurite` that is handed in, on empty tables.
    """

    def __init__(
        self,
        directory: Path,
        plan: Plan,
        simulator: MultiMailSimulator | None = None,
        azurite: Azurite | None = None,
        **settings: Any,
    ) -> None:
        self._azurite = azurite
        self.seams = Seams(plan)
        self.clock = Clock()
        self.settings = build_settings(directory, **settings)
        self.simulator = simulator or MultiMailSimulator(self.clock)
        if simulator is not None:
            _make_new(simulator, self.clock)
        self.box = self.simulator.add_mailbox("support@northwind.example", "gated_send")
        self.model = ScriptedModel()
        self.inbound: dict[str, str] = {}
        self._threads: dict[str, str] = {}
        self.nothing_asked: set[str] = set()
        self.acts: list[Act] = []
        self.has_lost_mailbox = False
        self._skew = timedelta(0)
        self._spell_ends_at = self.clock()
        self.bugs: list[str] = []
        self.deaths = 0
        self.settled_counts: Counter[str] = Counter()
        self._settled_events = SettledEvents(self.settled_counts)
        logging.getLogger(EVENT_LOGGER).addHandler(self._settled_events)
        self._key = self.simulator.add_key()
        self._at_draft: list[Callable[[], object]] = []
        if azurite is not None:
            azurite.clear()
        self._open_ledger()
        self._queue = SeamedQueue(self.seams)
        self._start()

    def close(self) -> None:
        """Remove the ledger's file."""
        logging.getLogger(EVENT_LOGGER).removeHandler(self._settled_events)
        self.ledger.close()
        for path in self.settings.ledger_path.parent.glob(f"{self.settings.ledger_path.name}*"):
            path.unlink()

    def deliver(self, label: str, markdown: str = "How long does delivery take?", **fields: Any) -> str:
        """Let an email arrive that the scenario calls `label`; `answers` names the label it answers."""
        sender = fields.pop("sender", "Ann Lee <ann@customer.example>")
        subject = fields.pop("subject", "Delivery time")
        if "answers" in fields:
            fields["thread_id"] = self._threads[fields.pop("answers")]
        box = fields.pop("box", self.box)
        asks = fields.pop("asks", True)
        body = mark_email(markdown, label)
        self.inbound[label] = self.simulator.deliver(box, sender, subject, body, **fields)
        arrived = self.simulator.find_email(self.inbound[label])
        assert arrived is not None
        self._threads[label] = arrived.thread_id
        if not asks:
            self.nothing_asked.add(self.inbound[label])
        return self.inbound[label]

    def open_mailbox(self, mailbox_id: str) -> None:
        """Let a person have a mailbox's mail sent without approval."""
        self._note("opened", mailbox_id)
        if mailbox_id in self.simulator.mailboxes:
            self.simulator.set_mode(mailbox_id, "autonomous")

    def allow(self, email: StoredEmail) -> None:
        """Let a person put an email's sender on the allowlist."""
        self._note("allowed", email.mailbox_id)
        self.simulator.allow(email.mailbox_id, parse_address(email.sender))

    def answer(self, email_id: str) -> None:
        """Let a person answer an email, which they have to read first."""
        self.clock.now += READ_AND_ANSWERED_IN
        self._note("answered", email_id)
        if self.simulator.find_email(email_id) is not None:
            self.simulator.human_reply(email_id, "Two weeks.")

    def is_answered(self, email_id: str) -> bool:
        """Whether a person answered the email, by `answer`."""
        return any(act.what == "answered" and act.subject == email_id for act in self.acts)

    def begin_spell(self, source: FaultSource, lasts: timedelta) -> None:
        """Let a source of faults decide about the account's calls for a while, in which no story goes on."""
        self._spell_ends_at = self.clock() + lasts
        self.simulator.fault = until(self._spell_ends_at, self.clock, source)

    def remove_mailbox(self) -> None:
        """Let a person remove the mailbox for good."""
        self.simulator.remove_mailbox(self.box)
        self.has_lost_mailbox = True

    def rotate_key(self) -> None:
        """Replace the key; the agent's copy of it is refused from now on."""
        self._key = self.simulator.rotate_key(self._key)

    def skew_clock(self, by: timedelta) -> None:
        """Let the agent's clock be wrong until its run is over."""
        self._skew = by

    def agent_clock(self) -> datetime:
        """The time as the agent sees it."""
        return self.clock() + self._skew

    def at_first_draft(self, act: Callable[[], object]) -> None:
        """Have something happen while the model writes its first draft."""
        self._at_draft.append(act)

    def entry(self, email_id: str) -> LedgerEntry | None:
        """The row of an email."""
        email = self.simulator.find_email(email_id)
        return self.ledger.get(WorkItem(email.mailbox_id, email_id)) if email else None

    def play(self, story: Story) -> None:
        """Play a story to its end. Raises AssertionError when the work never ends."""
        try:
            for wait in story:
                if wait == "replies settled":
                    self._track_until_settled()
                else:
                    self._work(self.clock() + wait if wait is not None else None)
        except Refusal:
            if not self.has_lost_mailbox:  # where no more mail arrives
                raise
        self.seams.meet(END, "", "the story's end", lambda: None)
        with self.seams.resting():
            for duration in AFTERMATH:
                self.clock.now += duration
                if self.ledger.tracked_replies() or self.simulator.fault is not no_fault:
                    self.track()
                self._work(None)

    def _work(self, until: datetime | None) -> None:
        """Play rounds until then, or until nothing is left to do."""
        for _ in range(ROUNDS_WITHOUT_HOPE if self.has_lost_mailbox else MAX_ROUNDS):
            is_idle = self.play_round()
            if self._is_over(until, is_idle):
                return
            if any(reply.check_at <= self.clock() for reply in self.ledger.tracked_replies()):
                self.track()
        if not self.has_lost_mailbox:
            raise AssertionError(f"the work did not end in {MAX_ROUNDS} rounds")

    def play_round(self) -> bool:
        """Poll and work once; say whether nothing went wrong and nothing is left to do."""
        try:
            went_well = self._try(self._agent.poll)
            while not self._queue.bodies.empty():
                went_well = self._process(self._queue.bodies.get()) and went_well
        except Killed as death:
            self._start_again(keeps_leases=death.keeps_leases)
            return False
        return went_well and self.ledger.next_due_at() is None

    def track(self) -> bool:
        """Look once at the replies that are due for it; say whether nothing went wrong."""
        try:
            return self._try(self._agent.track)
        except Killed as death:
            self._start_again(keeps_leases=death.keeps_leases)
            return False

    def _track_until_settled(self) -> None:
        for _ in range(ROUNDS_WITHOUT_HOPE if self.has_lost_mailbox else MAX_ROUNDS):
            tracked = self.ledger.tracked_replies()
            if not tracked:
                return
            check_at = min(reply.check_at for reply in tracked)
            self.clock.now = check_at if check_at > self.clock() else self.clock() + POLL_EVERY
            self.track()
        if not self.has_lost_mailbox:
            raise AssertionError(f"the end of a reply was not known after {MAX_ROUNDS} looks")

    def _process(self, body: bytes) -> bool:
        try:
            return self._try(lambda: self._agent.process(body))
        except Killed:
            self._queue.bodies.put(body)  # never acknowledged
            raise

    def _is_over(self, until: datetime | None, is_idle: bool) -> bool:
        if is_idle and until is None and self.clock() >= self._spell_ends_at:
            return True
        now, due_at = self.clock() + POLL_EVERY, self.ledger.next_due_at()
        if due_at is not None and due_at > self.clock():
            now = due_at
        if until is None:
            self.clock.now = now
            return False
        self.clock.now = max(self.clock(), min(now, until))
        return self.clock.now >= until

    def _try(self, run: Callable[[], None]) -> bool:
        """Run a trigger as the host does: its failure is logged, and the next one runs."""
        try:
            run()
        except (TransientError, ConfigurationError):
            return False
        except Exception as bug:  # noqa: BLE001 - whatever it is, it is what we are looking for
            self.bugs.append(f"{type(bug).__name__}: {bug}")
            return False
        finally:
            self._skew = timedelta(0)
        return True

    def _note(self, what: Literal["opened", "allowed", "answered"], subject: str) -> None:
        self.acts.append(Act(what, subject, len(self.simulator.requests)))

    def _start_again(self, *, keeps_leases: bool) -> None:
        """Start a new process.

        On one machine the queue died with the old one and the ledger's file is opened anew; in
        Azure the queue stays, and the ledger does not know that anybody died.
        """
        self.deaths += 1
        if not keeps_leases:
            self.ledger.close()
            self._queue = SeamedQueue(self.seams)
            while not self._take_over():
                self.deaths += 1
                self.ledger.close()
        self._start()

    def _open_ledger(self) -> None:
        self._store: Store
        if self._azurite is None:
            self._store = SqliteStore(self.settings.ledger_path)
        else:
            self._store = build_table_ledger(self._azurite.endpoint, self._azurite.credential)._store
        self.ledger = Ledger(self._store)

    def _take_over(self) -> bool:
        """Open the ledger as the only process, if there can be only one; say whether that went well."""
        self._open_ledger()
        try:
            if self._azurite is None:
                Ledger(SeamedStore(self._store, self.seams)).take_over(self.clock())
        except (Killed, AgentError):
            return False
        return True

    def _start(self) -> None:
        client = self._connect()
        mailboxes = MailboxDirectory(client, monotonic=lambda: self.clock().timestamp())
        ledger = Ledger(SeamedStore(self._store, self.seams))
        adapters = Adapters(
            multimail=client, writer=client, mailboxes=mailboxes, complete=self._complete, converse=self.model.converse,
            ledger=ledger, work_queue=self._queue, signing_secret=None, audit_key=StaticSecret(Secret("unused")),
            knowledge=KnowledgeFiles(self.settings.ledger_path.parent / "no knowledge"),
            health=ServiceHealth(self.agent_clock), delivery=NO_TARGETS, look_up=find_nothing, find_secret=find_no_secret,
        )  # fmt: skip
        self._agent = assemble(adapters, self.settings, self.agent_clock)

    def _connect(self) -> MultiMailClient:
        vault = SeamedVault(self.seams, lambda: self._key)
        client = MultiMailClient("http://multimail.invalid", vault, clock=self.agent_clock)
        # The client has no seam for its transport, and needs none in production.
        client._connection.session.mount("http://", InProcessTransport(self.simulator, self.seams))
        return client

    def _complete(self, request: ChatRequest) -> ChatCompletion:
        return self.seams.meet(MODEL, "", request.schema_name, lambda: self._answer(request))

    def _act_in_the_midst(self, act: Callable[[], object]) -> None:
        """Let happen what the story has for this moment, unless it needs a mailbox that is gone by now."""
        try:
            act()
        except Refusal:
            if not self.has_lost_mailbox:
                raise

    def _answer(self, request: ChatRequest) -> ChatCompletion:
        while request.schema_name == "draft" and self._at_draft:
            self._act_in_the_midst(self._at_draft.pop())
        self.clock.advance(seconds=1)
        completion = self.model.complete(request)
        if request.schema_name == "draft":
            return mark_draft(request, completion)
        if self.model.triage["action"] == "ignore":  # which is right: nobody else knows what the email says
            self.nothing_asked |= {self.inbound[label] for label in find_marks(request)}
        return completion


def _make_new(simulator: MultiMailSimulator, clock: Clock) -> None:
    """Empty the account under the same app, whose routes take longer to build than a story to play."""
    MultiMailAccount.__init__(simulator, clock)
    simulator.requests, simulator.fault = [], no_fault
