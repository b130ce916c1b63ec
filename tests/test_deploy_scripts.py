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
from pathlib import Path
from types import MappingProxyType

import pytest

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


@dataclass
class Shell:
    directory: Path

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
            "WORKSPACE_ID": "workspace-test",
        }

    def run(
        self,
        script: str,
        *arguments: str,
        settings: Mapping[str, str] = MappingProxyType({}),
        root: Path = ROOT,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(root / "scripts" / script), *arguments],
            env=self.environment | dict(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    def type_key(
        self,
        typed: str,
        *arguments: str,
        script: str = "store_key.sh",
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, str]:
        """Run a script at a terminal and type when it asks for a key; returns its status and the screen."""
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


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "answers").mkdir()
    for name in ("az", "azd", "curl"):
        program = tmp_path / name
        program.write_text(FAKE.replace("{python}", sys.executable), encoding="utf-8")
        program.chmod(0o755)
    return Shell(tmp_path)


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


def test_vault_that_stays_closed_ends_with_what_to_do(shell: Shell) -> None:
    shell.answer("az keyvault secret list", "FAIL: ForbiddenByRbac")
    done = shell.run("store_key.sh")
    assert done.returncode == 1
    assert "Key Vault Secrets Officer" in done.stdout
    assert "run azd up again" in done.stdout
    pause = re.search(r"RETRY_SECONDS:-(\d+)", (ROOT / "scripts" / "vault.sh").read_text(encoding="utf-8"))
    assert pause
    assert shell.calls.count("az keyvault secret list") * int(pause[1]) == 600  # as long as a role may take


def test_vault_s_name_comes_from_azd_when_nothing_else_says_it(shell: Shell) -> None:
    shell.answer("azd env get-value", "kv-of-azd\n")
    environment = shell.environment
    del environment["KEY_VAULT_NAME"]
    script = ROOT / "scripts" / "store_key.sh"
    subprocess.run(["sh", script], env=environment, stdin=subprocess.DEVNULL, check=True, timeout=60)
    assert "--vault-name kv-of-azd" in shell.calls


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


# The check


def deployed(shell: Shell) -> None:
    names = (
        "poll_inboxes",
        "process_email",
        "track_replies",
        "notify_people",
        "receive_webhook",
        "ask_agent",
        "report",
        "review",
        "health",
    )
    shell.answer("az functionapp function list", "".join(f"func-test/{name}\n" for name in names))
    shell.answer("az keyvault secret list", "multimail-api-key\n")
    shell.answer("az rest", "3\n")


def test_working_deployment_passes_the_check(shell: Shell) -> None:
    deployed(shell)
    done = shell.run("check_deployment.sh")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "The agent is running.")
    assert "https://func-test.azurewebsites.net/api/health" in shell.calls
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
    assert "has no MultiMail key yet" in done.stdout.splitlines()[-1]
    assert "scripts/store_key.sh" in done.stdout.splitlines()[-1]
    assert "az rest" not in shell.calls


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
    assert plan.run("check_plan.sh", settings={"COST_BUDGET": "200"}).returncode == 0
    assert re.search(r"azd env set COST_BUDGET_START \d{4}-\d\d-01\n", plan.calls)
    (plan.directory / "calls.log").unlink()
    plan.run("check_plan.sh", settings={"COST_BUDGET": "200", "COST_BUDGET_START": "2026-11-01"})
    assert "azd env set" not in plan.calls
    plan.answer(
        "az consumption budget list", "2026-03-01T00:00:00Z\n"
    )  # a pipeline has no environment of before
    plan.run("check_plan.sh", settings={"COST_BUDGET": "200"})
    assert "azd env set COST_BUDGET_START 2026-03-01\n" in plan.calls


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
    plan.answer("az keyvault list-deleted", "kv-1\n")
    plan.answer("az cognitiveservices account list-deleted", "oai-1\teastus2\n")
    done = plan.run("check_plan.sh", settings=settings)
    assert done.returncode == 0
    assert "Restored from the earlier installation: kv-1 oai-1\n" in done.stdout
    assert "run azd provision once more" in done.stdout  # recovering a vault changes nothing of it
    set_to_true = {"azd env set RECOVER_VAULT true", "azd env set RESTORE_MODEL_ACCOUNT true"}
    assert set_to_true <= set(plan.calls.splitlines())
    assert "'/resourceGroups/rg-mine/') && properties.location=='swedencentral'" in plan.calls
    plan.answer("az keyvault list-deleted", "")
    assert "azd provision" not in plan.run("check_plan.sh", settings=settings).stdout


def test_a_model_account_that_was_deleted_in_another_region_is_named_with_what_to_do(plan: Shell) -> None:
    plan.answer("az cognitiveservices account list-deleted", "oai-1\teastus2\n")
    done = plan.run("check_plan.sh", settings={"AZURE_ENV_NAME": "mine"})
    assert done.returncode == 1
    assert "Nothing was created: the model account oai-1" in done.stdout
    assert "azd env set MODEL_LOCATION eastus2" in done.stdout
    assert (
        "az cognitiveservices account purge --name oai-1 --resource-group rg-mine --location eastus2"
        " --subscription subscription-test" in done.stdout
    )
    assert "azd env set" not in plan.calls
    own = {"AZURE_ENV_NAME": "mine", "EXISTING_MODEL_ACCOUNT_NAME": "mine"}  # the deleted one is not needed
    assert plan.run("check_plan.sh", settings=own).returncode == 0


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("az provider show", "say whether the provider Microsoft.App is registered"),
        ("az keyvault list-deleted", "list the deleted vaults"),
        ("az cognitiveservices account list-deleted", "list the deleted model accounts"),
    ],
)
def test_who_gets_no_answer_is_told_so_before_anything_is_created(plan: Shell, words: str, what: str) -> None:
    plan.answer("az provider show", "Registered\n")
    plan.answer(words, "FAIL: Forbidden")
    done = plan.run("check_plan.sh", settings={"AZURE_ENV_NAME": "mine", "VNET_ENABLED": "true"})
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
