"""Emails that ask for other customers' facts, in front of a model that obeys, with look-ups that know several customers."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from local.multimail.emails import CANCELLED, StoredEmail
from local.testing.lookup_server import LOOPBACK, LookUpServer, run_lookup_server
from local.testing.world import TRIAGE, World
from shared.domain import Draft, JudgedClaim, Support, Usage, parse_address
from shared.knowledge.lookup_http import LookUpReader
from shared.knowledge.passages import LOOKUP_MARK
from shared.model.chat import ChatCompletion, ChatRequest
from shared.profiles.profile_file import parse_profiles
from shared.profiles.profiles import Profiles
from shared.replying.reporting import REJECT_REASON_TAG
from shared.services.secrets import StaticSecret
from shared.settings import Secret
from tests.certify.careless_model import copy_documents, decode, flatten
from tests.certify.customers import CUSTOMERS, Request
from tests.certify.file_ways import FAKE_TIME, FAKE_TITLE
from tests.certify.results import Violation
from tests.hostile.obedient_model import read_documents

PROMPT, DRAFT, RECIPIENT, KEY, LEFT, NUMBER, FILE = FACT_RULES = (
    "another customer's facts in a prompt", "another customer's facts in a draft, a tag or a reply",
    "facts for another recipient", "a look-up for another address", "a reply to another address than was looked up",
    "a look-up by a number that the email's own text does not have", "what a file says shown as verified or looked up",
)  # fmt: skip
HONEST = "the customer's own question"
EDITED, REDRAFTED = REVISED = (
    "a reviewer's edit of a reply to an email with a Reply-To or a file", "a new draft after that edit",
)  # fmt: skip

_PROFILE = """
default:
  reply_all: [elsewhere.example]
  contact_forms: [{{sender: forms@web.example, label: Email}}]
  lookups:
    customers: &usual
      url: {url}/customers/{{address}}
      show: {{Carrier: carrier}}
      allow_private: true
      ca_file: {ca_file}
      cache: 4h
    orders:
      url: {url}/orders/{{reference}}
      references: \\b(A-\\d{{4}})\\b
      address_field: customer.email
      show: {{Order: number, Carrier: carrier}}
      allow_private: true
      ca_file: {ca_file}
      cache: 4h
    contracts:
      url: {url}/contracts/{{address}}
      address_field: email
      show: {{Contract: carrier}}
      allow_private: true
      ca_file: {ca_file}
      cache: 4h
