"""The agent's side of the review desk in a test: a real ledger and the real answers, over HTTP behind a key."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from flask import Flask, Response, request

from local.approval.agent import KEY_HEADER
from shared.domain import Draft, Outcome, WorkItem
from shared.ledger.entries import LedgerEntry
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.operator.review import Reviews
from shared.operator.review_requests import answer_review
from shared.operator.trust import TrustReport
from shared.operator.trust_page import answer_report
from shared.profiles.pauses import Pauses
from shared.profiles.profiles import NO_PROFILES, Profiles
from shared.services.http_answer import HttpAnswer
from shared.services.secrets import StaticSecret
from shared.settings import Secret
from shared.watching.tracking import ReplyTracker

FUNCTION_KEY = "function-key-of-the-test"


class DeskAgent:
    """A ledger whose rows a test writes, and `app`, which answers the desk. `is_away`: it answers 503."""

    def __init__(
        self,
        api_url: str,
        key: str,
        folder: Path,
        clock: Callable[[], datetime],
        *,
        report: Callable[[int], TrustReport],
        profiles: Profiles = NO_PROFILES,
    ) -> None:
        self.ledger = open_sqlite_ledger(folder / "desk.sqlite", clock=clock)
        self._clock, self._report = clock, report
        multimail = MultiMailClient(api_url, StaticSecret(Secret(key)), timeout=(5, 5))
        mailboxes = MailboxDirectory(multimail)
        tracker = ReplyTracker(
            multimail=multimail, writer=multimail, mailboxes=mailboxes, ledger=self.ledger, clock=clock
        )
        pauses = Pauses(self.ledger, profiles, all_paused=False)
        self.reviews = Reviews(self.ledger, mailboxes, multimail, profiles, tracker, pauses, clock)
        self.is_away = False
        self.app = Flask("desk_agent", static_folder=None)
        self.app.add_url_rule("/api/review", "review", self._answer_review, methods=["GET", "POST"])
        self.app.add_url_rule("/api/report", "trust", self._answer_report)

    def write(self, email_id: str, outcome: Outcome, **fields: Any) -> LedgerEntry:
        """A finished row of the mailbox `support`."""
        item, now = WorkItem("support", email_id), self._clock()
        if self.ledger.get(item) is None:
            self.ledger.add(LedgerEntry("support", email_id, now, "ann@customer.example", None, now))
            self.ledger.claim(item, now, now)
        entry = self.ledger.get(item)
        assert entry is not None
        return self.ledger.finish(replace(entry, outcome=outcome, finished_at=now, **fields))

    def draft(self, email_id: str, reply_id: str, draft: Draft, **fields: Any) -> LedgerEntry:
        """The row of an email whose draft is pending."""
        submitted = {"draft": draft, "reply_id": reply_id, "submit_intent_at": self._clock()}
        return self.write(email_id, Outcome.REPLY_SUBMITTED, **submitted, **fields)

    def entry(self, email_id: str) -> LedgerEntry:
        entry = self.ledger.get(WorkItem("support", email_id))
        assert entry is not None
        return entry

    def _answer_review(self) -> Response:
        return self._respond(
            lambda: answer_review(request.method, request.args, request.get_data(), lambda: self.reviews)
        )

    def _answer_report(self) -> Response:
        return self._respond(lambda: answer_report(self._report, request.args, "text/html"))

    def _respond(self, build: Callable[[], HttpAnswer]) -> Response:
        if request.headers.get(KEY_HEADER) != FUNCTION_KEY:
            return Response(status=401)
        if self.is_away:
            return Response(status=503)
        answer = build()
        return Response(answer.body, answer.status_code, answer.headers, mimetype=answer.mimetype)
