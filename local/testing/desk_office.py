"""A whole review desk over HTTP in a small office: a simulated MultiMail, the agent's side, the desk on both."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from local.approval.agent import AgentAccess
from local.approval.page import build_desk
from local.host.http_server import LoopbackServer
from local.multimail.emails import Attachment, Outgoing, StoredEmail
from local.multimail.simulator import MultiMailSimulator
from local.testing.desk_agent import FUNCTION_KEY, DeskAgent
from shared.domain import (
    Action,
    Cause,
    Draft,
    JudgedClaim,
    ModelText,
    Outcome,
    Quote,
    Sentiment,
    Support,
    Triage,
    Urgency,
    WorkItem,
)  # fmt: skip
from shared.ledger.entries import FOR_PEOPLE
from shared.operator.trust import TrustReport
from shared.profiles.profiles import NO_PROFILES, Profiles
from shared.settings import Secret

NOW = datetime(2026, 11, 20, 16, 0, tzinfo=UTC)


@dataclass
class Office:
    """A MultiMail account, its API, the agent's side and the desk on loopback ports."""

    simulator: MultiMailSimulator
    api_url: str
    url: str
    key: str
    agent: DeskAgent

    def receive(
        self, subject: str, body: str = "Hello", sender: str = "ann@customer.example", *, ago: int = 0
    ) -> str:
        received_at = NOW - timedelta(minutes=ago)
        return self.simulator.deliver("support", sender, subject, body, received_at=received_at)

    def tag(self, email_id: str, **tags: str) -> None:
        named = {f"agent.{name}": value for name, value in tags.items()}
        self.simulator.set_tags("support", email_id, named, "agent")
        if tags.get("outcome") in FOR_PEOPLE:
            self.agent.write(email_id, Outcome(tags["outcome"]), cause=Cause.TRIAGED)

    def draft(self, email_id: str, text: str, draft: Draft | None = None, **tags: str) -> str:
        """Let the agent's reply wait for approval, as the agent leaves it."""
        reply, _ = self.simulator.reply("support", email_id, Outgoing(text), "agent")
        self.tag(email_id, outcome="reply_submitted", action="reply", reply_id=reply.id, **tags)
        self.agent.draft(email_id, reply.id, draft or plain_draft(text), triage=triaged(**tags))
        return reply.id

    def escalate(self, email_id: str, outcome: Outcome = Outcome.ESCALATED, **fields: Any) -> None:
        """Let the agent leave an email to people."""
        self.simulator.set_tags("support", email_id, {"agent.outcome": outcome}, "agent")
        self.agent.write(email_id, outcome, cause=Cause.TRIAGED, **fields)

    def stored(self, email_id: str) -> StoredEmail:
        email = self.simulator.find_email(email_id)
        assert email is not None
        return email

    def address(self, email_id: str) -> str:
        return f"{self.url}/?mailbox=support&email={email_id}"

    def reads_of(self, email_id: str) -> list[str]:
        paths = [r.path for r in self.simulator.requests if f"/emails/{email_id}" in r.path]
        return [path.rpartition(email_id)[2] for path in paths]


def plain_draft(text: str) -> Draft:
    return Draft(text, 0.9, (), (), "key")


def triaged(**tags: str) -> Triage | None:
    """The triage that these tags tell of, where they name an urgency that there is."""
    urgency = tags.get("urgency", "")
    if urgency not in [*Urgency]:
        return None
    no_text = ModelText("")
    return Triage(Action.REPLY, "question", Urgency(urgency), Sentiment.NEUTRAL, 0.9, no_text, no_text)


def report_nothing(days: int) -> TrustReport:
    """The trust report of an account without mailboxes."""
    return TrustReport(NOW - timedelta(days=days), NOW, days, ())


@contextmanager
def serve_office(
    folder: Path,
    report: Callable[[int], TrustReport] = report_nothing,
    list_reasons: Callable[[str, str], Sequence[str]] = lambda _subject, _draft: (),
    profiles: Profiles = NO_PROFILES,
    note: str = "",
) -> Iterator[Office]:
    """Serve a simulated account's API, the agent's side and a desk over both, with a note in its banner."""
    simulator = MultiMailSimulator(lambda: NOW)
    simulator.add_mailbox("support@northwind.example", mailbox_id="support", display_name="Support")
    key = simulator.add_key(["read", "oversight"])
    with LoopbackServer(simulator.app) as api:
        agent = DeskAgent(api.url, simulator.add_key(), folder, lambda: NOW, report=report, profiles=profiles)
        with LoopbackServer(agent.app) as functions:
            access = AgentAccess(functions.url, Secret(FUNCTION_KEY))
            desk = build_desk(
                api.url, Secret(key), access, note=note, list_reasons=list_reasons, clock=lambda: NOW
            )
            with LoopbackServer(desk) as server:
                yield Office(simulator, api.url, server.url, key, agent)
        agent.ledger.close()


