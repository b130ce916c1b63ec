"""The review desk: the loopback page on which a person approves, rejects or edits the agent's drafts."""

import hmac
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, abort, jsonify, redirect, render_template, request, url_for
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from local.approval.agent import AgentAccess, AgentAwayError, DeskAgent
from local.approval.inbox import TO_DO, Inbox, Key, RefusedError, Row, State
from local.approval.oversight import Oversight
from local.approval.reading import read_text
from local.approval.shown import (
    DONE,
    VERDICTS,
    clock_time,
    describe_age,
    describe_change,
    describe_evidence,
    describe_reply,
    describe_row,
    describe_sender,
    describe_thread_entry,
    file_size,
    fingerprint,
    list_chips,
    whole_name,
)
from local.host.http_server import LOOPBACK_HOST
from shared.checks.draft_checks import MAX_REPLY_CHARACTERS
from shared.domain import Email
from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PermanentError,
    ThrottledError,
)
from shared.mail.multimail import MultiMailClient
from shared.model.prompting import clean_line
from shared.operator.review import ReviewItem
from shared.services.secrets import StaticSecret
from shared.settings import Secret
from shared.watching.tracking import MAX_REJECT_REASON_CHARACTERS

TIMEOUT_SECONDS = (5.0, 10.0)  # connect, read
ROWS_PER_PAGE = 50
MAX_REASON_CHARACTERS = 1_000
MAX_FORM_BYTES = 131_072  # an edit in the widest of scripts, as a form has it
MAX_SEARCH_CHARACTERS = 200
MAX_UNTOLD = 100  # decisions whose next page was never asked for

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

ALL = "all"
FILTERS: Mapping[str, str] = {
    "": "To do",
    State.WAITING: "Waiting for you",
    State.ESCALATED: "Escalated",
    State.REFUSED: "Blocked",
    State.PROMISED: "Promised",
    State.ANSWERED: "Answered",
    State.OPEN: "In progress",
    State.SKIPPED: "Skipped",
    ALL: "All mail",
}
ACTIONS = ("approve", "reject", "edit", "put_off", "done")
NOTHING_TYPED = {"text": "", "reason": ""}
LATE = "late"  # in place of an action: it met another state
AWAY = "{} Evidence, escalations and edits are missing meanwhile."


@dataclass(frozen=True, slots=True)
class View:
    """What the address of the page asks for: the list's filters and search, and the email that is open."""

    box: str = ""
    show: str = ""
    q: str = ""
    page: int = 1
    mailbox: str = ""
    email: str = ""

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> "View":
        """Read a query or a posted form; an invalid value falls back to what is to do."""
        show, page = given.get("show", ""), given.get("page", "1")
        return cls(
            box=given.get("box", ""),
            show=show if show in FILTERS else "",
            q=clean_line(given.get("q", ""), MAX_SEARCH_CHARACTERS),
            page=int(page) if re.fullmatch(r"[1-9]\d{0,5}", page) else 1,
            mailbox=given.get("mailbox", ""),
            email=given.get("email", ""),
        )

    def url(self, endpoint: str = "show", **changes: Any) -> str:
        """The address of this view with some things changed."""
        decision = {"decision": changes.pop("decision", "")}
        values = asdict(replace(self, **changes)) | decision
        return url_for(endpoint, **{name: v for name, v in values.items() if v not in ("", 1)})

    @property
    def closed_url(self) -> str:
        """The address of the list alone."""
        return self.url(mailbox="", email="")

    @property
    def key(self) -> Key:
        """The open email."""
        return self.mailbox, self.email

    def opens(self, row: Row | None) -> "View":
        """This view with another email open, or none."""
        mailbox, email = row.key if row is not None else ("", "")
        return replace(self, mailbox=mailbox, email=email)

    def choose(self, inbox: Inbox) -> list[Row]:
        """The rows that the filters let through: what is to do in its order, the rest newest first."""
        is_to_do = self.show == "" or self.show in TO_DO
        rows = inbox.list_to_do() if is_to_do and not self.q else inbox.rows()
        named = inbox.list_named(self.q)
        wanted = self.q.casefold()
        return named or [
            row
            for row in rows
            if self.box in ("", row.mailbox_id)
            and (self.show in ("", ALL, row.state))
            and wanted in f"{row.email.sender}\n{row.email.subject}\n{' '.join(row.email.to)}".casefold()
        ]


