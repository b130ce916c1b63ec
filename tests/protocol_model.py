"""The protocol as a small model whose every state is explored: two workers, one email, all faults.

Time is coarse. A lease lasts one tick, the service knows an idempotency key for three, and the agent
repeats a submission under its key for two: the tick between them is the hour of margin, longer than
any run may last. Whatever a worker does outside may fail before, or succeed without an answer, or be
its last act; the queue loses, doubles and delays; a worker may stand still while its lease runs out.

Between any two steps a person may answer the email, open the mailbox so that its mail leaves without approval,
approve the pending reply or reject it. What nobody can prevent is left out of the promises: a person who acts after the
last reading that precedes a submission, and before that arrives.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

KEY_LIFE, SAME_KEY_FOR = 3, 2
NEVER = -1
IDLE = "idle"
ALL_ACTS = 3  # the email is answered, the mailbox opened, the reply decided about
PENDING, SENT, UNSENT = "pending", "sent", "unsent"

GUARDS: Mapping[str, str] = {
    "conditional claim": "a claim is written only if the row is as it was read",
    "lease": "a leased row is not claimed",
    "fencing": "a row is saved only by the worker that wrote it last",
    "draft stored": "a draft is in the row before it is submitted",
    "intent stored": "the intent to submit is in the row before the submission",
    "same key": "a submission is repeated under the same key",
    "24 h rule": "an old submission is looked for, not repeated",
    "late look": "the thread is read again after the intent is stored, directly before the gate",
    "look at a repeat": "a submission whose answer was lost is taken back, not repeated, where a person answered",
    "gate": "the mode is read after everything else that comes before a first submission",
    "gate at a repeat": "the mode is read before a repeated submission too",
    "tracking": "a reply is followed, and its row opened again when it reached nobody",
    "withdrawal": "a pending reply is taken back when a person answers",
    "bounded run": "no run outlives its lease by more than the margin",
    "one transaction": "an email's row and its open work change together",
    "watermark last": "the watermark passes an email when its row is stored",
    "sweep": "whatever is open is enqueued again and again",
}


class Row(NamedTuple):
    """What the ledger stores. `draft` numbers the text, `intent` is the age of the intent to submit.

    `unsent`: it was opened again because its reply reached nobody.
    """

    leased: bool = False
    draft: int = 0
    intent: int = NEVER
    outcome: str = ""
    finished: bool = False
    unsent: bool = False


class Worker(NamedTuple):
    """One worker: its next step, the row as it knows it, and what it cannot know.

    `owns`: nobody wrote the row after it. `overdue`: its lease ran out. `first`: it submits for the first time.
    `may_open`, `may_answer`: the mailbox was opened, or the email answered, after it had read the mode, or the
    thread, for the last time before it submits.
    """

    step: str = IDLE
    row: Row = Row()
    owns: bool = False
    overdue: bool = False
    first: bool = False
    may_open: bool = False
    may_answer: bool = False


class State(NamedTuple):
    """Everything. Ages count ticks up to KEY_LIFE and stop there.

    `reply` is what the service says of ours: "pending", "sent" or "unsent" (rejected or withdrawn).
    `is_stray`: it was submitted by a run that had outlived its lease, after another had taken over.
    """

    row: Row | None = None
    is_open: bool = False
    is_passed: bool = False
    adding: int = 0
    is_enqueued: bool = False
    workers: tuple[Worker, Worker] = (Worker(), Worker())
    texts: int = 0
    key_age: int = NEVER
    tried_age: int = NEVER
    tried_text: int = 0
    accepted: int = 0
    reply: str = ""
    human: bool = False
    is_ungated: bool = False
    is_stray: bool = False
    tagged: bool = False
    broken: str = ""


class Move(NamedTuple):
    """One step of anybody. A fair run goes on without those that are not `fair`."""

    text: str
    after: State
    fair: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """What the exploration found: `trace` is the shortest way to the first broken promise."""

    states: int
    broken: str = ""
    trace: tuple[str, ...] = ()


class Protocol:
    """The moves of the protocol with all guards but those that are `without`, and at most so many `acts` of people.

    Of the `workers`, one or two, the first alone can work, or both.
    """

    def __init__(self, without: Sequence[str] = (), acts: int = ALL_ACTS, workers: int = 2) -> None:
        self._acts, self._workers = acts, workers
        unknown = set(without) - set(GUARDS)
        if unknown:
            raise ValueError(f"no such guard: {', '.join(sorted(unknown))}")
        self._guards = set(GUARDS) - set(without)

    def moves(self, state: State) -> Iterator[Move]:
        """Everything that can happen next."""
        yield from self._poll(state)
        if self._has("sweep") and state.is_open and not state.is_enqueued:
            yield Move("the sweep enqueues the open work", state._replace(is_enqueued=True))
        if state.is_enqueued:
            yield Move("the queue loses the work item", state._replace(is_enqueued=False), fair=False)
        yield from self._act(state)
        yield from self._track(state)
        yield from self._tick(state)
        for number, worker in enumerate(state.workers[: self._workers]):
            name = "AB"[number]
            for text, after, fair in self._work(state, number, worker):
                yield Move(f"{name} {text}", after, fair)
            if worker.step != IDLE:
                yield Move(
                    f"{name} dies before it can {worker.step}", _with(state, number, Worker()), fair=False
                )

    def _has(self, guard: str) -> bool:
        return guard in self._guards

    # People, and who follows what they decide

    def _act(self, state: State) -> Iterator[Move]:
        acts = state.human + state.is_ungated + (state.reply in (SENT, UNSENT))
        if state.row is None or acts >= self._acts:
            return
        if not state.human:
            after = _map_workers(
                state._replace(human=True),
                lambda worker: worker._replace(may_answer=worker.step in ("read the gate", "submit")),
            )
            yield Move("a person answers the email", after, fair=False)
        if not state.is_ungated:
            after = _map_workers(
                state._replace(is_ungated=True),
                lambda worker: worker._replace(may_open=worker.step == "submit"),
            )
            yield Move("a person opens the mailbox", after, fair=False)
        if state.reply == PENDING:
            yield Move("a person rejects the reply", state._replace(reply=UNSENT), fair=False)
            yield Move("a person approves the reply", state._replace(reply=SENT), fair=False)

    def _track(self, state: State) -> Iterator[Move]:
        row = state.row
        if row is None or not row.finished or row.outcome != "submitted" or not self._has("tracking"):
            return
        if state.reply == PENDING and state.human and self._has("withdrawal"):
            yield Move("the tracker takes the pending reply back", state._replace(reply=UNSENT))
        if state.reply == UNSENT:
            again = _map_workers(state, lambda worker: worker._replace(owns=False))
            again = again._replace(row=Row(draft=row.draft, unsent=True))
            yield Move("the tracker opens the row again", again._replace(is_open=True, tagged=False))

    # The poller, in the order of its writes

    def _poll(self, state: State) -> Iterator[Move]:
        writes: list[tuple[str, Callable[[State], State]]] = [
            ("adds the row", lambda s: s._replace(row=Row())),
            ("puts the email among the open work", lambda s: s._replace(is_open=True)),
        ]
        if self._has("one transaction"):
            writes = [("adds the row and its open work", lambda s: s._replace(row=Row(), is_open=True))]
        passing = ("moves the watermark past the email", lambda s: s._replace(is_passed=True))
        writes.insert(len(writes) if self._has("watermark last") else 0, passing)
        if state.adding == 0 and (state.is_passed or state.row is not None):
            if not state.is_passed:
                yield Move("the poller finds the row and moves the watermark", state._replace(is_passed=True))
            return
        text, write = writes[state.adding]
        adding = (state.adding + 1) % len(writes)
        yield Move(
            f"the poller {text}",
            write(state)._replace(adding=adding, is_enqueued=state.is_enqueued or adding == 0),
        )
        if state.adding:
            yield Move("the poller dies", state._replace(adding=0), fair=False)

    def _tick(self, state: State) -> Iterator[Move]:
        """Time passes: every lease runs out, everything ages, and a run that lasts too long has ended."""
        if self._has("bounded run") and any(worker.overdue for worker in state.workers):
            return
        workers = tuple(
            worker._replace(overdue=True, row=_age_row(worker.row)) if worker.step != IDLE else worker
            for worker in state.workers
        )
        yield Move(
            "time passes",
            state._replace(
                row=state.row and _age_row(state.row)._replace(leased=False),
                workers=(workers[0], workers[1]),
                key_age=_age(state.key_age),
                tried_age=_age(state.tried_age),
            ),
        )

    # A worker, step by step

    def _work(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        if worker.step == IDLE:
            if state.is_enqueued:
                for text, after, fair in self._claim(state, number):
                    yield Move(text, after, fair)
                    yield Move(
                        f"{text} (the work item comes twice)", after._replace(is_enqueued=True), fair=False
                    )
            return
        step: Callable[[State, int, Worker], Iterator[Move]] = getattr(
            self, f"_{worker.step.replace(' ', '_')}"
        )
        yield from step(state, number, worker)

    def _claim(self, state: State, number: int) -> Iterator[Move]:
        row, quiet = state.row, state._replace(is_enqueued=False)
        if row is None or row.finished or (row.leased and self._has("lease")):
            yield Move("finds no work", quiet)
            return
        worker = Worker("take the lease", row)
        if self._has("conditional claim"):
            yield from self._take_the_lease(quiet, number, worker)
        else:
            yield Move("reads the row", _with(quiet, number, worker))

    def _take_the_lease(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        row = worker.row._replace(leased=True)
        step = "tag" if row.outcome else "settle" if row.intent != NEVER else "read the thread"
        after = _write(state, number, worker._replace(step=step, row=row))
        other = state.workers[1 - number]
        if other.step not in (IDLE, "take the lease") and not other.overdue:
            after = after._replace(broken="two live workers pay for the same email")
        yield Move("claims the row", after)

    def _read_the_thread(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        if state.human:
            yield self._save("finds the email answered", state, number, worker, "tag", outcome="skipped")
        elif worker.row.unsent:
            yield self._save("leaves it to a person", state, number, worker, "tag", outcome="escalated")
        elif worker.row.draft:
            yield Move("finds nothing that answers it", _with(state, number, self._go_on(worker)))
        else:
            text = min(state.texts + 1, 2)
            drafted = state._replace(texts=text)
            if self._has("draft stored"):
                written = worker._replace(row=worker.row._replace(draft=text))
                step = self._go_on(written).step
                yield self._save("stores a draft", drafted, number, worker, step, draft=text)
            else:
                row = worker.row._replace(draft=text)
                yield Move("drafts", _with(drafted, number, self._go_on(worker._replace(row=row))))

    def _go_on(self, worker: Worker) -> Worker:
        return worker._replace(step="intend" if self._has("gate") else "read the early gate")

    def _read_the_early_gate(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        if state.is_ungated:
            yield self._save("finds the mailbox open", state, number, worker, "tag", outcome="blocked")
        else:
            yield Move("finds the mailbox gated", _with(state, number, worker._replace(step="intend")))

    def _intend(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        worker = worker._replace(first=True)
        step = "look again" if self._has("late look") else self._gate_step("gate")
        if self._has("intent stored"):
            kept = {} if self._has("draft stored") else {"draft": worker.row.draft}
            yield self._save("stores its intent", state, number, worker, step, intent=0, **kept)
        else:
            yield Move("goes on to submit", _with(state, number, worker._replace(step=step)))

    def _gate_step(self, guard: str) -> str:
        return "read the gate" if self._has(guard) else "submit"

    def _look_again(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        if state.human:
            yield self._save(
                "finds the email answered", state, number, worker, "tag", intent=NEVER, outcome="skipped"
            )
        else:
            step = self._gate_step("gate")
            yield Move("finds nothing that answers it", _with(state, number, worker._replace(step=step)))

    def _read_the_gate(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        if not state.is_ungated:
            yield Move("finds the mailbox gated", _with(state, number, worker._replace(step="submit")))
        elif worker.first:
            yield self._save(
                "finds the mailbox open", state, number, worker, "tag", intent=NEVER, outcome="blocked"
            )
        else:
            outcome = "submitted" if state.accepted else "blocked"
            yield self._save("finds the mailbox open", state, number, worker, "tag", outcome=outcome)

    def _settle(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        if state.human and self._has("look at a repeat"):
            if state.reply == PENDING:
                taken_back = _with(state._replace(reply=UNSENT), number, worker)
                yield Move("finds the email answered, and takes its reply back", taken_back)
                return
            outcome = "submitted" if state.reply == SENT else "skipped"
            yield self._save("finds the email answered", state, number, worker, "tag", outcome=outcome)
        elif not self._has("24 h rule") or worker.row.intent < SAME_KEY_FOR:
            step = self._gate_step("gate at a repeat")
            yield Move("decides to submit again", _with(state, number, worker._replace(step=step)))
        elif state.accepted:
            yield self._save("finds its old reply", state, number, worker, "tag", outcome="submitted")
        else:
            yield self._save(
                "finds no trace of its reply", state, number, worker, "tag", outcome="needs_human"
            )

    def _submit(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        refused = _with(state, number, worker._replace(step="clear the intent" if worker.first else "defer"))
        yield Move("submits and is throttled", refused, fair=False)
        tried = self._try(state, worker)
        deferring = worker._replace(step="defer")
        yield Move("submits, and it never arrives", _with(tried, number, deferring), fair=False)
        arrived = self._arrive(tried, worker)
        yield Move("submits, and the answer is lost", _with(arrived, number, deferring), fair=False)
        yield Move("submits", _with(arrived, number, worker._replace(step="read back")))

    def _try(self, state: State, worker: Worker) -> State:
        """Note a submission whose fate its sender cannot be sure of; say when it is a blind one."""
        text = worker.row.draft
        if state.tried_age == NEVER:
            return state._replace(tried_age=0, tried_text=text)
        if state.tried_age >= KEY_LIFE or not self._has("same key"):
            return state._replace(
                broken="a blind resend: an earlier try may have arrived, its key says nothing"
            )
        if text != state.tried_text:
            return state._replace(broken="other bytes under a used key")
        return state

    def _arrive(self, state: State, worker: Worker) -> State:
        if self._has("same key") and 0 <= state.key_age < KEY_LIFE:
            return state
        reply = SENT if state.is_ungated else PENDING
        taken = state._replace(key_age=0, accepted=min(state.accepted + 1, 2), reply=reply)
        if taken.broken:
            return taken
        if taken.accepted > 1:
            return taken._replace(broken="two accepted replies")
        if state.is_ungated and not worker.may_open:
            return taken._replace(broken="a reply without approval although the mode was to be read")
        if state.human and not worker.may_answer:
            return taken._replace(broken="a reply although a person had answered")
        return taken._replace(is_stray=worker.overdue and not worker.owns)

    def _read_back(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        yield self._save("reads its reply back", state, number, worker, "tag", outcome="submitted")

    def _clear_the_intent(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        yield self._save("clears its intent", state, number, worker, "defer", intent=NEVER)

    def _tag(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        step = "finish" if self._has("one transaction") else "close"
        yield Move("tags the email", _with(state._replace(tagged=True), number, worker._replace(step=step)))

    def _finish(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        if worker.owns or not self._has("fencing"):
            state = state._replace(is_open=False)
        yield self._save("finishes the row", state, number, worker, IDLE, finished=True, leased=False)

    def _close(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        after = worker._replace(step="finish")
        yield Move("drops the open work", _with(state._replace(is_open=False), number, after))

    def _defer(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        yield self._save("gives its lease back", state, number, worker, IDLE, leased=False)

    def _save(
        self, text: str, state: State, number: int, worker: Worker, step: str, **changes: int | str | bool
    ) -> Move:
        """Save the row and go on to `step`; a worker whose row was taken over stops instead."""
        if self._has("fencing") and not worker.owns:
            return Move(f"{text}, but lost its lease", _with(state, number, Worker()))
        row = worker.row._replace(**changes)  # type: ignore[arg-type] # the fields' own types, by name
        stored = row if self._has("draft stored") else row._replace(draft=0)
        after = _write(state, number, worker._replace(step=step, row=row))._replace(row=stored)
        return Move(text, _with(after, number, Worker()) if step == IDLE else after)


def _age(age: int) -> int:
    return age if age == NEVER else min(age + 1, KEY_LIFE)


def _age_row(row: Row) -> Row:
    return row._replace(intent=_age(row.intent))


def _with(state: State, number: int, worker: Worker) -> State:
    first, second = state.workers
    return state._replace(workers=(worker, second) if number == 0 else (first, worker))


def _map_workers(state: State, change: Callable[[Worker], Worker]) -> State:
    first, second = state.workers
    return state._replace(workers=(change(first), change(second)))


def _write(state: State, number: int, worker: Worker) -> State:
    """Store a worker's row: from now on the other one does not own it any more."""
    other = state.workers[1 - number]._replace(owns=False)
    after = _with(state._replace(row=worker.row), number, worker._replace(owns=True))
    return _with(after, 1 - number, other)


