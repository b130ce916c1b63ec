"""Look-ups: what a mailbox's look-ups know of one customer, read in parallel and kept for a while."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from datetime import datetime

from shared.domain import LookedUp
from shared.errors import (
    ConfigurationError,
    DeferredError,
    TransientError,
    UnavailableError,
)
from shared.knowledge.lookup import WAIT, Answer, Facts, LookUp, Result
from shared.knowledge.lookup_http import name_operation
from shared.knowledge.references import ORDINALS, find_references
from shared.services.health import ServiceHealth
from shared.telemetry import LOOKUP_FINISHED, in_this_context, record

MAX_KEPT = 1_000  # answers, of all look-ups
MARGIN_SECONDS = 0.5  # beyond a look-up's own limit, for what it does before and after its request

Read = Callable[[LookUp, str], bytes | None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a look-up found at some time."""

    answer: Answer
    at: datetime


@dataclass(frozen=True, slots=True)
class _Running:
    """A look-up on its way: one for each reference of the email."""

    look_up: LookUp
    reference: str
    ordinal: str
    future: Future[_Kept]


@dataclass(slots=True)
class LookUps:
    """Runs look-ups. Answers are kept in this process's memory alone, each as long as its look-up says."""

    read: Read
    executor: Executor
    clock: Callable[[], datetime]
    health: ServiceHealth
    monotonic: Callable[[], float] = time.monotonic
    _kept: OrderedDict[tuple[LookUp, str, str], _Kept] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(
        self,
        wanted: Sequence[LookUp],
        address: str,
        text: str,
        *,
        email_id: str,
        is_fresh: bool = False,
        may_wait: bool = True,
    ) -> Callable[[], Facts]:
        """Begin to look up what there is of the customer with this address, who wrote the email.

        Returns what waits for the answers and gives the facts. `text`: the sender's own words, in which
        references are looked for. `is_fresh`: nothing that was kept will do. With `may_wait` the call raises
        what a look-up raises whose failure the email is to wait for.
        """
        begun = self.monotonic()
        running: list[_Running] = []
        for look_up in wanted:
            find = in_this_context(self._find)
            references = find_references(look_up.references, text) if look_up.references else ("",)
            ordinals = ORDINALS if len(references) > 1 else ("",)
            for reference, ordinal in zip(references, ordinals, strict=False):
                url = look_up.build_url(address, reference)
                if url:
                    future = self.executor.submit(find, look_up, url, address, is_fresh)
                    running.append(_Running(look_up, reference, ordinal, future))
        return lambda: self._finish(running, address, begun, email_id, may_wait=may_wait)

    def _find(self, look_up: LookUp, url: str, address: str, is_fresh: bool) -> _Kept:
        # With the address: whether an answer is about it was judged for this one alone.
        key, now = (look_up, url, address), self.clock()
        with self._lock:
            known = self._kept.get(key)
            if known is not None and not is_fresh and now - known.at < look_up.cache:
                return known
        content = self.read(look_up, url)
        try:
            answer = Answer() if content is None else look_up.read_facts(content, address)
        except ValueError:
            # Not from the error, which has the answer in it.
            raise DeferredError(f"{name_operation(look_up)} gave an answer that is not JSON.") from None
        if answer.is_unlike:
            log.warning(
                "%s (lookups in mailboxes.yaml) got an answer without %s: correct the path, or what the "
                "system answers; `python -m local lookup` tries it",
                name_operation(look_up), ", ".join(answer.missing),
            )  # fmt: skip
        found = _Kept(answer, now)
        with self._lock:
            self._kept.pop(key, None)
            for old in [old for old, kept in self._kept.items() if now - kept.at >= old[0].cache]:
                del self._kept[old]  # it is kept in memory no longer than it is used
            if look_up.cache:
                self._kept[key] = found
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return found

    def _finish(
        self, running: Sequence[_Running], address: str, begun: float, email_id: str, *, may_wait: bool
    ) -> Facts:
        passages, looked_up, gaps = [], dict[str, LookedUp](), list[str]()
        for one in running:
            look_up = one.look_up
            try:
                found = self._wait(look_up, one.future, begun)
            except (ConfigurationError, TransientError) as error:
                is_refused = isinstance(error, ConfigurationError | DeferredError)
                _count(look_up, Result.REFUSED if is_refused else Result.NO_ANSWER)
                # A setting that cannot work is told as an outage: nothing but look-ups stops for it.
                known = UnavailableError(error.reason) if isinstance(error, ConfigurationError) else error
                waited_for = self._note_failure(look_up, known, email_id)
                if may_wait and look_up.on_failure == WAIT:
                    raise waited_for from None
                log.warning("a draft is written without a look-up: %s", error)
                part = f" for the {one.ordinal} reference" if one.ordinal else ""
                gaps.append(f"the look-up {look_up.name} gave no answer{part}")
                continue
            _count(look_up, found.answer.result)
            if found.answer.shown:
                passages.append(
                    look_up.build_passage(found.answer.shown, found.at, one.reference, one.ordinal)
                )
                # Of several references the oldest answer.
                note = LookedUp(look_up.name, found.at, address)
                looked_up[look_up.name] = min(looked_up.get(look_up.name, note), note, key=lambda n: n.at)
        return Facts(tuple(passages), tuple(looked_up.values()), tuple(gaps))

    def _note_failure(self, look_up: LookUp, error: TransientError, email_id: str) -> TransientError:
        """Tell the operator of an outage; return what an email waits for, which burns no attempt.

        What works for others may fail for the reference alone, which the sender chose.
        """
        if isinstance(error, UnavailableError):
            error.operation = error.operation or name_operation(look_up)
            if self.health.note_failure(error, email_id) is not None:
                return error
        return error if isinstance(error, DeferredError) else DeferredError(error.reason)

    def _wait(self, look_up: LookUp, future: Future[_Kept], begun: float) -> _Kept:
        left = begun + look_up.time_limit + MARGIN_SECONDS - self.monotonic()
        try:
            return future.result(max(0.0, left))
        except FutureTimeoutError:
            raise UnavailableError(
                f"{name_operation(look_up)} took longer than {look_up.time_limit:g} seconds."
            ) from None


def _count(look_up: LookUp, result: Result) -> None:
    record(LOOKUP_FINISHED, {"lookup": look_up.name, "result": result})
