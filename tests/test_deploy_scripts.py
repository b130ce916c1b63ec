"""The deployment's hooks, run for real against an `az` and a `curl` that write down what they were given."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest

from local.documentation.azure_picture import FUNCTIONS
from local.multimail.wire import EVENTS
from shared.watching.webhooks import ARRIVALS, FATES
from tests.declared_functions import read_declared_functions

ROOT = Path(__file__).parent.parent
KEY = "mm_live_0123456789abcdef"

# Answers by the beginning of its arguments: the files in its directory are named like them. A file
# that begins with FAIL makes it fail; each answer with a number behind it is given once.
FAKE = """#!{python}
import sys
from pathlib import Path
here = Path(__file__).parent
name = Path(__file__).name
words = " ".join([name, *sys.argv[1:]])
with open(here / "calls.log", "a") as log:
    log.write(words + "\\n")
if "@-" in sys.argv:
    log = "audit.log" if "audit-key" in sys.argv else "stdin.log"
    (here / log).write_text(sys.stdin.read())
if "--config" in sys.argv:
    (here / "config.log").write_text(sys.stdin.read())
for answer in sorted((here / "answers").iterdir()):
    if words.startswith(answer.name.split("#")[0].replace("_", " ")):
        text = answer.read_text()
        if "#" in answer.name:
            answer.unlink()
        if text.startswith("FAIL"):
            sys.exit(text)
        print(text, end="")
        break
