"""A stand-in for an Azure AI Search index over HTTP: the part of the contract that the agent uses."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue

TOKEN = "token-for-search"  # not a secret


@dataclass
class SearchService:
    """Documents of one index named `knowledge`; `faults` are answers that come first."""

    documents: list[dict[str, str]] = field(default_factory=list)
    faults: list[Callable[[], ResponseReturnValue]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = Flask("search_service", static_folder=None)
        self.app.add_url_rule(
            "/indexes('<index>')/docs/search.post.search", view_func=self._search, methods=["POST"]
        )

    def _search(self, index: str) -> ResponseReturnValue:
        body = request.get_json()
        self.requests.append(body)
        if self.faults:
            return self.faults.pop(0)()
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return Response(status=403)
        if index != "knowledge" or request.args.get("api-version") != "2024-07-01":
            return Response(status=404)
        given = re.fullmatch(r"search\.in\(folder, '([\w,-]+)', ','\)", body["filter"])
        if given is None or re.search(r'[+|"()*~\\-]', body["search"]) or body["searchMode"] != "any":
            return Response(status=400)
        found = [
            {"@search.score": 1.0} | {name: document[name] for name in body["select"].split(",")}
            for document in self.documents
            if document["folder"] in given[1].split(",")
            and set(body["search"].split()) & set(document["content"].lower().split())
        ]
        return {"value": found[: body["top"]]}
