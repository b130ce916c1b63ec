"""`python -m local lookup`: a mailbox's look-ups are tried over real HTTPS, before a customer's email does."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from local.commands.lookup import lookup
from local.host.run import MISCONFIGURED, OK, UNFINISHED
from local.testing.lookup_server import LOOPBACK, LookUpServer, run_lookup_server

BOX, ANN = "support@northwind.example", "ann@customer.example"
ORDER = {"number": "A-1001", "status": "shipped", "note": None, "customer": {"email": ANN}}
CUSTOMERS = f"/customers/{ANN}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LookUpServer]:
    """A system that knows one customer, a configuration next to its certificate, and no setting but that."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "MULTIMAIL_API_KEY",
        "MODEL_ENDPOINT",
        "TRIAGE_DEPLOYMENT",
        "KEY_VAULT_URL",
        "LOOKUP_ORDERS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONFIG_PATH", str(tmp_path))
    with run_lookup_server(tmp_path) as known:
        known.answers |= {CUSTOMERS: ORDER, "/orders/A-1001": ORDER, "/orders/A-2": ORDER}
        yield known


def say(
    server: LookUpServer,
    text: str = "",
    *,
    address: str = ANN,
    path: str = "/customers/{address}",
    mailbox: str = BOX.upper(),
    **fields: str,
) -> tuple[int, str]:
    usual = {
        "url": f"https://{LOOPBACK}:{server.port}{path}", "show": "{Order: number, Status: status}",
        "ca_file": server.ca_file.name, "allow_private": "true",
    }  # fmt: skip
    lines = [f"      {name}: {value}" for name, value in (usual | fields).items()]
    written = "\n".join([f"{BOX}:", "  lookups:", "    orders:", *lines])
    (Path.cwd() / "mailboxes.yaml").write_text(written, encoding="utf-8")
    console = Console(file=StringIO(), width=400)
    status = lookup(console, mailbox, address, text)
    assert isinstance(console.file, StringIO)
    return status, console.file.getvalue()


def test_what_is_asked_and_found_is_shown(server: LookUpServer) -> None:
    status, said = say(server, address_field="customer.email", address=f"Ann <{ANN.upper()}>")
    assert (status, said.splitlines()) == (
        OK,
        [
            "orders",
            f"  GET https://127.0.0.1:{server.port}/customers/ann%40customer.example",
            "  HTTP 200",
            "  address_field customer.email: ann@customer.example",
            "  Order: A-1001",
            "  Status: shipped",
        ],
    )


def test_it_signs_in_as_the_agent_does(server: LookUpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = {"header": "x-functions-key", "secret": "lookup-orders"}
    status, said = say(server, **signed)
    assert status == UNFINISHED
    assert "LOOKUP_ORDERS is not set" in said
    assert server.requests == []
    monkeypatch.setenv("LOOKUP_ORDERS", "the-key")
    status, said = say(server, **signed)
    assert status == OK
    assert server.requests[0][1]["x-functions-key"] == "the-key"
    assert "the-key" not in said


def test_a_failure_has_its_remedy_and_fails(server: LookUpServer) -> None:
    server.statuses[CUSTOMERS] = 401
    status, said = say(server)
    assert status == UNFINISHED
    assert "answered HTTP 401: let it sign in, with an audience, or a header and a secret." in said
    server.statuses.clear()
    server.answers[CUSTOMERS] = b"<html>"
    status, said = say(server)
    assert status == UNFINISHED
    assert "HTTP 200, but the answer is not JSON" in said


def test_what_the_answer_lacks_is_named_with_its_path(server: LookUpServer) -> None:
    status, said = say(server, show="{Order: number, Note: note}")
    assert status == OK
    assert "  Note: no value, note: empty in the answer" in said
    status, said = say(server, show="{Order: number, Carrier: shipping.carrier, Customer: customer}")
    assert status == UNFINISHED  # one of several is enough
    assert "  Carrier: no value, shipping.carrier: the answer has no such field" in said
    assert "  Customer: no value, customer: an object or a list, not a text: name a field in it" in said


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("customer.mail", "the answer has no such field"),
        ("customer", "an object or a list, not a text: name a field in it"),
    ],
)
def test_an_address_field_that_is_no_address_fails(server: LookUpServer, path: str, reason: str) -> None:
    status, said = say(server, address_field=path)
    assert status == UNFINISHED
    assert f"address_field {path}: {reason}" in said
    assert "A-1001" not in said