"""


# By shell, the ending of its scripts and the switch of those that replace a secret.
SHELLS = {"sh": (".sh", "--replace"), "pwsh": (".ps1", "-Replace")}


@dataclass
class Shell:
    """Both variants of a script are asked for, and speak, by the names of the POSIX one."""

    directory: Path
    program: str = "sh"

    def answer(self, words: str, text: str) -> None:
        (self.directory / "answers" / words.replace(" ", "_")).write_text(text, encoding="utf-8")

    @property
    def calls(self) -> str:
        log = self.directory / "calls.log"
        return log.read_text(encoding="utf-8") if log.exists() else ""

    @property
    def stored(self) -> str | None:
        log = self.directory / "stdin.log"
        return log.read_text(encoding="utf-8") if log.exists() else None

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.directory}:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "RETRY_SECONDS": "0",
            "KEY_VAULT_NAME": "kv-test",
            "FUNCTION_APP_NAME": "func-test",
            "FUNCTION_APP_HOST": "func-test.azurewebsites.net",
            "AZURE_RESOURCE_GROUP": "rg-test",
            "AZURE_SUBSCRIPTION_ID": "subscription-test",
            "AZURE_LOCATION": "swedencentral",
            "WORKSPACE_NAME": "log-test",
            "ALERT_EMAIL": "operator@example.com",
        }

    def run(
        self,
        script: str,
        *arguments: str,
        settings: Mapping[str, str] = MappingProxyType({}),
        root: Path = ROOT,
    ) -> subprocess.CompletedProcess[str]:
        suffix, replace = SHELLS[self.program]
        words = [replace if word == "--replace" else word for word in arguments]
        done = subprocess.run(
            [self.program, str(root / "scripts" / Path(script).with_suffix(suffix)), *words],
            env=self.environment | dict(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        done.stdout = done.stdout.replace(f"{suffix} {replace}", ".sh --replace").replace(suffix, ".sh")
        return done

    def type_key(
        self,
        typed: str,
        *arguments: str,
        script: str = "store_key.sh",
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, str]:
        """Run a script at a terminal and type when it asks for a key; returns its status and the screen."""
        if self.program != "sh":
            pytest.skip("only the POSIX variant is typed to")
        child, terminal = pty.fork()
        if child == 0:
            words = ["sh", str(ROOT / "scripts" / script), *arguments]
            os.execve("/bin/sh", words, self.environment | dict(settings))
        screen, typed_already, deadline = b"", False, time.monotonic() + 30
        while time.monotonic() < deadline and select.select([terminal], [], [], 30)[0]:
            try:
                part = os.read(terminal, 4096)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not part:
                break
            screen += part
            if not typed_already and b"as you type): " in screen:
                os.write(terminal, typed.encode() + b"\n")
                typed_already = True
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), screen.decode()


@pytest.fixture(params=[shell for shell in SHELLS if shutil.which(shell)])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    (tmp_path / "answers").mkdir()
    for name in ("az", "azd", "curl"):
        program = tmp_path / name
        program.write_text(FAKE.replace("{python}", sys.executable), encoding="utf-8")
        program.chmod(0o755)
    return Shell(tmp_path, request.param)


# The key


def test_typed_key_reaches_the_vault_and_nothing_else(shell: Shell) -> None:
    status, screen = shell.type_key(KEY)
    assert (status, shell.stored) == (0, KEY)
    assert (
        "az keyvault secret set --vault-name kv-test --subscription subscription-test --name multimail-api-key"
        in shell.calls
    )
    assert "--output none" in shell.calls  # az would print the stored value
    assert KEY not in shell.calls
    assert KEY not in screen
    files = [path for path in shell.directory.rglob("*") if path.is_file() and path.name != "stdin.log"]
    assert not any(KEY in path.read_text(encoding="utf-8") for path in files)


def test_stored_key_is_left_alone_unless_it_is_to_be_replaced(shell: Shell) -> None:
    shell.answer("az keyvault secret list", "multimail-api-key\n")
    status, screen = shell.type_key(KEY)
    assert (status, shell.stored) == (0, None)
    assert "--replace" in screen
    assert shell.type_key(KEY, "--replace")[0] == 0
    assert shell.stored == KEY


def test_the_key_of_the_audit_trail_is_made_once_and_shown_nowhere(shell: Shell) -> None:
    done = shell.run("store_key.sh")  # also where nobody can type
    made = (shell.directory / "audit.log").read_text(encoding="utf-8")
    assert re.fullmatch("[0-9a-f]{64}", made)
    assert "Stored a new key of the audit trail as audit-key in the vault kv-test." in done.stdout
    assert made not in shell.calls + done.stdout
    shell.answer("az keyvault secret list", "audit-key\n")
    shell.run("store_key.sh")
    assert shell.calls.count("az keyvault secret set") == 1


@pytest.mark.parametrize("typed", ["", "two words", "schl\u00fcssel"])
def test_what_cannot_be_a_key_is_refused(shell: Shell, typed: str) -> None:
    status, screen = shell.type_key(typed)
    assert (status, shell.stored) == (1, None)
    assert "Not a valid key" in screen


def test_without_a_terminal_nothing_is_stored_and_the_way_is_said(shell: Shell) -> None:
    done = shell.run("store_key.sh")
    assert (done.returncode, shell.stored) == (0, None)
    assert "scripts/store_key.sh" in done.stdout


def test_a_pipeline_with_a_terminal_is_asked_for_nothing(shell: Shell) -> None:
    status, screen = shell.type_key(KEY, settings={"CI": "true"})
    assert (status, shell.stored) == (0, None)
    assert "as you type" not in screen
    assert "scripts/store_key.sh" in screen


def test_role_that_has_not_arrived_yet_is_waited_for(shell: Shell) -> None:
    shell.answer("az keyvault secret list#1", "FAIL: ForbiddenByRbac")
    status, _ = shell.type_key(KEY)
    assert (status, shell.stored) == (0, KEY)


@pytest.mark.parametrize(
    "answer",
    ["ForbiddenByRbac", "Failed to resolve 'kv-test.vault.azure.net' ([Errno -2] Name or service not known)"],
)
def test_vault_that_is_not_ready_in_ten_minutes_ends_with_what_to_do(shell: Shell, answer: str) -> None:
    shell.answer("az keyvault secret list", f"FAIL: {answer}")
    status, screen = shell.type_key(KEY)
    assert (status, shell.stored) == (1, None)
    assert answer in screen
    assert "Key Vault Secrets Officer" in screen
    assert "run azd up again" in screen
    pause = re.search(r"RETRY_SECONDS:-(\d+)", (ROOT / "scripts" / "vault.sh").read_text(encoding="utf-8"))
    assert pause
    assert shell.calls.count("az keyvault secret list") * int(pause[1]) == 600  # as long as a role may take


@pytest.mark.parametrize(
    "answer", ["Please run 'az login' to setup account.", "(VaultNotFound) The vault was not found."]
)
def test_what_another_try_does_not_mend_is_asked_once(shell: Shell, answer: str) -> None:
    shell.answer("az keyvault secret list", f"FAIL: {answer}")
    status, screen = shell.type_key(KEY)
    assert (status, shell.stored) == (1, None)
    assert answer in screen
    assert "Run az login" in screen
    assert shell.calls.count("az keyvault secret list") == 1


CLOSED = ["ForbiddenByConnection", "ForbiddenByFirewall", "Public network access is disabled"]


@pytest.mark.parametrize("answer", CLOSED)
def test_vault_in_a_private_network_holds_no_deployment_up_and_says_what_to_run_inside(
    shell: Shell, answer: str
) -> None:
    shell.answer("az keyvault secret list", f"FAIL: {answer}")
    status, screen = shell.type_key(KEY)
    assert (status, shell.stored) == (0, None)
    assert "export AZURE_SUBSCRIPTION_ID=subscription-test KEY_VAULT_NAME=kv-test" in screen
    assert "scripts/store_key.sh" in screen
    assert shell.calls.count("az keyvault secret list") == 1
    status, screen = subscribe(shell)
    assert status == 1
    assert "inside its network" in screen


@pytest.mark.parametrize("answer", ["ForbiddenByRbac", "ForbiddenByConnection", "Please run 'az login'"])
def test_where_nobody_types_a_vault_that_cannot_be_read_is_waited_for_by_nobody(
    shell: Shell, answer: str
) -> None:
    shell.answer("az keyvault secret list", f"FAIL: {answer}")
    done = shell.run("store_key.sh")
    assert done.returncode == 0
    assert "scripts/store_key.sh" in done.stdout
    assert shell.calls.count("az keyvault secret list") == 1


def test_a_warning_of_the_azure_cli_is_no_key(shell: Shell) -> None:
    shell.answer(
        "az keyvault secret list", "DeprecationWarning: multimail-api-key is listed by an old call\n"
    )
    assert shell.type_key(KEY)[0] == 0
    assert shell.stored == KEY


def test_vault_s_name_comes_from_azd_when_nothing_else_says_it(shell: Shell) -> None:
    shell.answer("azd env get-value", "kv-of-azd\n")
    environment = shell.environment
    del environment["KEY_VAULT_NAME"]
    script = ROOT / "scripts" / "store_key.sh"
    subprocess.run(["sh", script], env=environment, stdin=subprocess.DEVNULL, check=True, timeout=60)
    assert "--vault-name kv-of-azd" in shell.calls


# What is missing


SCRIPTS = [
    "check_plan.sh", "store_key.sh", "subscribe_webhook.sh", "wait_for_roles.sh", "check_deployment.sh"
]  # fmt: skip


def run_alone(shell: Shell, script: str, programs: str, *unset: str) -> subprocess.CompletedProcess[str]:
    """Run a script where there are these programs and no others."""
    alone = shell.directory / "alone"
    alone.mkdir()
    for name in programs.split():
        found = shutil.which(name, path=shell.environment["PATH"])
        assert found
        (alone / name).symlink_to(found)
    environment = {name: value for name, value in shell.environment.items() if name not in unset}
    return subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / script)], env=environment | {"PATH": str(alone)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_the_azure_cli_every_script_says_where_it_is(shell: Shell, script: str) -> None:
    done = run_alone(shell, script, "dirname")
    assert (done.returncode, done.stdout) == (
        1, "The Azure CLI is missing. Install it: https://aka.ms/azcli\n"
    )  # fmt: skip


def test_without_azd_the_setting_that_is_missing_is_named(shell: Shell) -> None:
    done = run_alone(shell, "store_key.sh", "az dirname printenv", "KEY_VAULT_NAME")
    assert done.returncode == 1
    assert "KEY_VAULT_NAME is not set. Set it, or run this where azd knows the environment." in done.stdout


# The webhook

SIGNING_SECRET = "whsec_abcdefghij0123456789"


def subscribe(shell: Shell, *arguments: str) -> tuple[int, str]:
    return shell.type_key(KEY, *arguments, script="subscribe_webhook.sh")


def test_subscribing_stores_the_signing_secret_and_shows_neither_it_nor_the_key(shell: Shell) -> None:
    shell.answer("curl", f'{{"id": "wh_1", "signing_secret": "{SIGNING_SECRET}",\n "events": ["x"]}}')
    status, screen = subscribe(shell)
    assert (status, shell.stored) == (0, SIGNING_SECRET)
    assert '"url": "https://func-test.azurewebsites.net/api/webhook"' in shell.calls
    assert "https://api.multimail.dev/v1/webhooks" in shell.calls
    assert (
        "az keyvault secret set --vault-name kv-test --subscription subscription-test --name multimail-webhook-secret"
        in shell.calls
    )
    config = (shell.directory / "config.log").read_text(encoding="utf-8")
    assert config == f'header = "Authorization: Bearer {KEY}"\n'
    for hidden in (KEY, SIGNING_SECRET):
        assert hidden not in shell.calls
        assert hidden not in screen


@pytest.mark.parametrize("script", ["subscribe_webhook.sh", "subscribe_webhook.ps1"])
def test_the_events_that_are_subscribed_to_are_ones_that_the_agent_and_the_service_know(script: str) -> None:
    text = (ROOT / "scripts" / script).read_text(encoding="utf-8")
    events = set(re.findall(r'"((?:message|oversight)\.\w+)"', text))
    assert events
    assert events <= set(ARRIVALS + FATES) & EVENTS


def test_without_a_terminal_nobody_is_subscribed_and_the_way_is_said(shell: Shell) -> None:
    done = shell.run("subscribe_webhook.sh")
    assert done.returncode == 1
    assert "in a terminal" in done.stdout
    assert "curl" not in shell.calls


def test_nobody_is_subscribed_twice_unless_asked_for(shell: Shell) -> None:
    shell.answer("az keyvault secret list", "multimail-webhook-secret\n")
    shell.answer("curl", f'{{"signing_secret": "{SIGNING_SECRET}"}}')
    status, screen = subscribe(shell)
    assert (status, shell.stored) == (0, None)
    assert "--replace" in screen
    assert "curl" not in shell.calls
    assert subscribe(shell, "--replace")[0] == 0
    assert shell.stored == SIGNING_SECRET


@pytest.mark.parametrize(
    ("words", "text", "complaint"),
    [
        ("curl", "FAIL: 403", "403"),
        ("curl", "{}", "no signing secret"),
        ("az keyvault secret set", "FAIL: 403", "Remove the subscription"),
    ],
)
def test_a_subscription_that_did_not_succeed_says_what_to_do(
    shell: Shell, words: str, text: str, complaint: str
) -> None:
    shell.answer("curl", f'{{"signing_secret": "{SIGNING_SECRET}"}}')
    shell.answer(words, text)
    status, screen = subscribe(shell)
    assert status != 0
    assert complaint in screen
    assert SIGNING_SECRET not in screen


# A secret that a profile names

ADDRESS = "https://hooks.example/workflows/0123456789?sig=SECRET"


def store_secret(shell: Shell, typed: str, *arguments: str) -> tuple[int, str]:
    return shell.type_key(typed, *arguments, script="store_secret.sh")


def test_the_address_of_a_target_reaches_the_vault_and_nothing_else(shell: Shell) -> None:
    shell.answer("az keyvault secret list", "notify-teams-support\n")  # an older one is replaced
    status, screen = store_secret(shell, ADDRESS, "teams-support")
    assert (status, shell.stored) == (0, ADDRESS)
    assert "--name notify-teams-support --value @- --output none" in shell.calls
    assert "SECRET" not in screen + shell.calls


def test_the_key_of_a_look_up_reaches_the_vault_under_the_name_that_the_profile_has(shell: Shell) -> None:
    shell.answer("az keyvault secret list", "")
    status, screen = store_secret(shell, "the-key-of-orders", "lookup-orders")
    assert (status, shell.stored) == (0, "the-key-of-orders")
    assert "--name lookup-orders --value @- --output none" in shell.calls
    assert "the-key-of-orders" not in screen + shell.calls
    assert "python -m local lookup MAILBOX ADDRESS" in screen


def test_an_endpoint_of_ones_own_has_its_key_in_the_vault_before_its_address(shell: Shell) -> None:
    typed, signing = f"{ADDRESS}\nkey-of-the-signatures", "--name notify-json-desk-key --value @-"
    status, _ = store_secret(shell, typed, "json-desk")
    assert (status, shell.stored) == (0, ADDRESS)
    assert shell.calls.index(signing) < shell.calls.index("--name notify-json-desk --value @-")
    shell.answer(
        f"az keyvault secret set --vault-name kv-test --subscription subscription-test {signing}", "FAIL: 403"
    )
    status, screen = store_secret(shell, typed, "json-desk")
    assert (status, shell.stored) == (1, "key-of-the-signatures")
    assert "Stored as" not in screen


@pytest.mark.parametrize("target", ["", "support", "teams-", "mail-support", "lookup-", "multimail-api-key"])
def test_a_name_that_no_profile_can_have_is_refused(shell: Shell, target: str) -> None:
    done = shell.run("store_secret.sh", *filter(None, [target]))
    assert done.returncode == 2
    assert "scripts/store_secret.sh teams-support" in done.stdout
    assert "az" not in shell.calls


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("http://hooks.example/x", "https"),
        ("http://hooks.example/https://x", "https"),
        ("", "Not a valid key"),
    ],
)
def test_what_cannot_be_an_address_is_not_stored(shell: Shell, typed: str, complaint: str) -> None:
    status, screen = store_secret(shell, typed, "slack-lead")
    assert (status, shell.stored) == (1, None)
    assert complaint in screen


@pytest.mark.parametrize("name", ["slack-lead", "lookup-orders"])
@pytest.mark.parametrize("answer", [*CLOSED, "Please run 'az login'"])
def test_a_secret_for_a_vault_that_does_not_open_ends_with_what_to_run(
    shell: Shell, answer: str, name: str
) -> None:
    shell.answer("az keyvault secret list", f"FAIL: {answer}")
    status, screen = store_secret(shell, ADDRESS, name)
    assert status != 0
    assert shell.stored is None
    assert f"scripts/store_secret.sh {name}" in screen


@pytest.mark.parametrize("name", ["slack-lead", "lookup-orders"])
def test_without_a_terminal_no_secret_of_a_profile_is_asked_for(shell: Shell, name: str) -> None:
    done = shell.run("store_secret.sh", name)
    assert (done.returncode, shell.calls) == (1, "")
    assert f"in a terminal: scripts/store_secret.sh {name}" in done.stdout


# The check


def deployed(shell: Shell) -> None:
    shell.answer("az functionapp function list", "".join(f"func-test/{name}\n" for name in FUNCTIONS))
    shell.answer("az keyvault secret list", "multimail-api-key\n")
    shell.answer("az rest", "3\n")


def test_working_deployment_passes_the_check(shell: Shell) -> None:
    deployed(shell)
    before = datetime.now(UTC).replace(microsecond=0)
    done = shell.run("check_deployment.sh")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "The agent is running.")
    assert "https://func-test.azurewebsites.net/api/health" in shell.calls
    since, until = re.findall(r"TimeGenerated > datetime\((.*?)\)", shell.calls), datetime.now(UTC)
    assert [before <= datetime.fromisoformat(time) <= until for time in since] == [True]
    assert (
        "az rest --method get --url /subscriptions/subscription-test/resourceGroups/rg-test/providers/"
        "Microsoft.OperationalInsights/workspaces/log-test/query --url-parameters api-version=2017-10-01 query=AppTraces"
    ) in shell.calls
    assert "poll.succeeded" in shell.calls


@pytest.mark.parametrize(
    ("words", "text", "complaint"),
    [
        ("az functionapp function list", "func-test/health\n", "functions are indexed"),
        ("curl", "FAIL: 503", "reaches its ledger"),
        ("az rest", "0\n", "a poll succeeded"),
        ("az rest", "FAIL: 403", "a poll succeeded"),
    ],
)
def test_deployment_that_does_not_work_fails_the_check(
    shell: Shell, words: str, text: str, complaint: str
) -> None:
    deployed(shell)
    shell.answer(words, text)
    done = shell.run("check_deployment.sh")
    assert done.returncode == 1
    assert complaint in done.stdout.splitlines()[-1]


def test_first_run_without_a_key_succeeds_and_says_how_to_store_it(shell: Shell) -> None:
    deployed(shell)
    shell.answer("az keyvault secret list", "")
    assert "scripts/store_key.sh" in shell.run("store_key.sh").stdout  # no terminal to ask at
    done = shell.run("check_deployment.sh")
    assert done.returncode == 0
    assert "without a MultiMail key" in done.stdout.splitlines()[-1]
    assert "scripts/store_key.sh" in done.stdout.splitlines()[-1]
    assert "az rest" not in shell.calls


@pytest.mark.parametrize(("polls", "status"), [("0\n", 0), ("7\n", 1)])
def test_from_outside_a_private_network_only_the_first_run_may_lack_a_key(
    shell: Shell, polls: str, status: int
) -> None:
    deployed(shell)
    shell.answer("az keyvault secret list", "FAIL: ForbiddenByConnection")
    (shell.directory / "answers" / "az_rest").unlink()  # since the deployment there is none
    shell.answer("az rest#1", polls)  # of all time
    done = shell.run("check_deployment.sh")
    assert done.returncode == status
    assert "datetime(2000-01-01)" in shell.calls
    assert "scripts/store_key.sh" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("answer", ["FAIL: Forbidden", "multimail-api-key\n"])
def test_the_poll_is_checked_with_a_key_and_by_who_may_not_look_for_one(shell: Shell, answer: str) -> None:
    deployed(shell)
    shell.answer("az keyvault secret list", answer)
    shell.answer("az rest", "0\n")
    assert shell.run("check_deployment.sh").returncode == 1


@pytest.mark.parametrize("script", ["check_deployment.sh", "check_deployment.ps1"])
def test_the_check_waits_for_every_function_that_the_app_has(script: str) -> None:
    text = (ROOT / "scripts" / script).read_text(encoding="utf-8")
    for name in read_declared_functions():
        assert name in text


# Before anything is created

MODELS = 'gpt-5.4-mini\t2026-03-17\t["GlobalStandard"]\ngpt-5.4\t2026-03-05\t["DataZoneStandard","GlobalStandard"]\n'


@pytest.fixture
def plan(shell: Shell) -> Shell:
    shell.answer("az group exists", "false\n")
    shell.answer("az functionapp list-flexconsumption-locations", "northeurope\nswedencentral\n")
    shell.answer("az cognitiveservices model list --location swedencentral", MODELS)
    shell.answer("az cognitiveservices model list --location eastus2", MODELS)
    shell.answer(
        "az cognitiveservices model list --location northeurope", MODELS.replace("GlobalStandard", "Standard")
    )
    return shell


def test_a_region_that_has_everything_passes(plan: Shell) -> None:
    done = plan.run("check_plan.sh")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"AZURE_LOCATION": "eastus2"}, "Flex Consumption is not offered in eastus2."),
        ({"AZURE_LOCATION": "northeurope"}, "are not offered in northeurope."),
        ({"MODEL_LOCATION": "westus9"}, "are not offered in westus9."),
    ],
)
def test_a_region_that_lacks_something_is_refused_with_those_that_have_it(
    plan: Shell, settings: dict[str, str], problem: str
) -> None:
    done = plan.run("check_plan.sh", settings=settings)
    assert done.returncode == 1
    assert "Nothing was created" in done.stdout
    assert problem in done.stdout
    assert [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")] == ["swedencentral"]
    assert "azd env set MODEL_LOCATION" in done.stdout


def test_who_gets_no_answer_about_the_models_is_told_that_and_not_that_there_are_none(plan: Shell) -> None:
    plan.answer("az cognitiveservices model list --location swedencentral", "FAIL: Forbidden")
    done = plan.run("check_plan.sh")
    assert done.returncode == 1
    assert "Nothing was created: the Azure CLI did not list the models of swedencentral" in done.stdout
    assert "not offered" not in done.stdout
    assert plan.calls.count("az cognitiveservices model list") == 1


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout whose parameters somebody may change."""
    shutil.copytree(ROOT / "scripts", tmp_path / "tree" / "scripts")
    (tmp_path / "tree" / "infra").mkdir()
    shutil.copy(ROOT / "infra" / "main.parameters.json", tmp_path / "tree" / "infra")
    return tmp_path / "tree"


