"""Settings: one error names everything that is wrong, with the remedy, and shows no secret."""

from pathlib import Path

import pytest

from shared.errors import ConfigurationError
from shared.settings import Secret, Settings

GOOD = {
    "MULTIMAIL_API_KEY": "mm_test_abc",
    "MODEL_ENDPOINT": "https://res.openai.azure.com",
    "MODEL_API_KEY": "model-key-abc",
    "TRIAGE_DEPLOYMENT": "small",
}


def problems(**changes: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(GOOD | changes)
    return caught.value.problems


def test_four_settings_are_enough_and_the_rest_has_the_documented_defaults() -> None:
    settings = Settings.from_env(GOOD)
    assert settings.multimail_api_url == "https://api.multimail.dev"
    assert (settings.triage_deployment, settings.draft_deployment) == ("small", "small")
    assert (settings.model_sdk, settings.work_queue_name) == ("azure-ai-inference", "inbound-email")
    assert (settings.initial_lookback_hours, settings.max_email_age_hours) == (24, 72)
    assert (settings.max_attempts, settings.lease_seconds) == (8, 600)
    assert (settings.retry_base_seconds, settings.retry_max_seconds) == (5, 900)
    assert (settings.max_replies_per_thread, settings.max_replies_per_sender_per_day) == (3, 5)
    assert (settings.daily_token_budget, settings.min_confidence) == (2_000_000, 0.6)
    assert settings.allow_ungated_replies is False
    assert (settings.poll_schedule, settings.track_schedule) == ("0 */1 * * * *", "30 */5 * * * *")
    assert settings.multimail_mailbox_ids == ()
    assert settings.ledger_table_endpoint is None
    assert settings.ledger_path == Path(".data/ledger.sqlite")


def test_every_missing_setting_is_named_at_once_with_its_remedy() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({})
    text = str(caught.value)
    for name in ("MODEL_ENDPOINT", "TRIAGE_DEPLOYMENT", "MULTIMAIL_API_KEY"):
        assert f"{name} is not set: set it to" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL_SDK", "langchain"), ("MODEL_ENDPOINT", "res.openai.azure.com"), ("MODEL_ENDPOINT", "https://"),
        ("MODEL_ENDPOINT", "http://res.openai.azure.com"), ("MODEL_ENDPOINT", "https://[bad"),
        ("MODEL_ENDPOINT", "https://res.openai.azure.com/?x=1"), ("MULTIMAIL_API_URL", "http://api.multimail.dev"),
        ("MAX_ATTEMPTS", "0"), ("MAX_ATTEMPTS", "2.5"), ("MAX_ATTEMPTS", "many"), ("MIN_CONFIDENCE", "1.1"),
        ("MIN_CONFIDENCE", "nan"), ("LEASE_SECONDS", "-1"), ("LEASE_SECONDS", "inf"),
        ("ALLOW_UNGATED_REPLIES", "yes"), ("MULTIMAIL_API_KEY", "two words"), ("MULTIMAIL_API_KEY", "schlüssel"),
        ("KEY_VAULT_URL", "myvault"), ("KEY_VAULT_URL", "http://127.0.0.1:9"), ("AzureWebJobsStorage__accountName", "Not/An/Account"),
    ],
)  # fmt: skip
def test_a_malformed_setting_is_named(name: str, value: str) -> None:
    (problem,) = problems(**{name: value})
    assert name in problem


def test_an_unresolved_key_vault_reference_is_not_taken_for_the_key() -> None:
    (problem,) = problems(
        MULTIMAIL_API_KEY="@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/x/)"
    )
    assert "Key Vault Secrets User" in problem


def test_white_space_and_empty_values_count_as_absent() -> None:
    settings = Settings.from_env(
        GOOD | {"MODEL_SDK": "  ", "MAX_ATTEMPTS": "", "DRAFT_DEPLOYMENT": " large "}
    )
    assert (settings.model_sdk, settings.max_attempts, settings.draft_deployment) == (
        "azure-ai-inference",
        8,
        "large",
    )


def test_mailbox_ids_are_split_at_commas() -> None:
    assert Settings.from_env(GOOD | {"MULTIMAIL_MAILBOX_IDS": "mb_1, mb_2,,"}).multimail_mailbox_ids == (
        "mb_1",
        "mb_2",
    )


@pytest.mark.parametrize(
    ("changes", "endpoint"),
    [
        ({"AzureWebJobsStorage__accountName": "acct1"}, "https://acct1.table.core.windows.net"),
        ({"AzureWebJobsStorage__tableServiceUri": "https://t.example"}, "https://t.example"),
        (
            {"LEDGER_TABLE_ENDPOINT": "https://a.example/", "AzureWebJobsStorage__accountName": "acct1"},
            "https://a.example",
        ),
        ({"LEDGER_PATH": "x.sqlite", "AzureWebJobsStorage__accountName": "acct1"}, None),
    ],
)
def test_the_ledger_is_in_tables_unless_a_path_is_given(
    changes: dict[str, str], endpoint: str | None
) -> None:
    assert Settings.from_env(GOOD | changes).ledger_table_endpoint == endpoint


def test_in_azure_a_ledger_or_queue_that_would_die_with_the_instance_is_refused() -> None:
    text = "\n".join(problems(IDENTITY_ENDPOINT="http://169.254.255.2:8081/msi/token"))
    assert "LEDGER_TABLE_ENDPOINT" in text
    assert "ServiceBusConnection__fullyQualifiedNamespace" in text


def test_no_secret_shows_in_settings_or_problems() -> None:
    settings = Settings.from_env(GOOD | {"ServiceBusConnection": "Endpoint=sb://x;SharedAccessKey=abc"})
    shown = f"{settings!r} {settings} {Secret('abc')} {problems(MULTIMAIL_API_KEY='abc def')}"
    assert "abc" not in shown
