"""Knowledge in an Azure AI Search index, over its REST API."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import requests
from azure.core.credentials import TokenCredential

from shared.errors import AgentError, ConfigurationError, ThrottledError, TransientError, UnavailableError
from shared.knowledge.passages import SHARED_FOLDER, Knowledge, Passage
from shared.knowledge.words import find_words
from shared.services.credentials import TokenSource
from shared.services.health import Watch
from shared.services.http_session import build_session, describe_failure, find_retry_after
from shared.telemetry import span

# https://learn.microsoft.com/rest/api/searchservice/documents/search-post, generally available
API_VERSION = "2024-07-01"
TOKEN_SCOPE = "https://search.azure.com/.default"  # noqa: S105  # the name of a scope
MAX_SEARCH_CHARACTERS = 800
TIMEOUT_SECONDS = (5.0, 10.0)  # connect, read
MAX_PASSAGE_CHARACTERS = 4_000
ROLE = "Search Index Data Reader"


class AzureSearchKnowledge:
    """An index whose documents have the texts `title`, `content` (searchable) and `folder` (filterable).

    `endpoint` is the search service's root. Keyless: the identity needs the role Search Index Data Reader.
    `watch` sees whether each search works.
    """

    def __init__(
        self, endpoint: str, index: str, credential: TokenCredential, watch: Watch = nullcontext
    ) -> None:
        self._url = f"{endpoint.rstrip('/')}/indexes('{quote(index, safe='')}')/docs/search.post.search"
        self._index = index
        self._watch = watch
        self._tokens = TokenSource(credential, TOKEN_SCOPE, "SEARCH_ENDPOINT")
        self._session = build_session(endpoint, ("POST",))  # a search changes nothing

    def read(self, folders: Sequence[str], query: str, max_tokens: int) -> Knowledge:
        """Read."""
        return Knowledge(self.search(query, folders, 3 if max_tokens else 0))

    def search(self, query: str, folders: Sequence[str], limit: int) -> tuple[Passage, ...]:
        """See KnowledgeSource. Raises also ThrottledError."""
        words = find_words(query)
        if not words:
            return ()
        names = ",".join((*folders, SHARED_FOLDER))
        body = {
            # Letters and digits: nothing that the simple syntax knows. Each sign of an unspaced script is a
            # clause per searchable field, and the service refuses a query of more than 3,000.
            "search": " ".join(words)[:MAX_SEARCH_CHARACTERS],
            "searchMode": "any",
            "filter": f"search.in(folder, '{names}', ',')",
            "select": "title,content",
            "top": limit,
        }
        with self._watch("the knowledge search"):
            answer = self._post(body)
        return self._read(answer)

    def _post(self, body: Mapping[str, Any]) -> requests.Response:
        headers = {"Authorization": f"Bearer {self._tokens.get_bearer()}"}
        try:
            with span("search knowledge", {"db.collection.name": self._index}, is_client=True):
                answer = self._session.post(
                    self._url,
                    params={"api-version": API_VERSION},
                    json=body,
                    headers=headers,
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
        except requests.RequestException as error:
            raise UnavailableError(f"{self} cannot be searched: {describe_failure(error)}.") from error
        if answer.status_code != HTTPStatus.OK:
            raise self._build_error(answer)
        return answer

    def _read(self, answer: requests.Response) -> tuple[Passage, ...]:
        try:
            return tuple(
                Passage(str(found["title"] or ""), str(found["content"] or "")[:MAX_PASSAGE_CHARACTERS])
                for found in answer.json()["value"]
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TransientError(f"{self} gave an answer that cannot be read.") from error

    def _build_error(self, answer: requests.Response) -> AgentError:
        status = answer.status_code
        refused = f"{self} cannot be searched: HTTP {status}."
        if status in _REMEDIES:
            return ConfigurationError(f"{refused} {_REMEDIES[status]}")
        delay = find_retry_after(answer.headers)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return ThrottledError(refused, retry_after_seconds=delay)
        kind = UnavailableError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else TransientError
        return kind(refused, retry_after_seconds=delay)

    def __str__(self) -> str:
        return f"The index {self._index} (SEARCH_INDEX) at SEARCH_ENDPOINT"


_REMEDIES = {
    400: "Give it the fields title, content (searchable) and folder (filterable), all texts.",
    401: f"Allow role-based access on the search service and give the identity the role {ROLE}.",
    403: f"Give the identity the role {ROLE}, and let the service's network rules admit the app.",
    404: "Create the index, or correct the two settings.",
}