@pytest.mark.parametrize("indent", [None, 4])
def test_the_models_are_read_however_their_file_is_laid_out(
    plan: Shell, tree: Path, indent: int | None
) -> None:
    path = tree / "infra" / "main.parameters.json"
    text = json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=indent, sort_keys=True)
    path.write_text(text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert plan.run("check_plan.sh", root=tree).returncode == 0
    path.write_text(text.replace("gpt-5.4-mini", "gpt-9"), encoding="utf-8")
    assert "are not offered in swedencentral" in plan.run("check_plan.sh", root=tree).stdout


def test_parameters_without_a_model_are_named(plan: Shell, tree: Path) -> None:
    (tree / "infra" / "main.parameters.json").write_text('{"parameters": {}}', encoding="utf-8")
    done = plan.run("check_plan.sh", root=tree)
    assert done.returncode == 1
    assert "Nothing was created: no model was read from infra/main.parameters.json" in done.stdout
    own = {"EXISTING_MODEL_ACCOUNT_NAME": "mine"}
    assert plan.run("check_plan.sh", root=tree, settings=own).returncode == 0


@pytest.mark.parametrize("settings", [{"MODEL_LOCATION": "eastus2"}, {"EXISTING_MODEL_ACCOUNT_NAME": "oai"}])
def test_models_may_be_elsewhere(plan: Shell, settings: dict[str, str]) -> None:
    assert plan.run("check_plan.sh", settings={"AZURE_LOCATION": "northeurope"} | settings).returncode == 0


def test_a_budget_gets_its_start_once(plan: Shell) -> None:
    settings = {"COST_BUDGET": "200", "AZURE_ENV_NAME": "mine"}
    assert plan.run("check_plan.sh", settings=settings).returncode == 0
    assert re.search(r"azd env set COST_BUDGET_START \d{4}-\d\d-01\n", plan.calls)
    assert "az consumption budget list" not in plan.calls  # its group does not exist
    (plan.directory / "calls.log").unlink()
    plan.run("check_plan.sh", settings=settings | {"COST_BUDGET_START": "2026-11-01"})
    assert "azd env set COST_BUDGET_START" not in plan.calls
    plan.answer("az group exists", "true\n")
    plan.answer(
        "az consumption budget list", "2026-03-01T00:00:00Z\n"
    )  # a pipeline has no environment of before
    plan.run("check_plan.sh", settings=settings)
    assert "azd env set COST_BUDGET_START 2026-03-01\n" in plan.calls


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VNET_ENABLED", "yes"), ("VNET_ENABLED", "True"), ("VNET_ENABLED", "1"), ("OPERATOR_FUNCTIONS_ENABLED", "off"),
        ("COST_BUDGET", "199.50"), ("COST_BUDGET", "-1"), ("COST_BUDGET", "1e3"), ("COST_BUDGET", "1234567890"),
    ],
)  # fmt: skip
def test_a_value_that_azd_would_leave_out_is_refused(plan: Shell, name: str, value: str) -> None:
    done = plan.run("check_plan.sh", settings={name: value})
    assert done.returncode == 1
    assert f"Nothing was created: {name} is {value}, not " in done.stdout
    assert f"azd env set {name} " in done.stdout
    assert "az " not in plan.calls


