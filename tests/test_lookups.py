"""Look-ups over real HTTPS: to which addresses they connect, what they take, and what is kept of it."""

import json
import logging
import select
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import get_current_span

from local.testing.lookup_server import HOST, LookUpServer, run_lookup_server
from local.testing.world import Clock, InlineExecutor
from shared.errors import ConfigurationError, DeferredError, ThrottledError, UnavailableError
from shared.knowledge.lookup import CONTINUE, WAIT, Answer, Facts, LookUp
from shared.knowledge.lookup_http import MAX_ANSWER_BYTES, LookUpReader
from shared.knowledge.lookups import MAX_KEPT, LookUps
from shared.knowledge.references import MAX_TEXT_CHARACTERS, check_pattern, find_references
from shared.services.health import ServiceHealth
from shared.services.judged_https import cut_off, find_forbidden
from shared.services.secrets import StaticSecret
from shared.settings import Secret
from shared.telemetry import span
from tests.exported_telemetry import set_providers

ANN, BOB = "ann@customer.example", "bob@other.example"
ORDER = {
    "number": "A-1001",
    "status": "shipped",
    "price": 12.50,
    "customer": {"email": "Ann@Customer.example"},
}
SHOW = (("Order", "number"), ("Status", "status"), ("Price", "price"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LookUpServer]:
    with run_lookup_server(tmp_path) as known:
        known.answers[f"/customers/{ANN}"] = ORDER
        known.answers["/orders/A-1001"] = ORDER
        yield known


class Names:
    """A resolver that gives one answer after the other, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers, self.asked = list(answers) or [["127.0.0.1"]], list[str]()

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def build(server: LookUpServer, **changes: Any) -> LookUp:
    usual = LookUp(
        url=f"{server.url}/customers/{{address}}", show=SHOW, name="orders",
        ca_file=str(server.ca_file), allow_private=True, time_limit=5.0,
    )  # fmt: skip
    return replace(usual, **changes)


def build_by_reference(server: LookUpServer, **changes: Any) -> LookUp:
    url = f"{server.url}/orders/{{reference}}"
    usual = {"url": url, "references": r"\bA-\d+\b", "address_field": "customer.email"}
    return build(server, **usual | changes)


def build_reader(names: Names | None = None, **secrets: str) -> LookUpReader:
    return LookUpReader(
        Path(), lambda name: StaticSecret(Secret(secrets[name.replace("-", "_")])),
        lambda audience: f"token for {audience}", resolve=names or Names(),
    )  # fmt: skip


def read(look_up: LookUp, names: Names | None = None, address: str = ANN) -> Any:
    content = build_reader(names).read(look_up, look_up.build_url(address))
    return None if content is None else json.loads(content)


# ---- What is connected to


def test_the_judged_address_is_asked_under_the_name(server: LookUpServer) -> None:
    assert read(build(server)) == ORDER
    path, headers = server.requests[0]
    assert path == f"/customers/{ANN}"
    assert headers["Host"] == f"{HOST}:{server.port}"
    assert headers["Accept-Encoding"] == "identity"
    assert server.server_names == [HOST]


def test_a_name_that_leads_elsewhere_the_second_time_is_asked_once(server: LookUpServer) -> None:
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    assert read(build(server), names) == ORDER
    assert names.asked == [HOST]


def test_a_certificate_for_another_name_is_refused(server: LookUpServer) -> None:
    look_up = build(server, url=f"https://other.example:{server.port}/customers/{{address}}")
    with pytest.raises(
        UnavailableError, match=r"TLS failed with other\.example:\d+: .* another name: correct"
    ):
        read(look_up)
    assert server.requests == []


def test_a_certificate_of_an_unknown_authority_is_refused(server: LookUpServer) -> None:
    with pytest.raises(
        UnavailableError, match="issuer certificate: set its ca_file to the authority"
    ) as failed:
        read(build(server, ca_file=""))
    assert "HTTPS_PROXY" not in str(failed.value)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(10, "have it renewed"), (62, "another name: correct"), (64, "another name: correct")],
)
def test_a_certificate_that_is_refused_has_its_remedy(code: int, remedy: str) -> None:
    """OpenSSL's codes: its time is over, it is of another host name, of another address."""

    def refuse(_host: str, _port: int) -> Sequence[str]:
        refused = ssl.SSLCertVerificationError("certificate verify failed")
        refused.verify_code, refused.verify_message = code, "certificate is not right"
        raise refused

    look_up = LookUp("https://orders.example/{address}", SHOW, name="orders")
    reader = LookUpReader(Path(), lambda name: StaticSecret(Secret(name)), str, resolve=refuse)
    with pytest.raises(UnavailableError, match=rf"TLS failed with orders\.example: .*{remedy}") as failed:
        reader.read(look_up, look_up.build_url(ANN))
    assert "ca_file" not in str(failed.value)


def test_what_is_no_certificate_is_named(server: LookUpServer, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(UnavailableError, match="ca_file, which must have a certificate"):
        read(build(server, ca_file=str(empty)))


def test_a_port_that_nothing_listens_at_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    look_up = LookUp(f"https://orders.example:{port}/{{address}}", SHOW, name="orders", allow_private=True)
    with pytest.raises(
        UnavailableError, match=rf"orders\.example:{port} refuses connections: start it, or correct"
    ):
        read(look_up)


def test_a_host_that_no_name_server_knows_is_named() -> None:
    def find_nothing(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    look_up = LookUp("https://orders.example/{address}", SHOW, name="orders")
    reader = LookUpReader(Path(), lambda name: StaticSecret(Secret(name)), str, resolve=find_nothing)
    with pytest.raises(UnavailableError, match=r"the host name orders\.example is unknown: correct its url"):
        reader.read(look_up, look_up.build_url(ANN))


def test_a_private_address_is_asked_only_if_it_may_be(server: LookUpServer) -> None:
    with pytest.raises(
        ConfigurationError, match=r"orders.*127\.0\.0\.1, which is private.*allow_private: true"
    ):
        read(build(server, allow_private=False))
    assert server.requests == []


def test_an_ipv6_address_is_judged_as_any_other() -> None:
    look_up = LookUp("https://[::1]:8443/{address}", SHOW, name="orders")
    with pytest.raises(ConfigurationError, match=r"::1, which is private"):
        build_reader(Names(["::1"])).read(look_up, look_up.build_url(ANN))


def test_one_forbidden_address_forbids_the_host(server: LookUpServer) -> None:
    with pytest.raises(ConfigurationError, match=r"169\.254\.169\.254"):
        read(build(server), Names(["127.0.0.1", "169.254.169.254"]))


PRIVATE = (
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "192.0.2.1", "::1", "::", "fc00::1", "fd12:3456::1", "fe80::1", "fec0::1", "ff02::1",
    "2001:db8::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "2002:7f00:1::", "2002:808:808::",
    "64:ff9b::10.0.0.1", "64:ff9b::8.8.8.8", "2001:0:53aa:64c:0:0:7f00:1",
)  # fmt: skip
METADATA = (
    "169.254.169.254", "169.254.170.2", "168.63.129.16", "fd00:ec2::254", "::ffff:169.254.169.254",
    "::ffff:168.63.129.16", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "::169.254.169.254", "fe80::a9fe:a9fe%eth0",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_and_what_wraps_others_are_forbidden(address: str) -> None:
    assert find_forbidden(address, allow_private=False)


@pytest.mark.parametrize("address", METADATA)
def test_metadata_addresses_are_forbidden_whatever_is_allowed(address: str) -> None:
    assert find_forbidden(address, allow_private=False)
    assert find_forbidden(address, allow_private=True)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert not find_forbidden(address, allow_private=False)


@pytest.mark.parametrize("address", ["10.1.2.3", "fd12:3456::1", "127.0.0.1"])
def test_private_addresses_may_be_allowed(address: str) -> None:
    assert not find_forbidden(address, allow_private=True)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "127.1",
        "0177.0.0.1",
        "1.2.3.4.",
        "169.254.43518",
        "[::1%25lo]",
        "host.0x7f",
    ],
)
def test_numbers_that_only_some_resolvers_read_are_no_hosts(host: str) -> None:
    with pytest.raises(ValueError, match=r"the host|cannot be read"):
        LookUp(f"https://{host}/{{address}}", SHOW)


def test_behind_a_proxy_only_the_name_is_judged(
    server: LookUpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    names = Names()
    with pytest.raises(UnavailableError, match="HTTPS_PROXY"):
        read(build(server, allow_private=False), names)
    assert names.asked == []
    look_up = build(server, url="https://10.0.0.1/{address}", allow_private=False)
    with pytest.raises(ConfigurationError, match=r"10\.0\.0\.1, which is private"):
        read(look_up, names)


# ---- What is taken


def test_redirects_are_not_followed(server: LookUpServer) -> None:
    server.statuses[f"/customers/{ANN}"] = 302
    server.headers["Location"] = f"{server.url}/orders/A-1001"
    with pytest.raises(DeferredError, match="redirects are not followed"):
        read(build(server))
    assert server.paths == [f"/customers/{ANN}"]


def test_a_big_answer_is_not_taken(server: LookUpServer) -> None:
    server.answers[f"/customers/{ANN}"] = {"number": "x" * MAX_ANSWER_BYTES}
    with pytest.raises(DeferredError, match="more than 256 KiB"):
        read(build(server))


def test_an_answer_that_drips_is_cut_off_at_the_time_limit(server: LookUpServer) -> None:
    server.is_slow = True
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match=r"took longer than time_limit, 0\.5 seconds"):
        read(build(server, time_limit=0.5))
    assert time.monotonic() - begun < 5


def test_a_connection_that_is_made_after_the_time_limit_ends_at_once() -> None:
    """As after a name server, or a handshake, that took all the time."""
    ours, theirs = socket.socketpair()
    with ours, theirs, cut_off(0.0) as (take, is_cut):
        while not is_cut():
            pass
        theirs.settimeout(5)
        take(ours)
        assert theirs.recv(1) == b""


class _Relay(socketserver.BaseRequestHandler):
    """A proxy that leads every CONNECT to `target`."""

    target = 0

    def handle(self) -> None:
        while b"\r\n\r\n" not in self.request.recv(65536):
            pass
        with socket.create_connection(("127.0.0.1", self.target)) as server:
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            ends = {server: self.request, self.request: server}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)


def test_an_answer_that_drips_through_a_proxy_is_cut_off(
    server: LookUpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.is_slow = True
    given_up = threading.Timer(10, server.release.set)
    given_up.start()
    handler = type("_To", (_Relay,), {"target": server.port})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as relay:
        threading.Thread(target=relay.serve_forever, args=(0.02,)).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{relay.server_address[1]}")
        begun = time.monotonic()
        with pytest.raises(UnavailableError):
            read(build(server, time_limit=0.5))
        took = time.monotonic() - begun
        relay.shutdown()
    given_up.cancel()
    assert took < 5
    assert server.requests != []


@pytest.mark.parametrize("status", [204, 404, 410])
def test_what_is_not_there_is_nothing(server: LookUpServer, status: int) -> None:
    server.statuses[f"/customers/{ANN}"] = status
    assert read(build(server)) is None


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [
        (401, ConfigurationError, "let it sign in"),
        (403, DeferredError, "let it sign in"),
        (429, ThrottledError, "ask less with cache"),
        (500, UnavailableError, "that system's own log"),
        (400, DeferredError, "check its url"),
    ],
)
def test_failures_say_what_came_back_without_the_address(
    server: LookUpServer, status: int, kind: type[Exception], remedy: str
) -> None:
    server.statuses[f"/customers/{ANN}"] = status
    with pytest.raises(kind, match=f"look-up orders .*HTTP {status}") as failed:
        read(build(server))
    assert "ann" not in str(failed.value)
    assert remedy in str(failed.value)


def test_no_failure_shows_the_url(server: LookUpServer) -> None:
    look_up = build(server, url="https://orders.northwind.example:1/customers/{address}")
    with pytest.raises(UnavailableError) as failed:
        read(look_up)
    assert "ann" not in f"{failed.value!r}{failed.value.__cause__!r}"


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"header": "x-functions-key", "secret": "lookup-orders"}, "x-functions-key", "the-key"),
        ({"header": "Authorization", "secret": "lookup-orders"}, "Authorization", "Bearer the-key"),
        ({"audience": "api://orders"}, "Authorization", "Bearer token for api://orders"),
    ],
)
def test_a_look_up_signs_in(server: LookUpServer, changes: dict[str, str], name: str, value: str) -> None:
    look_up = build(server, **changes)
    build_reader(lookup_orders="the-key").read(look_up, look_up.build_url(ANN))
    assert server.requests[0][1][name] == value


