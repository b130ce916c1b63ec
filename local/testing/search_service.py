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
    """Documents of one index named `knowledge`; `faults` are answers that come first.

    `vector_field` is the field that has a vectorizer.
    """

    documents: list[dict[str, str]] = field(default_factory=list)
    faults: list[Callable[[], ResponseReturnValue]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    vector_field: str = ""

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
        if given is None or not self._is_well_formed(body):
            return Response(status=400)
        words = set(body["search"].split())
        found = [
            {"@search.score": 1.0} | {name: document[name] for name in body["select"].split(",")}
            for document in self.documents
            if document["folder"] in given[1].split(",")
            and (
                words == {"*"} or "vectorQueries" in body or words & set(document["content"].lower().split())
            )
        ]
        return {"value": found[: body["top"]]}

    def _is_well_formed(self, body: dict[str, Any]) -> bool:
        """Whether the search is of words alone or of everything, and its vector queries are as documented.

        A vector query of kind `text` needs a vectorizer of the field; every document is near.
        """
        if body["search"] != "*" and (
            re.search(r'[+|"()*~\\-]', body["search"]) or body["searchMode"] != "any"
        ):
            return False
        return all(
            set(query) == {"kind", "text", "fields", "k"}
            and query["kind"] == "text"
            and query["fields"] == self.vector_field
            and query["text"]
            and query["k"] > 0
            for query in body.get("vectorQueries", ())
        )
