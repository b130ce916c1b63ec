"""The package that is deployed: built from a list of names, so that nothing else in the folder gets in."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.declared_functions import read_declared_functions

ROOT = Path(__file__).parent.parent
LIST = ROOT / "scripts" / "package.txt"
SCRIPTS = {"sh": ROOT / "scripts" / "package.sh", "pwsh": ROOT / "scripts" / "package.ps1"}
SHELLS = [shell for shell in SCRIPTS if shutil.which(shell)]

# What editors, assistants, package managers and people leave in a folder, at its top and inside what is deployed.
LEFT_BEHIND = (
    ".env", ".env.local", ".git/config", ".venv/pyvenv.cfg", "venv/pyvenv.cfg", "env/lib/module.py", "secrets.txt",
    "notes.md", "local.settings.json", "release.zip", ".vscode/settings.json", ".idea/workspace.xml",
    ".claude/settings.json", ".cursor/rules.md", ".aider.chat.history.md", "node_modules/left/index.js",
    ".package/stale.py", "config/.env", "config/secrets.txt", "config/.obsidian/notes.md",
    "config/knowledge/support/.returns.md", "shared/.vscode/settings.py", "shared/__pycache__/domain.cpython-312.pyc",
    "shared/mail/secrets.txt",
)  # fmt: skip
# What an operator adds and the agent reads.
ADDED = (
    "config/knowledge/support/env.md",
    "config/knowledge/vectors.sqlite",
    "config/other mailboxes.yaml",
    "config/ca/own.pem",
)


def read_names() -> list[str]:
    return [line.split()[0] for line in LIST.read_text(encoding="utf-8").splitlines() if line[0] != "#"]


def list_app() -> set[str]:
    """The tracked files of the app; the schema is for editors alone."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *read_names()], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    return set(listed.splitlines()) - {"config/mailboxes.schema.json"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout in which people have worked."""
    for name in [*list_app(), "config/mailboxes.schema.json"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in LEFT_BEHIND + ADDED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("password = hunter2", encoding="utf-8")
    return tmp_path


def build(tree: Path, shell: str) -> subprocess.CompletedProcess[str]:
    script = tree / "scripts" / SCRIPTS[shell].name
    return subprocess.run(
        [shell, str(script)], capture_output=True, text=True, timeout=60, check=False, cwd=tree.parent
    )


def list_package(tree: Path) -> set[str]:
    package = tree / ".package"
    return {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_package_holds_the_app_and_the_operator_s_texts_and_nothing_else(tree: Path, shell: str) -> None:
    done = build(tree, shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert list_package(tree) == list_app() | set(ADDED)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_package_is_not_built_from_a_part_of_the_repository(tree: Path, shell: str) -> None:
    shutil.rmtree(tree / "shared")
    done = build(tree, shell)
    assert done.returncode != 0
    assert "shared" in done.stderr


def test_the_package_has_every_function(tree: Path) -> None:
    build(tree, "sh")
    program = "import function_app as f; print(*[g.get_function_name() for g in f.app.get_functions()])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tree / ".package", check=False
    )
    assert set(done.stdout.split()) == set(read_declared_functions()), done.stderr


def test_both_scripts_copy_the_same_list_to_the_same_place() -> None:
    for script in SCRIPTS.values():
        text = script.read_text(encoding="utf-8")
        assert {"scripts/package.txt", ".package"} <= set(text.split())
        assert [name for name in read_names() if re.search(rf"\b{re.escape(name)}\b", text)] == []


def test_azd_the_workflow_and_the_manual_steps_deploy_the_package() -> None:
    service = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))["services"]["agent"]
    assert (service["project"], service["dist"]) == (".", ".package")
    hook = service["hooks"]["prepackage"]
    assert (hook["posix"]["shell"], hook["posix"]["run"]) == ("sh", "scripts/package.sh")
    assert (hook["windows"]["shell"], hook["windows"]["run"]) == ("pwsh", "scripts/package.ps1")
    for path in (".github/workflows/ci.yml", "docs/deploy.md"):
        text = (ROOT / path).read_text(encoding="utf-8")
        built, packed = (
            text.index("scripts/package.sh"),
            re.search(r"\(cd \.package && zip .* - \.\) >release\.zip", text),
        )
        assert packed
        assert built < packed.start()
