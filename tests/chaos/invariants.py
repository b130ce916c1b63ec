"""What must be true at the end of every story, read off the simulator's own log and the ledger."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from local.multimail.emails import AcceptedEmail, StoredEmail
from local.multimail.simulator import MultiMailSimulator
from shared.checks.gate import GATED_MODES
from shared.domain import build_idempotency_key, parse_address
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.replying.reporting import STATUS_TAG
from shared.settings import Settings
from shared.watching.tracking import MAX_REDRAFTS
from tests.chaos.faults import MODEL
from tests.chaos.marks import find_answered
from tests.chaos.scenarios import Scenario
from tests.chaos.stage import Act, Stage

LOST, UNSEEN, DOUBLED, UNGATED, LATE, ASTRAY, OVER_LIMIT, WRONG_END, ENDLESS, BUG = KINDS = (
    "lost", "unseen", "doubled", "ungated", "late", "astray", "over a limit", "wrong end", "endless", "bug",
)  # fmt: skip
NOT_ALIVE = frozenset({"cancelled", "rejected"})
NEVER_SENT = NOT_ALIVE | {"send_failed"}
HIGHEST_REVISION = 1 + MAX_REDRAFTS  # of a draft: one more for every rejection with a reason
VISIBLE_TROUBLE = frozenset({"needs_human", "failed"})
# What a person is told of: somebody has to answer.
VISIBLE = VISIBLE_TROUBLE | {"escalated", "blocked_ungated", "blocked_content_safety"}
PUT_AWAY = frozenset({"archived", "deleted", "rejected", "cancelled"})  # an inbound email, by a person
PENDING = frozenset({"pending_scan", "pending_send_approval"})


class Evidence(Protocol):
    """What a run leaves behind to be judged.

    `inbound` has the id of every email that was delivered, `nothing_asked` those that need no answer, `acts` what
    people did that a submission must take note of.
    """

    simulator: MultiMailSimulator
    settings: Settings
    inbound: dict[str, str]
    bugs: list[str]
    acts: list[Act]
    has_lost_mailbox: bool

    @property
    def nothing_asked(self) -> Collection[str]:
        """The ids of the emails that need no answer."""
        ...

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
    if stage.ledger.next_due_at() is not None and not stage.has_lost_mailbox:
        yield Violation(LOST, "the work ended with open rows")
    replies: dict[str | None, list[AcceptedEmail]] = defaultdict(list)
    for accepted in stage.simulator.accepted:
        replies[accepted.in_reply_to].append(accepted)
    for email_id in stage.inbound.values():
        yield from _check_email(stage, email_id, replies.pop(email_id, []))
    for target in replies:
        yield Violation(ASTRAY, f"something was sent that answers no inbound email ({target})")
    yield from _find_unseen(stage)
    yield from _find_doubled_answers(stage)
    yield from check_tracking(stage)
    yield from _check_limits(stage)
    yield from check_requests(stage, {})


def find_broken_orders(stage: Stage) -> Iterator[Violation]:
    """Every submission that did not directly follow the gate, or a look at the thread directly before that."""
    for submission in stage.seams.watch.ungated:
        yield Violation(UNGATED, submission)
    for submission in stage.seams.watch.late:
        yield Violation(LATE, submission)


def _find_unseen(stage: Evidence) -> Iterator[Violation]:
    """No email that a person wrote ends without an answer unless a person is told, or has seen to it."""
    answered: set[str] = set()
    for accepted in stage.simulator.accepted:
        reply = stage.simulator.find_email(accepted.email_id)
        if reply is not None and reply.status not in NEVER_SENT and reply.bounced_at is None:
            answered |= {stage.inbound[label] for label in find_answered(reply.markdown)}
    nothing_asked = stage.nothing_asked
    for label, email_id in stage.inbound.items():
        email, entry = stage.simulator.find_email(email_id), stage.entry(email_id)
        if email is None or email.status in PUT_AWAY or email_id in answered or email_id in nothing_asked:
            continue
        outcome = str(entry.outcome) if entry else "no row"
        if outcome in VISIBLE or _is_answered_by_a_person(stage, email):
            continue
        if email.mailbox_id not in stage.simulator.mailboxes:
            continue  # nobody can read it there; what is open waits, and the triggers fail until that is repaired
        because = f" ({entry.cause})" if entry and entry.cause else ""
        yield Violation(UNSEEN, f"{label} ended as {outcome}{because}, unanswered, and nobody is told")


def _is_answered_by_a_person(stage: Evidence, email: StoredEmail) -> bool:
    ours = {accepted.email_id for accepted in stage.simulator.accepted}
    return any(
        other.direction == "outbound"
        and other.id not in ours
        and parse_address(email.sender) in other.to
        and other.position > email.position
        for other in stage.simulator.find_thread(email.mailbox_id, email.thread_id)
    )


def _find_doubled_answers(stage: Evidence) -> Iterator[Violation]:
    """Nobody gets an answer of ours beside a person's, unless a person approved it or it could not be known.

    It cannot be known when the person answered after the last look at the thread before the submission.
    """
    for accepted in stage.simulator.accepted:
        reply = stage.simulator.find_email(accepted.email_id)
        if reply is None or reply.status in NEVER_SENT or reply.approved_at is not None:
            continue
        if reply.mailbox_id not in stage.simulator.mailboxes:  # nobody can withdraw it there
            continue
        found = (stage.simulator.find_email(stage.inbound[label]) for label in find_answered(reply.markdown))
        emails = [email for email in found if email is not None]
        if not emails or not all(_is_answered_by_a_person(stage, email) for email in emails):
            continue
        if reply.status in PENDING:
            yield Violation(DOUBLED, f"{reply.id} still waits for approval, though a person answered")
        elif _could_know(
            stage, accepted, "answered", accepted.in_reply_to or "", f"/threads/{reply.thread_id}"
        ):
            yield Violation(DOUBLED, f"{reply.id} was sent, though a person had answered")


def _could_know(stage: Evidence, accepted: AcceptedEmail, what: str, subject: str, path: str) -> bool:
    """Whether a person did this before what was read at `path` directly before a submission."""
    acts = [act.requests for act in stage.acts if act.what == what and act.subject == subject]
    if not acts:
        return False
    requests = stage.simulator.requests
    submitted = next(r.number for r in requests if r.effect.startswith(f"accepted {accepted.email_id} "))
    read = [
        r.number for r in requests if r.number < submitted and r.method == "GET" and r.path.endswith(path)
    ]
    return min(acts) < max(read, default=submitted)


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
    if email is None or email.mailbox_id not in stage.simulator.mailboxes:
        return  # a person erased the one, or removed the other
    if entry is None or entry.finished_at is None or entry.outcome is None:
        yield Violation(LOST, f"{email_id} has no finished row with an outcome")
        return
    gave_up_tagging = entry.attempts >= stage.settings.max_attempts
    if email.tags.get("agent.outcome") != str(entry.outcome) and not gave_up_tagging:
        yield Violation(LOST, f"{email_id} ended as {entry.outcome} but is tagged {email.tags}")
    yield from _check_replies(stage, email, replies)
    for reply in replies:
        yield from _check_reply(stage, email, entry, reply)
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
    tracked = {(reply.email_id, reply.reply_id) for reply in stage.ledger.tracked_replies()}
    for email_id in stage.inbound.values():
        entry = stage.entry(email_id)
        if entry is None or entry.tracked_reply is None or entry.reply_settled_at is not None:
            continue
        if entry.erased_at is not None:  # nobody is to look any more
            continue
        reply_id = entry.tracked_reply.reply_id
        reply = stage.simulator.find_email(reply_id)
        # A row that depends on another's reply has no word for the end of it.
        is_over = reply_id != entry.reply_id and (reply is None or reply.status not in PENDING)
        if not is_over and (email_id, reply_id) not in tracked:
            yield Violation(LOST, f"nobody looks at {reply_id} any more, and it is not settled")
    for reply_id, times in stage.settled_counts.items():
        if times > 1:
            yield Violation(DOUBLED, f"the end of {reply_id} was counted {times} times")


def _check_gate(stage: Evidence, reply: AcceptedEmail) -> Iterator[Violation]:
    """No reply leaves without approval, unless that is allowed, or a person allowed it after the gate was read."""
    if stage.settings.allow_ungated_replies:
        return
    acts = {"opened": reply.mode not in GATED_MODES, "allowed": reply.approval_bypassed}
    paths = {"opened": "/v1/mailboxes", "allowed": f"/{reply.mailbox_id}/allowlist"}
    for what, happened in acts.items():
        was_told = any(act.what == what and act.subject == reply.mailbox_id for act in stage.acts)
        if happened and (not was_told or _could_know(stage, reply, what, reply.mailbox_id, paths[what])):
            yield Violation(UNGATED, f"{reply.email_id} left {reply.mode} without approval")


def _check_reply(
    stage: Evidence, email: StoredEmail, entry: LedgerEntry, reply: AcceptedEmail
) -> Iterator[Violation]:
    yield from _check_gate(stage, reply)
    if reply.recipients != (parse_address(email.sender),):
        yield Violation(ASTRAY, f"{reply.email_id} went to others than the sender of {email.id}")
    if reply.mailbox_id != email.mailbox_id:
        yield Violation(ASTRAY, f"{reply.email_id} left another mailbox than {email.id} came to")
    in_row = {entry.reply_id, *(rejection.reply_id for rejection in entry.rejections)}
    if reply.email_id not in in_row and _is_alive(stage, reply) and str(entry.outcome) not in VISIBLE_TROUBLE:
        yield Violation(ASTRAY, f"{reply.email_id} stands in no row: {email.id} ended as {entry.outcome}")


def _check_limits(stage: Evidence) -> Iterator[Violation]:
    """The limits are about answers that people get: a reply that reached nobody does not count."""
    per_thread: dict[str, set[str | None]] = defaultdict(set)
    per_sender: dict[tuple[str, str], set[str | None]] = defaultdict(set)
    keys: Counter[str | None] = Counter()
    for reply in stage.simulator.accepted:
        keys[reply.idempotency_key] += 1
        sent = stage.simulator.find_email(reply.email_id)
        if sent is not None and sent.status not in NEVER_SENT and sent.bounced_at is None:
            per_thread[sent.thread_id].add(reply.in_reply_to)
            per_sender[" ".join(reply.recipients), f"{reply.at:%Y-%m-%d}"].add(reply.in_reply_to)
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
