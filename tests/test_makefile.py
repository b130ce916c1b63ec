"""`make test` where Node's package manager is missing or fails: it says why, and goes on outside CI."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.missing_tools import leave_out

ROOT = Path(__file__).parent.parent
TARGET = ".node/.installed"
REQUIREMENTS = ("local", "tests", "tests/azure_cli", "tests/worker")
TOOLS = ("make", "sh", "mkdir", "cp", "sed", "touch")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make on the PATH")


def install_node_parts(
    folder: Path, npm: str | None, target: str = TARGET, **environment: str
) -> tuple[int, str]:
    """Make the target in a folder of its own, with `npm` as the text of that program; status and output."""
    (folder / "tests/node").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copy(ROOT / "tests/node/package.json", folder / "tests/node")
    programs = folder / "programs"
    programs.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(os.path.realpath(found))
    if npm is not None:
        (programs / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (programs / "npm").chmod(0o755)
    done = subprocess.run(
        ["make", target], cwd=folder, env={"PATH": str(programs), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout


NO_REGISTRY = "echo npm error code SELF_SIGNED_CERT_IN_CHAIN >&2; exit 1"


@pytest.mark.parametrize(
    ("npm", "why"),
    [(None, "npm is not on the PATH"), (NO_REGISTRY, "npm error code SELF_SIGNED_CERT_IN_CHAIN")],
)
def test_without_npm_or_its_registry_the_reason_is_given_and_only_ci_fails(
    tmp_path: Path, npm: str | None, why: str
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "ci").mkdir()
    status, output = install_node_parts(tmp_path / "here", npm)
    assert status == 0, output
    assert why in output
    assert "Going on without" in output
    assert not (tmp_path / "here" / TARGET).exists()  # the next time it is tried again
    status, output = install_node_parts(tmp_path / "ci", npm, CI="true")
    assert status != 0
    assert why in output


def test_what_npm_installed_is_not_installed_again(tmp_path: Path) -> None:
    status, output = install_node_parts(tmp_path, "exit 0", CI="true")
    assert status == 0, output
    assert (tmp_path / TARGET).exists()


def test_make_infra_fails_where_a_tool_is_missing(tmp_path: Path) -> None:
    for name in (
        ".venv/bin/python",
        ".venv/.demo",
        ".venv/.test",
        ".azure-cli/.installed",
        ".worker/.installed",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("requirements.txt", *(f"{part}/requirements.txt" for part in REQUIREMENTS)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    status, output = install_node_parts(tmp_path, None, "infra")
    assert status != 0
    assert "npm is not on the PATH" in output
    assert "Permission denied" not in output  # the tests have not begun


def test_without_a_tool_a_test_is_left_out_and_fails_where_it_must_run() -> None:
    with pytest.raises(pytest.skip.Exception, match="no tool"):
        leave_out("no tool", {})
    with pytest.raises(pytest.fail.Exception, match="no tool"):
        leave_out("no tool", {"CI": "true"})


def test_make_test_always_tries() -> None:
    assert "\ntest: $(VENV)/.test .node/.installed " in (ROOT / "Makefile").read_text(encoding="utf-8")
