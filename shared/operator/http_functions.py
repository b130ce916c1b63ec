"""The HTTP functions: what each request asks the agent, and what goes back."""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol

from shared.errors import AgentError
from shared.ledger.ledger import Ledger
from shared.operator.ask_requests import Answerer, answer_request
from shared.operator.observed import ObservedReport, answer_observed
from shared.operator.review import Reviews
from shared.operator.review_requests import answer_review
from shared.operator.trust import TrustReport
from shared.operator.trust_page import answer_report
from shared.services.http_answer import HttpAnswer
from shared.settings import OBSERVED
from shared.watching.webhooks import SIGNATURE_HEADER, WebhookReceiver

HEALTH_SECONDS = 15.0
IDEMPOTENCY_HEADER = "Idempotency-Key"

log = logging.getLogger(__name__)


class Agent(Answerer, Protocol):
    """What the functions need of the agent, which the composition root builds."""

    @property
    def webhooks(self) -> WebhookReceiver:
        """What receives MultiMail's webhooks."""
        ...

    @property
    def ledger(self) -> Ledger:
        """What is known of each email."""
        ...

    @property
    def reviews(self) -> Reviews:
        """What the review desk asks for."""
        ...

    def report(self, days: int) -> TrustReport:
        """Judge the drafts of the last `days`. Raises AgentError."""
        ...

    def show_observed(self, days: int) -> ObservedReport:
        """What was only observed in the last `days`. Raises AgentError."""
        ...


GetAgent = Callable[[], Agent]  # raises ConfigurationError when it cannot be built


def take_in_webhook(body: bytes, headers: Mapping[str, str], get_agent: GetAgent) -> HttpAnswer:
    """Receive one webhook request.

    An agent that cannot be built answers 503 and logs nothing here: anybody may send a
    request, and the timers fail for all to see.
    """
    try:
        agent = get_agent()
    except AgentError:
        return HttpAnswer(HTTPStatus.SERVICE_UNAVAILABLE, "")
    return HttpAnswer(agent.webhooks.receive(body, headers.get(SIGNATURE_HEADER)), "")


def answer_question(body: bytes, headers: Mapping[str, str], get_agent: GetAgent) -> HttpAnswer:
    """Answer an operator's question."""
    return answer_request(body, headers.get(IDEMPOTENCY_HEADER), get_agent)


def show_report(params: Mapping[str, str], headers: Mapping[str, str], get_agent: GetAgent) -> HttpAnswer:
    """Show the trust report, or with `of=observed` what the agent would have done with observed mail.

    503 while it cannot be made, for a reason that the log has.
    """
    try:
        if params.get("of") == OBSERVED:
            return answer_observed(get_agent().show_observed, params)
        return answer_report(get_agent().report, params, headers.get("Accept", ""))
    except AgentError as error:
        log.error("the report cannot be made: %s", error)  # noqa: TRY400  # the message says it all
        problem = {"error": "The report cannot be made now: the log says why."}
        return HttpAnswer(HTTPStatus.SERVICE_UNAVAILABLE, json.dumps(problem))


def take_in_review(method: str, params: Mapping[str, str], body: bytes, get_agent: GetAgent) -> HttpAnswer:
    """Show the review desk what is open, or keep what a reviewer says."""
    return answer_review(method, params, body, lambda: get_agent().reviews)


def answer_health(get_agent: GetAgent) -> HttpAnswer:
    """Say whether the agent could work, and nothing about why."""
    if _is_healthy(get_agent):
        return HttpAnswer(HTTPStatus.OK, "ok", "text/plain")
    return HttpAnswer(HTTPStatus.SERVICE_UNAVAILABLE, "not ok", "text/plain")


class _Health:
    """Whether the agent could work, asked at most every `HEALTH_SECONDS`: a flood must cost nothing."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._asked_at = float("-inf")
        self._answer = False

    def __call__(self, get_agent: GetAgent) -> bool:
        with self._turn:  # a request that comes while the first answer is made waits for it
            if time.monotonic() - self._asked_at >= HEALTH_SECONDS:
                try:
                    get_agent().ledger.get_watermark("health")
                    self._answer = True
                except AgentError:
                    log.exception("the health check failed")
                    self._answer = False
                self._asked_at = time.monotonic()
            return self._answer


_is_healthy: Callable[[GetAgent], bool] = _Health()
