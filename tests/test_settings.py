"""Settings: one error names everything that is wrong, with the remedy, and shows no secret."""

from pathlib import Path

import pytest

from shared.domain import TokenPrice
from shared.errors import ConfigurationError
from shared.settings import (
    PLATFORM_PREFIXES,
    Need,
    Secret,
    Setting,
    Settings,
    _find_misspelled,
    declared_settings,
)

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
    assert (settings.daily_token_budget, settings.min_confidence) == (12_000_000, 0.6)
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


def test_what_only_reads_asks_for_a_key_that_reads() -> None:
    (problem,) = problems(MULTIMAIL_API_KEY="", OBSERVE_ONLY="true")
    assert "set it to a key with the scope read (in" in problem
    with pytest.raises(ConfigurationError, match="a key with the scope read") as caught:
        Settings.from_env({}, [Need.READ])
    assert len(caught.value.problems) == 1
    assert Settings.from_env({}, []).draft_deployment == ""


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


# Misspelled names

DECLARED = tuple(declared_settings().values())
NAMES = tuple(setting.name for setting in DECLARED)
# The platform reads these itself, and has others that differ by a few letters.
OUR_NAMES = tuple(name for name in NAMES if not name.startswith(PLATFORM_PREFIXES))
LETTERS = "AEX9_"
COMMON_NAMES = tuple(
    name
    for line in Path(__file__).with_name("environment_names.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for name in line.split()
)


def mistype(name: str) -> set[str]:
    """Every way to type it with one wrong, missing or extra letter, or with two that changed places."""
    typed = set()
    for at in range(len(name)):
        before, here, after = name[:at], name[at], name[at + 1 :]
        typed |= {before + after, before + after[:1] + here + after[1:]}
        typed |= {before + letter + rest for letter in LETTERS for rest in (after, here + after)}
    return {other for other in typed - set(NAMES) if not other.startswith(PLATFORM_PREFIXES)}


@pytest.mark.parametrize("name", OUR_NAMES)
def test_a_name_with_one_wrong_letter_is_refused_with_the_right_one(name: str) -> None:
    typed = mistype(name)
    assert set(_find_misspelled(dict.fromkeys(typed, "1"), NAMES)) == {
        f"{other} is not a setting. Did you mean {name}? Rename or remove {other}." for other in typed
    }


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("MAX_ATEMPTS", "MAX_ATTEMPTS"), ("MAX_REPLIES_PER_SENDER_A_DAY", "MAX_REPLIES_PER_SENDER_PER_DAY"),
        ("MULTIMAIL_MAILBOX_ID", "MULTIMAIL_MAILBOX_IDS"), ("max_attempts", "MAX_ATTEMPTS"),
        ("SERVICEBUSCONNECTION", "ServiceBusConnection"), ("DAILY_TOKENS_BUDGET", "DAILY_TOKEN_BUDGET"),
    ],
)  # fmt: skip
def test_a_misspelled_name_is_refused_with_the_nearest_right_one(typed: str, right: str) -> None:
    assert problems(**{typed: "1"}) == (
        f"{typed} is not a setting. Did you mean {right}? Rename or remove {typed}.",
    )


def test_a_misspelled_name_is_reported_together_with_what_else_is_wrong() -> None:
    text = "\n".join(problems(MAX_ATEMPTS="9", MIN_CONFIDENCE="2", MODEL_ENDPOINT=""))
    assert all(name in text for name in ("MAX_ATEMPTS", "MIN_CONFIDENCE", "MODEL_ENDPOINT"))


def test_no_common_variable_of_a_machine_is_taken_for_a_setting() -> None:
    assert len(COMMON_NAMES) > 150
    Settings.from_env(GOOD | dict.fromkeys(set(COMMON_NAMES) - {"IDENTITY_ENDPOINT"}, "1"))


def test_an_empty_misspelled_name_and_a_platform_without_case_are_no_problem() -> None:
    Settings.from_env(GOOD | {"MAX_ATEMPTS": " "})
    upper = {name.upper(): "1" for name in NAMES}  # as a case-insensitive environment lists its names
    assert not _find_misspelled(dict.fromkeys(NAMES, "1") | upper, NAMES)


