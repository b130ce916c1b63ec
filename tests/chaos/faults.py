"""Faults and where they strike: every outside call is counted, and may meet one."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import requests

from shared.domain import WorkItem
from shared.errors import ConfigurationError, ThrottledError, TransientError
from shared.ledger.store import Change, Row, Store, Verb
from shared.model.chat import ChatCompletion
from shared.services.work_queue import InProcessWorkQueue
from shared.settings import Secret
from tests.chaos.watch import SubmissionWatch, is_submission

Effect = Callable[[], Any]
T = TypeVar("T")

MULTIMAIL, MODEL, LEDGER, QUEUE, VAULT = "multimail", "model", "ledger", "queue", "vault"
END = "end"  # no call: what happens after all of a story's


class Killed(BaseException):
    """The process ends here. With `keeps_leases` nobody tells the ledger that its workers are dead."""

    def __init__(self, *, keeps_leases: bool) -> None:
        self.keeps_leases = keeps_leases
        super().__init__()


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """One outside call: the `number`-th in its `lane`.

    A lane is a mailbox, or "" for calls that belong to none: mailboxes are polled side by side, and
    only within a lane is the order of calls the same in every run.
    """

    lane: str
    number: int
    seam: str
    name: str

    @property
    def has_effect(self) -> bool:
        """Whether the call changes anything outside this process. Reading an email marks it as read."""
        return {
            VAULT: False,
            END: False,
            MULTIMAIL: not self.name.startswith("GET") or self.name.endswith("emails/*"),
            LEDGER: not self.name.startswith(("get", "scan")),
        }.get(self.seam, True)

    @property
    def has_condition(self) -> bool:
        """Whether the call changes rows only as they were read, so that another writer can be first."""
        return self.seam == LEDGER and any(verb in self.name for verb in (Verb.INSERT, Verb.REPLACE))

    def __str__(self) -> str:
        return f"call {self.number}{f' of {self.lane}' if self.lane else ''} ({self.seam}: {self.name})"


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of one call: `act` gets the call's effect, to be had or not, and answers for it."""

    name: str
    act: Callable[[Effect], Any]


Plan = Callable[[Call], Fault | None]


class Seams:
    """Counts the outside calls and lets each meet the fault that the plan has for it.

    Calls and faults are noted, unless it `forgets` them: what a long run notes would be most of its memory.
    """

    def __init__(self, plan: Plan, *, forgets: bool = False) -> None:
        self._plan = plan
        self._forgets = forgets
        self._is_resting = False
        self._turn = threading.Lock()
        self._numbers: Counter[str] = Counter()
        self.calls: list[Call] = []
        self.injected: list[tuple[Call, Fault]] = []
        self.watch = SubmissionWatch()

    def meet(self, seam: str, lane: str, name: str, effect: Callable[[], T]) -> T:
        """Make one call, or what its fault makes of it."""
        if self._forgets:  # many workers at once, so that nobody can tell what directly precedes what
            return self._strike(seam, lane, name, effect)
        went_well = False
        if is_submission(name):
            self.watch.submit(name, lane)
        try:
            answer = self._strike(seam, lane, name, effect)
            went_well = not isinstance(answer, requests.Response) or answer.ok
        finally:
            self.watch.note(name, lane, went_well=went_well)
        return answer

    def _strike(self, seam: str, lane: str, name: str, effect: Callable[[], T]) -> T:
        if self._is_resting:
            return effect()
        with self._turn:
            self._numbers[lane] += 1
            call = Call(lane, self._numbers[lane], seam, name)
            fault = self._plan(call)
            if not self._forgets:
                self._note(call, fault)
        return effect() if fault is None else cast(T, fault.act(effect))

    def _note(self, call: Call, fault: Fault | None) -> None:
        self.calls.append(call)
        if fault is not None:
            self.injected.append((call, fault))

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Let every call go well, uncounted: what leads up to a story is another story's matter."""
        self._is_resting = True
        yield
        self._is_resting = False


