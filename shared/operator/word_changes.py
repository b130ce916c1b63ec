"""Which words a text changed: for a reviewer to see, and to count how far an edit went."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from enum import StrEnum
from itertools import takewhile

# Of a comparison, at the very most; a text that needs more is new as a whole. A tenth of a second.
MAX_STEPS = 1_000_000

_WORDS = re.compile(r"\S+\s*")
_LINES = re.compile(r"[^\n]+\n*|\n+")

Span = tuple[int, int, int, int]
"""From where to where in the older text, and in the newer one."""


class Change(StrEnum):
    """What became of some words."""

    SAME = "same"
    OLD = "old"  # taken out
    NEW = "new"  # put in


def compare_words(before: str, after: str) -> list[tuple[Change, str]]:
    """The newer text in runs, with the older text's words where they stood; white space is no change."""
    return list(_Comparison().compare(before, after))


def count_changed_words(before: str, after: str) -> int:
    """How many words an edit takes out or puts in."""
    runs = compare_words(before, after)
    return sum(len(words.split()) for change, words in runs if change is not Change.SAME)


class _Comparison:
    """Compares lines, then the words of those that changed, until the steps are used up."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS

    def compare(self, before: str, after: str) -> Iterator[tuple[Change, str]]:
        old, new = _LINES.findall(before), _LINES.findall(after)
        for is_same, (i1, i2, j1, j2) in self._align(old, new):
            if is_same:
                yield Change.SAME, "".join(new[j1:j2])
            elif i2 - i1 == j2 - j1:  # as the rows of a table: each with its own successor
                for old_line, new_line in zip(old[i1:i2], new[j1:j2], strict=True):
                    yield from self._compare_lines(old_line, new_line)
            else:
                yield from self._compare_lines("".join(old[i1:i2]), "".join(new[j1:j2]))

    def _compare_lines(self, before: str, after: str) -> Iterator[tuple[Change, str]]:
        old, new = _WORDS.findall(before), _WORDS.findall(after)
        indent = after[: len(after) - len(after.lstrip())]
        if indent:
            yield Change.SAME, indent
        for is_same, (i1, i2, j1, j2) in self._align([w.strip() for w in old], [w.strip() for w in new]):
            if is_same:
                yield Change.SAME, "".join(new[j1:j2])
                continue
            for change, words in ((Change.OLD, old[i1:i2]), (Change.NEW, new[j1:j2])):
                if words:
                    yield change, "".join(words)

    def _align(self, old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[bool, Span]]:
        start = _count_same(old, new)
        end = _count_same(old[start:][::-1], new[start:][::-1])
        old_end, new_end = len(old) - end, len(new) - end
        if start:
            yield True, (0, start, 0, start)
        for is_same, (i1, i2, j1, j2) in self._match(old[start:old_end], new[start:new_end]):
            yield is_same, (start + i1, start + i2, start + j1, start + j2)
        if end:
            yield True, (old_end, len(old), new_end, len(new))

    def _match(self, old: Sequence[str], new: Sequence[str]) -> list[tuple[bool, Span]]:
        counts, blocks = Counter(new), min(len(old), len(new))
        # The matcher looks at all places of a word in the newer text, at worst once more for each match.
        steps = (sum(counts[word] for word in old) + len(old)) * blocks
        if steps > self._steps:
            return [(False, (0, len(old), 0, len(new)))]
        self._steps -= steps
        opcodes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        return [(kind == "equal", (i1, i2, j1, j2)) for kind, i1, i2, j1, j2 in opcodes]


def _count_same(old: Sequence[str], new: Sequence[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
