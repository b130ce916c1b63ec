"""What is generated: the files in the tree are what would be written now."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from local.documentation.azure_picture import FUNCTIONS, SNAPSHOT, render_azure_picture
from local.documentation.command import docs, find_outdated
from local.documentation.packages import render_packages
from local.documentation.settings_reference import render_example, render_settings_page
from local.host.run import load_local_settings
from shared.settings import Settings, declared_settings
from tests.declared_functions import read_declared_functions

ROOT = Path(__file__).parent.parent
GENERATED = (
    "docs/settings.md", "local.settings.json.example", "docs/architecture.md", "docs/evaluation.md",
    "config/mailboxes.schema.json", "docs/azure.svg",
)  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path in GENERATED:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def test_what_is_generated_is_up_to_date() -> None:
    assert list(find_outdated(ROOT)) == [], "run: make docs"


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("docs/settings.md", "1 to 100"),
        ("local.settings.json.example", '"8"'),
        ("docs/architecture.md", "| `shared/mail/` |"),
        ("docs/evaluation.md", "it contains a placeholder"),
        ("config/mailboxes.schema.json", '"business_hours"'),
    ],
)
def test_a_file_that_was_changed_by_hand_is_found_and_written_again(
    tree: Path, path: str, right: str
) -> None:
    before = (tree / path).read_text(encoding="utf-8")
    (tree / path).write_text(before.replace(right, "other"), encoding="utf-8")
    assert find_outdated(tree) == {path: before}
    console = Console(quiet=True)
    assert docs(console, check=True, root=tree) == 1
    assert docs(console, check=False, root=tree) == 0
    assert (tree / path).read_text(encoding="utf-8") == before
    assert docs(console, check=True, root=tree) == 0


def test_a_file_that_is_missing_is_written(tree: Path) -> None:
    (tree / "docs" / "settings.md").unlink()
    assert docs(Console(quiet=True), check=False, root=tree) == 0
    assert find_outdated(tree) == {}


def test_text_around_the_list_of_packages_stays(tree: Path) -> None:
    path = tree / "docs" / "architecture.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(f"Before.\n{text}After.\n".replace(render_packages(), "nothing"), encoding="utf-8")
    docs(Console(quiet=True), check=False, root=tree)
    assert path.read_text(encoding="utf-8") == f"Before.\n{text}After.\n"


def test_an_architecture_page_without_its_markers_is_a_mistake(tree: Path) -> None:
    (tree / "docs" / "architecture.md").write_text("No markers.", encoding="utf-8")
    with pytest.raises(ValueError, match="packages"):
        find_outdated(tree)


def test_the_picture_of_the_deployment_shows_what_is_deployed_and_every_function(tmp_path: Path) -> None:
    assert set(FUNCTIONS) == set(read_declared_functions())
    picture = ElementTree.fromstring(render_azure_picture(ROOT))
    assert {"Key Vault", "Service Bus", *FUNCTIONS} <= {element.text for element in picture.iter()}
    (tmp_path / SNAPSHOT).parent.mkdir(parents=True)
    (tmp_path / SNAPSHOT).write_text('{"predictedResources": []}', encoding="utf-8")
    with pytest.raises(ValueError, match="KeyVault/vaults"):
        render_azure_picture(tmp_path)


def test_the_page_has_every_setting_in_a_row_of_its_own() -> None:
    rows = [line for line in render_settings_page().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [s.name for s in declared_settings().values()]
    assert "| `MAX_ATTEMPTS` | `8` | 1 to 100 |" in render_settings_page()
    assert "| `maxAttempts` |" in render_settings_page()
    assert "| `MODEL_API_KEY` |  | secret |" in render_settings_page()
    assert "| `MODEL_ENDPOINT` | required |" in render_settings_page()


def test_the_example_is_accepted_once_the_four_values_are_filled_in(tmp_path: Path) -> None:
    example = json.loads(render_example())
    assert example["IsEncrypted"] is False
    assert all(
        isinstance(value, str) for value in example["Values"].values()
    )  # the Functions host wants texts
    example["Values"] |= {
        "MULTIMAIL_API_KEY": "mm_test_1", "MODEL_ENDPOINT": "https://r.openai.azure.com", "TRIAGE_DEPLOYMENT": "small",
    }  # fmt: skip
    path = tmp_path / "local.settings.json"
    path.write_text(json.dumps(example), encoding="utf-8")
    environment: dict[str, str] = {}
    load_local_settings(environment, path)
    bare = {
        name: example["Values"][name] for name in ("MULTIMAIL_API_KEY", "MODEL_ENDPOINT", "TRIAGE_DEPLOYMENT")
    }
    assert Settings.from_env(environment) == Settings.from_env(bare)