class Renewed:
    """A vault whose secret was renewed since it was read; it takes note of each time that it is read again."""

    def __init__(self) -> None:
        self.known, self.refreshed = "old", 0

    def get(self) -> Secret:
        return Secret(self.known)

    def refresh(self, stale: Secret) -> Secret:
        assert stale.value == self.known
        self.known, self.refreshed = "new", self.refreshed + 1
        return self.get()


@pytest.mark.parametrize("status", [401, 403])
def test_a_secret_that_is_refused_is_read_again_at_most_once_a_minute(
    server: LookUpServer, status: int
) -> None:
    """The sender may choose what is refused."""
    source, now = Renewed(), 0.0
    reader = LookUpReader(Path(), lambda _name: source, str, resolve=Names(), monotonic=lambda: now)
    look_up = build(server, header="x-key", secret="lookup-orders")
    server.statuses[f"/customers/{ANN}"] = status
    for second in range(0, 120, 20):
        now = float(second)
        with pytest.raises((ConfigurationError, DeferredError), match="check its header and secret"):
            reader.read(look_up, look_up.build_url(ANN))
    assert source.refreshed == 2
    assert [headers["x-key"] for _, headers in server.requests] == ["old"] + ["new"] * 5


def test_a_vault_that_fails_now_does_not_hide_what_was_answered(server: LookUpServer) -> None:
    class Gone(Renewed):
        def refresh(self, stale: Secret) -> Secret:
            raise ConfigurationError(f"The secret is gone, no longer {len(stale.value)} characters.")

    reader = LookUpReader(Path(), lambda _name: Gone(), str, resolve=Names())
    look_up = build(server, header="x-key", secret="lookup-orders")
    server.statuses[f"/customers/{ANN}"] = 403
    with pytest.raises(DeferredError, match="HTTP 403"):
        reader.read(look_up, look_up.build_url(ANN))


