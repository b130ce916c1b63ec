"""The shape: imports point down only, and importing the triggers costs nothing."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    ("errors",),
    ("domain",),
    (
        "settings", "chat", "ledger", "work_queue", "telemetry", "prompting", "ledger_rows", "knowledge",
        "draft_checks", "http_answer",
    ),
    ("chat_wire", "http_session", "profiles", "beside"),
    (
        "multimail", "chat_azure_inference", "chat_openai", "ledger_sqlite", "ledger_tables",
        "work_queue_servicebus", "secret_source", "credentials", "knowledge_files", "knowledge_azure_search",
        "profile_file",
    ),
    ("chat_telemetry", "mailboxes", "guardrails", "gate", "threads", "triage", "drafting"),
    ("ask_sending",),
    ("ask_tools",),
    ("polling", "pipeline", "replies", "asking"),
    ("webhooks", "ask_requests"),
    ("trust",),
    ("trust_page",),
    ("composition",),
    ("http_functions",),
)  # fmt: skip
# Values that modules of one layer may share: they are seams, not siblings.
SAME_LAYER = {("ledger_rows", "ledger")}
SDKS = {"requests", "urllib3", "azure", "openai", "sqlite3", "httpx2"}
HEAVY = (
    "openai",
    "azure.ai.inference",
    "azure.servicebus",
    "azure.identity",
    "azure.keyvault",
    "azure.data.tables",
    "requests",
    "shared.composition",
)
AGENT = ("requests", "shared.composition")  # what the first invocation needs


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_every_module_has_its_layer() -> None:
    modules = {path.stem for path in (ROOT / "shared").glob("*.py")} - {"__init__"}
    assert modules == {name for layer in LAYERS for name in layer}


@pytest.mark.parametrize("module", [name for layer in LAYERS for name in layer])
def test_imports_point_down_only(module: str) -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    used = {
        name.removeprefix("shared.")
        for name in imports(ROOT / "shared" / f"{module}.py")
        if "shared." in name
    }
    upward = {name for name in used if level[name] >= level[module] and (module, name) not in SAME_LAYER}
    assert upward == set()


@pytest.mark.parametrize(
    "module", [name for n, layer in enumerate(LAYERS) if n not in (3, 4) for name in layer]
)
def test_only_adapters_and_the_root_touch_an_sdk(module: str) -> None:
    used = {name.partition(".")[0] for name in imports(ROOT / "shared" / f"{module}.py")}
    assert used & SDKS <= ({"azure"} if module == "composition" else set())


def test_only_the_root_sees_the_environment() -> None:
    readers = [
        path.stem
        for path in (ROOT / "shared").glob("*.py")
        if re.search(r"\bos\.(environ|getenv)|import (environ|getenv)", path.read_text(encoding="utf-8"))
    ]
    assert readers == ["composition"]


def test_local_is_never_imported_by_what_is_deployed() -> None:
    for path in [ROOT / "function_app.py", *(ROOT / "shared").glob("*.py")]:
        assert not any(
            name.partition(".")[0] in ("local", "tests", "evals", "benchmarks") for name in imports(path)
        )


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [("function_app", HEAVY), ("shared.http_functions", [m for m in HEAVY if m not in AGENT])],
)
def test_importing_the_triggers_and_the_agent_needs_no_setting_and_no_heavy_sdk(
    modules: str, heavy: Sequence[str]
) -> None:
    code = f"import sys, json, {modules}; print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    bare = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=bare,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == []


def test_the_triggers_are_the_documented_ones_and_stay_a_few_lines() -> None:
    tree = ast.parse((ROOT / "function_app.py").read_text(encoding="utf-8"))
    functions = {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list
    }
    timers = {"poll_inboxes", "track_replies"}
    assert set(functions) == timers | {"process_email", "receive_webhook", "ask_agent", "report", "health"}
    assert all(len(function.body) <= 3 for function in functions.values())


def test_host_json_fits_the_leases() -> None:
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))
    bus = host["extensions"]["serviceBus"]

    def seconds(text: str) -> int:
        hours, minutes, rest = map(int, text.split(":"))
        return hours * 3600 + minutes * 60 + rest

    assert seconds(host["functionTimeout"]) < 600  # LEASE_SECONDS
    assert seconds(bus["maxAutoLockRenewalDuration"]) >= seconds(host["functionTimeout"])
    assert bus["prefetchCount"] == 0
    assert host["telemetryMode"] == "OpenTelemetry"