@pytest.mark.parametrize("script", ["check_plan.sh", "check_plan.ps1"])
def test_every_yes_or_no_of_azd_s_parameters_is_checked_or_set(script: str) -> None:
    text = (ROOT / "scripts" / script).read_text(encoding="utf-8")
    parameters = json.loads((ROOT / "infra" / "main.parameters.json").read_text(encoding="utf-8"))[
        "parameters"
    ]
    template = (ROOT / "infra" / "main.bicep").read_text(encoding="utf-8")
    switches = {
        parameters[name]["value"][2:-1]
        for name in re.findall(r"^param (\w+) bool", template, re.M)
        if name in parameters
    }
    checked = set(re.findall(r"\b([A-Z_]+) ?= ?\S*[{:]\1", text)) | set(
        re.findall(r"azd env set ([A-Z_]+) \"", text)
    )
    assert switches
    assert switches <= checked


@pytest.mark.parametrize(
    ("tier", "enabled", "right"),
    [("Premium", "", "true"), ("Premium", "false", "true"), ("Standard", "true", "false")],
)
def test_an_installation_stays_private_or_open_as_it_was_created(
    plan: Shell, tier: str, enabled: str, right: str
) -> None:
    plan.answer("az group exists", "true\n")
    plan.answer("az provider show", "Registered\n")
    plan.answer("az servicebus namespace list", f"{tier}\n")
    done = plan.run("check_plan.sh", settings={"AZURE_ENV_NAME": "mine", "VNET_ENABLED": enabled})
    assert done.returncode == 1
    assert "Nothing was created: VNET_ENABLED is" in done.stdout
    assert f"azd env set VNET_ENABLED {right}." in done.stdout
    assert "azd env set" not in plan.calls
    again = plan.run("check_plan.sh", settings={"AZURE_ENV_NAME": "mine", "VNET_ENABLED": right})
    assert again.returncode == 0


