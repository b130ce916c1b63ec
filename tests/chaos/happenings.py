"""What happens to the world between two outside calls: people act, things vanish for a while, clocks jump.

The call that a happening comes before goes on as always, in the world as it is then.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from local.multimail.emails import PENDING_INBOUND, READ, UNREAD, StoredEmail, StoredMailbox
from local.multimail.faults import Fault as FaultFromService
from local.multimail.faults import (
    FaultSource,
    always,
    another_account,
    answer_with,
    is_about_a_thread,
    is_about_an_email,
    is_about_anything,
    is_about_tags,
    not_found,
)
from local.multimail.state import OPERATOR, OPERATOR_ADDRESS
from local.multimail.wire import render_mailbox
from shared.checks.gate import GATED_MODES
from shared.domain import parse_address
from shared.replying.reporting import REJECT_REASON_TAG
from tests.chaos.faults import LEDGER, MULTIMAIL, Call, Effect, Fault
from tests.chaos.stage import Stage


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that can happen before a call. `is_passing`: the story has to end as if it had not happened."""

    name: str
    can_come_before: Callable[[Stage, Call], bool]
    act: Callable[[Stage], object]
    is_passing: bool
    is_a_persons: bool = False

    def bind(self, stage: Stage, call: Call) -> Fault:
        """As a fault of one stage at one call. The ledger takes its time when a person acts: 50 s."""
        seconds = 25 if self.is_a_persons and call.seam == LEDGER else 0

        def act(effect: Effect) -> Any:
            stage.clock.advance(seconds=seconds)
            self.act(stage)
            stage.clock.advance(seconds=seconds)
            return effect()

        return Fault(self.name, act)


# What vanishes, and what jumps


def _is_at_multimail(_stage: Stage, call: Call) -> bool:
    return call.seam == MULTIMAIL


def _is_at_the_ledger(_stage: Stage, call: Call) -> bool:
    return call.seam == LEDGER


def _always(_stage: Stage, _call: Call) -> bool:
    return True


def _spell(name: str, lasts: timedelta, source: FaultSource) -> Happening:
    def begin(stage: Stage) -> None:
        stage.begin_spell(source, lasts)

    return Happening(f"{name} for {lasts.total_seconds():.0f} s", _is_at_multimail, begin, is_passing=True)


def _list_spells() -> Iterator[Happening]:
    sources: dict[str, FaultSource] = {
        "no email is found": always(not_found(), matching=is_about_an_email),
        "no thread is found": always(not_found(), matching=is_about_a_thread),
        "no tags are found": always(not_found(), matching=is_about_tags),
        "nothing is found": always(not_found(), matching=is_about_anything),
        "the key is another account's": another_account,
    }
    for name, source in sources.items():
        for lasts in (timedelta(seconds=40), timedelta(minutes=10)):
            yield _spell(name, lasts, source)


def _hide_mailbox_for_a_while(stage: Stage) -> None:
    def hide(method: str, path: str, _number: int) -> FaultFromService | None:
        if (method, path) == ("GET", "/v1/mailboxes"):
            others = [box for box in stage.simulator.mailboxes.values() if box.id != stage.box]
            return answer_with(200, {"mailboxes": [render_mailbox(box, OPERATOR_ADDRESS) for box in others]})
        return not_found() if path.startswith(f"/v1/mailboxes/{stage.box}/") else None

    stage.begin_spell(hide, timedelta(minutes=10))


def _has_mailbox(stage: Stage, call: Call) -> bool:
    return call.seam == MULTIMAIL and stage.box in stage.simulator.mailboxes


SPELLS = (
    *_list_spells(),
    Happening("the mailbox is gone for 10 min", _has_mailbox, _hide_mailbox_for_a_while, is_passing=True),
    Happening(
        "the mailbox is gone for good", _has_mailbox, lambda stage: stage.remove_mailbox(), is_passing=False
    ),
)
CLOCKS = (
    Happening(
        "it takes 50 s", _is_at_the_ledger, lambda stage: stage.clock.advance(seconds=50), is_passing=True
    ),
    Happening("it takes an hour", _always, lambda stage: stage.clock.advance(hours=1), is_passing=True),
    Happening(
        "the agent's clock is an hour ahead for one run", _always, lambda stage: stage.skew_clock(timedelta(hours=1)),
        is_passing=True,
    ),
)  # fmt: skip


