"""The settings as a page of documentation and as an example file, from their declarations."""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from shared.settings import Setting, declared_settings

MAIN_BICEP = Path(__file__).parent.parent.parent / "infra" / "main.bicep"
INTRODUCTION = """\
# Settings

<!-- written by `make docs` from the declarations in shared/settings.py -->

On one machine, set them in the environment or in `local.settings.json`, a copy of
`local.settings.json.example`; the environment wins. In Azure, add the parameter to
`infra/main.parameters.json` (`"maxAttempts": { "value": 8 }`) and run `azd provision`. A setting without a
parameter is made by the deployment, or is for one machine only.

White space counts as empty, and an empty setting has its default. Every wrong value is reported at once,
with its remedy. A variable that resembles a setting and is not one (`MAX_ATEMPTS`) is refused with the
nearest right name. A secret is never shown or logged.

The addresses and keys of the targets that profiles name (`notify`) are secrets of the vault, or variables
that begin with `NOTIFY_` ([notifications.md](notifications.md)); so are the keys of look-ups, with `LOOKUP_`
([lookups.md](lookups.md)). The review desk has variables of its own:
`REVIEWER_KEY`, `AGENT_URL`, `AGENT_KEY` and `AGENT_SCOPE` ([desk.md](desk.md)).
"""
HEADER = "| setting | default | allowed | meaning | Bicep parameter |\n|---|---|---|---|---|\n"
# What the Functions host needs from the same file; none of it is the agent's.
HOST_VALUES = {"FUNCTIONS_WORKER_RUNTIME": "python", "AzureWebJobsStorage": "UseDevelopmentStorage=true"}


def render_settings_page() -> str:
    """Render docs/settings.md: a table for each group of settings."""
    parts = [INTRODUCTION]
    for group, settings in _list_groups():
        parts.append(f"\n## {group}\n\n{HEADER}")
        parts += [_render_row(setting) for setting in settings]
    return "".join(parts)


def render_example() -> str:
    """Render local.settings.json.example: every setting with its default, a blank line between the groups."""
    blocks = [HOST_VALUES, *({s.name: s.default for s in settings} for _, settings in _list_groups())]
    text = ",\n\n".join(
        ",\n".join(f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in block.items())
        for block in blocks
    )
    return f'{{\n  "IsEncrypted": false,\n  "Values": {{\n{text}\n  }}\n}}\n'


def find_parameter_name(setting_name: str) -> str:
    """The name that the setting's parameter of infra/main.bicep has, if there is one: `maxAttempts`."""
    first, *rest = setting_name.lower().split("_")
    return first + "".join(word.capitalize() for word in rest)


def _list_groups() -> Sequence[tuple[str, Sequence[Setting]]]:
    groups = groupby(declared_settings().values(), lambda setting: setting.group)
    return [(group, tuple(settings)) for group, settings in groups]


def _render_row(setting: Setting) -> str:
    low, high = setting.bounds
    allowed = " or ".join(f"`{choice}`" for choice in setting.choices)
    if low < high:
        allowed = f"{low:,.15g} to {high:,.15g}"
    if setting.is_secret:
        allowed = "secret"
    default = f"`{setting.default}`" if setting.default else "required" if setting.remedy else ""
    parameter = find_parameter_name(setting.name)
    has_parameter = f"\nparam {parameter} " in MAIN_BICEP.read_text(encoding="utf-8")
    cells = (
        f"`{setting.name}`",
        default,
        allowed,
        setting.meaning,
        f"`{parameter}`" if has_parameter else "",
    )
    return f"| {' | '.join(cells)} |\n"
