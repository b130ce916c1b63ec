"""The file with the mailbox profiles: read with the line of everything that is wrong in it."""

import ssl
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from shared.checks.draft_checks import SENTENCES, check_draft
from shared.checks.evidence import Source, SourceKind
from shared.errors import ConfigurationError
from shared.knowledge.passages import PROPOSED_FOLDER
from shared.profiles.fields import FIELDS
from shared.profiles.profiles import (
    ANY_CATEGORY,
    CATEGORIES,
    NO_PROFILE,
    NO_PROFILES,
    MailboxProfile,
    Profiles,
)
from shared.profiles.values import SENTENCE, Problem, collected, is_null

# Characters of all texts of a profile that triage and draft are given: about 1,500 tokens.
MAX_PROFILE_CHARACTERS = 6_000

PROFILE_FILE = "mailboxes.yaml"
# What the reader of YAML says, in part, of the usual mistakes, and what to do about each.
_YAML_PROBLEMS = (
    ("mapping values are not allowed", "a text with a colon and a space needs quotes"),
    (r"found character '\t'", "a tab: indent with spaces"),
    ("unknown escape character", r"a text with \ in double quotes: write a pattern in single quotes"),
    ("that cannot start any token", "a text that begins with such a character needs quotes"),
    ("expected <block end>", "the indentation, or a dash, does not fit the lines above"),
)
DEFAULT = "default"
RESEMBLANCE = 0.8  # of a name to `default`: one letter more, less or wrong
PROMPT_FIELDS = ("purpose", "voice", "language", "answer", "escalate", "ignore", "categories", "examples")
CATEGORY_LISTS, EXAMPLES = ("escalate_categories", "ignore_categories"), "examples"
HANDLERS, LOOKUPS = "escalate_to", "lookups"


def load_profiles(folder: Path, knowledge_folders: Collection[str] | None) -> Profiles:
    """Read the profiles in a configuration folder; without the file, every mailbox is as the settings say.

    `knowledge_folders`: the names that `knowledge` may have; None when only the search service knows them.
    Raises one ConfigurationError with everything that is wrong.
    """
    path = folder / PROFILE_FILE
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return NO_PROFILES
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as UTF-8 text: save it as UTF-8.") from error
    return parse_profiles(text, str(path), knowledge_folders)


