"""What must be true at the end of every story, read off the simulator's own log and the ledger."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from local.multimail.emails import AcceptedEmail, StoredEmail
from local.multimail.simulator import MultiMailSimulator
from shared.domain import build_idempotency_key, parse_address
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.replying.reporting import STATUS_TAG
from shared.settings import Settings
from shared.watching.tracking import MAX_REDRAFTS
from tests.chaos.faults import MODEL
from tests.chaos.scenarios import Scenario
from tests.chaos.stage import Stage

LOST, DOUBLED, UNGATED, ASTRAY, OVER_LIMIT, WRONG_END, ENDLESS, BUG = KINDS = (
    "lost", "doubled", "ungated", "astray", "over a limit", "wrong end", "endless", "bug",
)  # fmt: skip
NOT_ALIVE = frozenset({"cancelled", "rejected"})
HIGHEST_REVISION = 1 + MAX_REDRAFTS  # of a draft: one more for every rejection with a reason
VISIBLE_TROUBLE = frozenset({"needs_human", "failed"})


class Evidence(Protocol):
    """What a run leaves behind to be judged. `inbound` has the id of every email that was delivered."""

    simulator: MultiMailSimulator
    settings: Settings
    inbound: dict[str, str]
    bugs: list[str]

    @property
    def ledger(self) -> Ledger:
        """The ledger as it stands now."""
        ...

    @property
    def settled_counts(self) -> Mapping[str, int]:
        """By reply, how often it was said to be settled."""
        ...

    def entry(self, email_id: str) -> LedgerEntry | None:
        """The row of an email."""
        ...


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: which one, and the facts."""

    kind: str
    facts: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.facts}"


def find_violations(stage: Evidence) -> Iterator[Violation]:
    """Everything that breaks a promise, whatever the story was."""
    for bug in stage.bugs:
        yield Violation(BUG, f"{bug} went through the trigger")
    if stage.ledger.next_due_at() is not None:
        yield Violation(LOST, "the work ended with open rows")
    replies: dict[str | None, list[AcceptedEmail]] = defaultdict(list)
    for accepted in stage.simulator.accepted:
        replies[accepted.in_reply_to].append(accepted)
    for email_id in stage.inbound.values():
        yield from _check_email(stage, email_id, replies.pop(email_id, []))
    for target in replies:
        yield Violation(ASTRAY, f"something was sent that answers no inbound email ({target})")
    yield from check_tracking(stage)
    yield from _check_limits(stage)
    yield from check_requests(stage, {})


def find_wrong_ends(stage: Stage, scenario: Scenario) -> Iterator[Violation]:
    """Everything that ended otherwise than the story has to, although every fault was passing."""
    unreadable = Counter(c.name for c, f in stage.seams.injected if c.seam == MODEL and "malformed" in f.name)
    gave_up_reading = any(count > 1 for count in unreadable.values())
    for label, outcomes in scenario.outcomes.items():
        entry = stage.entry(stage.inbound[label])
        outcome = str(entry.outcome) if entry else "no row"
        if outcome not in outcomes and not (gave_up_reading and outcome == "escalated"):
            yield Violation(WRONG_END, f"{label} ended as {outcome}, not {' or '.join(outcomes)}")
    live = sum(1 for accepted in stage.simulator.accepted if _is_alive(stage, accepted))
    if live not in scenario.live and not gave_up_reading:
        yield Violation(WRONG_END, f"{live} replies are alive, not {' or '.join(map(str, scenario.live))}")
    for label, status in scenario.ends.items():
        if not gave_up_reading:
            yield from _check_end(stage, stage.inbound[label], status)


def _check_end(stage: Stage, email_id: str, status: str) -> Iterator[Violation]:
    """The end of a reply that people decided about is in its row, on the email, and was counted once."""
    email, entry = stage.simulator.find_email(email_id), stage.entry(email_id)
    if email is None or entry is None or entry.reply_settled_at is None or entry.reply_status != status:
        word = entry.reply_status if entry else "nothing"
        yield Violation(WRONG_END, f"the reply to {email_id} ended as {word}, not settled as {status}")
        return
    if email.tags.get(STATUS_TAG) != status:
        yield Violation(WRONG_END, f"{email_id} is tagged {email.tags}, but its reply is {status}")
    # The row counts; after the answer to that very write was lost, nobody can know that the event is still due.
    answer_was_lost = any(c.name == "replace email" and "after" in f.name for c, f in stage.seams.injected)
    if stage.settled_counts[entry.reply_id or ""] != 1 and not answer_was_lost:
        yield Violation(LOST, f"the end of {entry.reply_id} was not counted")


def _check_email(stage: Evidence, email_id: str, replies: list[AcceptedEmail]) -> Iterator[Violation]:
    email, entry = stage.simulator.find_email(email_id), stage.entry(email_id)
    if email is None or entry is None or entry.finished_at is None or entry.outcome is None:
        yield Violation(LOST, f"{email_id} has no finished row with an outcome")
        return
    gave_up_tagging = entry.attempts >= stage.settings.max_attempts
    if email.tags.get("agent.outcome") != str(entry.outcome) and not gave_up_tagging:
        yield Violation(LOST, f"{email_id} ended as {entry.outcome} but is tagged {email.tags}")
    yield from _check_replies(stage, email, replies)
    for reply in replies:
        yield from _check_reply(email, entry, reply)
    if entry.reply_id is not None and entry.reply_id not in {reply.email_id for reply in replies}:
        yield Violation(ASTRAY, f"the row of {email_id} names {entry.reply_id}, which is no reply to it")


