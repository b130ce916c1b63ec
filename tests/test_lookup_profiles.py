"""Look-ups and tags in the profile: what is read, and what is said of a mistake."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from rich.console import Console

from local.approval.shown import describe_age
from local.host.certificates import write_certificates
from local.host.run import MISCONFIGURED, run
from local.testing.world import World
from shared.composition import build_agent
from shared.domain import Mailbox
from shared.errors import ConfigurationError, UnavailableError
from shared.knowledge.lookup import LookUp
from shared.profiles.profile_file import parse_profiles
from shared.profiles.profiles import KnowledgeFolder, MailboxProfile
from shared.services.secrets import StaticSecret, list_missing_secrets
from shared.settings import Secret, Settings

BOX = Mailbox("support", "support@northwind.example", "gated_send")
WRITTEN = r"""
support:
  knowledge:
    - support
    - folder: partners
      only_for: [partner, employee]
  lookups:
    open-orders:
      url: https://shop.northwind.example/api/orders/{reference}?customer={address}
      references: \b(A-\d{4})\b
      address_field: customer.email
      show: {Order: number, Delivery date: delivery.date}
      categories: [billing]
      only_for: [customer]
      audience: api://orders
      time_limit: 2
      cache: 10m
      on_failure: wait
"""


def read(text: str) -> MailboxProfile:
    return parse_profiles(text, "mailboxes.yaml").get(BOX)


def problems_of(**changes: str | None) -> str:
    fields: dict[str, str | None] = {"url": "https://shop.example/{address}", "show": "{Order: number}"}
    lines = [f"      {name}: {value}" for name, value in (fields | changes).items() if value is not None]
    with pytest.raises(ConfigurationError) as failed:
        read("\n".join(["support:", "  lookups:", "    orders:", *lines]))
    return str(failed.value)


def test_a_look_up_is_read_whole() -> None:
    assert read(WRITTEN).lookups == (
        LookUp(
            "https://shop.northwind.example/api/orders/{reference}?customer={address}",
            (("Order", "number"), ("Delivery date", "delivery.date")),
            name="open-orders", categories=("billing",), only_for=("customer",), references=r"\b(A-\d{4})\b",
            address_field="customer.email", audience="api://orders", time_limit=2.0, cache=timedelta(minutes=10),
            on_failure="wait",
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"url": "http://shop.example/{address}"}, "url that is not https"),
        ({"url": "https://shop.example/orders"}, r"neither \{address\} nor \{reference\}"),
        ({"url": "https://{address}.example/"}, "after the host"),
        ({"url": "https://shop.example/{address}/{model}"}, "no other braces"),
        ({"url": "https://ann@shop.example/{address}"}, "a user"),
        ({"url": "https://shop.example:port/{address}"}, "cannot be read"),
        ({"url": "https://2130706433/{address}"}, "the host '2130706433'"),
        ({"url": "https://shop.example/{reference}"}, "both {reference} in its url and references"),
        ({"references": "x"}, "both {reference} in its url and references"),
        ({"url": "https://shop.example/{reference}", "references": "A-1"}, "no address_field"),
        ({"references": "'(?=a)'", "url": "https://shop.example/{reference}"}, r"orders.references is not a pattern that RE2"),
        ({"header": "x-key"}, "both header and secret"),
        ({"url": "https://shop.example/{address}?v=2&Code=the-key"}, "has a key in its url (Code=): remove it there"),
        ({"url": "https://shop.example/{address}?subscription-key=1&v=2"}, "store it as a secret, and name header and secret"),
        ({"url": "https://127.0.0.1/{address}"}, "127.0.0.1 is private (allow_private: true would allow it)"),
        ({"url": "'https://[fd00::1]:8443/{address}'"}, "orders would not be asked: fd00::1 is private"),
        ({"url": "https://169.254.169.254/{address}", "allow_private": "true"}, "is where a cloud answers its own machines"),
        ({"header": "Host", "secret": "lookup-a"}, "orders.header names Host, which HTTP itself sets"),
        ({"header": "transfer-encoding", "secret": "lookup-a"}, "names transfer-encoding, which HTTP itself sets"),
        ({"secret": "multimail-api-key", "header": "x-key"}, "begins with lookup-"),
        ({"secret": "lookup-a", "header": "x-key", "audience": "api://orders"}, "both audience and header"),
        ({"show": None}, "lacks show"),
        ({"show": "{}"}, "orders.show has no field"),
        ({"show": "{Order: 'orders[0].number'}"}, "orders.show.Order has 'orders[0].number', which is not a path of names"),
        ({"show": "{Order: $.number}"}, "which is not a path"),
        ({"show": "{Order: .number}"}, "which is not a path"),
        ({"address_field": "customer."}, "orders.address_field has 'customer.', which is not a path"),
        ({"references": r"(A)-(\d+)", "url": "https://shop.example/{reference}"}, "orders.references has 2 groups"),
        ({"only_for": "[]"}, "orders.only_for has no tag"),
        ({"show": "{'A: b': number}"}, "name of letters and digits"),
        ({"time_limit": "60"}, "from 0.5 to 10"),
        ({"cache": "48h"}, "24 hours"),
        ({"on_failure": "retry"}, "one of continue, wait"),
        ({"categories": "[prices]"}, r"line 6, support: lookups.orders.categories names 'prices', which is not a category"),
        ({"ca_file": "ca.pem"}, r"line 6, support: lookups.orders.ca_file names 'ca.pem', which is not a file"),
        ({"ca_file": "../ca.pem"}, "orders.ca_file has '../ca.pem', which is not a file in the folder of mailboxes.yaml"),
        ({"ca_file": "ca.crt"}, "such as own-ca.pem: put it there, with this ending"),
        ({"references": r'"\b(A-\d{4})"', "url": "https://shop.example/{reference}"}, "write a pattern in single quotes"),
        ({"references": r'"\b(A-[0-9])"', "url": "https://shop.example/{reference}"}, r"write it in single quotes"),
        ({"references": r"/A-\d{4}/i", "url": "https://shop.example/{reference}"}, "is written in slashes"),
        ({"method": "POST"}, "'method' as an unknown name: it must have url, show"),
        ({"adress_field": "email"}, "'adress_field' as an unknown name: did you mean 'address_field'"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_remedy(changes: dict[str, str | None], problem: str) -> None:
    told = problems_of(**changes)
    assert problem.replace("\\", "") in told
    assert told.startswith("mailboxes.yaml, line ")


@pytest.mark.parametrize("secret", ["sk_live_the-key", "1234567890"])
def test_what_stands_in_the_place_of_a_secrets_name_is_not_repeated(secret: str) -> None:
    told = problems_of(header="x-key", secret=secret)
    assert "orders.secret has a value, which is not the name of a secret that begins with lookup-" in told
    assert secret not in told


def test_a_reference_may_be_called_a_code() -> None:
    shown = (("Order", "number"),)
    LookUp("https://shop.example/?code={reference}", shown, references="A-1", address_field="email")
    with pytest.raises(ValueError, match=r"a key in its url \(code=\)"):
        LookUp("https://shop.example/{address}?code=the-key", shown)


@pytest.mark.parametrize(
    "query",
    [
        "sig=the-key", "secret=the-key", "client_secret=the-key", "api-key=the-key", "x-functions-key=the-key",
        "functions_key=the-key", "auth=the-key", "accessToken=the-key", "jwt=the-key", "v=1;code=the-key",
        "%63ode=the-key", "apikey2=the-key", "password=the-key", "pass=the-key",
    ],
)  # fmt: skip
def test_a_key_in_the_url_is_refused_and_not_repeated(query: str) -> None:
    told = problems_of(url=f"https://shop.example/{{address}}?{query}")
    assert "has a key in its url" in told
    assert "the-key" not in told


@pytest.mark.parametrize(
    "query", ["countryCode=DE", "keyword=a", "author=1", "design=2", "bypass=1", "tokens=3"]
)
def test_other_parameters_may_be_in_the_url(query: str) -> None:
    LookUp(f"https://shop.example/{{address}}?{query}", (("Order", "number"),))


def build_revocation_list() -> bytes:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
    revoked = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(now)
    return revoked.next_update(now + timedelta(days=1)).sign(key, SHA256()).public_bytes(Encoding.PEM)


FORMAT, PRIVATE = "put the authority's there, in the format PEM", "has a private key that would be deployed"


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("a key", PRIVATE), ("a certificate and its key", PRIVATE), ("text", FORMAT), ("binary", FORMAT),
        ("a revocation list", FORMAT),
    ],
)  # fmt: skip
def test_what_is_not_only_a_certificate_is_no_ca_file(kind: str, told: str, tmp_path: Path) -> None:
    authority, host = write_certificates(tmp_path, ("shop.example",))
    written = (
        "support:\n  lookups:\n    orders: {url: 'https://shop.example/{address}', show: {Order: number}, "
        "ca_file: own.pem}\n"
    )
    path = str(tmp_path / "mailboxes.yaml")
    (tmp_path / "own.pem").write_bytes(authority.read_bytes())
    assert parse_profiles(written, path).get(BOX).lookups[0].ca_file == "own.pem"
    key = host.read_bytes().partition(b"-----END CERTIFICATE-----\n")[2]
    contents = {
        "a key": key, "a certificate and its key": host.read_bytes(), "text": b"the authority", "binary": b"\x00\xff", "a revocation list": build_revocation_list(),
    }  # fmt: skip
    (tmp_path / "own.pem").write_bytes(contents[kind])
    with pytest.raises(ConfigurationError, match=rf"orders\.ca_file names 'own\.pem', which .*{told}"):
        parse_profiles(written, path)


def test_a_private_address_may_stand_in_the_url_where_it_is_allowed() -> None:
    written = (
        "support: {lookups: {a: {url: 'https://10.1.2.3/{address}', show: {A: a}, allow_private: true}}}"
    )
    assert read(written).lookups[0].allow_private


SIGNED = """
default:
  lookups:
    orders: {url: "https://shop.example/{address}", show: {Order: number}, header: x-key, secret: lookup-orders}
