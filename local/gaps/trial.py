"""How many past emails a knowledge folder would have answered."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from local.gaps.found import Unanswered
from shared.checks.evidence import judge_claims
from shared.domain import Email, Mailbox, Support
from shared.errors import PermanentError
from shared.knowledge.files import KnowledgeFiles, list_folders
from shared.knowledge.passages import SHARED_FOLDER
from shared.ledger.entries import LedgerEntry
from shared.mail.multimail import MultiMailClient
from shared.model.chat import ChatCompletion, ChatRequest
from shared.profiles.profiles import MailboxProfile
from shared.replying.draft_request import Material, build_draft_request, find_passages, parse_draft
from shared.replying.drafting import bound_texts
from shared.replying.threads import ThreadText
from shared.settings import Settings

MAX_TRIED = 10  # the newest emails of a group
ADDED_FILE = "proposed-passage.md"

# Given a knowledge folder and emails that could not be answered: how many of them it answers.
CountAnswered = Callable[[Path, Sequence[Unanswered]], int]


@contextmanager
def knowledge_with(knowledge: Path, folder: str, text: str) -> Iterator[Path]:
    """A copy of the knowledge with one file more in a folder."""
    with TemporaryDirectory(prefix="knowledge-") as scratch:
        root = Path(scratch)
        for name in list_folders(knowledge):
            shutil.copytree(knowledge / name, root / name)
        (root / folder).mkdir(exist_ok=True)
        (root / folder / ADDED_FILE).write_text(text, encoding="utf-8")
        yield root


def choose_folder(profile: MailboxProfile) -> str:
    """The folder of knowledge for a mailbox's passage: its own first one, or the shared one."""
    return next(iter(profile.knowledge), SHARED_FOLDER)


@dataclass(frozen=True, slots=True)
class DraftTrial:
    """Drafts past emails with other knowledge and submits nothing."""

    multimail: MultiMailClient
    complete: Callable[[ChatRequest], ChatCompletion]
    settings: Settings
    mailbox: Mailbox
    profile: MailboxProfile

    def count_answered(self, knowledge: Path, emails: Sequence[Unanswered]) -> int:
        """Of how many of the newest emails the draft leaves nothing open and says what a passage carries.

        An email that is gone, or that the model service refuses, is not answered. Raises TransientError and
        ConfigurationError.
        """
        files = KnowledgeFiles(knowledge)
        return sum(self._is_answered(email.entry, files) for email in emails[-MAX_TRIED:])

    def _is_answered(self, entry: LedgerEntry, files: KnowledgeFiles) -> bool:
        try:
            email = self.multimail.get_email(entry.mailbox_id, entry.email_id)
            material = self._gather(email, entry, files)
            request = build_draft_request(
                material, self.settings.draft_deployment, self.settings.draft_reasoning_effort
            )
            draft = parse_draft(self.complete(request).text)
        except (PermanentError, ValueError, RecursionError):
            return False
        claims = judge_claims(draft.reply_markdown, draft.claims, material.sources)
        verified = [claim for claim in claims if claim.support is Support.VERIFIED]
        return not draft.open_points and any(map(find_passages, verified))

    def _gather(self, email: Email, entry: LedgerEntry, files: KnowledgeFiles) -> Material:
        query = entry.triage.query.text if entry.triage is not None else ""
        text = ThreadText(email.id, email.sender, email.subject, email.received_at, email.markdown, False)
        return Material(
            mailbox_address=self.mailbox.address,
            profile=self.profile,
            knowledge=files.read(
                self.profile.knowledge, query or email.subject, self.settings.knowledge_tokens
            ),
            now=self.profile.describe_now(email.received_at),
            thread=bound_texts([text], email.id),
            answered_id=email.id,
        )
