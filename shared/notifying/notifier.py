"""A run of notifications: what is due is sent, and noted as told once its target has it."""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256

from shared.domain import Mailbox
from shared.errors import AgentError, raise_together
from shared.ledger.entries import LedgerEntry, Matter
from shared.ledger.ledger import Ledger
from shared.ledger.matters import DIGEST, Channel
from shared.mail.mailboxes import MailboxDirectory, select_mailboxes
from shared.mail.multimail import MultiMailReader
from shared.notifying.delivery import Delivery
from shared.notifying.digest import Digest
from shared.notifying.due import Due, DueFinder
from shared.notifying.messages import Item, Message, Section, Topic, build_item
from shared.profiles.notify import Notify
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.replying.reporting import name_handler
from shared.telemetry import NOTIFICATION_FAILED, NOTIFICATION_SENT, record

# About one mailbox to one target within WINDOW: what comes then waits, and is told together.
MAX_MESSAGES, WINDOW = 6, timedelta(hours=1)
MAX_ITEMS = 20  # of one message: nobody reads more, and the rest is counted
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)  # after a target has failed
DAY = timedelta(days=1)
LONGEST_DIGEST = 14 * DAY  # after a pause, so that a run ends in time

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notifier:
    """Tells people what waits for them, mailbox by mailbox.

    What a target has got is noted after it, so a crash in between tells it again and nothing is lost.
    """

    multimail: MultiMailReader
    mailboxes: MailboxDirectory
    ledger: Ledger
    profiles: Profiles
    delivery: Delivery
    clock: Callable[[], datetime]
    wanted: Sequence[str]  # as select_mailboxes takes it

    def run(self) -> None:
        """Send what is due; a target or a mailbox that fails does not stop the others.

        Raises ConfigurationError or TransientError, after everything that could be done was done.
        """
        if not self.profiles.has_targets:
            return
        matters: defaultdict[str, list[Matter]] = defaultdict(list)
        for matter in self.ledger.matters.list():
            matters[matter.mailbox_id].append(matter)
        failures: dict[str, AgentError] = {}
        known = self.mailboxes.read()
        watched = select_mailboxes(known, self.wanted)
        for mailbox in known.values():
            profile = self.profiles.get(mailbox)
            if (
                profile.notify is not None
                and not profile.observe
                and (mailbox.id in watched or matters[mailbox.id])
            ):
                work = _MailboxRun(self, mailbox, profile, profile.notify, failures)
                work.run(matters[mailbox.id])
        raise_together([*failures.values()], f"notifications wait for {len(failures)} targets")


def send_test(
    delivery: Delivery, mailbox: Mailbox, notify: Notify, now: datetime
) -> Mapping[str, AgentError | None]:
    """Send a notification about nothing to each target of a mailbox; say which failed, and why."""
    sections = (Section(Topic.TEST, lines=("This is a test: notifications arrive here.",)),)
    results: dict[str, AgentError | None] = {}
    for target in notify.targets:
        message_id = _name_message(target, mailbox.id, now.isoformat())
        results[target] = None
        try:
            delivery.send(target, Message(message_id, mailbox.id, mailbox.address, now, sections))
        except AgentError as error:
            results[target] = error
    return results


