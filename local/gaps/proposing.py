"""From a person's answer to a proposed passage: read, have it written, check it, try it, save it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from local.gaps.answers import HumanAnswer, UnreadableThreadError, read_answer
from local.gaps.found import Unanswered
from local.gaps.passages import PassageText, name_file, render_passage, save_new, write_passage
from local.gaps.personal import Case, Found
from local.gaps.trial import CountAnswered, Effect, choose_folder, knowledge_with
from shared.composition import KNOWLEDGE_FOLDER
from shared.domain import Mailbox
from shared.errors import NotFoundError, PermanentError
from shared.knowledge.passages import KnowledgeSource
from shared.mail.multimail import MultiMailReader
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import load_prompt
from shared.profiles.profiles import MailboxProfile
from shared.settings import Settings


class NotWritten(StrEnum):
    """Why a person's answer came to no file, as it is counted."""

    PROPOSED_BEFORE = "proposed before"
    NO_RULE = "the answer states no rule for other customers"
    UNREADABLE = "the model's passage could not be read"
    REFUSED = "the model service refused the answer's text"
    NOT_COMPARABLE = "unread, deleted or too much mail in the thread, with which no passage can be compared"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A file that was written. `effect`: of how many emails; None where the knowledge is not in files."""

    path: Path
    folder: str
    effect: Effect | None


@dataclass(frozen=True, slots=True)
class Proposer:
    """Proposes passages for one mailbox. `count_answered` is None where the knowledge is not in files."""

    multimail: MultiMailReader
    knowledge: KnowledgeSource
    settings: Settings
    complete: Callable[[ChatRequest], ChatCompletion]
    mailbox: Mailbox
    profile: MailboxProfile
    model_replies: frozenset[str]
    count_answered: CountAnswered | None

    def read_answer(self, email: Unanswered) -> HumanAnswer | NotWritten | None:
        """What people answered to an email; None where nobody did."""
        if name_file(self._root, email.entry.email_id).exists():
            return NotWritten.PROPOSED_BEFORE
        try:
            return read_answer(email.entry, self.multimail, self.model_replies)
        except UnreadableThreadError:
            return NotWritten.NOT_COMPARABLE
        except NotFoundError:  # the thread, or an answer, is gone
            return None

    def propose(
        self, email: Unanswered, answer: HumanAnswer, group: Sequence[Unanswered]
    ) -> Proposal | NotWritten | Found:
        """Have a passage written from an answer and save it, if it has nothing of the customer.

        `group`: the emails that it may answer. Raises TransientError and ConfigurationError.
        """
        try:
            passage = write_passage(answer.said, self.settings, self.complete)
        except PermanentError:
            return NotWritten.REFUSED
        if passage is None:
            return NotWritten.UNREADABLE
        if not passage.text:
            return NotWritten.NO_RULE
        text = f"{passage.title}\n\n{passage.text}"
        found = Case(answer.customer, answer.said, self.list_approved(text)).find(
            text, load_prompt("passage")
        )
        return found or self._save(email, passage, group)

    def list_approved(self, text: str) -> tuple[str, ...]:
        """The company's own words: what the profile says, and what the knowledge has about a text."""
        passages = self.knowledge.read(self.profile.folders, text, self.settings.knowledge_tokens).passages
        own = (self.mailbox.address, self.mailbox.display_name, self.profile.purpose, self.profile.signature)
        return (*own, self.profile.build_draft_part(), *(f"{p.title}\n{p.text}" for p in passages))

    @property
    def _root(self) -> Path:
        return self.settings.config_path / KNOWLEDGE_FOLDER

    def _save(
        self, email: Unanswered, passage: PassageText, group: Sequence[Unanswered]
    ) -> Proposal | NotWritten:
        folder, effect = choose_folder(self.profile), None
        remarks = [
            f"Proposed from a person's answer to email {email.entry.email_id}.",
            f"It is not used until you move it to knowledge/{folder}/: read it first.",
        ]
        if self.count_answered is not None:
            with knowledge_with(self.settings.config_path, folder, render_passage(passage)) as config:
                effect = self.count_answered(config, group)
            remarks.append(f"It would have answered {effect} past emails.")
        path = name_file(self._root, email.entry.email_id)
        try:
            save_new(path, render_passage(passage, remarks))
        except FileExistsError:
            return NotWritten.PROPOSED_BEFORE
        return Proposal(path, folder, effect)
