"""Knowledge in an Azure AI Search index, over its REST API."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import requests
from azure.core.credentials import TokenCredential

from shared.errors import AgentError, ConfigurationError, ThrottledError, TransientError, UnavailableError
from shared.knowledge.passages import SHARED_FOLDER, Knowledge, Passage, fit_passages
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
MAX_FOUND = 50  # passages of one search, as many as the service's own ranking looks at
MAX_LISTED = 1_000  # as many as one answer may have
MAX_VECTORIZED_CHARACTERS = 4_000
TITLES_SECONDS = 600.0
ROLE = "Search Index Data Reader"

log = logging.getLogger(__name__)


class AzureSearchKnowledge:
    """An index whose documents have the texts `title`, `content` (searchable) and `folder` (filterable).

    With `vector_field`, which needs a vectorizer in the index, it is searched by meaning as well.

    `endpoint` is the search service's root. Keyless: the identity needs the role Search Index Data Reader.
    `watch` sees whether each search works.
    """

    def __init__(
        self,
        endpoint: str,
        index: str,
        credential: TokenCredential,
        watch: Watch = nullcontext,
        *,
        vector_field: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = f"{endpoint.rstrip('/')}/indexes('{quote(index, safe='')}')/docs/search.post.search"
        self._index = index
        self._watch = watch
        self._vector_field = vector_field
        self._monotonic = monotonic
        self._titles: dict[tuple[str, ...], tuple[float, tuple[str, ...]]] = {}
        self._tokens = TokenSource(credential, TOKEN_SCOPE, "SEARCH_ENDPOINT")
        self._session = build_session(endpoint, ("POST",))  # a search changes nothing

    def read(self, folders: Sequence[str], query: str, max_tokens: int) -> Knowledge:
        """See KnowledgeSource: always what the query finds. Raises also ThrottledError."""
        return Knowledge(fit_passages(self.search(folders, query), max_tokens))

    def search(self, folders: Sequence[str], query: str) -> tuple[Passage, ...]:
        """The best passages that the query finds, best first. Raises as `read`."""
        words = find_words(query)
        if not words:
            return ()
        body: dict[str, Any] = {
            # Letters and digits: nothing that the simple syntax knows. Each sign of an unspaced script is a
            # clause per searchable field, and the service refuses a query of more than 3,000.
            "search": " ".join(words)[:MAX_SEARCH_CHARACTERS],
            "searchMode": "any",
            "top": MAX_FOUND,
        }
        if self._vector_field:
            body["vectorQueries"] = [
                {
                    "kind": "text",  # the index's own vectorizer makes the vector
                    "text": query[:MAX_VECTORIZED_CHARACTERS],
                    "fields": self._vector_field,
                    "k": MAX_FOUND,
                }
            ]
        return self._ask(folders, body)

    def list_titles(self, folders: Sequence[str]) -> tuple[str, ...]:
        """See KnowledgeSource; in alphabetical order, of the first 1,000 passages, asked for now and then.

        Triage goes on without new ones while the service is out of reach.
        """
        names = tuple(folders)
        asked_at, titles = self._titles.get(names, (float("-inf"), ()))
        if self._monotonic() - asked_at >= TITLES_SECONDS:
            try:
                found = self._ask(folders, {"search": "*", "top": MAX_LISTED}, "folder,title")
                titles = tuple(sorted({passage.title for passage in found}))
            except TransientError as error:
                log.warning("the titles of the knowledge are not read: %s", error)
            self._titles[names] = self._monotonic(), titles
        return titles

    def _ask(
        self, folders: Sequence[str], body: Mapping[str, Any], select: str = "folder,title,content"
    ) -> tuple[Passage, ...]:
        names = ",".join((*folders, SHARED_FOLDER))
        narrowed = {"filter": f"search.in(folder, '{names}', ',')", "select": select}
        with self._watch("the knowledge search"):
            answer = self._post({**body, **narrowed})
        try:
            return tuple(
                Passage(str(found["folder"]), str(found["title"] or ""), str(found.get("content") or ""))
                for found in answer.json()["value"]
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TransientError(f"{self} gave an answer that cannot be read.") from error

    def _post(self, body: Mapping[str, Any]) -> requests.Response:
        headers = {"Authorization": f"Bearer {self._tokens.get_bearer()}"}
        try:
            with span("search knowledge", {"db.collection.name": self._index}, server=self._url):
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
    400: (
        "Give it the fields title, content (searchable) and folder (filterable), all texts, and the field of "
        "SEARCH_VECTOR_FIELD, if that is set, a vectorizer."
    ),
    401: f"Allow role-based access on the search service and give the identity the role {ROLE}.",
    403: f"Give the identity the role {ROLE}, and let the service's network rules admit the app.",
    404: "Create the index, or correct the two settings.",
}
