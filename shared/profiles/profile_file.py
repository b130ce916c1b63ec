"""The file with the mailbox profiles: read with the line of everything that is wrong in it."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from shared.checks.draft_checks import SENTENCES, find_failed_checks
from shared.domain import parse_address, to_ascii_host
from shared.errors import ConfigurationError
from shared.mail.contact_forms import ContactForm
from shared.profiles.profiles import NO_PROFILE, NO_PROFILES, MailboxProfile, Profiles
from shared.settings import declared_settings

# Characters that a profile may add to a call, so that a triage stays under 1,000 tokens, and triage and draft
# of an ordinary email together under 2,500 (4 characters a token; tests/test_token_cost.py counts them).
MAX_TRIAGE_CHARACTERS = 1_200
MAX_DRAFT_CHARACTERS = 600
MAX_SIGNATURE_CHARACTERS = 500
MAX_LINE_CHARACTERS = 100
MAX_OWN_CATEGORIES = 15

PROFILE_FILE = "mailboxes.yaml"
DEFAULT = "default"
NOT_ADDRESSED = ("escalate", "ignore")

_CATEGORY_NAME = re.compile(r"[a-z][a-z0-9_-]{0,29}")
_DOMAIN_NAME = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,63}")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")


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
        default = NO_PROFILE
        if DEFAULT in sections:
            default = self._profile(DEFAULT, *sections.pop(DEFAULT), NO_PROFILE)
        own, places = {}, {}
        for name, (line, node) in sections.items():
            key = name.lower() if "@" in name else name
            if key in own:
                self._add(line, f"{name!r} is defined twice: remove one of them")
            own[key] = self._profile(name, line, node, default)
            places[key] = f"{self._path}, line {line}"
        return Profiles(default, own, places)

    def _profile(self, name: str, line: int, node: yaml.Node, base: MailboxProfile) -> MailboxProfile:
        lines, values = {}, {}
        for key, key_line, value in self._entries(node, name):
            if key not in _FIELDS:
                known = ", ".join(_FIELDS)
                self._add(key_line, f"{name}: unknown field {key!r}: correct or remove it (valid: {known})")
                continue
            lines[key] = key_line
            try:
                values[key] = _FIELDS[key](value)
            except _WrongValue as error:
                self._add(error.line, f"{name}: {key} {error}")
        profile = replace(base, **values)
        for key, problem in self._find_problems(profile):
            if not lines.keys().isdisjoint((key, *_JUDGED_WITH.get(key, ()))):  # else it is the default's
                self._add(lines.get(key, line), f"{name}: {problem}")
        return profile

    def _find_problems(self, profile: MailboxProfile) -> Iterator[tuple[str, str]]:
        """What is wrong with a profile as a whole: the field to blame, and a sentence."""
        for key in ("escalate_categories", "ignore_categories"):
            for name in getattr(profile, key):
                if name not in profile.category_names:
                    known = f"choose from {', '.join(profile.category_names)}"
                    yield key, f"{key} names {name!r}, which is not a category of this mailbox: {known}"
        for name in set(profile.escalate_categories).intersection(profile.ignore_categories):
            yield "escalate_categories", f"{name!r} is both to be escalated and to be ignored: choose one"
        yield from find_length_problems(profile)
        signature = profile.signature
        failed = find_failed_checks(signature, [signature], [], "") if signature else ()
        if failed:
            sentences = "; ".join(SENTENCES[check] for check in failed)
            yield "signature", f"signature would be held back in a draft ({sentences}): change it"
        for name in profile.knowledge:
            if self._knowledge_folders is not None and name not in self._knowledge_folders:
                missing = f"knowledge names {name!r}, but the folder knowledge/{name} does not exist"
                yield "knowledge", f"{missing}: create it, or correct the name"

    def _entries(self, node: yaml.Node, where: str) -> Iterator[tuple[str, int, yaml.Node]]:
        """Key, line and value of each entry, each key once."""
        line = node.start_mark.line + 1
        if _is_null(node):
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


class _WrongValue(Exception):
    """A value that a field cannot have; the text goes on after the field's name."""

    def __init__(self, text: str, node: yaml.Node) -> None:
        super().__init__(text)
        self.line = node.start_mark.line + 1


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def _read_text(node: yaml.Node) -> str:
    if _is_null(node) and not node.value:
        raise _WrongValue('is empty: write a text, or "" for none', node)
    if node.tag != "tag:yaml.org,2002:str":
        raise _WrongValue("must be a text: put it in quotes", node)
    return str(node.value).strip()


def _read_sentence(node: yaml.Node) -> str:
    return " ".join(_read_text(node).split())


def _read_line(node: yaml.Node) -> str:
    return _checked_length(_read_sentence(node), MAX_LINE_CHARACTERS, node)


def _checked_length(text: str, limit: int, node: yaml.Node) -> str:
    if len(text) > limit:
        raise _WrongValue(f"has {len(text)} characters, at most {limit}: shorten it", node)
    return text


def _checked_choice(text: str, choices: Sequence[str], node: yaml.Node) -> str:
    if text not in choices:
        raise _WrongValue(f"must be one of {', '.join(choices)}", node)
    return text