def test_too_little_quota_is_a_warning_of_the_first_run(plan: Shell) -> None:
    quotas = "OpenAI.GlobalStandard.gpt-5.4-mini\t1000.0\nOpenAI.GlobalStandard.gpt-5.4\t50.0\n"
    plan.answer("az cognitiveservices usage list --location swedencentral", quotas)
    done = plan.run("check_plan.sh", settings={"AZURE_ENV_NAME": "mine"})
    assert done.returncode == 0
    assert done.stdout == (
        "The quota of gpt-5.4 (GlobalStandard) in swedencentral is 50 thousand tokens a minute, less than the capacity 200 in"
        " infra/main.parameters.json: lower that, or ask for more quota.\n"
    )
    assert plan.run("check_plan.sh", settings={"EXISTING_MODEL_ACCOUNT_NAME": "mine"}).stdout == ""
    plan.answer("az group exists", "true\n")
    assert plan.run("check_plan.sh", settings={"AZURE_ENV_NAME": "mine"}).stdout == ""


def test_alerts_that_reach_nobody_are_named(plan: Shell, tree: Path) -> None:
    done = plan.run("check_plan.sh", root=tree, settings={"ALERT_EMAIL": ""})
    assert done.returncode == 0
    assert "azd env set ALERT_EMAIL you@example.com" in done.stdout
    path = tree / "infra" / "main.parameters.json"
    parameters = json.loads(path.read_text(encoding="utf-8"))
    parameters["parameters"]["actionGroupId"] = {"value": "/subscriptions/1"}
    path.write_text(json.dumps(parameters), encoding="utf-8")
    assert plan.run("check_plan.sh", root=tree, settings={"ALERT_EMAIL": ""}).stdout == ""


