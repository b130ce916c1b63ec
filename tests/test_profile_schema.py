"""The profiles' JSON Schema: editors accept and refuse what the agent does."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from local.commands.demo_customers import CONFIG
from shared.errors import ConfigurationError
from shared.profiles.fields import FIELDS
from shared.profiles.profile_file import parse_profiles
from shared.settings import DEFAULT_CONFIG_PATH

SCHEMA: dict[str, Any] = json.loads(
    (DEFAULT_CONFIG_PATH / "mailboxes.schema.json").read_text(encoding="utf-8")
)
SAMPLES = Path(__file__).parent / "profiles"
FILES = (DEFAULT_CONFIG_PATH / "mailboxes.yaml", CONFIG / "mailboxes.yaml", SAMPLES / "support_lead.yaml")
HOURS = "business_hours: {time_zone: UTC, days: %s}"
VALID = (
    "",
    "voice: ''",
    "categories: {Rücksendung: x, spare parts: y, a-b_c: z}",
    "escalate_categories: [other]",
    "examples: [{email: a, action: reply}]",
    HOURS % "{mon: 09:00-17:00, sat-sun: ['9:00 – 12:00', 13:00-24:00], tue: []}",
    "business_hours: {time_zone: UTC, days: {mon: 22:00-06:00}, holidays: [2026-12-24, 2026-12-24 to 2027-01-01]}",
    "reply_all: [Partner.example, bücher.example]",
    "contact_forms: [{sender: forms@northwind.example, label: E-Mail}]",
    "addresses: [help@northwind.example]",
    "disclosure: true\n  signature: Northwind",
    "disclosure: false",
    "notify: {first: teams-support}",
    "notify: {first: json-desk, deputy: slack-lead, interval: 30m, nudge_after: 4 h, promise_after: 16h, show_sender: true}",
    "senders: {important: [Customer.example, ann@bücher.example], escalate: [press.example], never_answer: []}",
    "escalate_to: {legal: the lawyers, default: Ines}",
    "observe: true",
    "knowledge: [support, {folder: partners, only_for: [partner]}]",
    "lookups: {orders: {url: 'https://shop.example/{address}', show: {Order: orders.0.number}}}",
    "lookups: {a-b: {url: 'https://s.example/{reference}', references: 'A-\\d+', address_field: email, show: {A: b},"
    " categories: [other], only_for: [vip], audience: 'api://shop', allow_private: true, time_limit: 0.5, cache: 10m, on_failure: wait}}",
    "lookups: {orders: {url: 'https://shop.example/{address}', show: {A: b}, header: x-functions-key, secret: lookup-orders}}",
    "paused: true",
    "min_confidence: 0\n  min_verified: 1\n  daily_token_budget: 100000\n  max_sender_token_share: 0.1\n  max_replies_per_thread: 2\n  min_draft_confidence: 0.5",
    "allowed_hosts: [Track.Carrier.example]\n  hold_back_sender_values: true\n  edit_needs_second_reviewer: true\n  images: true\n  min_draft_confidence: 0.4",
)
INVALID = (
    "notify: teams-support",
    "notify: {deputy: teams-support}",
    "notify: {first: https://example.com/secret}",
    "notify: {first: mail-support}",
    "notify: {first: teams-Support}",
    "notify: {first: teams-support, interval: 0h}",
    "notify: {first: teams-support, nudge_after: 4}",
    "notify: {first: teams-support, nudge_after: 4 days}",
    "senders: [customer.example]",
    "senders: {vip: [customer.example]}",
    "senders: {important: [a b]}",
    "senders: {important: customer.example}",
    "escalate_to: {legal: [the lawyers]}",
    "observe: sometimes",
    "knowledge: [{folder: ../x}]",
    "knowledge: [{only_for: [partner]}]",
    "lookups: [orders]",
    "lookups: {Orders: {url: 'https://shop.example/{address}', show: {A: b}}}",
    "lookups: {orders: {url: 'https://shop.example/{address}'}}",
    "lookups: {orders: {url: 'https://shop.example/{address}', show: {A: 'b..c'}}}",
    "lookups: {orders: {url: 'https://shop.example/{address}', show: {A: b}, method: POST}}",
    "lookups: {orders: {url: 'https://shop.example/{address}', show: {A: b}, header: x, secret: multimail-api-key}}",
    "lookups: {orders: {url: 'https://shop.example/{address}', show: {A: b}, time_limit: 60}}",
    "lookups: {orders: {url: 'https://shop.example/{address}', show: {A: b}, on_failure: retry}}",
    "paused: sometimes",
    "disclosure: 'yes'",
    "disclosure: [true]",
    "voise: x",
    "voice: 1",
    "voice: [a]",
    "answer: everything",
    "answer: ['']",
    "answer: [{a: b}]",
    "language: " + "x" * 201,
    "categories: [a]",
    "categories: {a/b: x}",
    "categories: {a: 1}",
    "categories: {" + ", ".join(f"a{n}: x" for n in range(21)) + "}",
    "escalate_categories: [a/b]",
    "examples: [a]",
    "examples: [{email: a}]",
    "examples: [{email: a, action: answer}]",
    "examples: [{email: a, action: reply, reason: b}]",
    "knowledge: [../x]",
    "addresses: [nowhere]",
    "not_addressed: reply",
    "reply_all: [a@b.example]",
    "contact_forms: [{sender: a@b.example}]",
    "max_replies_per_thread: 0",
    "max_replies_per_thread: 2.5",
    "min_confidence: 1.1",
    "min_verified: -1",
    "allowed_hosts: [a@b.example]",
    "hold_back_sender_values: sometimes",
    HOURS % "mon-fri",
    HOURS % "{mon-fry: 09:00-17:00}",
    HOURS % "{mon: 9 to 5}",
    HOURS % "{mon: 09:00-25:00}",
    "business_hours: {time_zone: UTC}",
    "business_hours: {time_zone: UTC, days: {mon: 09:00-17:00}, holidays: [Christmas]}",
)


def find_mistakes(written: str) -> list[str]:
    """What an editor marks; editors read a date as a text."""
    value = json.loads(json.dumps(yaml.safe_load(written), default=str))
    return [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(value)]


def test_the_schema_is_one_and_describes_every_field() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    fields = SCHEMA["definitions"]["profile"]["properties"]
    assert list(fields) == list(FIELDS)
    assert [name for name, schema in fields.items() if not schema["description"].endswith(".")] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_a_shipped_file_names_the_schema_and_fits_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    target = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / target).resolve() == DEFAULT_CONFIG_PATH.resolve() / "mailboxes.schema.json"
    assert find_mistakes(text) == []
    assert yaml.safe_load(text) or path.parent == DEFAULT_CONFIG_PATH


def test_the_shipped_example_fits_the_schema_without_its_comment_signs() -> None:
    shipped = (DEFAULT_CONFIG_PATH / "mailboxes.yaml").read_text(encoding="utf-8")
    example = "\n".join(re.findall(r"^# ((?:default|\S+):$|  .*)$", shipped, re.MULTILINE))
    assert set(yaml.safe_load(example)) == {"default", "support@northwind.example", "01J9Z0SALES"}
    assert find_mistakes(example) == []


@pytest.mark.parametrize("line", VALID)
def test_what_the_agent_accepts_an_editor_accepts(line: str) -> None:
    written = f"default:\n  {line}\n"
    parse_profiles(written, "mailboxes.yaml")
    assert find_mistakes(written) == []


@pytest.mark.parametrize("line", INVALID)
def test_what_an_editor_marks_the_agent_refuses(line: str) -> None:
    written = f"default:\n  {line}\n"
    with pytest.raises(ConfigurationError):
        parse_profiles(written, "mailboxes.yaml")
    assert find_mistakes(written) != []


def test_every_field_is_among_the_samples() -> None:
    text = "\n".join((*VALID, *INVALID, (SAMPLES / "support_lead.yaml").read_text(encoding="utf-8")))
    assert [name for name in FIELDS if f"{name}:" not in text] == []
