"""The commands that operators, hooks and workflows run: the real Azure CLI and azd's own help know every one of them."""

import json
import re
import subprocess
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from tests.commands import (
    ROOT,
    Command,
    WrongSyntaxError,
    find_printed,
    list_files,
    parse_script,
    read_commands,
    read_names,
)
from tests.missing_tools import leave_out

AZURE_CLI = ROOT / ".azure-cli" / "bin" / "python"
AZD = tomllib.loads((ROOT / "tests" / "azd_commands.toml").read_text(encoding="utf-8"))
SCRIPTS = [path for path in list_files(".sh", ".ps1") if path.parent.name == "scripts"]
PAIRS = [path.stem for path in SCRIPTS if path.suffix == ".sh" and path.with_suffix(".ps1") in SCRIPTS]
RUN_BY_MACHINES = [*SCRIPTS, ROOT / ".ci" / "run", ROOT / "azure.yaml", *list_files(".yml")]
DOCUMENTS = [
    path for path in list_files(".md") if path.name != "CHANGELOG.md"
]  # which tells of earlier commands too
WITH_MESSAGES = [
    path for path in list_files(".sh", ".ps1", ".bicep", ".bicepparam", ".py") if "tests" not in path.parts
]
# The variables that hold a key or the signing secret; $answer has the latter.
SECRETS = frozenset({"key", "typed", "value", "answer"})
WITH_SECRETS = [
    path
    for path in SCRIPTS
    if path.name == "vault.ps1"
    or (path.suffix == ".ps1" and "/vault.ps1" in path.read_text(encoding="utf-8"))
]
# Of a directory or of the CLI itself, not of a subscription.
WITHOUT_SUBSCRIPTION = ("login", "ad", "bicep", "account")


def read_all(paths: Sequence[Path], program: str) -> list[Command]:
    found = [command for path in paths for command in read_commands(path)]
    return [command for command in found if command.words[0] == program]


# Syntax


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_what_its_shell_understands(path: Path) -> None:
    list(parse_script(path.read_text(encoding="utf-8"), path.suffix.removeprefix(".")))


@pytest.mark.parametrize(
    ("shell", "text"),
    [
        ("ps1", "if ($a -eq 1) { az login"),
        ("ps1", "function Get-It { param([string]$a }"),
        ("sh", "if true; then az login"),
    ],
)
def test_wrong_syntax_is_caught(shell: str, text: str) -> None:
    with pytest.raises(WrongSyntaxError, match="line 1 is not"):
        list(parse_script(text, shell))


@pytest.mark.parametrize(
    ("shell", "text"),
    [
        (
            "sh",
            "if ! found=$(A=1 az group show --name \"rg-$NAME\" \\\n  --query '[].a' | tail); then exit; fi",
        ),
        ("ps1", "$found = (az group show --name \"rg-$NAME\" `\n  --query '[].a' | Out-String)"),
    ],
)
def test_commands_are_found_wherever_they_stand(shell: str, text: str) -> None:
    assert list(parse_script(text, shell)) == [("az", "group", "show", "--name", "rg-x", "--query", "[].a")]


# Two variants of each script


def list_hooks() -> Iterator[Mapping[str, Any]]:
    azure = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))
    for owner in (azure, *azure["services"].values()):
        yield from owner.get("hooks", {}).values()


def test_a_hook_has_a_variant_for_each_system() -> None:
    assert list(list_hooks())
    for hook in list_hooks():
        posix, windows = hook["posix"], hook["windows"]
        assert (posix["shell"], windows["shell"]) == ("sh", "pwsh")
        assert posix["run"].removesuffix(".sh") == windows["run"].removesuffix(".ps1")
        assert posix.get("interactive") == windows.get("interactive")
        assert Path(posix["run"]).stem in PAIRS


def test_each_hook_runs_the_script_of_its_step() -> None:
    azure = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))
    owners = (azure, azure["services"]["agent"])
    hooks = {
        event: Path(hook["posix"]["run"]).stem for owner in owners for event, hook in owner["hooks"].items()
    }
    assert hooks == {
        "preprovision": "check_plan",
        "postprovision": "store_key",
        "prepackage": "package",
        "predeploy": "wait_for_roles",
        "postdeploy": "check_deployment",
    }