def _check_replies(stage: Evidence, email: StoredEmail, replies: list[AcceptedEmail]) -> Iterator[Violation]:
    """At most one reply is alive, and no draft was accepted twice: its revision is in its key."""
    alive = [reply.email_id for reply in replies if _is_alive(stage, reply)]
    if len(alive) > 1:
        yield Violation(DOUBLED, f"{email.id} has {len(alive)} replies that are alive")
    revisions = [build_idempotency_key(email.mailbox_id, email.id, n + 1) for n in range(HIGHEST_REVISION)]
    keys = [reply.idempotency_key for reply in replies]
    if len(keys) > len(set(keys)) or not set(keys) <= set(revisions):
        yield Violation(
            DOUBLED, f"{email.id} got {len(keys)} replies, not one for each revision of its draft"
        )


def check_tracking(stage: Evidence) -> Iterator[Violation]:
    """No reply is forgotten before it is settled, and no end is counted twice."""
    tracked = {reply.reply_id for reply in stage.ledger.tracked_replies()}
    for email_id in stage.inbound.values():
        entry = stage.entry(email_id)
        if entry is None or entry.tracked_reply is None:
            continue
        if entry.reply_settled_at is None and entry.reply_id not in tracked:
            yield Violation(LOST, f"nobody looks at {entry.reply_id} any more, and it is not settled")
    for reply_id, times in stage.settled_counts.items():
        if times > 1:
            yield Violation(DOUBLED, f"the end of {reply_id} was counted {times} times")


def _check_reply(email: StoredEmail, entry: LedgerEntry, reply: AcceptedEmail) -> Iterator[Violation]:
    if reply.mode not in ("gated_send", "gated_all") or reply.approval_bypassed:
        yield Violation(UNGATED, f"{reply.email_id} left {reply.mode} without approval")
    if reply.recipients != (parse_address(email.sender),):
        yield Violation(ASTRAY, f"{reply.email_id} went to others than the sender of {email.id}")
    if reply.mailbox_id != email.mailbox_id:
        yield Violation(ASTRAY, f"{reply.email_id} left another mailbox than {email.id} came to")
    in_row = {entry.reply_id, *(rejection.reply_id for rejection in entry.rejections)}
    if reply.email_id not in in_row and str(entry.outcome) not in VISIBLE_TROUBLE:
        yield Violation(ASTRAY, f"{reply.email_id} stands in no row: {email.id} ended as {entry.outcome}")


def _check_limits(stage: Evidence) -> Iterator[Violation]:
    """The limits are about emails that are answered: a reply that is drafted anew counts once."""
    per_thread: dict[str, set[str | None]] = defaultdict(set)
    per_sender: dict[tuple[str, str], set[str | None]] = defaultdict(set)
    keys: Counter[str | None] = Counter()
    for reply in stage.simulator.accepted:
        sent = stage.simulator.find_email(reply.email_id)
        per_thread[sent.thread_id if sent else ""].add(reply.in_reply_to)
        per_sender[" ".join(reply.recipients), f"{reply.at:%Y-%m-%d}"].add(reply.in_reply_to)
        keys[reply.idempotency_key] += 1
    for thread_id, answered in per_thread.items():
        if len(answered) > stage.settings.max_replies_per_thread:
            yield Violation(OVER_LIMIT, f"thread {thread_id} got {len(answered)} replies")
    for (sender, day), answered in per_sender.items():
        if len(answered) > stage.settings.max_replies_per_sender_per_day:
            yield Violation(OVER_LIMIT, f"{sender} got {len(answered)} replies on {day}")
    for key, times in keys.items():
        if key is None or times > 1:
            yield Violation(DOUBLED, f"the idempotency key {key} was accepted {times} times")


def check_requests(stage: Evidence, bytes_of: dict[str, str]) -> Iterator[Violation]:
    """What the log of requests must not show: other bytes under a used key, other people's mail undone.

    `bytes_of` remembers what was submitted under each key, for a log that is read in parts.
    """
    ours = {reply.email_id for reply in stage.simulator.accepted}
    for request in stage.simulator.requests:
        if request.method == "POST" and "/reply/" in request.path and isinstance(request.body, dict):
            body = json.dumps(request.body, sort_keys=True)
            if bytes_of.setdefault(str(request.body.get("idempotency_key")), body) != body:
                yield Violation(DOUBLED, f"request {request.number} sent other bytes under a used key")
        what, _, target = request.effect.partition(" ")
        if what == "cancelled" and target not in ours:
            yield Violation(ASTRAY, f"request {request.number} {request.effect}, which was not ours")


def _is_alive(stage: Evidence, accepted: AcceptedEmail) -> bool:
    email = stage.simulator.find_email(accepted.email_id)
    return email is not None and email.status not in NOT_ALIVE