@dataclass(frozen=True, slots=True)
class _MailboxRun:
    """What is sent about one mailbox. `failures` has the targets that have failed in this run."""

    notifier: Notifier
    mailbox: Mailbox
    profile: MailboxProfile
    notify: Notify
    failures: dict[str, AgentError]

    def run(self, matters: Sequence[Matter]) -> None:
        now, hours = self.notifier.clock(), self.profile.working_hours
        open_targets = {target: self._open_channel(target) for target in self.notify.targets}
        if not any(open_targets.values()):
            return
        ledger, box_id = self.notifier.ledger, self.mailbox.id
        due = DueFinder(self.notifier.multimail, ledger, box_id, self.notify, hours, now).find(matters)
        noted: dict[Matter, Matter] = {}  # as they are after an earlier target was told
        for target, channel in open_targets.items():
            own = [one for one in due if one.target == target]
            if channel is not None and own:
                message = self._build_message(target, own, now)
                if self._send(channel, message):
                    for one in own:
                        latest = noted.get(one.matter, one.matter)
                        noted[one.matter] = ledger.matters.note_told(latest, one.mark)
        first = self._open_channel(self.notify.first)
        if first is not None:
            self._send_digest(first, matters, now)

    def _open_channel(self, target: str) -> Channel | None:
        """What is known of a target; None where it gets nothing now."""
        now = self.notifier.clock()  # this run may have sent to it
        channel = self.notifier.ledger.matters.get_channel(self.mailbox.id, target)
        recent = tuple(moment for moment in channel.sent if now - WINDOW < moment <= now)
        is_paused = channel.not_before is not None and now < channel.not_before <= now + DAY
        if target in self.failures or is_paused or len(recent) >= MAX_MESSAGES:
            return None
        return replace(channel, sent=recent)

    def _send(self, channel: Channel, message: Message) -> bool:
        """Send to a target and remember that; False when it failed. A digest counts for no limit."""
        ledger, now = self.notifier.ledger, self.notifier.clock()
        try:
            self.notifier.delivery.send(channel.target, message)
        except AgentError as error:
            record(
                NOTIFICATION_FAILED,
                {
                    "mailbox_id": self.mailbox.id, "target": channel.target, "failures": channel.failures + 1,
                    "error": type(error).__name__, "detail": str(error),
                },
            )  # fmt: skip
            self.failures[channel.target] = error
            named = getattr(error, "retry_after_seconds", None)
            pause = timedelta(seconds=named) if named else FIRST_PAUSE * (1 << min(channel.failures, 6))
            ledger.matters.set_channel(
                replace(channel, failures=channel.failures + 1, not_before=now + min(pause, LONGEST_PAUSE))
            )
            return False
        count = sum(len(section.items) + section.more for section in message.sections)
        sent = (*channel.sent, now) if count else channel.sent
        ledger.matters.set_channel(Channel(self.mailbox.id, channel.target, sent))
        record(NOTIFICATION_SENT, {"mailbox_id": self.mailbox.id, "target": channel.target, "count": count})
        return True

    def _build_message(self, target: str, due: Sequence[Due], now: datetime) -> Message:
        """The notification of all that is due to a target, of which the first MAX_ITEMS are shown."""
        order = list(Topic)
        readable = [(one, one.entry) for one in due if one.entry is not None]
        readable.sort(key=lambda pair: (order.index(pair[0].topic), pair[0].matter.since))
        shown: defaultdict[Topic, list[Item]] = defaultdict(list)
        for one, entry in readable[:MAX_ITEMS]:
            shown[one.topic].append(self._build_item(entry, one.matter))
        counts = Counter(one.topic for one in due)
        sections = tuple(
            Section(topic, tuple(shown[topic]), more=counts[topic] - len(shown[topic]))
            for topic in order
            if counts[topic]
        )
        facts = sorted((one.matter.email_id, one.matter.since.isoformat(), one.mark) for one in due)
        return self._address(_name_message(target, self.mailbox.id, facts), sections, now)

    def _address(self, message_id: str, sections: tuple[Section, ...], now: datetime) -> Message:
        return Message(message_id, self.mailbox.id, self.mailbox.address, now, sections)

    def _build_item(self, entry: LedgerEntry, matter: Matter) -> Item:
        subject: str | None = None
        if self.notify.show_sender and entry.erased_at is None:
            subject = ""
            try:  # the ledger has none
                subject = self.notifier.multimail.get_email(entry.mailbox_id, entry.email_id).subject
            except AgentError as error:
                log.info("email %s is told without its subject: %s", entry.email_id, error)
        since = self.profile.working_hours.show(matter.since)
        return build_item(entry, matter.since, since, name_handler(entry, self.profile), subject)

    def _send_digest(self, channel: Channel, matters: Sequence[Matter], now: datetime) -> None:
        """Send the digest of this working morning, unless it was sent."""
        ledger, hours = self.notifier.ledger, self.profile.working_hours
        morning = hours.find_morning(now)
        last = ledger.matters.get_moment(self.mailbox.id, DIGEST)
        if last is not None and last > now:  # noted under a clock that was ahead
            last = None
        if morning is None or (last is not None and morning <= last):
            return
        since = last or hours.find_morning(morning - timedelta(minutes=1)) or morning - DAY
        since = max(since, morning - LONGEST_DIGEST)
        digest = Digest(ledger, self.mailbox.id, hours, since, morning)
        lines = digest.describe(matters)
        message_id = _name_message(channel.target, self.mailbox.id, morning.isoformat())
        message = self._address(message_id, (Section(Topic.DIGEST, lines=lines),), now)
        if self._send(channel, message):
            ledger.matters.set_moment(self.mailbox.id, DIGEST, morning)


def _name_message(*facts: object) -> str:
    return sha256(json.dumps(facts).encode()).hexdigest()[:32]