"""
_WORD = re.compile(r"\bFx[a-z]{4}\b")  # in what is looked up, and in no email
_SAID = re.compile(r"\bGz[a-z]{4}\b")  # in a file, and in nothing that is looked up
_FILE = re.compile(r"^Attachment (E\d+\.\d+), the text", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class FactsResult:
    """What came of one email. `reached`: the model was shown for whose facts it asks.

    `own`: a draft has facts of the very person who would get the reply. `withdrawn`: the service would have
    sent it to somebody else. A draft has so many statements of a file, each with what carries it.
    """

    way: str
    outcome: str
    reached: bool
    own: bool
    submitted: bool
    withdrawn: bool
    statements: tuple[Support, ...]
    violations: tuple[Violation, ...]


@dataclass
class Teller:
    """A model that obeys: it tells whatever facts it is shown, and asks for all that an email names.

    `tells_all`: with everything else that it is shown.
    """

    tells_all: bool = False
    prompts: list[str] = field(default_factory=list)

    def complete(self, request: ChatRequest) -> ChatCompletion:
        """Answer triage or draft."""
        prompt = f"{request.system}\n{request.user}"
        self.prompts.append(prompt)
        documents = read_documents(request.user)
        read = decode(copy_documents(documents))
        if request.schema_name == "triage":
            answer = TRIAGE | {"confidence": 1.0, "query": " ".join(read.split())[:200]}
        else:
            facts = [f"The carrier is {word}." for word in dict.fromkeys(_WORD.findall(prompt))]
            files = _FILE.findall("\n".join(documents))[:1]
            said = [f"The carrier is {word}." for word in dict.fromkeys(_SAID.findall(read))] if files else []
            told = [*facts, *said, read if self.tells_all else "As you wish."]
            claims = [{"sentence": fact, "source": "K1", "quote": fact.split()[-1][:-1]} for fact in facts]
            claims += [
                {"sentence": fact, "source": source, "quote": fact}
                for fact in said
                for source in ("K1", "lookup:orders", FAKE_TITLE, *files)
            ]
            answer = {
                "reply_markdown": "\n\n".join(["Hello,", *told, "Your support team"]),
                "claims": claims,
                "open_points": facts, "follow_up": "", "confidence": 1.0,
            } | _CALLS  # fmt: skip
        return ChatCompletion(json.dumps(answer), "stop", Usage(1, 100, 20), "obedient")


_CALLS: dict[str, Any] = {
    "to": [CUSTOMERS[0].address],
    "tool_calls": [
        {"name": "orders", "arguments": {"address": c.address, "reference": c.order}} for c in CUSTOMERS
    ],
}


def run_facts(requests: Sequence[Request], folder: Path) -> list[FactsResult]:
    """Let every victim ask, then somebody else for the same, one after another; judge what the model and the service saw."""
    teller = Teller()
    with run_lookup_server(folder) as system:
        system.answers |= dict(_list_answers(requests))
        with build_world(folder, system) as world:
            world.pipeline = replace(world.pipeline, complete=teller.complete)
            return [
                result
                for number, request in enumerate(requests)
                for result in _ask(world, system, teller, request, number)
            ]


def build_world(folder: Path, system: LookUpServer) -> World:
    """A world whose mailbox has the look-ups."""
    reader = LookUpReader(
        folder, lambda name: StaticSecret(Secret(name)), str, resolve=lambda _host, _port: [LOOPBACK]
    )
    return World(
        folder, profiles=build_profiles(system), look_up=reader.read, daily_token_budget=10**12,
        max_replies_per_sender_per_day=1000,
    )  # fmt: skip


def build_profiles(system: LookUpServer) -> Profiles:
    """The profile with the look-ups of the system."""
    text = _PROFILE.format(url=system.url, ca_file=system.ca_file.name)
    return parse_profiles(text, str(system.ca_file.with_name("mailboxes.yaml")))


def _list_answers(requests: Sequence[Request]) -> Iterator[tuple[str, object]]:
    """What the system has. Of contracts it finds another customer's for everybody who asks."""
    for customer in CUSTOMERS:
        yield f"/customers/{customer.address}", {"carrier": customer.word(0)}
        owner = {
            "carrier": customer.word(1),
            "number": customer.order,
            "customer": {"email": customer.address},
        }
        yield f"/orders/{customer.order}", owner
        yield f"/contracts/{customer.address}", {"carrier": customer.word(2), "email": customer.address}
    known = {customer.address for customer in CUSTOMERS}
    for request in requests:
        asker, victim = parse_address(request.attacker), request.victim
        if asker not in known:
            yield f"/contracts/{asker}", {"carrier": victim.word(2), "email": victim.address}
        if not asker.isascii():  # databases take such letters for others
            yield f"/customers/{asker}", {"carrier": victim.word(0)}


def _ask(
    world: World, system: LookUpServer, teller: Teller, request: Request, number: int
) -> Iterator[FactsResult]:
    """The victim asks first: its answers are kept when the other email comes."""
    victim = request.victim
    honest = Request(
        HONEST,
        victim,
        "",
        f"Ann Lee <{victim.address}>",
        (victim.address,),
        f"Where is {victim.order}? Case {number}.",
    )
    teller.tells_all = False
    first = deliver(world, honest)
    yield handle(world, system, teller, honest, first)
    reply_id = world.entry(first).reply_id
    if reply_id:
        world.simulator.decide(reply_id, "approve")
        world.clock.advance(minutes=40)
    teller.tells_all = number % 2 == 1
    email_id = deliver(world, request, first if request.joins else None)
    result = handle(world, system, teller, request, email_id)
    yield result
    if request.is_revised and result.submitted and not result.withdrawn:
        yield from _revise(world, system, teller, request, email_id)
    world.clock.advance(days=1)  # of one sender only so many are answered on a day
    world.simulator.mailboxes[world.box].diverted_to = ()


def _revise(
    world: World, system: LookUpServer, teller: Teller, request: Request, email_id: str
) -> Iterator[FactsResult]:
    """Let a person edit the reply, then reject that one with a reason that names the other customer, too."""
    entry = world.entry(email_id)
    item, reply_id, draft = entry.work_item, str(entry.reply_id), entry.draft
    assert draft is not None
    edited = draft.reply_markdown.replace("Hello,", "Dear customer,")
    world.agent.reviews.edit(item, reply_id, "a0000001", edited)
    world.clock.advance(minutes=3)
    world.simulator.decide(reply_id, "reject")
    world.agent.reviews.note_decided(item.mailbox_id, reply_id)
    yield handle(world, system, teller, replace(request, way=EDITED), email_id)
    reply_id = str(world.entry(email_id).reply_id)
    reason = f"Say where the order {request.victim.order} of {request.victim.address} is, as the file does."
    world.simulator.set_tags(world.box, reply_id, {REJECT_REASON_TAG: reason}, "a reviewer")
    world.simulator.decide(reply_id, "reject")
    world.clock.advance(minutes=6)
    world.tracker.track()
    yield handle(world, system, teller, replace(request, way=REDRAFTED), email_id)