class ReviewPage:
    """Answers the page's requests from an inbox. `csrf_token` proves that a form is this page's own."""

    def __init__(
        self,
        inbox: Inbox,
        agent: DeskAgent,
        csrf_token: str,
        *,
        note: str,
        list_reasons: Callable[[str, str], Sequence[str]],
    ) -> None:
        self._inbox = inbox
        self._agent = agent
        self._csrf_token = csrf_token
        self._note = note
        self._list_reasons = list_reasons
        self._untold: dict[str, tuple[str, Key]] = {}

    def show(self) -> str:
        """Render the list and the open email: the first thing to do, if none is asked for."""
        return self._render(View.parse(request.args))

    def updates(self) -> Response:
        """Answer what may have changed since the page was rendered, for its script."""
        view = View.parse(request.args)
        self._refresh(view)
        listed = self._list(view)
        names = ("rows", "counts", "progress", "catching_up", "fingerprint")
        return jsonify({name: listed[name] for name in names})

    def decide(self) -> BaseResponse | tuple[str, int]:
        """Pass a person's decision on, then show the next email. What could not be kept stays in its form."""
        given = request.form.get("csrf_token", "")
        if not hmac.compare_digest(given.encode(), self._csrf_token.encode()):
            abort(403, "This form expired when the desk restarted. Reload and decide again.")
        view, action = View.parse(request.form), request.form.get("action", "")
        reply_id = request.form.get("reply_id", "")
        if action not in ACTIONS or not view.email or (not reply_id and action not in ("put_off", "done")):
            abort(400, "Choose Approve, Reject, Edit, Not now or Done.")
        following = self._find_following(view)
        try:
            self._act(action, view, reply_id)
        except (NotFoundError, ConflictError):
            return redirect(view.url(decision=self._keep(LATE, view.key)), 303)
        except AgentError as error:
            typed = {name: request.form.get(name, "") for name in ("text", "reason")}
            return self._render(view, problem=explain(error), typed=typed), 502
        return redirect(view.opens(following).url(decision=self._keep(action, view.key)), 303)

    def report(self) -> Response:
        """The trust report, as the agent renders it."""
        answer = self._agent.report(request.args)
        return Response(answer.body, answer.status_code, answer.headers, mimetype=answer.mimetype)

    def _act(self, action: str, view: View, reply_id: str) -> None:
        if action == "approve":
            self._inbox.approve(view.key, reply_id)
        elif action == "reject":
            typed = clean_line(request.form.get("reason", ""), MAX_REJECT_REASON_CHARACTERS)
            offered = clean_line(request.form.get("offered_reason", ""), MAX_REJECT_REASON_CHARACTERS)
            self._inbox.reject(view.key, reply_id, typed or offered)
        elif action == "edit":
            # A form ends lines in its own way; the draft has them as mail has them.
            self._inbox.edit(view.key, reply_id, request.form.get("text", "").replace("\r\n", "\n"))
        else:
            self._inbox.say(action, view.key)

    def _find_following(self, view: View) -> Row | None:
        """What comes after the open email in the list, or from its beginning where that was the last."""
        rows = view.choose(self._inbox)
        place = next((n for n, row in enumerate(rows) if row.key == view.key), -1)
        rest = [*rows[place + 1 :], *rows[: max(0, place)]]
        return next(iter(rest), None)

    def _render(self, view: View, *, problem: str = "", typed: Mapping[str, str] | None = None) -> str:
        self._refresh(view)
        is_chosen = bool(view.email)
        if not is_chosen and view.show == "" and not view.q:
            view = view.opens(next(iter(view.choose(self._inbox)), None))
        opened = self._open(view, typed or NOTHING_TYPED) if view.email else None
        return render_template(
            "desk.html",
            view=view,
            is_chosen=is_chosen,
            opened=opened,
            note=self._note,
            problem=problem,
            said=self._describe_last(request.args, opened),
            csrf_token=self._csrf_token,
            all_mail=ALL,
            **self._list(view),
        )

    def _refresh(self, view: View) -> None:
        self._inbox.refresh()
        self._inbox.look_at([row.key for row in _on_page(view, view.choose(self._inbox))])

    def _list(self, view: View) -> dict[str, Any]:
        chosen = view.choose(self._inbox)
        rows = [row for row in self._inbox.rows() if view.box in ("", row.mailbox_id)]
        counts = Counter[str](row.state for row in rows)
        counts[ALL], counts[""] = len(rows), sum(counts[state] for state in TO_DO)
        looked_at, received = self._inbox.progress
        open_row = next((row for row in rows if row.key == view.key), None)
        away = self._inbox.agent_problem
        return {
            "mailboxes": self._inbox.mailboxes,
            "rows": [
                describe_row(row, view.url, is_current=row.key == view.key) for row in _on_page(view, chosen)
            ],
            "counts": {name: counts[name] for name in FILTERS},
            "filters": FILTERS,
            "pages": max(1, -(-len(chosen) // ROWS_PER_PAGE)),
            "catching_up": looked_at < received,
            "progress": f"{looked_at:,} of {received:,} emails loaded" if looked_at < received else "",
            "away": AWAY.format(explain(away)) if away is not None else "",
            "fingerprint": fingerprint(open_row),
        }

    def _open(self, view: View, typed: Mapping[str, str]) -> dict[str, Any]:
        row, thread = self._inbox.open(view.key)
        item = self._find_item(row)
        is_of_reply = item is not None and row.reply is not None and item.reply_id == row.reply.id
        draft = item.draft if item is not None and is_of_reply else None
        proposal = item.proposal if item is not None else None
        rows = view.choose(self._inbox)
        place = next((n for n, other in enumerate(rows) if other.key == row.key), -1)
        return {
            "email": row.email,
            "sender": whole_name(row.email.sender),
            "sender_facts": describe_sender(draft or proposal),
            "file_states": dict(enumerate(shown.attachments)) if (shown := draft or proposal) else {},
            "text": read_text(row.email.markdown if isinstance(row.email, Email) else ""),
            "outbound": row.is_outbound,
            "is_pending": row.is_pending,
            "tags": row.tags,
            "item": item,
            "reason": ((item.reason if item else "") or row.tags.get("agent.reason", ""))[
                :MAX_REASON_CHARACTERS
            ],
            "reply": row.reply,
            "reply_label": describe_reply(row.reply),
            "evidence": describe_evidence(draft) if draft is not None else None,
            "change": describe_change(item) if item is not None and draft is not None else None,
            "proposal": proposal,
            "proposal_evidence": describe_evidence(proposal) if proposal is not None else None,
            "reject_reason": row.reject_reason[:MAX_REJECT_REASON_CHARACTERS],
            "max_reject_characters": MAX_REJECT_REASON_CHARACTERS,
            "max_edit_characters": MAX_REPLY_CHARACTERS,
            "can_edit": draft is not None,
            "can_finish": item is not None and row.state in TO_DO and not row.is_pending,
            "typed": typed,
            "offered_reasons": self._list_reasons(row.email.subject, row.reply.markdown) if row.reply else (),
            "state": row.state,
            "verdict": VERDICTS.get(row.outcome),
            "chips": list_chips(row),
            "thread": [
                describe_thread_entry(entry, view.url, is_current=entry.id == view.email) for entry in thread
            ],
            "next": view.opens(rows[place + 1]).url() if place + 1 < len(rows) else "",
            "previous": view.opens(rows[place - 1]).url() if place > 0 else "",
            "place": place + 1,
            "of": len(rows),
        }

    def _find_item(self, row: Row) -> ReviewItem | None:
        """What the agent knows of an email; while it cannot be asked, what it listed."""
        try:
            return self._inbox.find(row.key, row.reply.id if row.is_outbound and row.reply else "")
        except AgentError as error:
            self._inbox.agent_problem = error
            return row.item

    def _keep(self, did: str, key: Key) -> str:
        """Keep what was done with an email until it is told, once, to who has the name that is returned."""
        name = secrets.token_urlsafe(16)
        self._untold[name] = did, key
        for forgotten in [*self._untold][:-MAX_UNTOLD]:
            self._untold.pop(forgotten, None)
        return name

    def _describe_last(self, given: Mapping[str, str], opened: Mapping[str, Any] | None) -> str:
        """What the last decision did, which the address names; "" for an address of anybody else's making."""
        did, key = self._untold.pop(given.get("decision", ""), ("", ("", "")))
        if did == LATE and opened is not None:
            now = opened["chips"][0]["text"]
            return f"This changed before your decision arrived, so nothing was done. It is now: {now}."
        if did not in DONE:
            return ""
        subject = self._inbox.find_subject(key)
        return f"{DONE[did]}: {subject}" if subject else f"{DONE[did]}."


def build_desk(
    api_url: str,
    key: Secret,
    agent_access: AgentAccess,
    *,
    note: str = "",
    list_reasons: Callable[[str, str], Sequence[str]] = lambda _subject, _draft: (),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Flask:
    """Build the desk for a MultiMail account; `note` is shown on a discreet banner.

    `key` is the reviewer's own, with the scopes read and oversight. `list_reasons` gets the subject of an
    email and the draft of its reply: where a simulated model can follow some reasons only, the page offers
    these.

    Serve it on a loopback address only: anyone who reaches it can approve. Any other Host is refused.
    """
    app = Flask(__name__)
    app.jinja_env.undefined = StrictUndefined
    app.config["MAX_CONTENT_LENGTH"] = MAX_FORM_BYTES
    app.jinja_env.filters.update(
        clock=clock_time, size=file_size, age=lambda moment: describe_age(clock() - moment)
    )
    multimail = MultiMailClient(api_url, StaticSecret(key), timeout=TIMEOUT_SECONDS)
    oversight = Oversight(api_url, StaticSecret(key), timeout=TIMEOUT_SECONDS)
    agent = DeskAgent(agent_access, key.fingerprint, timeout=TIMEOUT_SECONDS)
    page = ReviewPage(
        Inbox(multimail, oversight, agent, clock=clock),
        agent,
        secrets.token_urlsafe(32),
        note=note,
        list_reasons=list_reasons,
    )
    app.add_url_rule("/", "show", page.show, methods=["GET"])
    app.add_url_rule("/updates", "updates", page.updates, methods=["GET"])
    app.add_url_rule("/report", "report", page.report, methods=["GET"])
    app.add_url_rule("/decide", "decide", page.decide, methods=["POST"])
    app.before_request(_refuse_foreign_host)
    app.after_request(_add_security_headers)
    app.register_error_handler(AgentError, _show_agent_error)
    app.register_error_handler(HTTPException, _show_http_error)
    return app


def explain(error: AgentError) -> str:
    """What a reviewer can do about an error."""
    if isinstance(error, RefusedError):
        return str(error)
    if isinstance(error, ConfigurationError) and str(error).startswith("AGENT_"):
        return str(error)
    if isinstance(error, PermanentError) and error.status_code == 400:  # noqa: PLR2004 - the agent's sentence
        return f"The agent did not take this: {error}."
    explanations: Mapping[type[AgentError], str] = {
        AgentAwayError: (
            "The agent cannot be reached, so nothing can be decided here: try again in a minute. MultiMail's "
            "dashboard still approves and rejects."
        ),
        ConfigurationError: "MultiMail refused the key: it needs the scopes read and oversight.",
        NotFoundError: "MultiMail does not know this email.",
        ConflictError: "This email has been decided already.",
        ThrottledError: "MultiMail asks to slow down: try again in a minute.",
    }
    unusable = "A service could not be reached, or gave no usable answer: try again in a minute."
    return explanations.get(type(error), unusable)


def _refuse_foreign_host() -> None:
    if not LOOPBACK_HOST.fullmatch(request.headers.get("Host", "")):
        abort(400, "This page answers on 127.0.0.1, localhost and [::1] only.")


def _add_security_headers(response: Response) -> Response:
    own_policy = response.headers.get(POLICY)  # the trust report names its own style
    response.headers.update(SECURITY_HEADERS | ({POLICY: own_policy} if own_policy else {}))
    return response


def _show_agent_error(error: AgentError) -> tuple[str, int]:
    return _render_error(explain(error)), 404 if isinstance(error, NotFoundError) else 502


def _show_http_error(error: HTTPException) -> tuple[str, int]:
    return _render_error(error.description or "Invalid request."), error.code or 500


def _render_error(explanation: str) -> str:
    return render_template("error.html", explanation=explanation, again=View.parse(request.args).url())


def _on_page(view: View, rows: Sequence[Row]) -> Sequence[Row]:
    first = (view.page - 1) * ROWS_PER_PAGE
    return rows[first : first + ROWS_PER_PAGE]
