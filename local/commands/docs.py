"""`python -m local docs`: write what is generated, or say which of it is out of date."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from local.documentation.packages import render_packages
from local.documentation.profile_schema import render_profile_schema
from local.documentation.settings_reference import render_example, render_settings_page
from local.host.run import OK, UNFINISHED

ROOT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- packages: written by `make docs` -->\n", "\n<!-- end of packages -->"


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
    architecture = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    before, begin, rest = architecture.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/architecture.md has no place for the packages: it lacks {BEGIN}{END}")
    wanted = {
        "docs/settings.md": render_settings_page(),
        "local.settings.json.example": render_example(),
        "config/mailboxes.schema.json": render_profile_schema(),
        "docs/architecture.md": f"{before}{begin}{render_packages()}{end}{after}",
    }
    return {
        path: text
        for path, text in wanted.items()
        if not (root / path).exists() or (root / path).read_text(encoding="utf-8") != text
    }