@pytest.mark.parametrize("missing", ["AZURE_LOCATION", "AZURE_SUBSCRIPTION_ID"])
def test_without_region_or_subscription_azd_is_to_ask_for_them(plan: Shell, missing: str) -> None:
    done = plan.run("check_plan.sh", settings={missing: ""})
    assert done.returncode == 1
    assert "Run azd up" in done.stdout


def test_who_is_not_signed_in_is_told_so_before_anything_is_created(plan: Shell) -> None:
    plan.answer("az functionapp list-flexconsumption-locations", "FAIL: Please run az login")
    done = plan.run("check_plan.sh")
    assert done.returncode == 1
    assert "Nothing was created" in done.stdout


def test_a_private_network_needs_its_provider_before_anything_is_created(plan: Shell) -> None:
    plan.answer("az provider show", "NotRegistered\n")
    done = plan.run("check_plan.sh", settings={"VNET_ENABLED": "true"})
    assert done.returncode == 1
    assert "Nothing was created" in done.stdout
    assert (
        "az provider register --namespace Microsoft.App --subscription subscription-test --wait"
        in done.stdout
    )
    assert plan.run("check_plan.sh", settings={"VNET_ENABLED": "false"}).returncode == 0
    plan.answer("az provider show", "Registered\n")
    assert plan.run("check_plan.sh", settings={"VNET_ENABLED": "true"}).returncode == 0


