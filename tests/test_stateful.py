"""Random histories of mail, people, faults and workers: the promises hold after every step and at the end."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from local.commands.forget import Forgetting
from local.multimail.emails import MODES, StoredEmail
from local.multimail.simulator import MultiMailSimulator
from local.testing.world import Clock
from shared.composition import Agent
from shared.domain import WorkItem, build_idempotency_key, parse_address, parse_work_item
from shared.errors import AgentError, ThrottledError
from shared.ledger.entries import LedgerEntry
from shared.replying.reporting import REJECT_REASON_TAG
from tests.chaos.__main__ import find_fast_directory
from tests.chaos.faults import MODEL, Call, Effect, Fault, find_faults
from tests.chaos.invariants import NOT_ALIVE, check_requests, check_tracking, find_violations
from tests.chaos.stage import READ_AND_ANSWERED_IN, Stage, Story

SENDERS = (
    *("Ann Lee <ann@customer.example>",) * 4, *("bob@customer.example",) * 2, "mailer-daemon@shop.example",
)  # fmt: skip
ALLOWLISTED = "bob@customer.example"
OFTEN_GATED = (*("gated_send",) * 6, "gated_all", *MODES)
WORK_ELSEWHERE = ("lease ends, work on the same", "work on the same", "work on the rest", "lease ends")
DEEDS = (
    "sender is forgotten", "follow-up arrives", "email is opened", "email is answered", "reply is approved", "reply is rejected",
    "reply is rejected with a reason", "email is let in", "email is kept out", "mode changes", "allowlist changes", "key is rotated",
)  # fmt: skip
LONG_WAITS = ("a day passes", "the key is about to be forgotten")
# Where a run may be struck: at an outside call whose name holds this; "" is any call.
POINTS = (
    "", "", "insert email", "upsert open", "threads/", "triage", "draft", "allowlist", "slots", "cancel",
    "replace email", "reply/", "reply/", "tags", "delete open", "upsert open",
)  # fmt: skip
LIMITS = {"max_replies_per_thread": 2, "max_replies_per_sender_per_day": 4}
LEASE_SECONDS = 600
WAITS = (30, LEASE_SECONDS + 1, 3600, 22 * 3600, 25 * 3600)
PENDING = frozenset({"pending_scan", "pending_send_approval"})


class Scene(Stage):
    """A stage with two processes, where something can happen before the n-th outside call of a run.

    The agent reads the mode and the allowlist directly before it submits. What changes between that
    reading and the submission only the service can notice: `is_past_gate` tells that a run is there.
    """

    def __init__(self, directory: Path, simulator: MultiMailSimulator) -> None:
        self.answered: set[str] = set()
        self.broken: list[str] = []
        self.late: list[str] = []
        self.forgotten: set[str] = set()
        self.is_past_gate = False
        self._other: Agent
        self._current: bytes | None = None
        self._point, self._countdown = "", 0
        self._choose: Callable[[Call], Fault] | None = None
        super().__init__(directory, self._find_fault, simulator, None, **LIMITS)

    def strike(self, point: str, number: int, choose: Callable[[Call], Fault]) -> None:
        """Let the n-th outside call whose name holds `point` meet the fault that `choose` has for it."""
        self._point, self._countdown, self._choose = point, number, choose

    def stop_striking(self) -> None:
        """Let every call go well again."""
        self._choose = None

    def poll(self) -> None:
        """Poll without working."""
        self._try(self._agent.poll)

    def forget(self, address: str) -> None:
        """Let an operator forget a sender from another machine; what was not done is done by a second try."""
        writer = self._agent.pipeline.submitter.writer
        assert writer is not None
        forgetting = Forgetting(writer, writer, self.ledger, address, self.clock)
        with suppress(AgentError):
            forgetting.run()
        self.forgotten.update(forgetting.erased)

    def enqueue(self, item: WorkItem) -> None:
        """Put a work item into the queue that nobody asked for."""
        self._queue.bodies.put(item.to_json().encode())

    def turn_queue_round(self) -> None:
        """Let the work item that came last come first."""
        bodies = [self._queue.bodies.get() for _ in range(self._queue.bodies.qsize())]
        for body in reversed(bodies):
            self._queue.bodies.put(body)

    def work_elsewhere(self, *, on_the_same: bool) -> None:
        """Let the other process work: on the email that is being worked on here, or on all that waits."""
        is_past_gate = self.is_past_gate
        self._agent, self._other = self._other, self._agent
        try:
            if on_the_same and self._current is not None:
                self._process(self._current)
            if not on_the_same:
                self.poll()
            while not on_the_same and not self._queue.bodies.empty():
                self._process(self._queue.bodies.get())
        finally:
            self._agent, self._other = self._other, self._agent
            self.is_past_gate = is_past_gate

    def _find_fault(self, call: Call) -> Fault | None:
        fault = None
        if self._choose is not None and self._point in call.name:
            self._countdown -= 1
            if self._countdown <= 0:
                fault, self._choose = self._choose(call), None
        if call.name == "GET mailboxes":
            self.is_past_gate = True
        elif call.seam == MODEL or call.name.endswith(("emails/*", "emails", "threads/*")):
            self.is_past_gate = False
        return fault

    def _process(self, body: bytes) -> bool:
        outer = self._current, self.is_past_gate
        answered, already = frozenset(self.answered), len(self.simulator.accepted)
        self._current, self.is_past_gate = body, False
        email_id = parse_work_item(body).email_id
        row = self.entry(email_id)
        had_intent = row is not None and row.submit_intent_at is not None
        try:
            return super()._process(body)
        finally:
            self._current, self.is_past_gate = outer
            for reply in self.simulator.accepted[already:]:
                if reply.in_reply_to == email_id and email_id in answered:
                    self.late.append(reply.email_id)
                    if not had_intent:
                        self.broken.append(f"{email_id} was replied to by a run that began after its answer")

    def _start(self) -> None:
        super()._start()
        self._other = self._agent
        super()._start()


@cache
def build_theatre() -> tuple[tempfile.TemporaryDirectory[str], MultiMailSimulator]:
    """The directory and the simulator that all examples share, one after the other."""
    return tempfile.TemporaryDirectory(dir=find_fast_directory()), MultiMailSimulator(Clock())


class Histories(RuleBasedStateMachine):
    """Whatever happens in whatever order. `which` counts emails from the newest one."""

    which = st.integers(0, 5)
    arrival = st.sampled_from(["", "", "email", "email", "follow-up"])
    points = st.sampled_from(POINTS)
    numbers = st.just(1) | st.integers(1, 3) | st.integers(1, 40)

    def __init__(self) -> None:
        super().__init__()
        directory, simulator = build_theatre()
        self.scene = Scene(Path(directory.name), simulator)
        self.simulator, self.box = self.scene.simulator, self.scene.box
        self.scene.poll()  # what came before the first poll is not promised anything
        self.bytes_of: dict[str, str] = {}

    @rule(sender=st.sampled_from(SENDERS))
    def email_arrives(self, sender: str) -> None:
        self._deliver(sender)

    @rule(which=which, sender=st.sampled_from(SENDERS))
    def email_arrives_in_a_thread_of_anybody(self, which: int, sender: str) -> None:
        self._deliver(sender, in_reply_to=self._pick(which).id)

    @rule(deed=st.sampled_from(DEEDS), mode=st.sampled_from(OFTEN_GATED), which=which)
    def somebody_does_something(self, deed: str, mode: str, which: int) -> None:
        self._happen(deed, mode, which)

    @rule(seconds=st.sampled_from(WAITS))
    def time_passes(self, seconds: int) -> None:
        self.scene.clock.advance(seconds=seconds)

    @rule(point=points, number=numbers, index=st.integers(0, 20), strikes=st.booleans())
    def replies_are_looked_at(self, point: str, number: int, index: int, strikes: bool) -> None:
        def choose(call: Call) -> Fault:
            faults = find_faults(call)
            return faults[index % len(faults)]

        self._tick()
        if strikes:
            self.scene.strike(point, number, choose)
        self.scene.track()
        self.scene.stop_striking()

    @rule(
        times=st.sampled_from([0, 0, 1, 3]),
        retry_after=st.sampled_from([None, 40.0, 7200.0]),
        action=st.sampled_from(["reply"] * 8 + ["escalate", "ignore"]),
        words=st.sampled_from(["a colleague will follow up", "it takes two weeks"]),
        scan_seconds=st.sampled_from([0, 0, 90]),
    )
    def services_change(
        self, times: int, retry_after: float | None, action: str, words: str, scan_seconds: int
    ) -> None:
        model = self.scene.model
        model.steps = [ThrottledError("slow down", retry_after_seconds=retry_after)] * times
        model.triage["action"] = action
        model.draft["reply_markdown"] = f"Dear Ann,\n\nthank you, {words}.\n\nSupport"
        self.simulator.scan_seconds = scan_seconds

    @rule(which=which)
    def work_items_are_doubled_and_reordered(self, which: int) -> None:
        self.scene.poll()
        self.scene.enqueue(WorkItem(self.box, self._pick(which).id))
        self.scene.turn_queue_round()

    @rule(arrival=arrival)
    def work(self, arrival: str) -> None:
        self._work(arrival)

    @rule(
        arrival=arrival,
        point=points,
        number=numbers,
        only=st.sampled_from(["", "killed", "killed", "after"]),
        index=st.integers(0, 20),
        afterwards=st.lists(st.sampled_from([*LONG_WAITS, *DEEDS]), max_size=2),
        mode=st.sampled_from(MODES),
    )
    def work_meets_a_fault(
        self,
        arrival: str,
        point: str,
        number: int,
        only: str,
        index: int,
        afterwards: Sequence[str],
        mode: str,
    ) -> None:
        """One outside call meets a fault, of the kinds whose name holds `only` where there are any."""

        def choose(call: Call) -> Fault:
            faults = [fault for fault in find_faults(call) if only in fault.name] or find_faults(call)
            return faults[index % len(faults)]

        self.scene.strike(point, number, choose)
        self._work(arrival)
        for happening in afterwards:
            self._happen(happening, mode, 0)

    @rule(
        name=st.sampled_from(
            ["fails before", "fails after", "killed before", "killed after, lease kept", "429 with a delay"]
        ),
        is_follow_up=st.booleans(),
        afterwards=st.lists(st.sampled_from([*LONG_WAITS * 2, *DEEDS]), min_size=1, max_size=2),
        mode=st.sampled_from(MODES),
    )
    def submission_meets_a_fault(
        self, name: str, is_follow_up: bool, afterwards: Sequence[str], mode: str
    ) -> None:
        def choose(call: Call) -> Fault:
            return next(fault for fault in find_faults(call) if fault.name == name)

        if is_follow_up:
            self._work("email")
        self.scene.strike("reply/", 1, choose)
        self._work("follow-up" if is_follow_up else "email")
        for happening in afterwards:
            self._happen(happening, mode, 0)
        self._work("")

    @rule(
        point=points,
        happenings=st.sampled_from(
            [("follow-up arrives", "work on the rest"), ("lease ends, work on the same",)]
        ),
    )
    def two_workers_meet(self, point: str, happenings: Sequence[str]) -> None:
        """One takes over from the other, or answers another email of the same thread."""

        def meanwhile(effect: Effect) -> Any:
            for happening in happenings:
                self._happen(happening, "", 0)
            return effect()

        self.scene.strike(point, 1, lambda _call: Fault("meanwhile", meanwhile))
        self._work("email")

    @rule(
        arrival=arrival,
        point=points,
        number=numbers,
        happenings=st.lists(st.sampled_from([*WORK_ELSEWHERE * 2, *DEEDS]), min_size=1, max_size=4),
        mode=st.sampled_from(MODES),
        which=which,
    )
    def work_while_things_happen(
        self, arrival: str, point: str, number: int, happenings: Sequence[str], mode: str, which: int
    ) -> None:
        """A run stops before an outside call; the rest of the world goes on; then it goes on too."""

        def meanwhile(effect: Effect) -> Any:
            for happening in happenings:
                self._happen(happening, mode, which)
            return effect()

        self.scene.strike(point, number, lambda _call: Fault("meanwhile", meanwhile))
        self._work(arrival)

    def _happen(self, happening: str, mode: str, which: int) -> None:
        scene, email = self.scene, self._pick(which)
        self._tick()
        acts: dict[str, Callable[[], object]] = {
            "lease ends, work on the same": self._lose_lease,
            "work on the same": lambda: scene.work_elsewhere(on_the_same=True),
            "work on the rest": lambda: scene.work_elsewhere(on_the_same=False),
            "lease ends": lambda: scene.clock.advance(seconds=LEASE_SECONDS + 1),
            "the key is about to be forgotten": lambda: scene.clock.advance(hours=22.9),
            "a day passes": lambda: scene.clock.advance(hours=25),
            "follow-up arrives": lambda: self._deliver(email.sender, in_reply_to=email.id),
            "email is opened": lambda: self.simulator.mark_read(email.id),
            "email is answered": lambda: self._answer(email),
            "reply is approved": lambda: self._decide("approve", "outbound"),
            "reply is rejected": lambda: self._decide("reject", "outbound"),
            "reply is rejected with a reason": lambda: self._decide("reject", "outbound", "Shorter."),
            "email is let in": lambda: self._decide("approve", "inbound"),
            "email is kept out": lambda: self._decide("reject", "inbound"),
            "mode changes": lambda: self.simulator.set_mode(self.box, mode),
            "allowlist changes": lambda: self._toggle_allowlist(ALLOWLISTED),
            "key is rotated": scene.rotate_key,
            "sender is forgotten": lambda: scene.forget(parse_address(email.sender)),
        }
        if not (scene.is_past_gate and happening in ("mode changes", "allowlist changes")):
            acts[happening]()

    def _lose_lease(self) -> None:
        self.scene.clock.advance(seconds=LEASE_SECONDS + 1)
        self.scene.work_elsewhere(on_the_same=True)

    def _work(self, arrival: str) -> None:
        self._tick()
        if arrival == "email":
            self._deliver(f"writer{len(self.scene.inbound) % 5}@customer.example")
        elif arrival == "follow-up":
            newest = self._pick(0)
            self._deliver(newest.sender, in_reply_to=newest.id)
        self.scene.play_round()
        self.scene.stop_striking()

    def _tick(self) -> None:
        self.scene.clock.advance(seconds=1)

    def _deliver(self, sender: str, **fields: Any) -> None:
        self._tick()
        asks = "mailer-daemon" not in sender
        self.scene.deliver(f"email {len(self.scene.inbound) + 1}", sender=sender, asks=asks, **fields)

    def _pick(self, which: int) -> StoredEmail:
        if not self.scene.inbound:
            self._deliver(SENDERS[0])
        email_ids = list(self.scene.inbound.values())
        return self._find(email_ids[-1 - which % len(email_ids)])

    def _find(self, email_id: str) -> StoredEmail:
        email = self.simulator.find_email(email_id)
        assert email is not None
        return email

    def _answer(self, answered: StoredEmail) -> None:
        self.scene.clock.now += READ_AND_ANSWERED_IN
        self.simulator.human_reply(answered.id, "A human's words.")
        for other_id in self.scene.inbound.values():
            other = self._find(other_id)
            same = (other.thread_id, parse_address(other.sender)) == (
                answered.thread_id, parse_address(answered.sender),
            )  # fmt: skip
            if same:
                self.scene.answered.add(other_id)

    def _decide(self, decision: str, direction: str, reason: str = "") -> None:
        waiting = [e for e in self.simulator.list_awaiting_decision() if e.direction == direction]
        if waiting:
            if reason:
                self.simulator.set_tags(self.box, waiting[0].id, {REJECT_REASON_TAG: reason}, "reviewer")
            self.simulator.decide(waiting[0].id, decision)

    def _toggle_allowlist(self, pattern: str) -> None:
        allowlist = self.simulator.mailboxes[self.box].allowlist
        kept = [entry for entry in allowlist if entry.pattern != pattern]
        if len(kept) == len(allowlist):
            self.simulator.allow(self.box, pattern)
        else:
            allowlist[:] = kept

    # Promises

    @invariant()
    def promises_hold(self) -> None:
        self.nothing_breaks()
        self.every_reply_is_the_only_one_and_goes_where_it_must()
        self.no_reply_leaves_without_approval()
        self.nothing_happens_that_the_ledger_does_not_know()
        assert not list(check_tracking(self.scene))

    def nothing_breaks(self) -> None:
        assert not self.scene.bugs
        assert not self.scene.broken

    def every_reply_is_the_only_one_and_goes_where_it_must(self) -> None:
        alive = [
            reply.in_reply_to
            for reply in self.simulator.accepted
            if self._find(reply.email_id).status not in NOT_ALIVE
        ]
        keys = [reply.idempotency_key for reply in self.simulator.accepted]
        assert len(alive) == len(set(alive))
        assert len(keys) == len(set(keys))
        for reply in self.simulator.accepted:
            assert reply.in_reply_to is not None
            assert reply.recipients == (parse_address(self._find(reply.in_reply_to).sender),)
        assert not list(check_requests(self.scene, self.bytes_of))
        self.simulator.requests.clear()

    def no_reply_leaves_without_approval(self) -> None:
        for reply in self.simulator.accepted:
            assert reply.mode in ("gated_send", "gated_all")
            assert not reply.approval_bypassed

    def nothing_happens_that_the_ledger_does_not_know(self) -> None:
        for reply in self.simulator.accepted:
            entry = self.scene.entry(reply.in_reply_to or "")
            assert entry is not None
            rejected = [rejection.reply_id for rejection in entry.rejections]
            if reply.email_id in rejected:  # its draft has made way for a newer one
                revision = 1 + rejected.index(reply.email_id)
                key = build_idempotency_key(entry.mailbox_id, entry.email_id, revision)
                assert key == reply.idempotency_key
                continue
            assert entry.draft is not None
            assert entry.draft.idempotency_key == reply.idempotency_key
            assert entry.submit_intent_at is not None
            assert entry.submit_intent_at <= reply.at
            scope = f"thread/{entry.mailbox_id}/{entry.thread_id}"
            assert entry.email_id in self.scene.ledger.slots(scope)
        for email_id in self.scene.forgotten:
            entry = self.scene.entry(email_id)
            assert entry is not None
            assert entry.erased_at is not None
            assert not entry.sender
            assert entry.finished_at is not None
        for email_id in self.scene.inbound.values():
            tagged = self._find(email_id).tags.get("agent.outcome")
            entry = self.scene.entry(email_id)
            assert tagged is None or entry is not None
            is_judged_again = entry is not None and entry.reopened_at is not None and entry.outcome is None
            assert tagged is None or is_judged_again or (entry is not None and str(entry.outcome) == tagged)

    def teardown(self) -> None:
        try:
            self._run_until_idle()
            found = [str(violation) for violation in find_violations(self.scene)]
            assert not found, "; ".join(found)
            self._check_stale_replies()
            self._check_cancelled_replies()
            assert not [late for late in self.scene.late if self._find(late).status in PENDING]
            self.promises_hold()
        finally:
            self.scene.close()

    def _run_until_idle(self) -> None:
        self.scene.model.steps = []
        while any(e.direction == "inbound" for e in self.simulator.list_awaiting_decision()):
            self._decide("approve", "inbound")

        def story() -> Story:
            yield None

        self.scene.play(story())

    def _check_stale_replies(self) -> None:
        """Of two replies that wait for approval together, neither answers the other's email."""
        waiting = [r for r in self.simulator.accepted if self._find(r.email_id).status in PENDING]
        for older, newer in ((a, b) for i, a in enumerate(waiting) for b in waiting[i + 1 :]):
            first, second = (self.scene.entry(r.in_reply_to or "") for r in (older, newer))
            assert first is not None
            assert second is not None
            if first.reply_id == older.email_id and second.reply_id == newer.email_id:
                assert first.draft is not None
                assert second.draft is not None
                assert first.email_id not in second.draft.covers
                assert second.email_id not in first.draft.covers

    def _check_cancelled_replies(self) -> None:
        """Whoever's reply was cancelled for a newer one is covered by that, or its loss is visible.

        What replaced it may itself have been rejected with a reason since: then the new draft's end counts,
        whatever it is, since the reviewer who asked for it looks for it.
        """
        rows = list(self.scene.ledger.entries(self.box))
        for row in rows:
            if row.reply_id is None or str(row.outcome) != "reply_submitted":
                continue
            if row.email_id in self.scene.answered or self._find(row.reply_id).status != "cancelled":
                continue
            covering = [o for o in rows if o is not row and o.draft and row.email_id in o.draft.covers]
            covering += [o for o in rows if self._was_replaced_by_rejected(row, o)]
            outcomes = {str(other.outcome) for other in covering}
            if any(other.rejections for other in covering):
                assert None not in {other.outcome for other in covering}
                continue
            assert outcomes & {"reply_submitted", "needs_human", "failed"}, f"{row.email_id}: {outcomes}"

    def _was_replaced_by_rejected(self, row: LedgerEntry, other: LedgerEntry) -> bool:
        """Whether a reply of `other` that was rejected with a reason came after the cancelled reply of `row`."""
        if row.submit_intent_at is None or other.thread_id != row.thread_id:
            return False
        return any(rejection.submitted_at >= row.submit_intent_at for rejection in other.rejections)


Histories.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck), print_blob=False,
)  # fmt: skip
TestHistories = Histories.TestCase