def written(text: str, *claims: JudgedClaim) -> Draft:
    """A draft with what carries it, an open point and a promise."""
    return Draft(
        text, 0.9, (ModelText("Which colour?"),), (), "key", claims,
        follow_up=ModelText("A colleague names the colours."),
    )  # fmt: skip


CLAIMS = (
    JudgedClaim("Two years.", Support.VERIFIED, (Quote("shop.md › Warranty", "for two years"),)),
    JudgedClaim(
        "You bought it in May.", Support.FROM_SENDER, (Quote("email of 2026-11-20", "bought in May"),)
    ),
    JudgedClaim("<b>It floats</b>.", Support.ASSERTED),
    JudgedClaim("Kind regards", Support.FREE),
)


@dataclass(frozen=True, slots=True)
class DeskPage:
    """A page of the desk. `key` opens what is closed at first; `is_error`: it is answered as one."""

    name: str
    address: str
    key: str = ""
    is_error: bool = False


@contextmanager
def serve_pages(folder: Path) -> Iterator[list[DeskPage]]:
    """Every page of the desk: of an account with many drafts, and of one with escalations only."""
    (folder / "busy").mkdir()
    (folder / "calm").mkdir()
    note = "Simulated mail, simulated model: " + "nothing leaves this machine. " * 3
    with serve_office(folder / "busy") as busy, serve_office(folder / "calm", note=note) as calm:
        draft, escalated = _fill_with_drafts(busy), _fill_with_escalations(calm)
        yield [
            DeskPage("drafts", f"{busy.url}/"),
            DeskPage("draft", busy.address(draft)),
            DeskPage("rejecting", busy.address(draft), "r"),
            DeskPage("editing", busy.address(draft), "e"),
            DeskPage("all mail", f"{busy.url}/?show=all"),
            DeskPage("escalations", f"{calm.url}/"),
            DeskPage("escalation", calm.address(escalated)),
            DeskPage("no drafts", f"{calm.url}/?show=waiting"),
            DeskPage("nothing found", f"{calm.url}/?show=all&q=zebra"),
            DeskPage("trust report", f"{calm.url}/report"),
            DeskPage("error", calm.address("em_unknown"), is_error=True),
        ]


def _fill_with_drafts(office: Office) -> str:
    """Twenty drafts, and one more with all that a draft can have; return the id of its email."""
    for number in range(20):
        email = office.receive(f"Gauge {number}", sender="Ann Lee <ann@customer.example>", ago=number)
        urgency = [*Urgency][number % len(Urgency)]
        office.draft(email, f"Dear Ann, gauge {number} has two years.", category="support", urgency=urgency)
    lines = "\n\n".join(f"<p>Line {n} of a long email about the gauges that I bought.</p>" for n in range(80))
    quoted = "On Mon, 2 Nov 2026 at 10:00, Support <support@northwind.example> wrote:\n> One\n> Two\n"
    email = office.simulator.deliver(
        "support", f"{'ann' * 20}@customer.example", f"The gauges read zero: {'W' * 80}",
        f"{lines}<p>https://shop.example/{'path/' * 60}</p>\n\n{quoted}",
        received_at=NOW - timedelta(hours=2),
        attachments=[Attachment(f"{'invoice' * 12}.pdf", "application/pdf", b"x" * 5_000)],
    )  # fmt: skip
    first = office.draft(email, "Two years. It is red.", category="support", urgency=Urgency.CRITICAL)
    office.agent.reviews.reject(WorkItem("support", email), first, "reviewer", "Say it more warmly.")
    office.simulator.decide(first, "reject")
    office.agent.reviews.note_decided("support", first)
    text = "Dear Ann, two years. You bought it in May."
    facts = ("first contact", "resembles our domain northwind.example: northw1nd.example")
    draft = replace(written(text, *CLAIMS), notes=("it repeats a code",), sender_facts=facts)
    office.draft(email, text, draft, category="support", urgency=Urgency.CRITICAL, sentiment="negative")
    return email


def _fill_with_escalations(office: Office) -> str:
    """Three emails that are left to people; return the id of one with a proposed answer."""
    office.escalate(office.receive("Our lawyer will write to you", ago=30))
    office.escalate(office.receive("It broke", ago=20), Outcome.NEEDS_HUMAN)
    email = office.receive("Warranty", "Is my gauge still covered?", ago=10)
    office.escalate(email, proposal=written("Two years.", *CLAIMS))
    return email
