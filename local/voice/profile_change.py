"""The profile file with another voice for one mailbox, everything else in it as it was written."""

from collections.abc import Sequence
from dataclasses import replace

import yaml

from shared.domain import Mailbox
from shared.errors import ConfigurationError
from shared.profiles.profile_file import parse_profiles

Entry = tuple[yaml.Node, yaml.Node]


def replace_voice(text: str, path: str, mailbox: Mailbox, voice: str) -> str:
    """The text of the file in which the mailbox's own profile has this voice.

    Raises ConfigurationError when the file has a mistake, with or without the new voice, or when the profile
    is written in braces, into which no lines can be put.
    """
    before = parse_profiles(text, path)
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    section = _find_entry(root, mailbox.id) or _find_entry(root, mailbox.address)
    if any(getattr(node, "flow_style", None) for node in (root, section and section[1])):
        raise ConfigurationError(
            f"{path}: the profile of {mailbox.address} is written in braces: write each field on a line "
            "of its own and try again."
        )
    heading = [] if section else [*([""] if lines else []), f"{mailbox.address}:"]
    first, last, indent = _find_place(section, lines)
    block = [f"{indent}voice: |", *(f"{indent}  {line}".rstrip() for line in voice.splitlines())]
    changed = "\n".join([*lines[:first], *heading, *block, *lines[last:]]) + "\n"
    if parse_profiles(changed, path).get(mailbox) != replace(before.get(mailbox), voice=voice):
        raise ConfigurationError(
            f"{path}: the voice of {mailbox.address} cannot be replaced as it is written: write it as "
            "`voice: |` with the text below it, and try again."
        )
    return changed


def _find_entry(node: yaml.Node | None, name: str) -> Entry | None:
    pairs: Sequence[Entry] = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((pair for pair in pairs if pair[0].value.lower() == name.lower()), None)


def _find_place(section: Entry | None, lines: Sequence[str]) -> tuple[int, int, str]:
    """The lines that a voice replaces, from the first to before the last, and its indentation."""
    if section is None:
        return len(lines), len(lines), "  "
    name, profile = section
    indent = " " * profile.value[0][0].start_mark.column if profile.value else "  "
    voice = _find_entry(profile, "voice")
    if voice is None:
        first = name.start_mark.line + 1
        return first, first, indent
    end = voice[1].end_mark
    last = end.line if end.column == 0 else end.line + 1
    while not lines[last - 1].strip():  # a text ends before the empty lines below it
        last -= 1
    return voice[0].start_mark.line, last, indent