def parse_profiles(text: str, path: str, knowledge_folders: Collection[str] | None = None) -> Profiles:
    """Read the text of a profile file. Raises one ConfigurationError with everything that is wrong."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "a character or a depth that YAML does not allow"
        problem = next((ours for theirs, ours in _YAML_PROBLEMS if theirs in problem), problem)
        raise ConfigurationError(f"{path}{line}: this is not YAML ({problem}): correct it.") from error
    if root is None:
        return NO_PROFILES
    reader = _Reader(path, knowledge_folders)
    profiles = reader.read(root)
    if reader.problems:
        raise ConfigurationError([problem for _, problem in sorted(reader.problems)])
    return profiles


class _Reader:
    """Reads the tree of a file and collects a sentence for everything that is wrong, with its line."""

    def __init__(self, path: str, knowledge_folders: Collection[str] | None) -> None:
        self._path = path
        self._knowledge_folders = knowledge_folders
        self.problems: list[tuple[int, str]] = []

    def read(self, root: yaml.Node) -> Profiles:
        sections = {key: (line, node) for key, line, node in self._entries(root, "the file")}
        default, default_fields = NO_PROFILE, dict[str, yaml.Node]()
        if DEFAULT in sections:
            default, default_fields = self._profile(DEFAULT, sections.pop(DEFAULT)[1], NO_PROFILE)
        own, places = {}, {}
        known = {*CATEGORIES, *default.category_names}
        for name, (line, node) in sections.items():
            if get_close_matches(name, [DEFAULT], 1, RESEMBLANCE):  # no mailbox is called so
                self._add(line, f"{name!r} is no mailbox: did you mean {DEFAULT!r}")
            key = name.lower() if "@" in name else name
            if key in own:
                self._add(line, f"{name!r} is defined twice: remove one of them")
            profile, fields = self._profile(name, node, default)
            self._judge_categories(name, fields, profile.category_names)
            own[key] = _keep_known_categories(profile)
            known.update(profile.category_names)
            places[key] = f"{self._path}, line {line}"
        # The default's rules name categories of all mailboxes; each has those that it knows.
        self._judge_categories(DEFAULT, default_fields, known)
        return Profiles(_keep_known_categories(default), own, places)

    def _profile(
        self, name: str, node: yaml.Node, base: MailboxProfile
    ) -> tuple[MailboxProfile, dict[str, yaml.Node]]:
        """A profile, and the fields that it sets itself: only these are judged here."""
        lines, values, fields = dict[str, int](), dict[str, Any](), dict[str, yaml.Node]()
        for key, line, value in self._entries(node, name):
            if key not in FIELDS:
                near = get_close_matches(key, FIELDS, 1)
                known = f"did you mean {near[0]!r}" if near else "docs/profiles.md lists the fields"
                self._add(line, f"{name}: unknown field {key!r}: correct or remove it ({known})")
                continue
            problems: list[Problem] = []
            with collected(problems):
                values[key] = FIELDS[key].kind.read(value)
                lines[key], fields[key] = line, value
            for problem in problems:
                self._add(problem.line, f"{name}: {key}{problem.path} {problem.text}")
        profile = replace(base, **values)
        if LOOKUPS in fields:
            self._judge_authorities(name, fields[LOOKUPS])
        for keys, sentence in self._find_problems(profile):
            own = [lines[key] for key in keys if key in lines]
            if own:  # else it is the default's
                self._add(own[0], f"{name}: {sentence}")
        return profile, fields

    def _find_problems(self, profile: MailboxProfile) -> Iterator[tuple[tuple[str, ...], str]]:
        """What is wrong with a profile as a whole: the fields to blame, and a sentence."""
        for name in set(profile.escalate_categories).intersection(profile.ignore_categories):
            yield CATEGORY_LISTS, f"{name!r} is both to be escalated and to be ignored: choose one"
        size = profile.prompt_characters
        if size > MAX_PROFILE_CHARACTERS:
            together = f"{', '.join(PROMPT_FIELDS)} have {size:,} characters together"
            yield PROMPT_FIELDS, f"{together}, at most {MAX_PROFILE_CHARACTERS:,}: shorten them"
        signature = profile.signature
        failed = (
            check_draft(signature, [Source("", SourceKind.APPROVED, "", signature)], "").failed
            if signature
            else ()
        )
        if failed:
            sentences = "; ".join(SENTENCES[check] for check in failed)
            yield ("signature",), f"signature would be held back in a draft ({sentences}): change it"
        for name in profile.folders:
            if name.lower() == PROPOSED_FOLDER:
                missing = f"knowledge names {name!r}, which holds passages that nobody has approved yet"
                yield ("knowledge",), f"{missing}: move what is right into another folder, and name that one"
            elif self._knowledge_folders is not None and name not in self._knowledge_folders:
                missing = f"knowledge names {name!r}, but the folder knowledge/{name} does not exist"
                yield ("knowledge",), f"{missing}: create it, or correct the name"

    def _judge_authorities(self, name: str, lookups: yaml.Node) -> None:
        for place, node in _list_in_lookups(lookups, "ca_file"):
            file = SENTENCE.read(node)
            wrong = _judge_authority(Path(self._path).parent / file)
            if wrong:
                self._add(node.start_mark.line + 1, f"{name}: {place} names {file!r}, {wrong}")

    def _judge_categories(self, name: str, fields: dict[str, yaml.Node], known: Collection[str]) -> None:
        whose = "this mailbox" if name != DEFAULT else "any mailbox"
        for key in (*CATEGORY_LISTS, EXAMPLES, HANDLERS, LOOKUPS):
            for place, node in _list_categories(key, fields[key]) if key in fields else ():
                category = SENTENCE.read(node)
                if category not in known:
                    choice = f"choose from {', '.join(known)}"
                    self._add(
                        node.start_mark.line + 1,
                        f"{name}: {place} names {category!r}, which is not a category of {whose}: {choice}",
                    )

    def _entries(self, node: yaml.Node, where: str) -> Iterator[tuple[str, int, yaml.Node]]:
        """Key, line and value of each entry, each key once."""
        line = node.start_mark.line + 1
        if is_null(node):
            return
        if not isinstance(node, yaml.MappingNode):
            self._add(line, f"{where} must be a list of names with values (name: value): correct it")
            return
        seen: set[str] = set()
        for key_node, value in node.value:
            line, key = key_node.start_mark.line + 1, key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                self._add(line, f"{where} has a key that is not a text: correct it")
            elif key in seen:
                self._add(line, f"{where}: {key} is defined twice: remove one of them")
            else:
                seen.add(key)
                yield key, line, value

    def _add(self, line: int, problem: str) -> None:
        self.problems.append((line, f"{self._path}, line {line}, {problem}."))


def _judge_authority(path: Path) -> str:
    """Why a file cannot be the authority of a server's certificate, as words that go on after its name."""
    if not path.is_file():
        return f"which is not a file next to {PROFILE_FILE}: put it there, or correct the name"
    with suppress(OSError):  # and ssl.SSLError, which is one
        if b"PRIVATE KEY-----" in path.read_bytes():
            return "which has a private key that would be deployed with it: leave only the certificate there"
        if ssl.create_default_context(cafile=path).cert_store_stats()["x509"]:
            return ""
    return "which has no certificate that can be read: put the authority's there, in the format PEM"


def _list_categories(key: str, field: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    """Where a field names a category, and the node that does."""
    if key == LOOKUPS:
        lists = _list_in_lookups(field, "categories")
        yield from ((place, category) for place, values in lists for category in values.value)
        return
    nodes = field.value
    if key == HANDLERS:
        names = [name for name, _ in nodes] if isinstance(field, yaml.MappingNode) else []
        nodes = [name for name in names if name.value != ANY_CATEGORY]
    if key == EXAMPLES:
        nodes = [value for example in nodes for name, value in example.value if name.value == "category"]
    yield from ((key, node) for node in nodes)


def _list_in_lookups(lookups: yaml.Node, wanted: str) -> Iterator[tuple[str, yaml.Node]]:
    """The place and the node of a field, in each look-up that has it."""
    for name, look_up in lookups.value:
        for key, value in look_up.value:
            if key.value == wanted:
                yield f"{LOOKUPS}.{name.value}.{wanted}", value


def _keep_known_categories(profile: MailboxProfile) -> MailboxProfile:
    """The profile without the categories that it names by inheritance and does not have."""
    known = profile.category_names
    return replace(
        profile,
        escalate_categories=tuple(name for name in profile.escalate_categories if name in known),
        ignore_categories=tuple(name for name in profile.ignore_categories if name in known),
        examples=tuple(e if e.category in known else replace(e, category="") for e in profile.examples),
    )