# The declarations


def test_every_declared_default_is_accepted_by_its_own_setting() -> None:
    for setting in DECLARED:
        if not setting.remedy:
            setting.read(setting, setting.default)


@pytest.mark.parametrize("setting", [s for s in DECLARED if s.bounds != (0, 0)], ids=lambda s: s.name)
def test_a_number_is_accepted_at_its_bounds_and_refused_beyond_them(setting: Setting) -> None:
    low, high = setting.bounds
    for value in (low, high):
        Settings.from_env(GOOD | {setting.name: f"{value:.15g}"})
    for value in (low - 1, high + 1):
        (problem,) = problems(**{setting.name: f"{value:.15g}"})
        assert problem == f"{setting.name} must be a number from {low:g} to {high:.15g}."


def test_every_setting_has_a_meaning_of_one_sentence_and_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for setting in DECLARED:
        assert setting.meaning.endswith("."), setting.name
        assert "|" not in setting.meaning, setting.name


def test_every_setting_is_read_into_its_own_attribute() -> None:
    values = {
        "MULTIMAIL_API_URL": "https://a.example", "KEY_VAULT_URL": "https://b.example", "SEARCH_ENDPOINT": "https://c.example",
        "MULTIMAIL_API_KEY_SECRET_NAME": "simulated", "MULTIMAIL_WEBHOOK_SECRET_NAME": "wrong", "MULTIMAIL_WEBHOOK_SECRET": "right",
        "MANAGED_IDENTITY_CLIENT_ID": "client", "WORK_QUEUE_NAME": "queue", "SEARCH_INDEX": "index",
        "ServiceBusConnection__fullyQualifiedNamespace": "ns.servicebus.windows.net", "ServiceBusConnection": "endpoint",
        "POLL_SCHEDULE": "poll", "TRACK_SCHEDULE": "track", "TOKEN_PRICES": "small=1/2,large=2/8/0.2", "ALLOW_UNGATED_REPLIES": "True",
    }  # fmt: skip
    settings = Settings.from_env(GOOD | values)
    assert settings.multimail_api_key_secret_name == "simulated"
    assert (settings.multimail_webhook_secret_name, settings.multimail_webhook_secret) == (
        "wrong",
        Secret("right"),
    )
    assert (settings.multimail_api_url, settings.key_vault_url) == ("https://a.example", "https://b.example")
    assert (settings.search_endpoint, settings.search_index) == ("https://c.example", "index")
    assert (settings.managed_identity_client_id, settings.work_queue_name) == ("client", "queue")
    assert settings.service_bus_namespace == "ns.servicebus.windows.net"
    assert settings.service_bus_connection_string == Secret("endpoint")
    assert (settings.poll_schedule, settings.track_schedule) == ("poll", "track")
    assert settings.token_prices == {"small": TokenPrice(1, 2), "large": TokenPrice(2, 8, 0.2)}
    assert settings.allow_ungated_replies
    assert not settings.has_managed_identity


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"CONFIG_PATH": "no/such/place"}, "is not a directory"),
        ({"MODEL_SDK": "langchain"}, "must be one of azure-ai-inference, openai"),
        ({"MODEL_ENDPOINT": "http://res.openai.azure.com"}, "would expose the key in transit"),
        ({"AzureWebJobsStorage__tableServiceUri": "http://acct.example"}, "would expose the key in transit"),
        ({"TOKEN_PRICES": "small=cheap"}, "write for each deployment"),
        ({"TOKEN_PRICES": "small=1/2/3/4"}, "write for each deployment"),
        ({"MAX_ATTEMPTS": "2.5"}, "must be a whole number"),
        ({"ALLOW_UNGATED_REPLIES": "yes"}, "must be one of true, false"),
        ({"MULTIMAIL_API_KEY": ""}, "is not set: set it to a key with the scopes read and send"),
    ],
)
def test_a_problem_says_what_is_wrong_in_plain_words(changes: dict[str, str], words: str) -> None:
    (problem,) = problems(**changes)
    assert words in problem