def test_what_an_earlier_installation_left_deleted_is_restored(plan: Shell) -> None:
    settings = {"AZURE_ENV_NAME": "mine", "MODEL_LOCATION": "eastus2"}
    assert plan.run("check_plan.sh", settings=settings).returncode == 0
    set_to_false = {"azd env set RECOVER_VAULT false", "azd env set RESTORE_MODEL_ACCOUNT false"}
    assert set_to_false <= set(plan.calls.splitlines())
    (plan.directory / "calls.log").unlink()
    plan.answer("az keyvault list-deleted", f"kv-{TOKEN}\tswedencentral\n")
    plan.answer("az cognitiveservices account list-deleted", f"oai-{TOKEN}\teastus2\n")
    done = plan.run("check_plan.sh", settings=settings)
    assert done.returncode == 0
    assert f"Restored from the earlier installation: kv-{TOKEN} oai-{TOKEN}\n" in done.stdout
    assert "run azd provision once more" in done.stdout  # recovering a vault changes nothing of it
    set_to_true = {"azd env set RECOVER_VAULT true", "azd env set RESTORE_MODEL_ACCOUNT true"}
    assert set_to_true <= set(plan.calls.splitlines())
    assert "'/resourceGroups/rg-mine/')" in plan.calls
    plan.answer("az keyvault list-deleted", "")
    assert "azd provision" not in plan.run("check_plan.sh", settings=settings).stdout


TOKEN = "abcdefghij234"