@pytest.mark.parametrize("key", ["key\u2013x", "key\nx", "a key"])
def test_a_secret_that_no_header_takes_is_named(server: LookUpServer, key: str) -> None:
    look_up = build(server, header="x-key", secret="lookup-orders")
    with pytest.raises(ConfigurationError, match=r"its secret lookup-orders .*outside ASCII") as failed:
        build_reader(lookup_orders=key).read(look_up, look_up.build_url(ANN))
    assert key not in str(failed.value)
    assert server.requests == []


@pytest.mark.parametrize("down", ["vault", "identity"])
def test_signing_in_is_watched_with_the_look_up(server: LookUpServer, down: str) -> None:
    def fail(_name: str) -> Any:
        raise UnavailableError("Nobody answers.")

    reader = LookUpReader(Path(), fail, fail, watch=ServiceHealth(Clock()).watch, resolve=Names())
    signed = (
        {"header": "x-key", "secret": "lookup-orders"} if down == "vault" else {"audience": "api://orders"}
    )
    look_up = build(server, **signed)
    with pytest.raises(UnavailableError) as failed:
        reader.read(look_up, look_up.build_url(ANN))
    assert failed.value.operation == f"the look-up orders at {HOST}:{server.port}"


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:9", "http://[bad", "socks5://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_named(
    server: LookUpServer, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UnavailableError, match="Correct HTTPS_PROXY"):
        read(build(server))