# What people do


def _deed(
    name: str, find: Callable[[Stage], StoredEmail | None], do: Callable[[Stage, StoredEmail], object]
) -> Happening:
    """A person's act on the email that `find` finds for it."""

    def act(stage: Stage) -> None:
        email = find(stage)
        assert email is not None, f"nothing to do for: {name}"
        stage.clock.advance(seconds=1)
        do(stage, email)

    return Happening(
        name, lambda stage, _call: find(stage) is not None, act, is_passing=False, is_a_persons=True
    )


def _find_inbound(stage: Stage) -> list[StoredEmail]:
    found = (stage.simulator.find_email(email_id) for email_id in stage.inbound.values())
    return [email for email in found if email is not None]


def _newest(stage: Stage) -> StoredEmail | None:
    inbound = [email for email in _find_inbound(stage) if email.mailbox_id in stage.simulator.mailboxes]
    return inbound[-1] if inbound else None


def _mailbox(stage: Stage, email: StoredEmail) -> StoredMailbox:
    return stage.simulator.mailboxes[email.mailbox_id]


def _newest_in_gated_mailbox(stage: Stage) -> StoredEmail | None:
    newest = _newest(stage)
    return newest if newest and _mailbox(stage, newest).mode in GATED_MODES else None


def _newest_not_allowlisted(stage: Stage) -> StoredEmail | None:
    newest = _newest(stage)
    if newest is None or _mailbox(stage, newest).allows(parse_address(newest.sender)):
        return None
    return newest


def _newest_unanswered(stage: Stage) -> StoredEmail | None:
    newest = _newest(stage)
    return newest if newest and not stage.is_answered(newest.id) else None


def _waiting(direction: str) -> Callable[[Stage], StoredEmail | None]:
    def find(stage: Stage) -> StoredEmail | None:
        awaiting = stage.simulator.list_awaiting_decision()
        return next((email for email in awaiting if email.direction == direction), None)

    return find


def _oldest_here(stage: Stage) -> StoredEmail | None:
    inbound = _find_inbound(stage)
    return next((email for email in inbound if email.status in (UNREAD, READ, PENDING_INBOUND)), None)


def _reject_with_a_reason(stage: Stage, email: StoredEmail) -> None:
    stage.simulator.set_tags(
        email.mailbox_id, email.id, email.tags | {REJECT_REASON_TAG: "Shorter."}, "reviewer"
    )
    stage.simulator.decide(email.id, "reject")


DEEDS = (
    _deed("the mailbox is opened", _newest_in_gated_mailbox, lambda stage, email: stage.open_mailbox(email.mailbox_id)),
    _deed("the sender is put on the allowlist", _newest_not_allowlisted, lambda stage, email: stage.allow(email)),
    _deed("a person answers", _newest_unanswered, lambda stage, email: stage.answer(email.id)),
    _deed("the reply is approved", _waiting("outbound"), lambda stage, email: stage.simulator.decide(email.id, "approve")),
    _deed("the reply is rejected", _waiting("outbound"), lambda stage, email: stage.simulator.decide(email.id, "reject")),
    _deed("the reply is rejected with a reason", _waiting("outbound"), _reject_with_a_reason),
    _deed("the reply is cancelled", _waiting("outbound"), lambda stage, email: stage.simulator.cancel(email.mailbox_id, email.id, OPERATOR)),
    _deed("the email is released", _waiting("inbound"), lambda stage, email: stage.simulator.decide(email.id, "approve")),
    _deed("the email is kept out", _waiting("inbound"), lambda stage, email: stage.simulator.decide(email.id, "reject")),
    _deed("the email is archived", _oldest_here, lambda stage, email: stage.simulator.archive(email.id)),
    _deed("the email is put in the bin", _oldest_here, lambda stage, email: stage.simulator.delete(email.id)),
    _deed("the email is erased", _oldest_here, lambda stage, email: stage.simulator.erase(email.id)),
    _deed("the key is rotated", _newest, lambda stage, _email: stage.rotate_key()),
)  # fmt: skip

HAPPENINGS = (*SPELLS, *CLOCKS, *DEEDS)
