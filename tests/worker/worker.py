"""A worker with the app in a process of its own, and the invocations that a host asks of it."""

import base64
import json
import subprocess
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

PATIENCE_SECONDS = 60.0
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Http:
    """What an HTTP function answered."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Answer:
    """How an invocation ended: `error` is its error's type and text, `http` what an HTTP function returned."""

    id: str
    error: str | None
    http: Http | None


@dataclass(frozen=True)
class Log:
    logger: str
    level: str
    message: str
    invocation_id: str | None


class Worker:
    """The process, between `with` and its end. `command` runs a peer, `functions` are the bindings by name."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], errors: Path) -> None:
        self._command, self._environment, self._errors = command, environment, errors
        self._waiting: dict[str, Future[Answer]] = {}
        self._lock = threading.Lock()
        self._started: Future[dict[str, Any]] = Future()
        self.logs: list[Log] = []
        self.functions: dict[str, list[dict[str, Any]]] = {}
        self.version = ""

    def __enter__(self) -> Self:
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [*self._command], env=dict(self._environment), cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            started = self._started.result(PATIENCE_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        self.functions, self.version = started["functions"], started["worker"]
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_SECONDS)
        finally:
            self._process.kill()
            self._reader.join()

    def invoke(
        self,
        function: str,
        data: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        traceparent: str = "",
    ) -> "Future[Answer]":
        """Begin an invocation; `data` is what the trigger hands over."""
        answer: Future[Answer] = Future()
        id_ = uuid.uuid4().hex
        line = {
            "id": id_, "function": function, "parameter": self.functions[function][0]["name"],
            "data": data, "metadata": metadata or {}, "traceparent": traceparent,
        }  # fmt: skip
        with self._lock:
            self._waiting[id_] = answer
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
        return answer

    def fire(self, function: str, traceparent: str = "") -> Answer:
        """Fire a timer and wait for the end of its function."""
        timer = {"json": json.dumps({"IsPastDue": False, "Schedule": {}, "ScheduleStatus": {}})}
        return self.invoke(function, timer, traceparent=traceparent).result(PATIENCE_SECONDS)

    def deliver(self, body: str, traceparent: str = "") -> "Future[Answer]":
        """Deliver a queue message, as the Service Bus extension does."""
        metadata = {
            "UserProperties": {"json": "{}"}, "MessageId": {"string": uuid.uuid4().hex},
            "DeliveryCount": {"json": "1"}, "TimeToLive": {"string": "14:00:00"},
        }  # fmt: skip
        data = {"bytes": base64.b64encode(body.encode()).decode()}
        return self.invoke("process_email", data, metadata=metadata, traceparent=traceparent)

    def request(
        self,
        function: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        traceparent: str = "",
    ) -> Http:
        """Send an HTTP request to a function and wait for its answer."""
        binding = self.functions[function][0]
        http = {
            "method": binding["methods"][0], "url": f"https://app.example/api/{binding['route']}",
            "headers": dict(headers or {}), "params": {}, "query": dict(query or {}),
            "body": {"bytes": base64.b64encode(body).decode()},
        }  # fmt: skip
        answer = self.invoke(function, {"http": http}, traceparent=traceparent).result(PATIENCE_SECONDS)
        assert answer.http is not None, answer.error
        return answer.http

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = json.loads(text)
            if "log" in line:
                self.logs.append(Log(**line["log"]))
            elif "functions" in line:
                self._started.set_result(line)
            else:
                http = Http(**line["http"]) if line["http"] else None
                with self._lock:
                    waiting = self._waiting.pop(line["id"])
                waiting.set_result(Answer(line["id"], line["error"], http))
        ended = RuntimeError(f"the worker has ended: {self._errors.read_text()[-2000:]}")
        if not self._started.done():
            self._started.set_exception(ended)
        with self._lock:
            for waiting in self._waiting.values():
                waiting.set_exception(ended)