def test_an_audience_is_named_without_the_scope_that_it_is_asked_for() -> None:
    with pytest.raises(ValueError, match="write it without"):
        LookUp("https://orders.example/{address}", SHOW, audience="api://orders/.default")


# ---- The key of a look-up


def test_the_address_is_percent_encoded() -> None:
    look_up = LookUp("https://orders.example/v1/{address}/latest?mail={address}", SHOW)
    assert look_up.build_url("ann+x=1@customer.example") == (
        "https://orders.example/v1/ann%2Bx%3D1%40customer.example/latest?mail=ann%2Bx%3D1%40customer.example"
    )


@pytest.mark.parametrize(
    "address",
    [
        "a/../b@evil.example",
        "a%2fb@evil.example",
        "a?b@evil.example",
        "a#b@evil.example",
        "..b@x.example",
        "",
    ],
)
def test_an_address_that_could_lead_elsewhere_is_not_looked_up(address: str) -> None:
    assert LookUp("https://orders.example/{address}", SHOW).build_url(address) == ""


@pytest.mark.parametrize("address", ["\u00e4nn@customer.example", "mar\u212a@customer.example"])
def test_an_address_that_a_database_takes_for_another_needs_the_answer_to_name_it(address: str) -> None:
    url = "https://orders.example/{address}"
    assert LookUp(url, SHOW).build_url(address) == ""
    judged = LookUp(url, SHOW, address_field="email")
    assert judged.build_url(address) != ""
    other = f'{{"email": "{ANN}", "number": "A-1"}}'.encode()
    assert judged.read_facts(other, address) == Answer(is_about_customer=False)


QUOTED = "https://orders.example/customers?$filter=email%20eq%20{quote}{address}{quote}"


@pytest.mark.parametrize(
    ("address", "quote"),
    [
        ("x'or'1'eq'1@evil.example", "'"),
        ("x'or'1'eq'1@evil.example", "%27"),
        ("o'brien@customer.example", "'"),
        ("ann||x@evil.example", ""),
        ("*@evil.example", ""),
        ("-x@evil.example", ""),
        ("ann&&x@evil.example", ""),
    ],
)
def test_an_address_that_is_a_query_needs_the_answer_to_name_it(address: str, quote: str) -> None:
    url = QUOTED.replace("{quote}", quote)
    assert LookUp(url, SHOW).build_url(address) == ""
    assert LookUp(url, SHOW, address_field="value.0.email").build_url(address) != ""


