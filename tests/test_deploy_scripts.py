"""The deployment's hooks, run for real against an `az` and a `curl` that write down what they were given."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

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
    (here / "stdin.log").write_text(sys.stdin.read())
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
            "WORKSPACE_ID": "workspace-test",
        }

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(ROOT / "scripts" / script), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    def type_key(self, typed: str, *arguments: str, script: str = "store_key.sh") -> tuple[int, str]:
        """Run a script at a terminal and type when it asks for a key; returns its status and the screen."""
        child, terminal = pty.fork()
        if child == 0:
            os.execve("/bin/sh", ["sh", str(ROOT / "scripts" / script), *arguments], self.environment)
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


@pytest.mark.parametrize("typed", ["", "two words", "schl\u00fcssel"])
def test_what_cannot_be_a_key_is_refused(shell: Shell, typed: str) -> None:
    status, screen = shell.type_key(typed)
    assert (status, shell.stored) == (1, None)
    assert "Not a valid key" in screen


def test_without_a_terminal_nothing_is_stored_and_the_way_is_said(shell: Shell) -> None:
    done = shell.run("store_key.sh")
    assert (done.returncode, shell.stored) == (0, None)
    assert "scripts/store_key.sh" in done.stdout


def test_role_that_has_not_arrived_yet_is_waited_for(shell: Shell) -> None:
    shell.answer("az keyvault secret list#1", "FAIL: ForbiddenByRbac")
    status, _ = shell.type_key(KEY)
    assert (status, shell.stored) == (0, KEY)


def test_vault_that_stays_closed_ends_with_what_to_do(shell: Shell) -> None:
    shell.answer("az keyvault secret list", "FAIL: ForbiddenByRbac")
    done = shell.run("store_key.sh")
    assert done.returncode == 1
    assert "Key Vault Secrets Officer" in done.stdout


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


@pytest.mark.parametrize("script", ["check_deployment.sh", "check_deployment.ps1"])
def test_the_check_waits_for_every_function_that_the_app_has(script: str) -> None:
    text = (ROOT / "scripts" / script).read_text(encoding="utf-8")
    for name in read_declared_functions():
        assert name in text


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