@pytest.mark.parametrize("deleted", [f"oai-{TOKEN}\tswedencentral", "my-own\teastus2", "oai-mine\teastus2"])
def test_what_was_deleted_under_another_name_is_not_restored(plan: Shell, deleted: str) -> None:
    """The template makes the account's name of its region: nothing of that name can be restored in another."""
    plan.answer("az cognitiveservices account list-deleted", f"{deleted}\n")
    plan.answer("az keyvault list-deleted", "kv-mine\tswedencentral\n")
    done = plan.run("check_plan.sh", settings={"AZURE_ENV_NAME": "mine", "MODEL_LOCATION": "eastus2"})
    assert (done.returncode, done.stdout) == (0, "")
    set_to_false = {"azd env set RECOVER_VAULT false", "azd env set RESTORE_MODEL_ACCOUNT false"}
    assert set_to_false <= set(plan.calls.splitlines())


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("az provider show", "say whether the provider Microsoft.App is registered"),
        ("az group exists", "say whether the resource group rg-mine exists"),
        ("az servicebus namespace list", "list the Service Bus namespaces of rg-mine"),
        ("az consumption budget list", "list the budgets of rg-mine"),
        ("az keyvault list-deleted", "list the deleted vaults"),
        ("az cognitiveservices account list-deleted", "list the deleted model accounts"),
    ],
)
def test_who_gets_no_answer_is_told_so_before_anything_is_created(plan: Shell, words: str, what: str) -> None:
    plan.answer("az provider show", "Registered\n")
    plan.answer("az group exists", "true\n")
    plan.answer("az servicebus namespace list", "Premium\n")
    plan.answer(words, "FAIL: Forbidden")
    settings = {"AZURE_ENV_NAME": "mine", "VNET_ENABLED": "true", "COST_BUDGET": "200"}
    done = plan.run("check_plan.sh", settings=settings)
    assert done.returncode == 1
    assert "Forbidden" in done.stdout
    assert f"Nothing was created: the Azure CLI did not {what}" in done.stdout


# Before the first upload


def test_the_first_upload_waits_for_the_role_and_a_later_one_for_nothing(shell: Shell) -> None:
    shell.answer("az functionapp keys list#1", "FAIL: the host cannot read its storage")
    shell.answer("az functionapp keys list#2", "FAIL: the host cannot read its storage")
    done = shell.run("wait_for_roles.sh")
    assert (done.returncode, shell.calls.count("az functionapp keys list")) == (0, 3)
    assert "run azd deploy again" in done.stdout
    shell.answer("az functionapp function list", "func-test/health\n")
    again = shell.run("wait_for_roles.sh")
    assert (again.returncode, again.stdout, shell.calls.count("az functionapp keys list")) == (0, "", 3)


def test_a_role_that_does_not_show_holds_no_upload_up_for_ever(shell: Shell) -> None:
    shell.answer("az functionapp keys list", "FAIL: the host does not run yet")
    assert shell.run("wait_for_roles.sh").returncode == 0
    assert shell.calls.count("az functionapp keys list") == 15


# All of them


@pytest.mark.parametrize(
    "script", ["check_plan.sh", "store_key.sh", "wait_for_roles.sh", "check_deployment.sh"]
)
def test_a_hook_waits_for_no_input_where_nobody_types(plan: Shell, script: str) -> None:
    """azd hands its own input to them, which may be a pipe that stays open."""
    if script == "check_deployment.sh":
        deployed(plan)
    nobody, writes = os.pipe()
    try:
        done = subprocess.run(
            ["sh", str(ROOT / "scripts" / script)],
            env=plan.environment, stdin=nobody, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(nobody)
        os.close(writes)
    assert done.returncode == 0, done.stderr


def test_a_checkout_on_windows_keeps_the_ends_of_lines_that_a_shell_reads() -> None:
    scripts = [str(path.relative_to(ROOT)) for path in (ROOT / "scripts").glob("*.sh")]
    said = subprocess.run(
        ["git", "check-attr", "eol", "--", *scripts], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    assert [line.rsplit(" ", 1)[1] for line in said.splitlines()] == ["lf"] * len(scripts)


# The audit


@pytest.mark.parametrize(
    ("report", "status", "said"),
    [
        ("", 1, "Traceback: broken"),
        ("half of {", 1, "nothing was audited"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "1 packages audited, 0 known"),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "V-1", "fix_versions": ["2"]}]}]}',
            1,
            "a 1: V-1, fixed in 2",
        ),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 0, "SKIPPED"),
    ],
)
def test_an_audit_without_a_report_fails(tmp_path: Path, report: str, status: int, said: str) -> None:
    tools = {
        "python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
        "detect-secrets-hook": "#!/bin/sh\nexit 0\n",
        "pip-audit": f"#!/bin/sh\necho 'Traceback: broken' >&2\nprintf '%s' '{report}'\nexit 1\n",
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "audit.sh")],
        env={**os.environ, "PYTHON": str(tmp_path / "python")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert said in done.stdout