def is_done(state: State) -> bool:
    """Whether the email has ended so that its sender is answered, or a person is told that nobody did."""
    row = state.row
    if row is None or not row.finished or not state.tagged:
        return False
    if state.reply == PENDING and state.human and not state.is_stray:
        return False  # a person may still approve a second answer
    if row.outcome == "submitted":
        return state.reply in (PENDING, SENT)
    return state.human if row.outcome == "skipped" else True


def explore(without: Sequence[str] = (), acts: int = ALL_ACTS, workers: int = 2) -> Result:
    """Visit every state; stop at the first broken promise, otherwise see that each can still end visibly.

    Two states that differ only in which worker is which count as one.
    """
    protocol, start = Protocol(without, acts, workers), State()
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    before: dict[State, list[State]] = {}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        if state.broken:
            return Result(len(came_from), state.broken, _trace(came_from, state))
        for text, after, fair in protocol.moves(state):
            known = after if workers == 1 or after in came_from else _swapped(after)
            if known not in came_from:
                known = after
                came_from[after] = (state, text)
                waiting.append(after)
            if fair:
                before.setdefault(known, []).append(state)
    stuck = _find_stuck(came_from, before)
    if stuck is None:
        return Result(len(came_from))
    return Result(len(came_from), "the email never ends visibly", _trace(came_from, stuck))


