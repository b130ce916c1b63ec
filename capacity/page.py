"""The blocks of the documentation that are written from figures, between two marks."""

from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True, slots=True)
class Block:
    """One generated block of a page in docs/."""

    page: Path
    name: str

    @property
    def marks(self) -> tuple[str, str]:
        """The lines before and after it."""
        return (
            f"<!-- {self.name}: written by `make capacity ARGS=--write` -->",
            f"<!-- end of {self.name} -->",
        )

    def replace_in(self, text: str, content: str) -> str:
        """The page's text with new content between the marks. Raises ValueError when the marks are missing."""
        begin, end = self.marks
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found_begin or not found_end:
            raise ValueError(f"{self.page} has no block between {begin} and {end}")
        return f"{before}{begin}\n{content}\n{end}{after}"
