"""`python -m local docs`: write what is generated, or say which of it is out of date."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from local.documentation.azure_picture import render_azure_picture
from local.documentation.draft_checks import render_draft_checks
from local.documentation.packages import render_packages
from local.documentation.profile_schema import render_profile_schema
from local.documentation.settings_reference import render_example, render_settings_page
from local.host.run import OK, UNFINISHED

ROOT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- {}: written by `make docs` -->\n", "\n<!-- end of {} -->"


def docs(console: Console, *, check: bool, root: Path = ROOT) -> int:
    """Write every generated file, or with `check` only compare; return the exit status."""
    outdated = find_outdated(root)
    for path, text in outdated.items():
        if check:
            console.print(f"{path} is out of date: run make docs.", style="red", highlight=False)
        else:
            (root / path).write_text(text, encoding="utf-8")
            console.print(f"Wrote {path}.", highlight=False)
    return UNFINISHED if check and outdated else OK


def find_outdated(root: Path) -> Mapping[str, str]:
    """The generated files under `root` that are not what would be written now, with what would be."""
    wanted = {
        "docs/azure.svg": render_azure_picture(ROOT),
        "docs/settings.md": render_settings_page(),
        "local.settings.json.example": render_example(),
        "config/mailboxes.schema.json": render_profile_schema(),
        "docs/architecture.md": _fill(root, "docs/architecture.md", "packages", render_packages()),
        "docs/evaluation.md": _fill(root, "docs/evaluation.md", "draft checks", render_draft_checks()),
    }
    return {
        path: text
        for path, text in wanted.items()
        if not (root / path).exists() or (root / path).read_text(encoding="utf-8") != text
    }


def _fill(root: Path, path: str, name: str, text: str) -> str:
    """The page with the text between its two marks."""
    begin, end = BEGIN.format(name), END.format(name)
    before, found_begin, rest = (root / path).read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{path} has no place for the {name}: it lacks {begin}{end}")
    return f"{before}{begin}{text}{end}{after}"