def test_an_apostrophe_may_stand_where_the_url_has_no_quotes() -> None:
    url = "https://orders.example/{address}"
    assert LookUp(url, SHOW).build_url("o'brien@customer.example").endswith("/o%27brien%40customer.example")


@pytest.mark.parametrize("reference", ["", ".", "..", "A/1", "A 1", "x" * 65])
def test_a_reference_that_could_lead_elsewhere_is_not_looked_up(reference: str) -> None:
    look_up = LookUp("https://orders.example/{reference}", SHOW, references="x", address_field="email")
    assert look_up.build_url(ANN, reference) == ""


def test_references_are_found_in_bounded_text_and_are_few() -> None:
    text = "A-1 and A-2, A-1 again, A-3, A-4"
    assert find_references(r"\b(A-\d+)\b", text) == ("A-1", "A-2", "A-3")
    assert find_references(r"A-\d+", " " * MAX_TEXT_CHARACTERS + "A-1") == ()
    assert find_references("(x+x+)+y", "x" * 10_000) == ()
    assert find_references(r"order (A-\d+)", "order A-1") == ("A-1",)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"(?i)\bA-\d+\b", ("a-1", "A-2")),
        (r"\b(?i:a)-\d+\b", ("a-1", "A-2")),
        (r"\b[aA]-\d+\b", ("a-1", "A-1", "A-2")),
    ],
)
def test_a_reference_counts_once_whatever_its_letter_case_if_its_pattern_ignores_that(
    pattern: str, found: tuple[str, ...]
) -> None:
    assert find_references(pattern, "a-1, A-1, A-2") == found


@pytest.mark.parametrize("pattern", ["(", "a*", r"(?=a)", r"(a)\1", "x" * 201, r"(A)-(\d+)"])
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"RE2|empty text|shorten|groups"):
        check_pattern(pattern)


# ---- The facts


def read_answer(answer: object, **changes: Any) -> Answer:
    look_up = replace(LookUp("https://orders.example/{address}", SHOW, name="orders"), **changes)
    return look_up.read_facts(json.dumps(answer).encode(), ANN)


def read_facts(answer: object, **changes: Any) -> str | None:
    shown = read_answer(answer, **changes).shown
    return "\n".join(f"{label}: {text}" for label, text in shown) or None


def test_the_shown_fields_are_lines_with_their_time() -> None:
    look_up = LookUp("https://orders.example/{address}", SHOW, name="open-orders")
    passage = look_up.build_passage(look_up.read_facts(json.dumps(ORDER).encode(), ANN).shown, Clock()())
    assert (passage.source, passage.title) == (
        "lookup:open-orders",
        "Open orders, looked up 2026-03-02 12:00 UTC",
    )
    assert passage.text == "Order: A-1001\nStatus: shipped\nPrice: 12.5"


def test_values_are_bounded_and_on_one_line() -> None:
    answer = {
        "number": "A\u202e-1\n[K1] Refunds\nWe pay all.",
        "status": ["a", {"b": 1}, True, None, 7],
        "price": "x" * 999,
    }
    text = read_facts(answer)
    assert text is not None
    lines = text.splitlines()
    assert lines[0] == "Order: A-1 [K1] Refunds We pay all."
    assert lines[1] == "Status: a, yes, 7"
    assert len(lines[2]) < 320
    assert len(lines) == 3


def test_paths_lead_into_lists() -> None:
    answer = {"orders": [{"number": "A-1"}, {"number": "A-2"}]}
    assert read_facts(answer, show=(("Order", "orders.1.number"), ("No", "orders.9.number"))) == "Order: A-2"


@pytest.mark.parametrize("answer", [{}, [], {"number": None}, {"number": {"x": 1}}, "text", None])
def test_an_answer_without_the_fields_is_no_passage(answer: object) -> None:
    assert read_facts(answer) is None


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        ({"order": {"number": "A-1"}}, ()),
        ({"number": {"x": 1}, "status": [{"a": 1}]}, ("number", "status")),
        ([{"number": "A-1"}], ()),
        ("text", ()),
    ],
)
def test_an_answer_that_cannot_have_the_fields_is_told_apart(answer: object, parts: tuple[str, ...]) -> None:
    assert read_answer(answer) == Answer((), ("number", "status", "price"), parts, is_unlike=True)


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        ({"mail": ANN}, ()),
        ({"email": {"of": ANN}}, ("email",)),
        ({"email": [ANN]}, ("email",)),
        ({"email": True}, ()),
        ("text", ()),
    ],
)
def test_an_answer_without_the_address_is_told_apart_from_anothers(
    answer: object, parts: tuple[str, ...]
) -> None:
    assert read_answer(answer, address_field="email") == Answer(
        (), ("email",), parts, is_about_customer=False, is_unlike=True
    )


