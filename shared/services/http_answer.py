"""What an HTTP trigger answers, before the Functions library sees it, and how its pages are made."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

NOT_KEPT: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer to an HTTP request."""

    status_code: int
    body: str
    mimetype: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def refuse_report(problem: str) -> HttpAnswer:
    """Answer a request for a report that cannot be built like this."""
    return HttpAnswer(HTTPStatus.BAD_REQUEST, problem, "text/plain", NOT_KEPT)


def answer_page(page: str, style: str) -> HttpAnswer:
    """Answer with a page that has this style and may not be framed."""
    policy = f"{build_policy(style)}; frame-ancestors 'none'"
    return HttpAnswer(HTTPStatus.OK, page, "text/html", {**NOT_KEPT, "Content-Security-Policy": policy})


def build_policy(style: str) -> str:
    """The policy of a page: it lets in the page's own style, by its hash, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def build_pages(*folders: Path) -> "Environment":
    """What renders pages from the templates in these folders; whatever they are given is text, not HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - only for a page

    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