def _read_texts(node: yaml.Node) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise _WrongValue("must be a list: one text a line, each after a dash", node)
    texts = [_read_sentence(item) for item in node.value]
    empty = next((item for item, text in zip(node.value, texts, strict=True) if not text), None)
    if empty is not None:
        raise _WrongValue("has an empty text: remove it", empty)
    return tuple(texts)


def _read_names(pattern: re.Pattern[str]) -> Callable[[yaml.Node], tuple[str, ...]]:
    def read(node: yaml.Node) -> tuple[str, ...]:
        names = _read_texts(node)
        for name, item in zip(names, node.value, strict=True):
            if not pattern.fullmatch(name):
                raise _WrongValue(f"has {name[:40]!r}, which is not a valid name: correct it", item)
        return tuple(dict.fromkeys(names))

    return read


def _read_address(node: yaml.Node) -> str:
    address = parse_address(_read_sentence(node))
    if not address:
        raise _WrongValue("has a text that is not one email address: write it as name@host", node)
    return address


def _read_forms(node: yaml.Node) -> tuple[ContactForm, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise _WrongValue("must be a list: each form after a dash, with sender and label", node)
    forms = []
    for item in node.value:
        values = {key.value: value for key, value in item.value} if isinstance(item, yaml.MappingNode) else {}
        if set(values) != {"sender", "label"}:
            raise _WrongValue("has a form without exactly sender and label: write both", item)
        label = _read_line(values["label"]).removesuffix(":")
        if not label:
            raise _WrongValue("has a form with an empty label: write how its address line begins", item)
        forms.append(ContactForm(_read_address(values["sender"]), label))
    return tuple(forms)


def _read_categories(node: yaml.Node) -> Mapping[str, str]:
    if not isinstance(node, yaml.MappingNode):
        raise _WrongValue("must have a description for each category (name: description)", node)
    found: dict[str, str] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not _CATEGORY_NAME.fullmatch(key.value):
            raise _WrongValue("has a name that is not 1 to 30 of a-z, 0-9, _ and -: correct it", key)
        if key.value in found:
            raise _WrongValue(f"has {key.value} twice: remove one of them", key)
        found[key.value] = _read_sentence(value)
    if len(found) > MAX_OWN_CATEGORIES:
        raise _WrongValue(f"has {len(found)} categories, at most {MAX_OWN_CATEGORIES}: merge some", node)
    return found


def _read_limit(setting: str, kind: type[int] | type[float]) -> Callable[[yaml.Node], float]:
    low, high = declared_settings()[setting].bounds

    def read(node: yaml.Node) -> float:
        try:
            number = kind(node.value) if isinstance(node, yaml.ScalarNode) else None
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            name = "whole number" if kind is int else "number"
            raise _WrongValue(f"must be a {name} from {low:g} to {high:.15g}", node)
        return number

    return read


_FIELDS: Mapping[str, Callable[[yaml.Node], Any]] = {
    "purpose": _read_sentence,
    "voice": _read_sentence,
    "language": _read_line,
    "signature": lambda node: _checked_length(_read_text(node), MAX_SIGNATURE_CHARACTERS, node),
    "answer": _read_texts,
    "escalate": _read_texts,
    "escalate_words": _read_texts,
    "escalate_categories": _read_names(_CATEGORY_NAME),
    "escalate_to": _read_line,
    "ignore": _read_texts,
    "ignore_categories": _read_names(_CATEGORY_NAME),
    "categories": _read_categories,
    "knowledge": _read_names(_FOLDER_NAME),
    "addresses": lambda node: tuple(map(_read_address, node.value)) if _read_texts(node) else (),
    "not_addressed": lambda node: _checked_choice(_read_text(node), NOT_ADDRESSED, node),
    "reply_all": lambda node: tuple(map(to_ascii_host, _read_names(_DOMAIN_NAME)(node))),
    "contact_forms": _read_forms,
    "max_replies_per_thread": _read_limit("max_replies_per_thread", int),
    "max_replies_per_sender_per_day": _read_limit("max_replies_per_sender_per_day", int),
    "daily_token_budget": _read_limit("daily_token_budget", int),
    "min_confidence": _read_limit("min_confidence", float),
    "min_draft_confidence": _read_limit("min_draft_confidence", float),
}
# Fields that are judged together with others: a profile that has none of its own inherits the verdict.
_IN_TRIAGE = (
    "purpose", "answer", "escalate", "ignore", "categories", "escalate_categories", "ignore_categories",
)  # fmt: skip
_IN_DRAFT = ("purpose", "voice", "language")
_JUDGED_WITH: Mapping[str, Sequence[str]] = {
    "its triage part": _IN_TRIAGE,
    "its draft part": _IN_DRAFT,
    "escalate_categories": ("categories", "ignore_categories"),
    "ignore_categories": ("categories",),
}


def find_length_problems(profile: MailboxProfile) -> Iterator[tuple[str, str]]:
    """Say which parts of a profile are longer than the prompts have room for: what to blame, a sentence."""
    sizes = (
        ("its triage part", "triage", _IN_TRIAGE, profile.triage_characters, MAX_TRIAGE_CHARACTERS),
        ("its draft part", "draft", _IN_DRAFT, len(profile.build_draft_part()), MAX_DRAFT_CHARACTERS),
    )
    for key, step, fields, size, limit in sizes:
        if size > limit:
            together = f"{', '.join(fields)} together take {size} characters of each {step}"
            yield key, f"{together}, at most {limit}: shorten them"