def test_the_pipeline_signs_in_twice_then_creates_then_deploys() -> None:
    path = ROOT / ".github" / "workflows" / "azure-dev.yml"
    (job,) = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    actions = [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step]
    assert actions == ["actions/checkout", "azure/setup-azd", "azure/login"]
    assert all("run" not in step for step in job["steps"][: len(actions)])
    commands = [" ".join(command.words[:3]) for command in read_commands(path)]
    assert [name for name in commands if name.startswith("azd ")] == [
        "azd auth login",
        "azd provision --no-prompt",
        "azd deploy --no-prompt",
    ]
    # GitHub's sign-in ends after five minutes: az keeps what it was given before.
    kept = [
        command.words
        for command in read_commands(path)
        if command.words[1:3] == ("account", "get-access-token")
    ]
    assert any("https://vault.azure.net" in words for words in kept)
    assert commands.index("az account get-access-token") < commands.index("azd provision --no-prompt")


@pytest.mark.parametrize("path", WITH_SECRETS, ids=lambda path: path.name)
def test_no_powershell_script_prints_a_secret(path: Path) -> None:
    assert {"store_key.ps1", "subscribe_webhook.ps1", "vault.ps1"} <= {script.name for script in WITH_SECRETS}
    assert find_printed(path.read_text(encoding="utf-8"), SECRETS) == []


@pytest.mark.parametrize(
    "text",
    [
        "Write-Host $key",
        'Write-Output "stored $key"',
        "Write-Host ('it is ' + $Answer.signing_secret)",
        '[Console]::Error.WriteLine("$($typed)")',
        "Stop-Script $env:KEY $Value",
        "$key | Out-Host",
        "$key",
    ],
)
def test_a_printed_secret_is_caught(text: str) -> None:
    assert find_printed(text, SECRETS)


@pytest.mark.parametrize(
    "text", ["return $key", '$key | az x --value "@-"', "$body = @{ key = $key }", "Write-Host $name"]
)
def test_the_use_of_a_secret_is_not_printing_it(text: str) -> None:
    assert find_printed(text, SECRETS) == []


@pytest.mark.parametrize("name", PAIRS)
def test_both_variants_run_the_same_az_commands_with_the_same_settings(name: str) -> None:
    posix, windows = (ROOT / "scripts" / f"{name}{suffix}" for suffix in (".sh", ".ps1"))
    assert [c.words for c in read_all([posix], "az")] == [c.words for c in read_all([windows], "az")]
    settings = [
        set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", path.read_text(encoding="utf-8")))
        for path in (posix, windows)
    ]
    assert settings[0] == settings[1]


def test_the_document_names_the_versions_that_are_required() -> None:
    document = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    azure = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))
    azd = azure["requiredVersions"]["azd"].removeprefix(">= ").removesuffix(".0")
    assert f"[azd](https://aka.ms/azd) {azd} or newer" in document
    required = {
        re.findall(r"^#Requires -Version (.+)$", path.read_text(encoding="utf-8"), re.M)[0]
        for path in SCRIPTS
        if path.suffix == ".ps1"
    }
    (powershell,) = required
    assert f"[PowerShell](https://aka.ms/powershell) {powershell} or newer" in document


def test_the_app_for_signing_in_asks_for_tokens_of_the_issuer_that_is_accepted() -> None:
    function_app = (ROOT / "infra" / "modules" / "function-app.bicep").read_text(encoding="utf-8")
    version = re.findall(r"openIdIssuer: '.*/v(\d)\.0'", function_app)
    registrations = [c.words for c in read_all(DOCUMENTS, "az") if c.words[1:4] == ("ad", "app", "create")]
    (operators,) = (words for words in registrations if "AzureADMyOrg" in words)
    assert [operators[operators.index("--requested-access-token-version") + 1]] == version


# The subscription


def lacks_subscription(command: Command) -> bool:
    if command.words[1] == "rest":  # it takes the subscription from nothing but the address
        return not any(word.startswith("/subscriptions/") for word in command.words)
    return command.words[1] not in WITHOUT_SUBSCRIPTION and "--subscription" not in command.words