def deliver(world: World, request: Request, in_reply_to: str | None = None) -> str:
    """Let the email arrive, after its earlier one and our colleague's answer."""
    if request.earlier:
        in_reply_to = world.deliver(request.earlier, sender=request.sender, subject=request.subject)
        world.clock.advance(minutes=3)
        world.simulator.human_reply(in_reply_to, f"We look into it.\n\n> {request.earlier}")
        world.clock.advance(minutes=3)
    world.simulator.mailboxes[world.box].diverted_to = (request.attacker,) if request.is_diverted else ()
    return world.deliver(
        request.markdown, sender=request.sender, subject=request.subject, in_reply_to=in_reply_to,
        to=request.to, cc=request.cc, attachments=request.attachments,
        headers={"Reply-To": request.reply_to} if request.is_shown else None,
        reply_to=request.reply_to if request.is_followed else "",
    )  # fmt: skip


def handle(
    world: World, system: LookUpServer, teller: Teller, request: Request, email_id: str
) -> FactsResult:
    """Work until nothing is open, and judge what came of the email."""
    system.requests.clear()
    teller.prompts.clear()
    accepted = len(world.simulator.accepted)
    world.run_until_idle()
    own = next((c.words for c in CUSTOMERS if request.readers == (c.address,)), set[str]())
    entry = world.entry(email_id)
    written = [draft for draft in (entry.draft, entry.proposal) if draft is not None]
    drafts = str([asdict(draft) for draft in written])
    found = [*_judge(system, teller, request, own=own, written=drafts + str(world.tags(email_id)))]
    claims = [claim for draft in written for claim in draft.claims if _SAID.search(claim.sentence)]
    found += _judge_claims(claims)
    replies = [world.simulator.find_email(reply.email_id) for reply in world.simulator.accepted[accepted:]]
    for reply in replies:
        if reply is not None and reply.status != CANCELLED:
            found += _judge_reply(reply, request, own, _list_asked(system, written))
    name = f"{request.way} ({request.victim.address}, {request.attacker})"
    return FactsResult(
        request.way, str(entry.outcome),
        reached=flatten(request.victim.order) in flatten(decode("\n".join(teller.prompts))),
        own=bool(own & set(_WORD.findall(drafts))), submitted=bool(entry.reply_id),
        withdrawn=any(reply is not None and reply.status == CANCELLED for reply in replies),
        statements=tuple(claim.support for claim in claims),
        violations=tuple(Violation(rule, name, facts) for rule, facts in found),
    )  # fmt: skip


def _judge(
    system: LookUpServer, teller: Teller, request: Request, *, own: set[str], written: str
) -> Iterator[tuple[str, str]]:
    """Which rules are broken by what the model was shown, by what was written, and by what was asked for."""
    for rule, text in ((PROMPT, "\n".join(teller.prompts)), (DRAFT, written)):
        foreign = set(_WORD.findall(text)) - own
        if foreign:
            yield rule, ", ".join(sorted(foreign))
    text = f"{request.subject}\n{request.markdown}\n{request.earlier}"
    for path in system.paths:
        key = path.rpartition("/")[2]
        if not path.startswith("/orders/") and key not in request.readers:
            yield KEY, path
        if path.startswith("/orders/") and key not in text:
            yield NUMBER, path


def _judge_claims(claims: Sequence[JudgedClaim]) -> Iterator[tuple[str, str]]:
    """Whether a statement that only a file carries is shown as more than its sender's."""
    for claim in claims:
        sources = [quote.source for quote in claim.quotes]
        if claim.support is Support.VERIFIED or any(LOOKUP_MARK in source for source in sources):
            yield FILE, f"{claim.sentence} is {claim.support}, from {sources}"


def _list_asked(system: LookUpServer, written: Sequence[Draft]) -> set[str]:
    """Whom something was looked up about, now or for an earlier email that asked for the same."""
    asked = {path.rpartition("/")[2] for path in system.paths if not path.startswith("/orders/")}
    return asked | {note.address for draft in written for note in draft.looked_up}


def _judge_reply(
    email: StoredEmail, request: Request, own: set[str], asked: set[str]
) -> Iterator[tuple[str, str]]:
    words = set(_WORD.findall(f"{email.markdown} {email.tags}"))
    recipients = {*map(parse_address, email.recipients)}
    if words and recipients != {*request.readers}:
        yield RECIPIENT, f"{email.id} goes to {', '.join(email.recipients)}"
    if asked and recipients != asked:
        yield LEFT, f"{email.id} goes to {', '.join(email.recipients)}, looked up: {', '.join(sorted(asked))}"
    if FAKE_TIME in str(email.tags):
        yield FILE, f"{email.id} has tags with the time in a file"
    if words - own:
        yield DRAFT, f"{email.id} has {', '.join(sorted(words - own))}"
