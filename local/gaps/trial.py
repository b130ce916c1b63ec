"""How many past emails a configuration with one more passage would answer: a backtest of them."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from local.backtest.past import PastEmail, read_past_mail
from local.backtest.results import ResultsFile
from local.backtest.trial import run_backtest
from local.gaps.found import LeftOut, Unanswered, sort_out
from shared.composition import KNOWLEDGE_FOLDER
from shared.domain import Cause, Mailbox, Usage, WorkItem
from shared.knowledge.files import is_proposed
from shared.knowledge.passages import SHARED_FOLDER
from shared.ledger.entries import LedgerEntry
from shared.mail.multimail import MultiMailReader
from shared.operator.observed import Would, find_would
from shared.profiles.profiles import MailboxProfile
from shared.settings import Settings

MAX_TRIED = 10  # the newest emails of a group
ADDED_FILE = "proposed-passage.md"


class Effect(NamedTuple):
    """How many of the emails that could be tried are answered."""

    answered: int
    tried: int

    def __str__(self) -> str:
        return f"{self.answered} of {self.tried}"


# Given a folder with a configuration and emails that could not be answered: how many of them it answers.
CountAnswered = Callable[[Path, Sequence[Unanswered]], Effect]


@contextmanager
def knowledge_with(config: Path, folder: str, text: str) -> Iterator[Path]:
    """A copy of the configuration with one file more in a folder of its knowledge."""
    with TemporaryDirectory(prefix="config-") as scratch:
        root = Path(scratch)
        shutil.copytree(config, root, ignore=_leave_out_proposed, dirs_exist_ok=True)
        added = root / KNOWLEDGE_FOLDER / folder
        added.mkdir(parents=True, exist_ok=True)
        (added / ADDED_FILE).write_text(text, encoding="utf-8")
        yield root


def _leave_out_proposed(folder: str, names: Sequence[str]) -> set[str]:
    """Those that are proposed or links to what is: the copy of a link is none."""
    paths = [Path(folder, name) for name in names]
    return {
        path.name
        for path in paths
        if is_proposed(path) or (path.is_symlink() and is_proposed(path.resolve().parent))
    }


def choose_folder(profile: MailboxProfile) -> str:
    """The folder of knowledge for a mailbox's passage: its first one for all senders, or the shared one."""
    return next((known.folder for known in profile.knowledge if not known.only_for), SHARED_FOLDER)


@dataclass
class PastTrial:
    """Tries past emails of a mailbox, received from `since` on, with the agent's pipeline; submits nothing.

    `note_usage` is given what each email took.
    """

    multimail: MultiMailReader
    settings: Settings
    mailbox: Mailbox
    since: datetime
    note_usage: Callable[[Usage], None]

    def count_answered(self, config: Path, emails: Sequence[Unanswered]) -> Effect:
        """Of how many of the newest emails the agent submits a draft that leaves nothing open.

        An email that is unread, not listed or gone cannot be tried; one that the model service refuses is not
        answered. Raises TransientError and ConfigurationError.
        """
        items = [email.entry.work_item for email in emails[-MAX_TRIED:]]
        tried = [self._listed[item] for item in items if item in self._listed]
        # Vectors are of the files that are there: the passage is found by its words.
        settings = replace(self.settings, config_path=config, embedding_deployment="")
        with TemporaryDirectory(prefix="results-") as scratch:
            results = ResultsFile(Path(scratch) / "results.jsonl", settings.token_prices)
            found = run_backtest(
                settings, tried, results, listed=[*self._listed.values()], on_tried=self._note_tried
            )
        answered = sum(
            find_would(entry.outcome) is Would.ANSWER and sort_out(entry) is LeftOut.ANSWERED
            for entry in found.values()
        )
        gone = sum(entry.cause is Cause.DELETED for entry in found.values())
        return Effect(answered, len(tried) - gone)

    @cached_property
    def _listed(self) -> Mapping[WorkItem, PastEmail]:
        """Everything that can be tried."""
        past = read_past_mail(self.multimail, [self.mailbox], self.since)
        return {email.work_item: email for email in past.emails}

    def _note_tried(self, entry: LedgerEntry) -> None:
        self.note_usage(entry.usage)