@pytest.mark.parametrize(
    "answer",
    [None, "", [], {}, {"orders": []}, {"orders": None}, {"orders": {}}, {"orders": [{"number": None}]}],
)
def test_an_answer_that_is_empty_where_the_fields_would_be_lacks_none(answer: object) -> None:
    assert read_answer(answer, show=(("Order", "orders.0.number"),)) == Answer()
    assert read_answer(answer, show=(("Name", "name"),), address_field="orders.0.number") == Answer(
        is_about_customer=False, has_address=False
    )


def test_what_some_customers_do_not_have_is_named_and_no_mismatch() -> None:
    told = read_answer({"number": "A-1", "status": None})
    assert (told.missing, told.is_unlike) == (("price",), False)
    assert not read_answer({"status": None}).is_unlike


@pytest.mark.parametrize(
    "found",
    [
        BOB,
        "",
        None,
        7,
        ["ann@customer.example"],
        "ann+x@customer.example",
        "ann@customer.example, bob@other.example",
    ],
)
def test_an_answer_about_another_address_is_no_passage(found: object) -> None:
    answer = {"number": "A-1", "email": found}
    assert read_facts(answer, address_field="email") is None


@pytest.mark.parametrize("found", [ANN, " ANN@customer.EXAMPLE "])
def test_the_address_in_an_answer_is_compared_as_the_senders_is(found: str) -> None:
    assert read_facts({"number": "A-1", "email": found}, address_field="email") == "Order: A-1"


def test_both_spellings_of_an_international_host_are_one_address() -> None:
    look_up = LookUp("https://orders.example/{address}", SHOW, name="orders", address_field="email")
    content = json.dumps({"number": "A-1", "email": "ann@bücher.example"}).encode()
    assert look_up.read_facts(content, "ann@xn--bcher-kva.example").shown


# ---- Running and keeping


def build_lookups(clock: Clock | None = None) -> LookUps:
    clock = clock or Clock()
    return LookUps(build_reader().read, InlineExecutor(), clock, ServiceHealth(clock))


def find_facts(
    lookups: LookUps, look_ups: LookUp | Sequence[LookUp], address: str = ANN, text: str = "", **options: Any
) -> Facts:
    wanted = [look_ups] if isinstance(look_ups, LookUp) else look_ups
    return lookups.start(wanted, address, text, **{"email_id": "em_1", **options})()


def test_an_answer_is_kept_as_long_as_its_look_up_says(server: LookUpServer) -> None:
    clock = Clock()
    lookups, look_up = build_lookups(clock), build(server, cache=timedelta(minutes=5))
    first = find_facts(lookups, look_up)
    clock.advance(minutes=4)
    assert find_facts(lookups, look_up) == first
    assert len(server.requests) == 1
    clock.advance(minutes=1)
    again = find_facts(lookups, look_up)
    assert len(server.requests) == 2
    assert again.looked_up[0].at == clock()


def test_what_is_not_used_any_more_is_dropped_with_the_next_look_up(server: LookUpServer) -> None:
    clock = Clock()
    lookups, look_up = build_lookups(clock), build(server, cache=timedelta(minutes=5))
    find_facts(lookups, look_up)
    clock.advance(minutes=5)
    find_facts(lookups, look_up, BOB)
    assert [address for _, _, address in lookups._kept] == [BOB]


def test_without_a_time_nothing_is_kept(server: LookUpServer) -> None:
    lookups = build_lookups()
    for _ in range(2):
        find_facts(lookups, build(server))
    assert len(server.requests) == 2


def test_a_redraft_looks_up_again(server: LookUpServer) -> None:
    lookups, look_up = build_lookups(), build(server, cache=timedelta(minutes=5))
    find_facts(lookups, look_up)
    server.answers[f"/customers/{ANN}"] = {"number": "A-1001", "status": "delivered"}
    facts = find_facts(lookups, look_up, is_fresh=True)
    assert "delivered" in facts.passages[0].text
    assert find_facts(lookups, look_up) == facts


def test_what_is_kept_for_one_customer_is_not_for_another(server: LookUpServer) -> None:
    look_up = build_by_reference(server, cache=timedelta(minutes=5))
    lookups = build_lookups()
    assert find_facts(lookups, look_up, ANN, "Where is A-1001?").passages
    assert find_facts(lookups, look_up, BOB, "Where is A-1001?").passages == ()
    assert find_facts(lookups, look_up, BOB, "Where is A-1001?").looked_up == ()


def test_a_reference_of_the_senders_own_is_looked_up(server: LookUpServer) -> None:
    look_up = build_by_reference(server)
    facts = find_facts(build_lookups(), look_up, ANN, "A-1001, A-9")
    assert [passage.text for passage in facts.passages] == ["Order: A-1001\nStatus: shipped\nPrice: 12.5"]
    assert server.paths == ["/orders/A-1001", "/orders/A-9"]


