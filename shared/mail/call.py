"""One request to MultiMail: a path's template, ids that cannot leave their segment, and what to send."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from shared.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Call:
    """One request. As text it is safe to log: the path's template and percent-encoded ids.

    `names`: segments that are no ids, so nothing shows them. `read_seconds`: how long at most to wait for its
    answer, if that is shorter than for all calls.
    """

    method: str
    template: str
    ids: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    read_seconds: float = math.inf

    @property
    def path(self) -> str:
        """The path with every id and name as one percent-encoded segment.

        Raises PermanentError for the three ids that would name another resource: "", "." and
        ".." (clients and servers resolve dot segments even when they are percent-encoded).
        """
        segments = {**self.ids, **self.names}
        for name, value in segments.items():
            if value in ("", ".", ".."):
                raise PermanentError(f"{self}: {value!r} cannot be the {name} of anything")
        return self.template.format_map({name: quote_id(value) for name, value in segments.items()})

    def __str__(self) -> str:
        ids = ", ".join(f"{name}={quote_id(value)}" for name, value in self.ids.items())
        return f"{self.method} {self.template}" + (f" ({ids})" if ids else "")


def quote_id(value: str) -> str:
    """An id as one percent-encoded path segment, which is also safe to log."""
    return quote(value, safe="", errors="replace")