def find_break(guard: str) -> Result:
    """What goes wrong without a guard: the shortest way there, with one worker if one is enough, and one act of people."""
    alone = explore([guard], acts=1, workers=1)
    return alone if alone.broken else explore([guard], acts=1)


def _swapped(state: State) -> State:
    first, second = state.workers
    return state._replace(workers=(second, first))


def _find_stuck(
    states: Mapping[State, tuple[State, str] | None], before: Mapping[State, Sequence[State]]
) -> State | None:
    """The state nearest to the start from which no fair run ends visibly."""
    waiting = [state for state in states if is_done(state)]
    ends = set(waiting)
    while waiting:
        for state in before.get(waiting.pop(), ()):
            if state not in ends:
                ends.add(state)
                waiting.append(state)
    return next((state for state in states if state not in ends), None)


def _trace(came_from: Mapping[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    steps: list[str] = []
    while (step := came_from[state]) is not None:
        state, text = step
        steps.append(text)
    return tuple(reversed(steps))


def main(guards: Sequence[str] = ()) -> int:
    """Print the size of the state space, and what goes wrong without each of the guards (all of them)."""
    whole = explore()
    print(f"all guards: {whole.states} states, {whole.broken or 'every promise holds'}")
    results = {guard: find_break(guard) for guard in guards or GUARDS}
    for guard, result in results.items():
        broken = result.broken or f"nothing breaks in {result.states} states"
        print(f"\nwithout {guard} ({GUARDS[guard]}): {broken}")
        for number, step in enumerate(result.trace, 1):
            print(f"  {number:2} {step}")
    return 0 if not whole.broken and all(result.broken for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
