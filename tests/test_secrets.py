"""The MultiMail key from settings and Key Vault, with the real SDK clients against a loopback cloud."""

import hmac
import json
import logging
import re
import socket
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken, TokenCredential
from azure.identity import ChainedTokenCredential, ManagedIdentityCredential

from local.host.http_server import LoopbackServer
from local.testing.loopback_cloud import (
    ACCESS_TOKEN,
    CLIENT_ID,
    IDENTITY_HEADER,
    PRIVATE_LINK_HOST,
    VAULT_URL,
    LoopbackCloud,
    run_loopback_cloud,
)
from shared.composition import build_agent, open_delivery
from shared.errors import AgentError, ConfigurationError, TransientError, UnavailableError
from shared.mail.multimail import MultiMailClient
from shared.notifying.messages import Message
from shared.services.credentials import build_credential
from shared.services.key_vault import KeyVaultSecret
from shared.services.secrets import StaticSecret
from shared.settings import Secret, Settings
from tests.notification_targets import Target, refuse_as_teams

NAME = "multimail-api-key"
KEY = "mm_live_first"
NEWER_KEY = "mm_live_second"


class Clock:
    """Seconds that pass when the test says so; it knows how often it was looked at."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._looks = 0
        self._changed = threading.Condition()

    def __call__(self) -> float:
        with self._changed:
            self._looks += 1
            self._changed.notify_all()
        return self.now

    def wait_for_looks(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._looks >= count, timeout=5)


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackCloud]:
    with run_loopback_cloud(tmp_path) as cloud:
        for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        cloud.secrets[NAME] = KEY
        yield cloud


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def secret(cloud: LoopbackCloud, clock: Clock) -> KeyVaultSecret:
    return KeyVaultSecret(VAULT_URL, NAME, credential_in_azure(cloud), ttl_seconds=900, clock=clock)


def credential_in_azure(cloud: LoopbackCloud) -> TokenCredential:
    return build_credential(settings(MANAGED_IDENTITY_CLIENT_ID=CLIENT_ID, **cloud.environment))


def settings(**environment: str) -> Settings:
    required = {
        "KEY_VAULT_URL": VAULT_URL,
        "MODEL_ENDPOINT": "https://example.openai.azure.com",
        "TRIAGE_DEPLOYMENT": "small",
        "AzureWebJobsStorage__accountName": "ledger",
        "ServiceBusConnection__fullyQualifiedNamespace": "bus.servicebus.windows.net",
    }
    return Settings.from_env(required | environment)


def in_threads(work: Callable[[], Secret], count: int = 32) -> list[Secret | AgentError]:
    """Run `work` in threads that all start at the same moment."""
    start = threading.Barrier(count)

    def run(_: int) -> Secret | AgentError:
        start.wait(timeout=10)
        try:
            return work()
        except AgentError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


# The credential


def test_managed_identity_is_used_where_there_is_one_and_the_developers_login_elsewhere() -> None:
    assert isinstance(
        build_credential(settings(IDENTITY_ENDPOINT="http://127.0.0.1/")), ManagedIdentityCredential
    )
    assert isinstance(build_credential(settings(MANAGED_IDENTITY_CLIENT_ID="id")), ManagedIdentityCredential)
    developer = build_credential(settings())
    assert isinstance(developer, ChainedTokenCredential)
    names = [type(credential).__name__ for credential in developer.credentials]
    assert names == ["AzureCliCredential", "AzureDeveloperCliCredential"]


def test_identity_is_asked_for_a_vault_token_with_the_configured_client_id(
    cloud: LoopbackCloud, secret: KeyVaultSecret
) -> None:
    assert secret.get() == Secret(KEY)
    assert cloud.token_queries == [
        {"api-version": "2019-08-01", "resource": "https://vault.azure.net", "client_id": CLIENT_ID}
    ]
    assert cloud.refused_hosts == []


def test_system_assigned_identity_needs_no_client_id(cloud: LoopbackCloud) -> None:
    credential = build_credential(settings(**cloud.environment))
    assert KeyVaultSecret(VAULT_URL, NAME, credential).get() == Secret(KEY)
    assert "client_id" not in cloud.token_queries[0]


# Reading and caching


def test_static_secret_stays_what_it_is() -> None:
    source = StaticSecret(Secret(KEY))
    assert source.get() == source.refresh(source.get()) == Secret(KEY)


def test_secret_is_read_once_for_all_threads(cloud: LoopbackCloud, secret: KeyVaultSecret) -> None:
    assert in_threads(secret.get) == [Secret(KEY)] * 32
    assert cloud.secret_reads == [NAME]


def test_secret_is_cached_for_its_time_to_live_and_no_longer(
    cloud: LoopbackCloud, secret: KeyVaultSecret, clock: Clock
) -> None:
    secret.get()
    cloud.secrets[NAME] = NEWER_KEY
    clock.now += 899
    assert secret.get() == Secret(KEY)
    clock.now += 1
    assert in_threads(secret.get) == [Secret(NEWER_KEY)] * 32
    assert len(cloud.secret_reads) == 2


def test_refused_secret_is_read_again_once_for_all_threads(
    cloud: LoopbackCloud, secret: KeyVaultSecret
) -> None:
    stale = secret.get()
    cloud.secrets[NAME] = NEWER_KEY
    assert in_threads(lambda: secret.refresh(stale)) == [Secret(NEWER_KEY)] * 32
    assert secret.refresh(stale) == secret.get() == Secret(NEWER_KEY)
    assert len(cloud.secret_reads) == 2


def test_refused_secret_that_is_still_the_stored_one_is_read_again_and_stays(
    cloud: LoopbackCloud, secret: KeyVaultSecret
) -> None:
    stale = secret.get()
    assert secret.refresh(stale) == stale
    assert len(cloud.secret_reads) == 2


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_end_that_echo_left_in_the_vault_is_taken_off(
    cloud: LoopbackCloud, secret: KeyVaultSecret, end: str
) -> None:
    cloud.secrets[NAME] = KEY + end
    assert secret.get() == Secret(KEY)


@pytest.mark.parametrize(
    "stored", ["", "\n", "mm_live_a b", " mm_live", "mm_live\nX", "mm_livé", "mm\x00", "mm\tx"]
)
def test_unusable_secret_is_a_configuration_error_that_does_not_show_it(
    cloud: LoopbackCloud, secret: KeyVaultSecret, stored: str
) -> None:
    cloud.secrets[NAME] = stored
    with pytest.raises(ConfigurationError, match="Store the MultiMail key there again") as caught:
        secret.get()
    assert not stored.strip() or stored not in str(caught.value)


# What goes wrong


def test_absent_secret_names_both_settings(cloud: LoopbackCloud, secret: KeyVaultSecret) -> None:
    cloud.secrets.clear()
    with pytest.raises(
        ConfigurationError, match=r"MULTIMAIL_API_KEY_SECRET_NAME.*KEY_VAULT_URL.*HTTP 404.*Store"
    ):
        secret.get()


def test_forbidden_secret_names_the_role(cloud: LoopbackCloud, secret: KeyVaultSecret) -> None:
    cloud.vault_status = 403
    with pytest.raises(ConfigurationError, match=r"HTTP 403.*Key Vault Secrets User"):
        secret.get()
    assert len(cloud.secret_reads) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_vault_is_asked_again_later_and_its_retry_after_is_not_slept_on(
    cloud: LoopbackCloud, secret: KeyVaultSecret, status: int
) -> None:
    cloud.vault_status = status  # with a Retry-After of an hour
    with pytest.raises(TransientError, match=f"HTTP {status}"):
        secret.get()
    assert len(cloud.secret_reads) == 1


def test_identity_that_refuses_names_its_setting(cloud: LoopbackCloud, secret: KeyVaultSecret) -> None:
    cloud.identity_header = "another header"
    with pytest.raises(ConfigurationError, match="MANAGED_IDENTITY_CLIENT_ID"):
        secret.get()
    assert cloud.secret_reads == []


def test_unreachable_vault_without_a_cached_secret_is_transient_and_heals(
    cloud: LoopbackCloud, secret: KeyVaultSecret
) -> None:
    cloud.vault_down = True
    with pytest.raises(TransientError, match="KEY_VAULT_URL"):
        secret.get()
    cloud.vault_down = False
    assert secret.get() == Secret(KEY)


class NoCredential:
    """An identity that nobody comes to ask for a token."""

    def get_token(self, *_scopes: str, **_options: object) -> AccessToken:
        raise AssertionError("the vault was never reached")


def test_a_vault_that_no_connection_reaches_is_said_to_be_unreachable_with_what_to_check() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"https://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(
        UnavailableError, match="check the name in KEY_VAULT_URL, your network or HTTPS_PROXY"
    ):
        KeyVaultSecret(nowhere, "multimail-api-key", NoCredential()).get()


def test_threads_that_wait_for_a_failing_vault_share_one_failure(
    cloud: LoopbackCloud, secret: KeyVaultSecret, clock: Clock
) -> None:
    cloud.vault_status = 503
    with pytest.raises(TransientError):
        secret.get()  # looks at the clock once
    # Each thread looks once before it waits, and the one that asks the vault once more.
    cloud.before_secret = lambda: clock.wait_for_looks(1 + 32 + 1)
    failures = in_threads(secret.get)
    assert {type(failure) for failure in failures} == {UnavailableError}
    assert len({id(failure) for failure in failures}) == 32, "each thread raises its own instance"
    assert len(cloud.secret_reads) == 2


def break_vault(cloud: LoopbackCloud) -> None:
    cloud.vault_down = True


def throttle_vault(cloud: LoopbackCloud) -> None:
    cloud.vault_status = 429


def break_identity(cloud: LoopbackCloud) -> None:
    cloud.identity_status = 400


@pytest.mark.parametrize("fault", [break_vault, throttle_vault, break_identity])
def test_cached_secret_is_used_on_with_a_warning_while_nothing_answers(
    cloud: LoopbackCloud,
    secret: KeyVaultSecret,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[LoopbackCloud], None],
) -> None:
    cloud.token_seconds = 1  # so that a token is needed for every reading
    first = secret.get()
    fault(cloud)
    clock.now += 900
    assert in_threads(secret.get) == [first] * 32
    warnings = [record for record in caplog.records if record.name == "shared.services.key_vault"]
    assert len(warnings) == 1, "nobody asks again at once"
    assert "The cached value is used on" in warnings[0].getMessage()
    with pytest.raises(TransientError):
        secret.refresh(first)  # it was refused: an old value is no answer


def test_vault_that_is_back_is_asked_again_after_a_pause(
    cloud: LoopbackCloud, secret: KeyVaultSecret, clock: Clock
) -> None:
    secret.get()
    cloud.vault_down = True
    clock.now += 900
    assert secret.get() == Secret(KEY)
    cloud.vault_down = False
    cloud.secrets[NAME] = NEWER_KEY
    assert secret.get() == Secret(KEY)
    clock.now += 60
    assert secret.get() == Secret(NEWER_KEY)


@pytest.mark.parametrize("status", [403, 404])
def test_secret_that_an_operator_took_away_is_not_used_on(
    cloud: LoopbackCloud, secret: KeyVaultSecret, clock: Clock, status: int
) -> None:
    secret.get()
    cloud.vault_status = status
    clock.now += 900
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=f"HTTP {status}"):
            secret.get()


def test_webhook_secret_that_is_not_there_is_named_by_its_own_setting_and_breaks_nothing(
    cloud: LoopbackCloud, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings(LEDGER_PATH=str(tmp_path / "ledger.sqlite"), **cloud.environment)
    body = b'{"event": "mailbox.created"}'
    signature = "sha256=" + hmac.new(b"whsec_1", body, "sha256").hexdigest()
    agent = build_agent(chosen)
    assert [agent.webhooks.receive(body, signature) for _ in range(3)] == [503] * 3
    (told,) = [message for message in caplog.messages if message.startswith("webhooks are refused")]
    assert re.search("MULTIMAIL_WEBHOOK_SECRET_NAME.*HTTP 404.*webhook's signing secret", told)
    assert cloud.secret_reads == ["multimail-webhook-secret"]
    agent.ledger.close()
    cloud.secrets["multimail-webhook-secret"] = "whsec_1"
    assert build_agent(chosen).webhooks.receive(body, signature) == 204
    assert NAME not in cloud.secret_reads


def test_address_that_the_vaults_tokens_do_not_cover_names_its_setting(cloud: LoopbackCloud) -> None:
    secret = KeyVaultSecret(f"https://{PRIVATE_LINK_HOST}", NAME, credential_in_azure(cloud))
    with pytest.raises(ConfigurationError, match="KEY_VAULT_URL is not the address of a Key Vault"):
        secret.get()


def test_a_bundle_of_certificates_that_is_not_there_is_named(
    cloud: LoopbackCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
    with pytest.raises(ConfigurationError, match="REQUESTS_CA_BUNDLE"):
        KeyVaultSecret(VAULT_URL, NAME, credential_in_azure(cloud)).get()


def test_proxy_lets_no_other_host_through(cloud: LoopbackCloud) -> None:
    other = KeyVaultSecret("https://other.vault.azure.net", NAME, credential_in_azure(cloud))
    with pytest.raises(TransientError):
        other.get()
    assert set(cloud.refused_hosts) == {"other.vault.azure.net:443"}


def test_no_secret_shows_in_errors_or_logs(
    cloud: LoopbackCloud, secret: KeyVaultSecret, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret.get()
    shown = repr(secret) + str(secret)
    for status in (429, 503, 403, 404):
        cloud.vault_status = status
        clock.now += 900
        try:
            shown += repr(secret.get())
        except AgentError as error:
            shown += "".join(traceback.format_exception(error)) + repr(error) + repr(error.__cause__)
    for hidden in (KEY, ACCESS_TOKEN, IDENTITY_HEADER):
        assert hidden not in shown + caplog.text


# Together with the client


class MultiMailWithOneKey:
    """A MultiMail that accepts one key and remembers those that it was shown."""

    def __init__(self, accepted: str) -> None:
        self.accepted = accepted
        self.shown: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        self.shown.append(environ["HTTP_AUTHORIZATION"].removeprefix("Bearer "))
        status = "200 OK" if self.shown[-1] == self.accepted else "401 Unauthorized"
        body = json.dumps({"mailboxes": []}).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def test_rotated_key_is_fetched_when_the_service_refuses_the_old_one(
    cloud: LoopbackCloud, secret: KeyVaultSecret
) -> None:
    multimail = MultiMailWithOneKey(KEY)
    with LoopbackServer(multimail) as server:
        client = MultiMailClient(server.url, secret)
        client.list_mailboxes()
        multimail.accepted = cloud.secrets[NAME] = NEWER_KEY
        client.list_mailboxes()
        client.list_mailboxes()
    assert multimail.shown == [KEY, KEY, NEWER_KEY, NEWER_KEY]
    assert len(cloud.secret_reads) == 2


def test_key_that_is_refused_and_not_rotated_stops_with_the_remedy(
    cloud: LoopbackCloud, secret: KeyVaultSecret
) -> None:
    multimail = MultiMailWithOneKey("another")
    with (
        LoopbackServer(multimail) as server,
        pytest.raises(ConfigurationError, match="MULTIMAIL_API_KEY_SECRET_NAME"),
    ):
        MultiMailClient(server.url, secret).list_mailboxes()
    assert multimail.shown == [KEY]
    assert len(cloud.secret_reads) == 2


def test_the_address_of_a_target_of_notifications_is_in_the_vault(cloud: LoopbackCloud) -> None:
    _, delivery = open_delivery(settings(MANAGED_IDENTITY_CLIENT_ID=CLIENT_ID, **cloud.environment))
    message = Message("1", "mb_1", "support@northwind.example", datetime(2026, 3, 2, tzinfo=UTC), ())
    with Target(refuse_as_teams) as target:
        cloud.secrets["notify-teams-support"] = target.address
        delivery.send("teams-support", message)
        assert len(target.accepted) == 1
    with pytest.raises(ConfigurationError, match=r"notify-slack-lead \(NOTIFY_SLACK_LEAD\).*HTTP 404"):
        delivery.send("slack-lead", message)
