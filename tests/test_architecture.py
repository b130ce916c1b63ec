"""The shape: packages import downwards only, and importing the triggers costs nothing."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from local.documentation.azure_picture import FUNCTIONS
from local.documentation.packages import LAYERS

ROOT = Path(__file__).parent.parent
SHARED = ROOT / "shared"
MAX_TOP_LEVEL, MAX_MODULES = 18, 12
# The adapters: no other module touches requests, an SDK or SQLite.
ADAPTERS = frozenset(
    {
        "services.http_session",
        "services.judged_https",
        "services.credentials",
        "attachments.download",
        "mail.connection",
        "notifying.delivery",
        "services.key_vault",
        "model.openai_sdk",
        "model.azure_inference_sdk",
        "ledger.sqlite_store",
        "ledger.table_store",
        "knowledge.word_index",
        "knowledge.meaning",
        "knowledge.azure_search",
        "services.service_bus",
        "knowledge.lookup_http",
    }
)
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


def modules() -> Iterator[tuple[str, Path]]:
    """Every module that is deployed, by its dotted name within `shared`."""
    for path in sorted(SHARED.rglob("*.py")):
        parts = path.relative_to(SHARED).with_suffix("").parts
        if parts[-1] != "__init__":
            yield ".".join(parts), path


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def imported_modules(path: Path) -> set[str]:
    return {name.removeprefix("shared.") for name in imports(path) if name.startswith("shared.")}


def test_every_module_has_its_layer() -> None:
    assert {name.partition(".")[0] for name, _ in modules()} == {name for layer in LAYERS for name in layer}


@pytest.mark.parametrize("package", [name for layer in LAYERS for name in layer])
def test_packages_import_downwards_only(package: str) -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    used = {
        name.partition(".")[0]
        for module, path in modules()
        if module.partition(".")[0] == package
        for name in imported_modules(path)
    } - {package}
    assert {name for name in used if level[name] >= level[package]} == set()


def test_no_module_imports_itself_through_others() -> None:
    known = {name for name, _ in modules()}
    edges = {name: imported_modules(path) & known for name, path in modules()}
    while leaves := {name for name, used in edges.items() if not used & edges.keys()}:
        edges = {name: used for name, used in edges.items() if name not in leaves}
    assert edges == {}


def test_a_package_is_small_enough_to_be_read() -> None:
    assert len([path for path in SHARED.iterdir() if path.name != "__pycache__"]) <= MAX_TOP_LEVEL
    for folder in (path for root in (SHARED, ROOT / "local") for path in root.iterdir() if path.is_dir()):
        names = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
        assert len(names) <= MAX_MODULES, f"{folder.name} has {len(names)} modules"


@pytest.mark.parametrize("module", [name for name, _ in modules() if name not in ADAPTERS])
def test_only_adapters_and_the_root_touch_an_sdk(module: str) -> None:
    used = {
        name.partition(".")[0] for name in imports(SHARED.joinpath(*module.split(".")).with_suffix(".py"))
    }
    assert used & SDKS <= ({"azure"} if module == "composition" else set())


def test_only_the_root_sees_the_environment() -> None:
    readers = [
        name
        for name, path in modules()
        if re.search(r"\bos\.(environ|getenv)|import (environ|getenv)", path.read_text(encoding="utf-8"))
    ]
    assert readers == ["composition"]


def test_local_is_never_imported_by_what_is_deployed() -> None:
    for path in [ROOT / "function_app.py", *(path for _, path in modules())]:
        assert not any(
            name.partition(".")[0] in ("local", "tests", "evals", "benchmarks", "capacity")
            for name in imports(path)
        )


@pytest.mark.parametrize(
    ("package", "unknown"),
    [
        ("local", ("tests", "evals", "benchmarks", "capacity")),
        ("evals", ("tests", "benchmarks", "capacity")),
        (
            "benchmarks",
            ("tests", "evals", "capacity"),
        ),  # they measure; the models on paper read what they stored
        ("capacity", ("tests", "evals", "local")),
    ],
)
def test_what_is_not_deployed_is_layered_too(package: str, unknown: Sequence[str]) -> None:
    """What tests and benchmarks share is in local/testing, so nothing imports from tests."""
    used = {name for path in (ROOT / package).rglob("*.py") for name in imports(path)}
    assert {name for name in used if name.partition(".")[0] in unknown} == set()


@pytest.mark.parametrize(
    ("imported", "heavy"),
    [("function_app", HEAVY), ("shared.operator.http_functions", [m for m in HEAVY if m not in AGENT])],
)
def test_importing_the_triggers_and_the_agent_needs_no_setting_and_no_heavy_sdk(
    imported: str, heavy: Sequence[str]
) -> None:
    code = f"import sys, json, {imported}; print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
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


ON_ONE_MACHINE = {
    "MULTIMAIL_API_KEY": "unused",
    "MODEL_ENDPOINT": "https://m.openai.azure.com",
    "MODEL_API_KEY": "unused",
    "TRIAGE_DEPLOYMENT": "small",
}


@pytest.mark.parametrize(
    ("setting", "loaded"),
    [
        ({}, set()),
        ({"MODEL_API_KEY": ""}, set()),  # the identity is asked at the first completion
        ({"SEARCH_ENDPOINT": "https://s.search.windows.net"}, {"azure.identity"}),
        ({"KEY_VAULT_URL": "https://v.vault.azure.net"}, {"azure.identity", "azure.keyvault"}),
        (
            {"LEDGER_PATH": "", "LEDGER_TABLE_ENDPOINT": "https://a.table.core.windows.net"},
            {"azure.identity", "azure.data.tables"},
        ),
        (
            {"ServiceBusConnection__fullyQualifiedNamespace": "n.servicebus.windows.net"},
            {"azure.identity", "azure.servicebus"},
        ),
    ],
)
def test_building_the_agent_loads_only_the_sdks_that_its_settings_ask_for(
    tmp_path: Path, setting: dict[str, str], loaded: set[str]
) -> None:
    paths = {"LEDGER_PATH": str(tmp_path / "ledger.sqlite"), "CONFIG_PATH": str(ROOT / "config")}
    values = ON_ONE_MACHINE | paths | setting
    code = (
        "import sys, json\n"
        "from shared.composition import build_agent\n"
        "from shared.settings import Settings\n"
        f"build_agent(Settings.from_env({values!r}))\n"
        f"print(json.dumps([m for m in {[m for m in HEAVY if m not in AGENT]!r} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert set(json.loads(done.stdout)) == loaded


def test_the_triggers_are_the_documented_ones_and_stay_a_few_lines() -> None:
    tree = ast.parse((ROOT / "function_app.py").read_text(encoding="utf-8"))
    functions = {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list
    }
    assert set(functions) == set(FUNCTIONS)
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