class SeamedStore:
    """A ledger's store whose every verb is an outside call: the ledger itself is the one that runs in Azure."""

    def __init__(self, store: Store, seams: Seams) -> None:
        self._store = store
        self._seams = seams

    def get(self, partition: str, key: str) -> Row | None:
        """The row, or None."""
        lane, kind = _find_lane_and_kind(partition, key)
        return self._seams.meet(LEDGER, lane, f"get {kind}", lambda: self._store.get(partition, key))

    def scan(self, partitions: Sequence[str], first: str, last: str) -> Iterator[Row]:
        """The rows, all read at once: what the reader does between two pages is no matter of the store."""
        lane, kind = _find_lane_and_kind(partitions[0], first)
        scan = partial(self._store.scan, partitions, first, last)
        return iter(self._seams.meet(LEDGER, lane, f"scan {kind}", lambda: list(scan())))

    def write(self, changes: Sequence[Change]) -> tuple[str, ...] | None:
        """Make all changes, or none."""
        named = [
            (change.verb, *_find_lane_and_kind(change.row.partition, change.row.key)) for change in changes
        ]
        name = ", ".join(dict.fromkeys(f"{verb} {kind}" for verb, _, kind in named))
        return self._seams.meet(LEDGER, named[0][1], name, Write(self._store, changes))

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()


@dataclass(frozen=True, slots=True)
class Write:
    """The effect of a write, before which another writer may come."""

    store: Store
    changes: Sequence[Change]

    def __call__(self) -> tuple[str, ...] | None:
        return self.store.write(self.changes)

    def come_second(self) -> tuple[str, ...] | None:
        """Have another writer do the same if the row is new, or else write the row once more as it is."""
        if any(change.verb is Verb.INSERT for change in self.changes):
            self()
        for change in self.changes:
            found = self.store.get(change.row.partition, change.row.key)
            if change.verb is Verb.REPLACE and found is not None:
                self.store.write([Change(Verb.UPSERT, found)])
        return self()


def _find_lane_and_kind(partition: str, key: str) -> tuple[str, str]:
    """The mailbox that a row belongs to, or "" for those of several or none, and what kind of row it is."""
    place, _, name = partition.partition("|")
    kind, _, rest = key.partition("|")
    lanes = {"mailbox": name, "slots": "", "days": ""}
    return lanes.get(place, rest.partition("|")[0]), kind


class SeamedQueue(InProcessWorkQueue):
    """The work queue, whose filling is an outside call."""

    def __init__(self, seams: Seams) -> None:
        super().__init__()
        self._seams = seams

    def send(self, items: Sequence[WorkItem], lives: timedelta) -> None:
        """Put every item into the queue."""
        self._seams.meet(QUEUE, "", "send", lambda: super(SeamedQueue, self).send(items, lives))


class SeamedVault:
    """A key that the vault holds a newer one of, once it has been rotated; asking the vault is an outside call."""

    def __init__(self, seams: Seams, read: Callable[[], str]) -> None:
        self._seams, self._read = seams, read
        self._known = read()

    def get(self) -> Secret:
        """The key as known now."""
        return Secret(self._known)

    def refresh(self, stale: Secret) -> Secret:
        """The newest key, unless it is known already."""
        if stale.value == self._known:
            self._known = self._seams.meet(VAULT, "", "get secret", self._read)
        return Secret(self._known)


def _fail_before(error: Callable[[], BaseException]) -> Callable[[Effect], Any]:
    def act(_effect: Effect) -> Any:
        raise error()

    return act


def _fail_after(error: Callable[[], BaseException]) -> Callable[[Effect], Any]:
    def act(effect: Effect) -> Any:
        effect()
        raise error()

    return act