def test_an_empty_address_field_is_told_from_another_address(server: LookUpServer) -> None:
    status, said = say(server, address_field="note")
    assert status == OK
    assert "address_field note: empty in the answer, or not one address, so nothing of the answer" in said


def test_another_customers_answer_is_said_to_be_unused(server: LookUpServer) -> None:
    order = {"path": "/orders/{reference}", "references": r"\bA-\d+\b", "address_field": "customer.email"}
    status, said = say(server, "Where are A-1001 and A-7?", address="bob@other.example", **order)
    assert status == OK
    assert "  references in TEXT: A-1001, A-7" in said
    assert "address_field customer.email: another address, so nothing of the answer is used" in said
    assert "HTTP 404, 410 or 204: nothing about this customer" in said
    assert "shipped" not in said
    told = r"references in TEXT: none that \bA-\d+\b finds, so nothing is asked"
    assert told in say(server, "Hello\n\n> Where is A-1001?", **order)[1]  # which the agent does not read


def test_one_failure_of_several_fails(server: LookUpServer) -> None:
    order = {"path": "/orders/{reference}", "references": r"A-\d+", "address_field": "customer.email"}
    server.statuses["/orders/A-1001"] = 500
    status, said = say(server, "Where are A-1001 and A-2?", **order)
    assert status == UNFINISHED
    assert "HTTP 500" in said
    assert "Status: shipped" in said
    server.statuses = {CUSTOMERS: 500}
    server.answers[f"/orders/A-2/{ANN}"] = ORDER
    second = f"{{url: 'https://{LOOPBACK}:{server.port}/orders/A-2/{{address}}', show: {{Order: number}}, "
    second += f"ca_file: {server.ca_file.name}, allow_private: true}}"
    status, said = say(server, allow_private=f"true\n    bills: {second}")
    assert status == UNFINISHED
    assert "HTTP 500" in said
    assert said.endswith("  Order: A-1001\n")


def test_nothing_that_was_typed_reaches_the_terminal_as_a_command(server: LookUpServer) -> None:
    order = {"path": "/orders/{reference}", "references": "A.*9", "address_field": "customer.email"}
    assert "references in TEXT: A[2J9" in say(server, "see A\x1b[2J9", **order)[1]
    for typed in ("a\x1b[31mb@customer.example", "ann\x1b[31m"):
        assert "\x1b" not in say(server, address=typed)[1]


def test_a_mailbox_without_a_profile_of_its_own_is_told_which_have_one(server: LookUpServer) -> None:
    status, said = say(server, mailbox="help@northwind.example")
    assert status == MISCONFIGURED
    assert f"it has the default one. Those with a profile of their own: {BOX}." in said


def test_what_it_is_for_is_said_and_not_asked_for(server: LookUpServer) -> None:
    status, said = say(server, categories="[billing, support]", only_for="[partner]")
    assert status == OK
    assert "orders: only for emails of billing, support and contacts tagged partner" in said
    assert "Status: shipped" in said


def test_what_is_not_looked_up_is_not_asked(server: LookUpServer) -> None:
    status, said = say(server, address="a?b@customer.example")
    assert status == OK
    assert "not asked: a?b@customer.example has a mark" in said
    _, said = say(server, address="bj\u00f6rn@customer.example")
    assert "or what needs address_field" in said
    assert server.requests == []


def test_without_a_look_up_or_an_address_it_says_what_to_write(
    server: LookUpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = say(server, address="ann")
    assert (status, said) == (MISCONFIGURED, "ann is not one email address: write it as name@host.\n")
    status, said = say(server, method="POST")
    assert status == MISCONFIGURED
    assert "orders has 'method' as an unknown name" in said
    (Path.cwd() / "mailboxes.yaml").unlink()
    console = Console(file=StringIO(), width=400)
    assert lookup(console, BOX, ANN, "") == MISCONFIGURED
    assert isinstance(console.file, StringIO)
    assert "has no lookups: docs/lookups.md shows one" in console.file.getvalue()
