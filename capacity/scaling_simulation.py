"""One deployment under steady mail, in steps of a tenth of a second: polls, places, quotas, refusals and their retries."""

from collections import deque
from dataclasses import dataclass
from math import inf

TICK = 0.1
RETRY_SECONDS = 15.0  # pipeline.THROTTLED_SECONDS, for a refusal without Retry-After
NEW, UNTRIAGED, UNDRAFTED = range(3)  # how far an email has come, so where its next attempt goes on
KINDS = (NEW, UNTRIAGED, UNDRAFTED)


@dataclass(frozen=True, slots=True)
class Flow:
    """What is simulated; rates by the second. Emails are divisible: shares of them go each way."""

    emails: float
    places: float  # instances x maxConcurrentCalls
    read_seconds: float
    triage_seconds: float = 0
    draft_seconds: float = 0
    end_seconds: float = 0
    triaged: float = 1.0  # of those read
    drafted: float = 1.0  # of those triaged
    triage_quota: float = inf
    draft_quota: float = inf
    triage_window: float = 10  # seconds over which the model service judges a rate
    draft_window: float = 10
    starts: float = inf  # what the stores let begin
    poll_seconds: float = 0  # of a poll that finds nothing
    poll_seconds_an_email: float = 0
    poll_every: float = 60
    poll_timeout: float = 540


@dataclass(frozen=True, slots=True)
class Result:
    """Averages over the second half of the run; `waiting` are seen by nobody yet, or queued, or deferred."""

    emails: float  # finished a second
    in_flight: float
    waiting: float
    attempts: float  # starts for each one finished
    unseen_share: float  # of the mail: in mailboxes that no poll reaches before its time-out


class _Quota:
    """So much a second, and at once no more than `window` seconds' worth."""

    def __init__(self, rate: float, window: float) -> None:
        self._rate, self._most = rate, rate * window
        self._left = self._most

    def take(self, wanted: float) -> float:
        """What is let through of `wanted` in this tick."""
        if self._rate == inf:
            return wanted
        self._left = min(self._left + self._rate * TICK, self._most)
        taken = min(wanted, self._left)
        self._left -= taken
        return taken


class _Stage:
    """Emails that each stay the same time. A stage of no time still takes a tick."""

    def __init__(self, seconds: float) -> None:
        self._slots = deque([0.0] * max(1, round(seconds / TICK)))
        self.inside = 0.0

    def step(self) -> float:
        """Who leaves now."""
        leaving = self._slots.popleft()
        self._slots.append(0.0)
        self.inside -= leaving
        return leaving

    def enter(self, emails: float) -> None:
        self._slots[-1] += emails
        self.inside += emails


class _Deployment:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.unseen = self.done = self.started = 0.0
        self.queue, self.due = [0.0 for _ in KINDS], [0.0 for _ in KINDS]
        self.deferred = [_Stage(RETRY_SECONDS) for _ in KINDS]
        self.reads = [_Stage(flow.read_seconds) for _ in KINDS]
        self.triage, self.draft, self.end = (
            _Stage(s) for s in (flow.triage_seconds, flow.draft_seconds, flow.end_seconds)
        )
        self.triage_quota = _Quota(flow.triage_quota, flow.triage_window)
        self.draft_quota = _Quota(flow.draft_quota, flow.draft_window)
        self.starts = _Quota(flow.starts, 1)
        self.poll_ends, self.reach = -1.0, 1.0
        self.listed = 0.0

    @property
    def in_flight(self) -> float:
        return sum(stage.inside for stage in (*self.reads, self.triage, self.draft, self.end))

    @property
    def waiting(self) -> float:
        deferred = sum(stage.inside for stage in self.deferred)
        return self.unseen + self.listed + deferred + sum(self.queue) + sum(self.due)

    def step(self, number: int) -> None:
        self.unseen += self.flow.emails * TICK * self.reach
        self._poll(number)
        for kind in KINDS:
            self.due[kind] += self.deferred[kind].step()
        self._work()

    def _poll(self, number: int) -> None:
        """A run enqueues what is due, lists, and enqueues what it found. One at a time, ended by its time-out."""
        flow, now = self.flow, number * TICK
        if 0 <= self.poll_ends <= now + TICK / 2:
            self.queue[NEW] += self.listed
            self.listed, self.poll_ends = 0.0, -1.0
        if self.poll_ends < 0 and number % round(flow.poll_every / TICK) == 0:
            for kind in KINDS:
                self.queue[kind] += self.due[kind]
                self.due[kind] = 0.0
            seconds = flow.poll_seconds + self.unseen * flow.poll_seconds_an_email
            # What is listed last is not reached; always the same mailboxes, for their order is the account's.
            self.reach = min(1.0, flow.poll_timeout / flow.poll_seconds) if flow.poll_seconds else 1.0
            found = self.unseen * min(1.0, flow.poll_timeout / seconds) if seconds else self.unseen
            self.unseen -= found
            self.listed, self.poll_ends = found, now + min(seconds, flow.poll_timeout)

    def _work(self) -> None:
        waiting = sum(self.queue)
        started = self.starts.take(min(waiting, max(0.0, self.flow.places - self.in_flight)))
        leaving = [stage.step() for stage in self.reads]
        for kind in KINDS:
            part = started * self.queue[kind] / waiting if waiting else 0.0
            self.queue[kind] -= part
            self.reads[kind].enter(part)
        triaged, drafted, ended = self.triage.step(), self.draft.step(), self.end.step()
        wanted = leaving[NEW] * self.flow.triaged
        skipped = leaving[NEW] - wanted
        wanted += leaving[UNTRIAGED]
        admitted = self.triage_quota.take(wanted)
        self.deferred[UNTRIAGED].enter(wanted - admitted)
        self.triage.enter(admitted)
        wanted = triaged * self.flow.drafted + leaving[UNDRAFTED]
        written = self.draft_quota.take(wanted)
        self.deferred[UNDRAFTED].enter(wanted - written)
        self.draft.enter(written)
        self.end.enter(skipped + triaged * (1 - self.flow.drafted) + drafted)
        self.done += ended
        self.started += started


def simulate(flow: Flow, seconds: float = 3_600) -> Result:
    """Run it from empty and average over the second half. Refused work waits for the poll after its delay."""
    deployment = _Deployment(flow)
    steps = round(seconds / TICK)
    in_flight = waiting = done = started = 0.0
    for number in range(steps):
        if number == steps // 2:
            done, started = deployment.done, deployment.started
        deployment.step(number)
        if number >= steps // 2:
            in_flight += deployment.in_flight
            waiting += deployment.waiting
    half = steps - steps // 2
    finished = deployment.done - done
    return Result(
        finished / (half * TICK), in_flight / half, waiting / half,
        (deployment.started - started) / finished if finished else inf,
        1 - deployment.reach,
    )  # fmt: skip