support@northwind.example: {voice: Brief.}
"""
UNSET = r"lookups\.orders\.secret: LOOKUP_ORDERS is not set"


def test_a_secret_that_is_missing_is_told_at_each_poll_and_stops_nothing(tmp_path: Path) -> None:
    def find_secret(name: str) -> StaticSecret:
        if name not in secrets:
            raise ConfigurationError("LOOKUP_ORDERS is not set: set it.")
        return StaticSecret(Secret(secrets[name]))

    secrets = dict[str, str]()
    with World(tmp_path, profiles=parse_profiles(SIGNED, "mailboxes.yaml"), find_secret=find_secret) as world:
        email_id = world.deliver()
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=UNSET):
                world.poller.poll()
        world.work()
        assert world.outcome(email_id) == "reply_submitted"
        secrets["lookup-orders"] = "key"
        world.poller.poll()


def test_a_vault_that_cannot_be_reached_is_no_missing_secret(caplog: pytest.LogCaptureFixture) -> None:
    def find_secret(name: str) -> StaticSecret:
        asked.append(name)
        raise UnavailableError("The vault cannot be reached.")

    asked = list[str]()
    assert list_missing_secrets({"lookup-a": "a", "lookup-b": "b"}, find_secret) == []
    assert asked == ["lookup-a"]
    assert "is not known: The vault cannot be reached." in caplog.text


def test_each_look_up_that_has_a_secret_is_named_but_none_of_an_observed_mailbox() -> None:
    lookups = "{{{}: {{url: 'https://shop.example/{{address}}', show: {{A: a}}, header: x-key, secret: lookup-{}}}}}"
    written = "\n".join(
        f"{box}: {{observe: {observe}, lookups: {lookups.format(name, secret)}}}"
        for box, observe, name, secret in (
            ("a@x.example", "false", "orders", "shop"), ("b@x.example", "false", "bills", "shop"),
            ("c@x.example", "false", "orders", "shop"), ("d@x.example", "true", "parcels", "post"),
        )
    )  # fmt: skip
    assert parse_profiles(written, "mailboxes.yaml").lookup_secrets == {
        "lookup-shop": "lookups.orders.secret, lookups.bills.secret"
    }


def test_run_names_a_missing_secret_with_all_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mailboxes.yaml").write_text(SIGNED, encoding="utf-8")
    for name in ("MULTIMAIL_API_KEY", "TRIAGE_DEPLOYMENT", "LOOKUP_ORDERS", "KEY_VAULT_URL", "OBSERVE_ONLY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONFIG_PATH", str(tmp_path))
    monkeypatch.setenv("LEDGER_PATH", str(tmp_path / "ledger.sqlite"))

    def say() -> str:
        console = Console(file=StringIO(), width=1000)
        assert run(console, until_idle=True) == MISCONFIGURED
        assert isinstance(console.file, StringIO)
        return console.file.getvalue()

    told = say()
    assert re.search(UNSET, told)
    assert "MULTIMAIL_API_KEY is not set" in told
    monkeypatch.setenv("OBSERVE_ONLY", "true")  # no look-up runs
    assert not re.search(UNSET, say())
    monkeypatch.delenv("OBSERVE_ONLY")
    monkeypatch.setenv("LOOKUP_ORDERS", "key")
    assert not re.search(UNSET, say())
    (tmp_path / "mailboxes.yaml").write_text("default: {voise: Brief.}", encoding="utf-8")
    told = say()
    assert "unknown field 'voise'" in told
    assert "MULTIMAIL_API_KEY is not set" in told


def test_tags_open_folders_and_look_ups() -> None:
    profile = read(WRITTEN)
    assert profile.knowledge == (
        KnowledgeFolder("support"),
        KnowledgeFolder("partners", ("partner", "employee")),
    )
    assert profile.asks_for_tags
    assert profile.opened_for(()).folders == ("support",)
    assert profile.opened_for(("PARTNER",)).folders == ("support", "partners")
    assert profile.opened_for(("partner",)).lookups == ()
    assert profile.opened_for(("customer",)).lookups == profile.lookups
    assert not replace(profile, knowledge=(), lookups=()).asks_for_tags


def test_the_agent_signs_in_with_a_named_secret(tmp_path: Path) -> None:
    (tmp_path / "mailboxes.yaml").write_text(WRITTEN, encoding="utf-8")
    (tmp_path / "knowledge" / "support").mkdir(parents=True)
    (tmp_path / "knowledge" / "partners").mkdir()
    environment = {
        "MULTIMAIL_API_KEY": "unused", "MODEL_ENDPOINT": "https://m.example", "TRIAGE_DEPLOYMENT": "small",
        "CONFIG_PATH": str(tmp_path), "LEDGER_PATH": str(tmp_path / "ledger.sqlite"), "LOOKUP_ORDERS": "key",
    }  # fmt: skip
    settings = Settings.from_env(environment)
    assert settings.named_secrets["LOOKUP_ORDERS"].value == "key"
    lookups = build_agent(settings).pipeline.lookups
    look_up = LookUp(
        "https://127.0.0.1:9/{address}", (("A", "a"),), "orders", header="x-key", secret="lookup-bills"
    )
    with pytest.raises(ConfigurationError, match="LOOKUP_BILLS is not set"):
        lookups.read(look_up, look_up.build_url("ann@customer.example"))
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1, which is private"):
        lookups.read(replace(look_up, secret="lookup-orders"), "https://127.0.0.1:9/ann")


@pytest.mark.parametrize(
    ("age", "text"),
    [({"seconds": -5}, "0 minutes"), ({"seconds": 119}, "1 minute"), ({"minutes": 61}, "1 hour"), ({"hours": 50}, "2 days")],
)  # fmt: skip
def test_the_age_of_facts_is_in_words(age: dict[str, int], text: str) -> None:
    assert describe_age(timedelta(**age)) == text