def test_what_is_known_of_a_reference_names_it_where_the_shown_fields_do_not(server: LookUpServer) -> None:
    """Otherwise the facts of two are told apart by their order alone."""
    look_up = build_by_reference(server, show=(("Status", "status"),))
    server.answers["/orders/A-1002"] = ORDER | {"status": "lost"}
    facts = find_facts(build_lookups(), look_up, ANN, "A-1002, A-1001")
    assert [(passage.title.partition(",")[0], passage.text) for passage in facts.passages] == [
        ("Orders of the first reference", "Reference: A-1002\nStatus: lost"),
        ("Orders of the second reference", "Reference: A-1001\nStatus: shipped"),
    ]


def test_the_reference_without_an_answer_is_named_by_its_place(server: LookUpServer) -> None:
    look_up = build_by_reference(server)
    server.statuses["/orders/A-9"] = 503
    facts = find_facts(build_lookups(), look_up, ANN, "A-1001, A-9")
    assert len(facts.passages) == 1
    assert facts.gaps == ("the look-up orders gave no answer for the second reference",)


@pytest.mark.parametrize(
    ("status", "answer", "result"),
    [
        (200, ORDER, "facts"),
        (200, {"number": None}, "nothing"),
        (404, {}, "nothing"),
        (200, ORDER | {"customer": {"email": BOB}}, "other_customer"),
        (200, {"order": 1}, "mismatched"),
        (401, {}, "refused"),
        (403, {}, "refused"),
        (200, b"{", "refused"),
        (503, {}, "no_answer"),
    ],
)
def test_what_a_look_up_gave_is_counted(
    server: LookUpServer, caplog: pytest.LogCaptureFixture, status: int, answer: Any, result: str
) -> None:
    caplog.set_level(logging.INFO, "agent.events")
    has_address = isinstance(answer, dict) and "customer" in answer
    server.answers[f"/customers/{ANN}"], server.statuses[f"/customers/{ANN}"] = answer, status
    find_facts(build_lookups(), build(server, address_field="customer.email" if has_address else ""))
    assert f"lookup.finished lookup=orders result={result}" in caplog.messages


def test_of_several_references_the_oldest_answer_is_noted(server: LookUpServer) -> None:
    clock = Clock()
    look_up = build_by_reference(server, cache=timedelta(minutes=5))
    server.answers["/orders/A-1002"] = ORDER
    lookups, begun = build_lookups(clock), clock()
    find_facts(lookups, look_up, ANN, "A-1002")
    clock.advance(minutes=1)
    (note,) = find_facts(lookups, look_up, ANN, "A-1001, A-1002").looked_up
    assert note.at == begun


def test_the_memory_is_bounded() -> None:
    look_up = LookUp("https://orders.example/{address}", SHOW, name="orders", cache=timedelta(hours=1))
    lookups = LookUps(
        lambda _look_up, _url: b'{"number": "A-1"}', InlineExecutor(), Clock(), ServiceHealth(Clock())
    )
    for number in range(MAX_KEPT + 1):
        find_facts(lookups, look_up, f"c{number}@customer.example")
    assert len(lookups._kept) == MAX_KEPT
    assert lookups._kept.popitem(last=False)[0][2] == "c1@customer.example"


