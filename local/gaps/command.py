"""`python -m local gaps`: what could not be answered, passages that would, and what reviewers corrected."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from local.backtest.results import Meter
from local.gaps.answers import UnreadableThreadError, list_model_replies, read_customer
from local.gaps.corrections import Correction, group_corrections, list_corrections
from local.gaps.found import LeftOut, Unanswered, select_recent, sort_out
from local.gaps.grouping import Group, group_by_words
from local.gaps.personal import Case
from local.gaps.proposing import NotWritten, Proposal, Proposer
from local.gaps.trial import PastTrial
from local.host.run import MISCONFIGURED, OK, UNFINISHED, read_settings, report_misconfigured
from local.voice.command import print_voice
from shared.composition import open_knowledge, open_ledger, open_model, open_multimail
from shared.domain import Usage
from shared.errors import ConfigurationError, NotFoundError, PermanentError, TransientError
from shared.ledger.entries import LedgerEntry
from shared.mail.mailboxes import select_mailboxes
from shared.model.prompting import load_prompt
from shared.operator.trust_page import parse_days
from shared.profiles.profile_file import PROFILE_FILE
from shared.settings import Settings

SHOWN_IDS = 3
MAX_PROPOSED = 20  # passages that one run has written
TRIALS = "trials of the passages"  # with both deployments
MAX_LINES = 10  # for a profile, those that most emails share


def gaps(console: Console, *, days_text: str | None) -> int:
    """Print the gaps of the last so many days and propose passages and profile lines; the exit status."""
    try:
        days = parse_days(days_text)
    except ValueError as error:
        console.print(Text(f"--{error}", "red"))
        return MISCONFIGURED
    try:
        find_gaps(console, read_settings("gaps"), days)
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except (PermanentError, TransientError) as error:
        console.print(
            Text(f"The search for gaps stopped: {error}. What it proposed stays; run it again later.", "red")
        )
        return UNFINISHED
    return OK


def find_gaps(console: Console, settings: Settings, days: int) -> None:
    """Print the gaps of the last days and propose passages and profile lines.

    Nothing changes at MultiMail and in the ledger, and nothing that is there already in the configuration.
    Raises ConfigurationError, PermanentError and TransientError; what was proposed by then stays.
    """
    multimail, ledger = open_multimail(settings), open_ledger(settings, read_only=True)
    profiles, knowledge = open_knowledge(settings)
    meter = Meter(open_model(settings))
    known = {box.id: box for box in multimail.list_mailboxes()}
    since = datetime.now(UTC) - timedelta(days=days)
    run = _Run(console, settings, since, meter)
    for box in select_mailboxes(known, settings.multimail_mailbox_ids).values():
        profile, entries = profiles.get(box), list(ledger.entries(box.id))
        trial = PastTrial(multimail, settings, box, since, partial(meter.note, TRIALS))
        count = trial.count_answered if settings.search_endpoint is None else None
        replies = list_model_replies(entries)
        run.show(Proposer(multimail, knowledge, settings, meter, box, profile, replies, count), entries)
    _print_usage(console, meter.used)


@dataclass
class _Run:
    """One run over the mailboxes; `left` says how many passages it may still have written."""

    console: Console
    settings: Settings
    since: datetime
    meter: Meter
    left: int = MAX_PROPOSED

    def show(self, proposer: Proposer, entries: Sequence[LedgerEntry]) -> None:
        """Print what could not be answered in a mailbox, propose passages, and print the corrections."""
        recent = select_recent(entries, self.since)
        found = [sort_out(entry) for entry in recent]
        unanswered = [item for item in found if isinstance(item, Unanswered)]
        left_out = Counter(item for item in found if isinstance(item, LeftOut))
        counts = "; ".join(f"{count} {why}" for why, count in left_out.items())
        mailbox = proposer.mailbox
        self._say(
            Text.assemble("\n", (mailbox.address, "bold"), f"  {mailbox.id}, since {self.since:%Y-%m-%d}")
        )
        number = f"{len(recent)} emails, of which {len(unanswered)} could not be answered"
        self._say(f"{number}. Others: {counts or 'none'}.")
        groups = group_by_words(unanswered)
        if groups:
            self.console.print(_build_table(groups))
        self._propose(proposer, groups)
        self._correct(proposer, recent)

    def _propose(self, proposer: Proposer, groups: Sequence[Group]) -> None:
        reasons: Counter[str] = Counter()
        for group in groups:
            for email in group.emails:
                answer = proposer.read_answer(email)
                if answer is None or isinstance(answer, NotWritten):
                    reasons[answer or "no person answered"] += 1
                elif self.left == 0:
                    reasons[f"left for the next run, which proposes {MAX_PROPOSED} more"] += 1
                else:
                    self.left -= 1
                    came = proposer.propose(email, answer, group.emails)
                    if isinstance(came, Proposal):
                        self._print_proposal(email.entry.email_id, came)
                    else:
                        reasons[came if isinstance(came, NotWritten) else f"the passage has {came}"] += 1
        for reason, count in reasons.items():
            self._say(f"No file for {count}: {reason}.")

    def _print_proposal(self, email_id: str, proposal: Proposal) -> None:
        effect = (
            f"would have answered {proposal.effect} emails of its group"
            if proposal.effect is not None
            else "not tried: the knowledge is in the index at SEARCH_ENDPOINT"
        )
        shown = os.path.relpath(proposal.path).replace(os.sep, "/")
        self._say(Text(f"Proposed {shown} from the answer to {email_id}: {effect}.", "green"))

    def _correct(self, proposer: Proposer, recent: Sequence[LedgerEntry]) -> None:
        kept: list[Correction] = []
        withheld = 0
        for entry in recent:
            corrections = list(list_corrections(entry))
            impersonal = _drop_personal(corrections, proposer) if corrections else []
            kept += impersonal
            withheld += len(corrections) - len(impersonal)
        lines: dict[str, int] = {}
        for category, found in group_corrections(kept).items():
            self._say(Text(f"Corrected in category {category}:", "bold"))
            for line, corrections in found.items():
                kinds = Counter(correction.kind for correction in corrections)
                said = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
                self._say(f"  {said}: {line} ({_list_ids(c.entry.email_id for c in corrections)})")
                lines[line] = len(corrections)
        if withheld:
            self._say(
                f"Left out {withheld} corrections: they have something of the customer's emails, "
                "or those cannot be read."
            )
        if lines:
            voice = proposer.profile.voice.splitlines()
            added = sorted((line for line in lines if line not in voice), key=lambda line: -lines[line])
            path = self.settings.config_path / PROFILE_FILE
            print_voice(self.console, path, proposer.mailbox, [*voice, *added[:MAX_LINES]])

    def _say(self, text: str | Text) -> None:
        self.console.print(Text(text) if isinstance(text, str) else text, soft_wrap=True)


def _drop_personal(corrections: Sequence[Correction], proposer: Proposer) -> list[Correction]:
    """Those of an email's corrections with nothing of its customer; none where they cannot be compared."""
    try:
        customer = read_customer(corrections[0].entry, proposer.multimail)
    except (UnreadableThreadError, NotFoundError):
        return []
    kept = []
    for correction in corrections:
        text = "\n".join(correction.sentences)
        case = Case(customer, correction.said, proposer.list_approved(text))
        if case.find(text, load_prompt("draft")) is None:
            kept.append(correction)
    return kept


def _build_table(groups: Sequence[Group]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column("emails", justify="right")
    for heading in ("words", "what was missing", "for example"):
        table.add_column(heading, overflow="fold")
    for group in groups:
        missing = Counter(email.gap for email in group.emails)
        table.add_row(
            str(len(group.emails)),
            Text(" ".join(group.words) or "-"),
            ", ".join(missing),
            Text(_list_ids(email.entry.email_id for email in group.emails)),
        )
    return table


def _list_ids(ids: Iterator[str]) -> str:
    known = list(dict.fromkeys(ids))
    return ", ".join((*known[:SHOWN_IDS], *(["…"] if len(known) > SHOWN_IDS else [])))


def _print_usage(console: Console, used: Mapping[str, Usage]) -> None:
    for name, usage in used.items():
        cost = f", about ${usage.dollars:.2f}" if usage.dollars else ""
        calls = "call" if usage.calls == 1 else "calls"
        console.print(Text(f"\n{name}: {usage.calls} {calls}, {usage.tokens:,} tokens{cost}."))