def test_what_a_machine_runs_names_the_subscription() -> None:
    """The Azure CLI has a subscription of its own by default, and azd another."""
    commands = read_all(RUN_BY_MACHINES, "az")
    assert commands
    assert [str(command) for command in commands if lacks_subscription(command)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_chooses_the_subscription_before_its_commands(path: Path) -> None:
    commands = read_all([path], "az")
    chosen = [command.words[1:4] == ("account", "set", "--subscription") for command in commands]
    before = commands[: chosen.index(True)] if any(chosen) else commands
    assert [str(command) for command in before if lacks_subscription(command)] == []


def test_a_command_without_a_subscription_is_caught() -> None:
    assert lacks_subscription(Command("x", ("az", "functionapp", "list", "--resource-group", "x")))
    assert not lacks_subscription(Command("x", ("az", "ad", "signed-in-user", "show")))
    elsewhere = ("az", "rest", "--url", "https://api.loganalytics.io/v1", "--subscription", "x")
    assert lacks_subscription(Command("x", elsewhere))
    assert not lacks_subscription(Command("x", ("az", "rest", "--url", "/subscriptions/x/resourceGroups/x")))


# The real Azure CLI


@cache
def find_az_problems(commands: tuple[Command, ...], names: tuple[Command, ...]) -> dict[str, str]:
    if not AZURE_CLI.exists():
        leave_out("no Azure CLI: `make .azure-cli/.installed` installs it (370 MB), `make infra` does too")
    given = {"commands": [c.words[1:] for c in commands], "names": [c.words[1:] for c in names]}
    done = subprocess.run(
        [AZURE_CLI, ROOT / "tests" / "azure_cli" / "parse_commands.py"], check=True, timeout=600,
        input=json.dumps(given), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    verdicts = json.loads(done.stdout)
    said = zip((*commands, *names), verdicts["commands"] + verdicts["names"], strict=True)
    return {str(command): problem for command, problem in said if problem}


# What the parser says of each planted mistake.
PLANTED = {
    "functionapp log tail": "'tail' is misspelled or not recognized",
    "functionapp list --resource-grup rg": "unrecognized arguments: --resource-grup rg",
    "functionapp keys list --name x": "the following arguments are required: --resource-group/-g",
    "functionapp list --query [0": "argument --query: invalid jmespath_type value",
    "keyvault secret set --vault-name x --name x --value @stdin": "not read from standard input",
}


def test_the_azure_cli_understands_every_command() -> None:
    planted = {Command("planted", ("az", *text.split())): said for text, said in PLANTED.items()}
    planted_name = Command("planted", ("az", "functionapp", "log", "tail", "or"))
    commands = read_all([*RUN_BY_MACHINES, *DOCUMENTS], "az")
    names = [name for path in WITH_MESSAGES for name in read_names(path) if name.words[0] == "az"]
    problems = find_az_problems((*commands, *planted), (*names, planted_name))
    for command, said in planted.items():
        assert said in problems.pop(str(command))
    assert "does not begin with a command" in problems.pop(str(planted_name))
    assert problems == {}


# azd


class _AzdParser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def find_azd_problem(words: Sequence[str]) -> str:
    """What the table of azd's commands says against one; the longest name that fits counts."""
    names = [" ".join(words[1:end]) for end in range(len(words), 1, -1)]
    name = next((name for name in names if name in AZD and name != "every"), None)
    if name is None:
        return "azd documents no such command"
    parser = _AzdParser(add_help=False, allow_abbrev=False)
    for option in AZD["every"]["options"] + AZD[name]["options"]:
        flags, _, value = option.replace(", ", ",").partition(" ")
        parser.add_argument(*flags.split(","), action="store" if value else "store_true")
    for argument in AZD[name]["arguments"]:
        parser.add_argument(argument, nargs="?" if argument.startswith("[") else None)
    try:
        parser.parse_args(words[1 + len(name.split()) :])
    except ValueError as problem:
        return str(problem)
    return ""


def test_azd_documents_every_command() -> None:
    commands = read_all([*RUN_BY_MACHINES, *DOCUMENTS], "azd")
    assert {str(c): find_azd_problem(c.words) for c in commands if find_azd_problem(c.words)} == {}


def test_azd_documents_every_command_in_a_message() -> None:
    groups = {name.split()[0] for name in AZD}
    names = [name for path in WITH_MESSAGES for name in read_names(path) if name.words[0] == "azd"]
    for name in names:
        if name.words[1] in groups:
            assert any(" ".join(name.words[1:end]) in AZD for end in range(2, len(name.words) + 1)), name


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("azd env get-valeu KEY", "no such command"),
        ("azd env", "no such command"),
        ("azd down --prune", "unrecognized arguments: --prune"),
        ("azd env set KEY", "the following arguments are required: value"),
        ("azd up agent", "unrecognized arguments: agent"),
        ("azd down --purge --environment test --no-prompt", ""),
        ("azd deploy", ""),
    ],
)
def test_a_wrong_azd_command_is_caught(command: str, complaint: str) -> None:
    problem = find_azd_problem(command.split())
    assert complaint in problem
    assert bool(problem) == bool(complaint)


@pytest.mark.parametrize("name", AZD)
def test_an_azd_command_names_the_help_it_was_read_from(name: str) -> None:
    file = "up" if name == "every" else name.replace(" ", "-")
    assert AZD[name]["source"].startswith("https://github.com/Azure/azure-dev/blob/")
    assert AZD[name]["source"].endswith(f"/cli/azd/cmd/testdata/TestUsage-azd-{file}.snap")