def test_a_failure_is_gone_on_without_or_waited_for(
    server: LookUpServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.statuses[f"/customers/{ANN}"] = 503
    facts = find_facts(build_lookups(), build(server))
    assert (facts.passages, facts.looked_up, facts.gaps) == ((), (), ("the look-up orders gave no answer",))
    assert "look-up orders" in caplog.text
    assert "ann@" not in caplog.text
    with pytest.raises(UnavailableError):
        find_facts(build_lookups(), build(server, on_failure=WAIT))


@pytest.mark.parametrize("may_wait", [True, False])
@pytest.mark.parametrize("status", [503, 401])
def test_an_outage_that_no_email_waits_for_is_told_once(
    server: LookUpServer, caplog: pytest.LogCaptureFixture, status: int, *, may_wait: bool
) -> None:
    """So is a setting that cannot work."""
    caplog.set_level(logging.INFO, "agent.events")
    clock = Clock()
    health = ServiceHealth(clock)
    reader = LookUpReader(
        Path(), lambda name: StaticSecret(Secret(name)), str, watch=health.watch, resolve=Names()
    )
    lookups = LookUps(reader.read, InlineExecutor(), clock, health)
    look_up = build(server, on_failure=CONTINUE if may_wait else WAIT)
    server.statuses[f"/customers/{ANN}"] = status
    for number in range(3):
        find_facts(lookups, look_up, email_id=f"em_{number}", may_wait=may_wait)
    clock.advance(minutes=5)
    del server.statuses[f"/customers/{ANN}"]
    find_facts(lookups, look_up)
    told = [record.getMessage() for record in caplog.records if record.name == "agent.events"]
    assert [event for event in told if not event.startswith("lookup.finished")] == [
        f"service.unavailable operation='the look-up orders at {HOST}:{server.port}'",
        f"service.available operation='the look-up orders at {HOST}:{server.port}' seconds=300.0",
    ]


def test_a_secret_that_is_missing_is_told(server: LookUpServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent.events")

    def find_nothing(_look_up: LookUp, _url: str) -> bytes:
        raise ConfigurationError("Set LOOKUP_ORDERS.")

    lookups = LookUps(find_nothing, InlineExecutor(), Clock(), ServiceHealth(Clock()))
    find_facts(lookups, build(server))
    assert "service.unavailable operation='the look-up orders at " in caplog.text


def test_what_a_system_refuses_for_one_customer_is_no_outage(
    server: LookUpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent.events")
    server.statuses[f"/customers/{ANN}"] = 403
    assert find_facts(build_lookups(), build(server)).gaps == ("the look-up orders gave no answer",)
    assert "service.unavailable" not in caplog.text


def test_what_is_not_json_is_a_failure_that_shows_nothing_of_it(server: LookUpServer) -> None:
    server.answers[f"/customers/{ANN}"] = b'{"number": "A-1001"'
    with pytest.raises(DeferredError, match="not JSON") as failed:
        find_facts(build_lookups(), build(server, on_failure=WAIT))
    assert "A-1001" not in f"{failed.value!r}{failed.value.__cause__!r}"


def test_an_answer_that_no_customers_facts_can_be_in_is_logged_and_counted(
    server: LookUpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    look_up = build(server, address_field="customer.mail")
    assert find_facts(build_lookups(), look_up) == Facts()
    assert [record.getMessage() for record in caplog.records if "mailboxes.yaml" in record.getMessage()] == [
        f"the look-up orders at {HOST}:{server.port} (lookups in mailboxes.yaml) got an answer without customer.mail: correct the path, "
        "or what the system answers; `python -m local lookup` tries it"
    ]
    assert "lookup.finished lookup=orders result=mismatched" in caplog.text
    assert "A-1001" not in caplog.text
    assert "ann@" not in caplog.text
    caplog.clear()
    server.answers[f"/customers/{ANN}"] = ORDER | {"customer": {"email": BOB}}
    assert find_facts(build_lookups(), build(server, address_field="customer.email")) == Facts()
    assert [record.getMessage() for record in caplog.records] == [
        "lookup.finished lookup=orders result=other_customer"
    ]


def test_the_limit_counts_all_of_a_look_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent.events")
    release = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        lookups = LookUps(
            lambda _look_up, _url: b"{}" if release.wait(30) else None, pool, Clock(), ServiceHealth(Clock())
        )
        look_up = LookUp("https://orders.example/{address}", SHOW, name="orders", time_limit=0.1)
        begun = time.monotonic()
        facts = find_facts(lookups, look_up)
        waited = time.monotonic() - begun
        release.set()
    assert facts.gaps == ("the look-up orders gave no answer",)
    assert waited < 5
    assert "service.unavailable operation='the look-up orders at orders.example'" in caplog.messages


def test_a_look_up_belongs_to_the_trace_of_its_email() -> None:
    set_providers()
    look_up, traces = LookUp("https://orders.example/{address}", SHOW, name="orders"), list[int]()

    def read_traced(_look_up: LookUp, _url: str) -> None:
        traces.append(get_current_span().get_span_context().trace_id)

    with ThreadPoolExecutor(1) as pool, span("process email"):
        find_facts(LookUps(read_traced, pool, Clock(), ServiceHealth(Clock())), look_up)
        assert traces == [get_current_span().get_span_context().trace_id]


def test_look_ups_run_next_to_each_other() -> None:
    both = threading.Barrier(2, timeout=10)

    def read_both(_look_up: LookUp, _url: str) -> bytes:
        both.wait()
        return b'{"number": "A-1"}'

    look_up = LookUp("https://orders.example/{address}", SHOW, name="orders")
    with ThreadPoolExecutor(2) as pool:
        lookups = LookUps(read_both, pool, Clock(), ServiceHealth(Clock()))
        facts = find_facts(lookups, [look_up, replace(look_up, name="invoices")])
    assert [note.name for note in facts.looked_up] == ["orders", "invoices"]
