"""The loopback page on which a person reads the inbox and approves or rejects the agent's drafts."""

import hashlib
import hmac
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from email.utils import parseaddr
from typing import Any

from flask import Flask, Response, abort, jsonify, redirect, render_template, request, url_for
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from local.approval.inbox import Inbox, Row, State
from local.approval.oversight import Oversight
from local.host.http_server import LOOPBACK_HOST
from shared.domain import Draft, Email, EmailSummary, Outcome, Support, Urgency, WorkItem
from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    ThrottledError,
)
from shared.ledger.entries import PENDING_APPROVAL, LedgerEntry
from shared.mail.multimail import MultiMailClient
from shared.model.prompting import clean_line
from shared.operator.trust import TrustReport
from shared.operator.trust_page import answer_report
from shared.replying.reporting import CLAIMS_TAG, SUPPORT_WORDS, build_reply_tags
from shared.services.secrets import StaticSecret
from shared.settings import Secret
from shared.watching.tracking import MAX_REJECT_REASON_CHARACTERS

TIMEOUT_SECONDS = (5.0, 10.0)  # connect, read
ROWS_PER_PAGE = 50
MAX_CHIP_CHARACTERS = 40
MAX_REASON_CHARACTERS = 1_000

POLICY = "Content-Security-Policy"
SECURITY_HEADERS = {
    POLICY: (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

FILTERS: Mapping[str, str] = {
    "": "All mail",
    State.WAITING: "Waiting for you",
    State.ANSWERED: "Answered",
    State.ESCALATED: "Escalated",
    State.REFUSED: "Blocked",
    State.SKIPPED: "Skipped",
    State.OPEN: "In progress",
}

OUTCOME_LABELS: Mapping[str, str] = {
    Outcome.REPLY_SUBMITTED: "Reply on its way",
    Outcome.IGNORED: "No answer needed",
    Outcome.ESCALATED: "Escalated",
    Outcome.SKIPPED: "Skipped",
    Outcome.BLOCKED_UNGATED: "Blocked: no approval",
    Outcome.BLOCKED_CONTENT_SAFETY: "Blocked: content safety",
    Outcome.NEEDS_HUMAN: "Needs a person",
    Outcome.FAILED: "Failed",
}

VERDICTS: Mapping[str, tuple[str, str]] = {
    Outcome.IGNORED: (
        "No answer needed",
        "The sender expects no answer to this email, so the agent wrote none.",
    ),
    Outcome.ESCALATED: (
        "Escalated to a person",
        "The agent left this email to your team. It sent no answer.",
    ),
    Outcome.SKIPPED: ("Skipped", "A rule kept this email from the model. The agent wrote nothing."),
    Outcome.BLOCKED_UNGATED: (
        "Blocked: this mailbox sends without approval",
        "A reply from this mailbox would leave without a person's approval, so the agent wrote none.",
    ),
    Outcome.BLOCKED_CONTENT_SAFETY: (
        "Blocked: content safety",
        "The model service flagged this email as an attack or as harmful content. It was not answered.",
    ),
    Outcome.NEEDS_HUMAN: ("Needs a person", "The agent stopped and will not try again by itself."),
    Outcome.FAILED: ("Failed", "Every attempt failed. The email is still in the mailbox."),
}


FindEntry = Callable[[WorkItem], LedgerEntry | None]


@dataclass(frozen=True, slots=True)
class View:
    """What the address of the page asks for: the list's filters, and the email that is open."""

    box: str = ""
    show: str = ""
    page: int = 1
    mailbox: str = ""
    email: str = ""

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> "View":
        """Read a query or a posted form; an invalid value falls back to the whole list."""
        show, page = given.get("show", ""), given.get("page", "1")
        return cls(
            box=given.get("box", ""),
            show=show if show in FILTERS else "",
            page=int(page) if re.fullmatch(r"[1-9]\d{0,5}", page) else 1,
            mailbox=given.get("mailbox", ""),
            email=given.get("email", ""),
        )

    def url(self, endpoint: str = "show", **changes: Any) -> str:
        """The address of this view with some things changed."""
        values = asdict(replace(self, **changes))
        return url_for(endpoint, **{name: v for name, v in values.items() if v not in ("", 1)})

    @property
    def closed_url(self) -> str:
        """The address of the list alone."""
        return self.url(mailbox="", email="")

    def shows(self, row: Row) -> bool:
        """Whether the list's filters let a row through."""
        return self.box in ("", row.mailbox_id) and self.show in ("", row.state)


class ApprovalPage:
    """Answers the page's requests from an inbox. `csrf_token` proves that a form is this page's own."""

    def __init__(
        self,
        inbox: Inbox,
        csrf_token: str,
        note: str,
        *,
        has_report: bool,
        list_reasons: Callable[[str, str], Sequence[str]],
        find_entry: FindEntry,
    ) -> None:
        self._inbox = inbox
        self._csrf_token = csrf_token
        self._note = note
        self._has_report = has_report
        self._list_reasons = list_reasons
        self._find_entry = find_entry

    def show(self) -> str:
        """Render the list and the open email."""
        view = View.parse(request.args)
        opened = self._open(view) if view.email else None
        listed = self._list(view)  # last: opening an email tells its newest tags
        return render_template(
            "approval.html", view=view, opened=opened, note=self._note, has_report=self._has_report, **listed
        )

    def updates(self) -> Response:
        """Answer what may have changed since the page was rendered, for its script."""
        view = View.parse(request.args)
        listed = self._list(view)
        names = ("rows", "counts", "progress", "catching_up", "fingerprint")
        return jsonify({name: listed[name] for name in names})

    def decide(self) -> BaseResponse:
        """Pass a person's decision on to MultiMail, then show the email again."""
        given = request.form.get("csrf_token", "")
        if not hmac.compare_digest(given.encode(), self._csrf_token.encode()):
            abort(403, "This form expired when the server restarted. Reload and decide again.")
        reply_id, action = request.form.get("reply_id", ""), request.form.get("action", "")
        if not reply_id or action not in ("approve", "reject"):
            abort(400, "Choose Approve or Reject.")
        if action == "approve":
            self._inbox.approve(reply_id)
        else:
            typed = clean_line(request.form.get("reason", ""), MAX_REJECT_REASON_CHARACTERS)
            offered = clean_line(request.form.get("offered_reason", ""), MAX_REJECT_REASON_CHARACTERS)
            self._inbox.reject(reply_id, typed or offered)
        return redirect(View.parse(request.form).url(), 303)

    def _list(self, view: View) -> dict[str, Any]:
        mailboxes = self._inbox.refresh()
        self._inbox.look_at([row.key for row in _on_page(view, self._inbox.rows())])
        rows = self._inbox.rows()
        in_box = [row for row in rows if view.box in ("", row.mailbox_id)]
        counts = Counter[str](row.state for row in in_box)
        matching = sum(1 for row in in_box if view.shows(row))
        looked_at, received = self._inbox.progress
        open_row = next((row for row in rows if row.key == (view.mailbox, view.email)), None)
        return {
            "mailboxes": mailboxes,
            "rows": [_describe_row(row, view) for row in _on_page(view, rows)],
            "counts": {name: counts[name] if name else len(in_box) for name in FILTERS},
            "filters": FILTERS,
            "pages": max(1, -(-matching // ROWS_PER_PAGE)),
            "catching_up": looked_at < received,
            "progress": f"{looked_at:,} of {received:,} emails loaded" if looked_at < received else "",
            "fingerprint": _fingerprint(open_row),
        }

    def _open(self, view: View) -> dict[str, Any]:
        row, thread = self._inbox.open((view.mailbox, view.email))
        entry = self._find_entry(WorkItem(*row.key))
        draft, proposal = (entry.draft, entry.proposal) if entry is not None else (None, None)
        is_of_reply = entry is not None and row.reply is not None and entry.reply_id == row.reply.id
        return {
            "email": row.email,
            "outbound": row.is_outbound,
            "is_pending": row.is_pending,
            "tags": row.tags,
            "reason": row.tags.get("agent.reason", "")[:MAX_REASON_CHARACTERS],
            "reply": row.reply,
            "reply_label": _describe_reply(row.reply),
            "evidence": _describe_evidence(draft) if draft is not None and is_of_reply else None,
            "proposal": proposal,
            "proposal_evidence": _describe_evidence(proposal) if proposal is not None else None,
            "reject_reason": row.reject_reason[:MAX_REJECT_REASON_CHARACTERS],
            "max_reject_characters": MAX_REJECT_REASON_CHARACTERS,
            "offered_reasons": self._list_reasons(row.email.subject, row.reply.markdown) if row.reply else (),
            "state": row.state,
            "verdict": VERDICTS.get(row.outcome),
            "chips": _chips(row),
            "thread": [_describe_thread_entry(entry, view) for entry in thread],
            "csrf_token": self._csrf_token,
        }


def build_approval_page(
    api_url: str,
    mail_key: str,
    oversight_key: str,
    *,
    note: str = "",
    report: Callable[[int], TrustReport] | None = None,
    list_reasons: Callable[[str, str], Sequence[str]] = lambda _subject, _draft: (),
    find_entry: FindEntry = lambda _item: None,
) -> Flask:
    """Build the page for a MultiMail account; `note` is shown on a discreet banner.

    `mail_key` has the scopes read and send (a reason is a tag); `report`, which gets a number of days,
    adds the trust report. `list_reasons` gets the subject of an email and the draft of its reply: where a
    simulated model can follow some reasons only, the page offers these. `find_entry` gives an email's row in
    the ledger: what carries its draft, and what is only proposed.

    Serve it on a loopback address only: anyone who reaches it can approve. Any other Host is refused.
    """
    app = Flask(__name__)
    app.jinja_env.undefined = StrictUndefined
    app.config["MAX_CONTENT_LENGTH"] = 16_384
    app.jinja_env.filters.update(clock=_clock_time, size=_file_size)
    multimail = MultiMailClient(api_url, StaticSecret(Secret(mail_key)), timeout=TIMEOUT_SECONDS)
    inbox = Inbox(multimail, Oversight(api_url, StaticSecret(Secret(oversight_key)), timeout=TIMEOUT_SECONDS))
    page = ApprovalPage(
        inbox, secrets.token_urlsafe(32), note,
        has_report=report is not None, list_reasons=list_reasons, find_entry=find_entry,
    )  # fmt: skip
    app.add_url_rule("/", "show", page.show, methods=["GET"])
    app.add_url_rule("/updates", "updates", page.updates, methods=["GET"])
    if report is not None:
        app.add_url_rule("/report", "report", lambda: _show_report(report), methods=["GET"])
    app.add_url_rule("/decide", "decide", page.decide, methods=["POST"])
    app.before_request(_refuse_foreign_host)
    app.after_request(_add_security_headers)
    app.register_error_handler(AgentError, _show_agent_error)
    app.register_error_handler(HTTPException, _show_http_error)
    return app


def _show_report(report: Callable[[int], TrustReport]) -> Response:
    answer = answer_report(report, request.args, request.headers.get("Accept", ""))
    return Response(answer.body, answer.status_code, answer.headers, mimetype=answer.mimetype)


def _refuse_foreign_host() -> None:
    if not LOOPBACK_HOST.fullmatch(request.headers.get("Host", "")):
        abort(400, "This page answers on 127.0.0.1, localhost and [::1] only.")


def _add_security_headers(response: Response) -> Response:
    own_policy = response.headers.get(POLICY)  # the trust report names its own style
    response.headers.update(SECURITY_HEADERS | ({POLICY: own_policy} if own_policy else {}))
    return response


def _show_agent_error(error: AgentError) -> tuple[str, int]:
    explanations: Mapping[type[AgentError], str] = {
        ConfigurationError: "MultiMail refused the key: check the mail and the oversight key.",
        NotFoundError: "MultiMail does not know this email, or it is no longer awaiting a decision.",
        ConflictError: "This email has been decided already.",
        ThrottledError: "MultiMail asks to slow down: try again in a minute.",
    }
    unusable = "MultiMail could not be reached, or gave no usable answer: try again in a minute."
    status = 404 if isinstance(error, NotFoundError) else 502
    return _render_error(explanations.get(type(error), unusable)), status


def _show_http_error(error: HTTPException) -> tuple[str, int]:
    return _render_error(error.description or "Invalid request."), error.code or 500


def _render_error(explanation: str) -> str:
    return render_template("error.html", explanation=explanation, again=View.parse(request.args).url())


def _on_page(view: View, rows: Sequence[Row]) -> list[Row]:
    first = (view.page - 1) * ROWS_PER_PAGE
    return [row for row in rows if view.shows(row)][first : first + ROWS_PER_PAGE]


def _describe_row(row: Row, view: View) -> dict[str, Any]:
    email = row.email
    sender = f"To {', '.join(email.to)}" if row.is_outbound else _name_of(email.sender)
    return {
        "href": view.url(mailbox=row.mailbox_id, email=email.id),
        "current": row.key == (view.mailbox, view.email),
        "sender": sender,
        "subject": email.subject or "(no subject)",
        "time": _clock_time(email.received_at),
        "datetime": email.received_at.isoformat(),
        "chips": _chips(row),
    }


def _chips(row: Row) -> list[dict[str, str]]:
    """The outcome in the state's colour, then the triage in quiet ones."""
    chips = [{"text": _describe_outcome(row), "kind": row.state.value}]
    if row.more:
        chips.append({"text": f"and {row.more:,} more of this sender", "kind": "loud"})
    for name in ("action", "category", "urgency", "sentiment"):
        text = row.tags.get(f"agent.{name}", "")
        if text:
            loud = text in (Urgency.CRITICAL, Urgency.HIGH)
            chips.append({"text": text[:MAX_CHIP_CHARACTERS], "kind": "loud" if loud else "quiet"})
    return chips


def _describe_outcome(row: Row) -> str:
    if row.reply is not None and row.outcome in ("", Outcome.REPLY_SUBMITTED):
        return _describe_reply(row.reply)
    return OUTCOME_LABELS.get(row.outcome, row.outcome[:MAX_CHIP_CHARACTERS]) or "In progress"


def _describe_reply(reply: Email | EmailSummary | None) -> str:
    if reply is None:
        return ""
    if reply.status == PENDING_APPROVAL:
        return "Waiting for approval"
    if reply.bounced_at:
        return "Reply bounced"
    if reply.delivered_at:
        return "Answered"
    labels = {"rejected": "Draft rejected", "cancelled": "Draft cancelled", "send_failed": "Sending failed"}
    return labels.get(reply.status, "Reply on its way")


def _describe_thread_entry(email: EmailSummary, view: View) -> dict[str, Any]:
    outbound = email.direction == "outbound"
    return {
        "href": view.url(email=email.id),
        "current": email.id == view.email,
        "who": "Us" if outbound else _name_of(email.sender),
        "what": _describe_reply(email).replace("Answered", "Sent") if outbound else "Received",
        "time": _clock_time(email.received_at),
        "datetime": email.received_at.isoformat(),
        "outbound": outbound,
    }


def _describe_evidence(draft: Draft) -> dict[str, Any]:
    """What carries the sentences of a draft: those that nothing trusted carries come first."""
    claims = [claim for claim in draft.claims if claim.support is not Support.FREE]
    return {
        "claims": sorted(claims, key=lambda claim: [*SUPPORT_WORDS].index(claim.support), reverse=True),
        "labels": SUPPORT_WORDS,
        "summary": build_reply_tags(draft).get(CLAIMS_TAG, "It states no facts."),
        "open_points": [point.text for point in draft.open_points],
        "follow_up": draft.follow_up.text,
        "notes": draft.notes,
    }


def _fingerprint(row: Row | None) -> str:
    """Changes when what the page says about an email changes: its tags, its reply."""
    if row is None:
        return ""
    told = (sorted(row.tags.items()), row.state, _describe_reply(row.reply))
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _name_of(sender: str) -> str:
    name, address = parseaddr(sender)
    return name or address or sender or "(no sender)"


def _clock_time(time: datetime) -> str:
    time = time.astimezone()
    return f"{time.day} {time:%b, %H:%M}"


def _file_size(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB" if size >= 1_000_000 else f"{max(1, size // 1000)} kB"  # noqa: PLR2004 - bytes in a MB