def build_answer(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> requests.Response:
    """An answer as `requests` hands it to the client, already read."""
    answer = requests.Response()
    answer.status_code = status
    answer.headers.update({"Content-Type": "application/json", **(headers or {})})
    answer._content = body  # what every adapter that does not stream has to do
    return answer


def _refuse(
    status: int, error: str, headers: Mapping[str, str] | None = None, *, after_effect: bool = False
) -> Callable[[Effect], requests.Response]:
    def act(effect: Effect) -> requests.Response:
        if after_effect:
            effect()
        return build_answer(status, json.dumps({"error": error}).encode(), headers)

    return act


def _halve(effect: Effect) -> requests.Response:
    answer: requests.Response = effect()
    return build_answer(answer.status_code, answer.content[: len(answer.content) // 2])


def _halve_completion(effect: Effect) -> ChatCompletion:
    completion: ChatCompletion = effect()
    return replace(completion, text=completion.text[: len(completion.text) // 2])


def _double(effect: Effect) -> None:
    effect()
    effect()


def _come_second(effect: Effect) -> tuple[str, ...] | None:
    assert isinstance(effect, Write)
    return effect.come_second()


def _transient() -> TransientError:
    return TransientError("simulated: no answer")


KILLS = (
    Fault("killed before", _fail_before(lambda: Killed(keeps_leases=False))),
    Fault("killed after", _fail_after(lambda: Killed(keeps_leases=False))),
    Fault("killed before, lease kept", _fail_before(lambda: Killed(keeps_leases=True))),
    Fault("killed after, lease kept", _fail_after(lambda: Killed(keeps_leases=True))),
)

SECOND = Fault("another writer was first", _come_second)

FAULTS: Mapping[str, tuple[Fault, ...]] = {
    MULTIMAIL: (
        Fault("fails before", _fail_before(lambda: requests.ConnectionError("simulated"))),
        Fault("fails after", _fail_after(lambda: requests.ConnectionError("simulated"))),
        Fault("times out after", _fail_after(lambda: requests.ReadTimeout("simulated"))),
        Fault("429 with a delay", _refuse(429, "Rate limit exceeded", {"Retry-After": "40"})),
        Fault("429 without a delay", _refuse(429, "Rate limit exceeded")),
        Fault("429 quota", _refuse(429, "Monthly email quota exceeded")),
        Fault("404", _refuse(404, "Not found")),
        Fault("500 before", _refuse(500, "Internal error")),
        Fault("500 after", _refuse(500, "Internal error", after_effect=True)),
        Fault("malformed body", _halve),
        Fault(
            "cut mid-body", _fail_after(lambda: requests.exceptions.ChunkedEncodingError("simulated"))
        ),
        *KILLS,
    ),
    MODEL: (
        Fault("fails before", _fail_before(_transient)),
        Fault("fails after", _fail_after(_transient)),
        Fault("429 with a delay", _fail_before(lambda: ThrottledError("simulated", retry_after_seconds=40))),
        Fault("429 without a delay", _fail_before(lambda: ThrottledError("simulated"))),
        Fault("malformed body", _halve_completion),
        *KILLS,
    ),
    LEDGER: (
        Fault("fails before", _fail_before(_transient)),
        Fault("fails after", _fail_after(_transient)),
        Fault("429 with a delay", _fail_before(lambda: ThrottledError("simulated", retry_after_seconds=40))),
        Fault("refused", _fail_before(lambda: ConfigurationError("simulated"))),
        SECOND,
        *KILLS,
    ),
    QUEUE: (
        Fault("fails before", _fail_before(_transient)),
        Fault("fails after", _fail_after(_transient)),
        Fault("lost", lambda _effect: None),
        Fault("doubled", _double),
        *KILLS,
    ),
    END: (),
    VAULT: (
        Fault("fails before", _fail_before(_transient)),
        Fault("refused", _fail_before(lambda: ConfigurationError("simulated"))),
        *KILLS,
    ),
}  # fmt: skip

_READ = ("fails before", "429 without a delay", "404", "malformed body")
_WRITE = (*_READ[:3], "fails after", SECOND.name, "killed after", "killed after, lease kept")
_TOLD_APART = {
    MODEL: (
        "fails before",
        "429 without a delay",
        "malformed body",
        "killed after",
        "killed after, lease kept",
    ),
    VAULT: ("fails before", "killed before"),
    QUEUE: ("fails before", "lost", "doubled", "killed after", "killed after, lease kept"),
}


def find_faults(call: Call) -> tuple[Fault, ...]:
    """Every fault that can strike a call."""
    return tuple(fault for fault in FAULTS[call.seam] if fault is not SECOND or call.has_condition)


def find_distinct_faults(call: Call) -> tuple[Fault, ...]:
    """One fault of each kind that can end differently here, for pairs.

    What is left out repeats another: a read that fails afterwards failed before; a lost answer is
    a lost answer, whether cut, late, unreadable or a 500; and being killed before a call is being
    killed after the last one that had an effect, since a dead process leaves nothing else behind.
    """
    names = _TOLD_APART.get(call.seam) or (_WRITE if call.has_effect else _READ[:3])
    return tuple(fault for fault in find_faults(call) if fault.name in names)
