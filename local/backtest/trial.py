"""Trials: the agent's own pipeline on one past email, with a ledger that is thrown away and no writer."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from local.backtest.past import PastEmail, PastReader
from local.backtest.results import PROMPTS, STEPS, Meter, ResultsFile, compute_fingerprint
from shared.composition import Agent, build_agent
from shared.domain import Cause, Outcome, Usage, WorkItem, base_address, parse_address
from shared.errors import ConfigurationError, TransientError
from shared.ledger.entries import LedgerEntry
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import load_prompt
from shared.profiles.pauses import Pauses
from shared.profiles.profiles import NO_PROFILES
from shared.replying.envelope import FIRST_EMAILS, Addressing
from shared.replying.pipeline import Pipeline
from shared.services.work_queue import InProcessWorkQueue
from shared.settings import Settings

AT_ONCE = 4
READ_AFTER = timedelta(minutes=1)  # after it arrived
FOR_SERVICES = (Cause.THROTTLED, Cause.UNAVAILABLE)  # a wait for these is waited for, another is jumped over
LONGEST_WAIT = timedelta(minutes=15)  # for one email

Complete = Callable[[ChatRequest], ChatCompletion]


class Moment:
    """The time of one trial: when the email had just arrived, and later while it waits."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """The time."""
        return self.now


@contextmanager
def open_observer(settings: Settings) -> Iterator[Agent]:
    """The agent without the part that writes at MultiMail, on a ledger that is thrown away.

    Raises ConfigurationError.
    """
    with (
        TemporaryDirectory() as folder,
        closing(open_sqlite_ledger(Path(folder) / "ledger.sqlite")) as ledger,
    ):
        watching = replace(settings, observe_only=True)
        yield build_agent(watching, ledger=ledger, work_queue=InProcessWorkQueue())


@dataclass(frozen=True, slots=True)
class _Trials:
    """Everything that the trials under one configuration share. `keep` stores what came out."""

    pipeline: Pipeline
    forwarded: Mapping[str, bool]
    keep: Callable[[LedgerEntry, Mapping[str, Usage]], None]
    sleep: Callable[[float], None]

    def try_email(self, email: PastEmail) -> LedgerEntry:
        """What would become of the email, judged alone: no limit counts other emails.

        It is kept here, on the worker: it was paid for, whatever comes of the others. Raises
        ConfigurationError, and TransientError when a service does not answer for too long.
        """
        moment, mailbox, summary = (
            Moment(email.summary.received_at + READ_AFTER),
            email.mailbox,
            email.summary,
        )
        with (
            TemporaryDirectory() as folder,
            closing(open_sqlite_ledger(Path(folder) / "ledger.sqlite")) as ledger,
        ):
            past, meter = PastReader(self.pipeline.multimail, email), Meter(self.pipeline.complete)
            pipeline = replace(
                self.pipeline,
                multimail=past,
                complete=meter,
                ledger=ledger,
                clock=moment,
                submitter=replace(self.pipeline.submitter, multimail=past, clock=moment),
                addressing=Addressing(ledger, {mailbox.id: self.forwarded[mailbox.id]}),
                pauses=Pauses(ledger, NO_PROFILES, all_paused=False),
            )
            ledger.add(
                LedgerEntry(
                    mailbox_id=mailbox.id,
                    email_id=summary.id,
                    received_at=summary.received_at,
                    sender=parse_address(summary.sender),
                    thread_id=summary.thread_id,
                    due_at=moment.now,
                )
            )
            entry = self._work(pipeline, email.work_item, moment)
            if entry.outcome is not Outcome.FAILED:
                self.keep(entry, meter.used)
            return entry

    def _work(self, pipeline: Pipeline, item: WorkItem, moment: Moment) -> LedgerEntry:
        waited = timedelta(0)
        while True:
            pipeline.process(item)
            entry = pipeline.ledger.get(item)
            if entry is None:
                raise LookupError(f"the trial lost email {item.email_id}")
            if entry.finished_at is not None:
                return entry
            delay = max(timedelta(0), entry.due_at - moment.now)
            if entry.waiting_for in FOR_SERVICES:
                waited += delay
                if waited > LONGEST_WAIT:
                    raise TransientError(f"a service does not answer: {entry.waiting_detail}")
                self.sleep(delay.total_seconds())
            moment.now += delay


def run_backtest(
    settings: Settings,
    emails: Sequence[PastEmail],
    results: ResultsFile,
    *,
    listed: Sequence[PastEmail] = (),
    on_tried: Callable[[LedgerEntry], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Mapping[WorkItem, LedgerEntry]:
    """Try past emails under the configuration that the settings name; what came out, by email.

    What `results` has is taken from there, and each new result is in there at once, so that a run that was
    stopped goes on where it was. What failed is left out, and tried again the next time. Only reads at
    MultiMail. `listed`: all emails of these mailboxes, which say whether their mail is forwarded. Raises
    ConfigurationError, and TransientError when a service does not answer.
    """
    run = compute_fingerprint(settings)
    found = _find_known(results, run, emails)
    missing = [email for email in emails if email.work_item not in found]
    if not missing:
        return found
    with open_observer(settings) as agent:
        pipeline = replace(
            agent.pipeline, complete=use_prompts(agent.pipeline.complete, settings.config_path)
        )
        forwarded = find_forwarded(listed or emails, pipeline)
        trials = _Trials(pipeline, forwarded, partial(results.add, run), sleep)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(trials.try_email, email) for email in missing]
            try:
                for future in as_completed(futures):
                    on_tried(future.result())
            finally:
                pool.shutdown(cancel_futures=True)
    return _find_known(results, run, emails)


def _find_known(results: ResultsFile, run: str, emails: Sequence[PastEmail]) -> dict[WorkItem, LedgerEntry]:
    known = {email.work_item: results.get(run, email.work_item) for email in emails}
    return {item: entry for item, entry in known.items() if entry is not None}


def find_forwarded(emails: Sequence[PastEmail], pipeline: Pipeline) -> Mapping[str, bool]:
    """Which mailboxes get forwarded mail, as the agent judges it: most of it names none of ours."""
    ours = {parse_address(box.address) for box in pipeline.mailboxes.read().values()}
    others: dict[str, list[bool]] = {}
    for email in emails:
        named = {base_address(parse_address(to)) for to in email.summary.to}
        own = ours.union(pipeline.profiles.get(email.mailbox).addresses)
        others.setdefault(email.mailbox.id, []).append(not named & own)
    return {
        mailbox_id: len(found) >= FIRST_EMAILS and sum(found) * 2 > len(found)
        for mailbox_id, found in others.items()
    }


def use_prompts(complete: Complete, config_path: Path) -> Complete:
    """The same completion with the instructions that the configuration has in its folder of prompts, if any.

    Raises ConfigurationError for a file that is no UTF-8 text.
    """
    own: dict[str, str] = {}
    for name in STEPS:
        path = config_path / PROMPTS / f"{name}.md"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            own[name] = "\n".join(line for line in lines if not line.startswith("<!--")).strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read as UTF-8 text: save it as UTF-8.") from error

    def complete_with_own(request: ChatRequest) -> ChatCompletion:
        text = own.get(request.schema_name)
        if text is None:
            return complete(request)
        rest = request.system.removeprefix(load_prompt(request.schema_name))
        return complete(replace(request, system=text + rest))

    return complete_with_own if own else complete
