"""The simulators in a process of their own: MultiMail and the model behind fixed latencies, counted on the wire."""

import asyncio
import heapq
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

import requests

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

ROOT = Path(__file__).parent.parent
TRIAGE_SECONDS, DRAFT_SECONDS, MULTIMAIL_SECONDS = 0.4, 1.5, 0.03
PATIENCE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long each answer takes, in seconds, the simulator's own work included.

    `model_places`: how many calls the model works on at once, the others wait in line; 0 for all of them.
    """

    triage: float = TRIAGE_SECONDS
    draft: float = DRAFT_SECONDS
    multimail: float = MULTIMAIL_SECONDS
    model_places: int = 0


NO_LATENCY = Latencies(0, 0, 0)


class Simulators:
    """A running process of simulators; a context manager."""

    def __init__(self, latencies: Latencies, mailboxes: int = 1) -> None:
        self._command = [
            sys.executable, "-m", "benchmarks.simulators",
            json.dumps({"latencies": asdict(latencies), "mailboxes": mailboxes}),
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        started = json.loads(self._process.stdout.readline())
        self.multimail_url, self.chat_url, self.key = started["multimail"], started["chat"], started["key"]
        self._control = requests.Session()
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_SECONDS)

    @property
    def settings(self) -> dict[str, str]:
        """The environment of an agent that works with these simulators."""
        return {
            "MULTIMAIL_API_URL": self.multimail_url,
            "MULTIMAIL_API_KEY": self.key,
            "MODEL_ENDPOINT": self.chat_url,
            "MODEL_API_KEY": "simulated",
            "TRIAGE_DEPLOYMENT": "triage",
            "DRAFT_DEPLOYMENT": "draft",
            "MAX_EMAIL_AGE_HOURS": "72",
            "DAILY_TOKEN_BUDGET": "1000000000",
        }

    def ask(self, **command: Any) -> Any:
        """Carry out one of `_Desk`'s commands and return its answer."""
        answer = self._control.post(f"{self.multimail_url}/desk", json=command, timeout=PATIENCE_SECONDS)
        answer.raise_for_status()
        return answer.json()


class _Desk:
    """What the benchmark may ask of the simulators besides their work."""

    def __init__(self, mailboxes: int) -> None:
        from benchmarks.tutorial_model import answer_any  # noqa: PLC0415 - the client side needs none of these
        from local.multimail.simulator import MultiMailSimulator  # noqa: PLC0415 - nor does it need this

        self.multimail = MultiMailSimulator(lambda: datetime.now(UTC), plan="scale")
        self.multimail.monthly_quota = 10**9
        self.key = self.multimail.add_key()
        self.boxes = [
            self.multimail.add_mailbox(f"support{n}@northwind.example", "gated_send")
            for n in range(mailboxes)
        ]
        self.answer_chat = answer_any
        self.counts: Counter[str] = Counter()

    def carry_out(self, command: dict[str, Any]) -> Any:
        return getattr(self, f"do_{command.pop('do')}")(**command)

    def do_deliver(self, emails: list[dict[str, Any]]) -> list[str]:
        """Let emails arrive: `box` (a number), `sender`, `subject`, `markdown`."""
        return [
            self.multimail.deliver(
                self.boxes[mail.get("box", 0)], mail["sender"], mail["subject"], mail["markdown"]
            )
            for mail in emails
        ]

    def do_boxes(self) -> list[str]:
        """The ids of the mailboxes."""
        return self.boxes

    def do_set_mode(self, mode: str) -> None:
        for box in self.boxes:
            self.multimail.set_mode(box, mode)

    def do_counts(self) -> dict[str, int]:
        """Requests, bytes and tokens since the last time this was asked."""
        counts, self.counts = dict(self.counts), Counter()
        return counts

    def do_accepted(self) -> list[dict[str, Any]]:
        """Every reply that the service took on."""
        return [
            {"answers": reply.in_reply_to, "mode": reply.mode, "bypassed": reply.approval_bypassed}
            for reply in self.multimail.accepted
        ]


class _Connection(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection: a request, an answer after its latency, the next request."""

    def __init__(self, answer: "Callable[[_Request], tuple[bytes, float]]") -> None:
        self._answer = answer
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not found:
            return
        request = _Request.parse(head)
        if len(rest) < request.length:
            return
        request.body = rest[: request.length]
        del self._received[: len(head) + 4 + request.length]
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        content, latency = self._answer(request)
        loop.call_at(arrived + latency, self._write, content)

    def _write(self, content: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(content)


@dataclass(slots=True)
class _Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", 0))

    @classmethod
    def parse(cls, head: bytes) -> "_Request":
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        pairs = (line.partition(":") for line in lines)
        return cls(method, path, query, {name.lower(): value.strip() for name, _, value in pairs})


def _call(app: "WSGIApplication", request: _Request) -> bytes:
    """Answer a request by a WSGI app, as bytes for the wire."""
    started: list[Any] = []
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(request.path, "latin-1"),
        "QUERY_STRING": request.query,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(request.length),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()},
    }
    body = b"".join(app(environ, lambda *args: started.extend(args)))  # type: ignore[arg-type]  # a bare start_response
    status, headers = started[0], started[1]
    return _write_answer(status, body, [(name, value) for name, value in headers])


def _write_answer(status: str, body: bytes, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers if name.lower() != "content-length"]
    head = "\r\n".join([f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}"])
    return head.encode("latin-1") + b"\r\n\r\n" + body


class ModelPlaces:
    """The calls that the model works on at once, first come first served; 0 for all of them."""

    def __init__(self, places: int) -> None:
        self._free_at = [0.0] * places  # a heap

    def take(self, now: float, latency: float) -> float:
        """Seconds from `now` until a call is answered: until there is a place for it, and its latency."""
        if not self._free_at:
            return latency
        done_at = max(now, self._free_at[0]) + latency
        heapq.heapreplace(self._free_at, done_at)
        return done_at - now


class _Services:
    """Answers for both services, with their latencies, and counts."""

    def __init__(self, desk: _Desk, latencies: Latencies) -> None:
        self._desk = desk
        self._latencies = latencies
        self._model = ModelPlaces(latencies.model_places)

    def multimail(self, request: _Request) -> tuple[bytes, float]:
        desk = self._desk
        if request.path == "/desk":
            answer = json.dumps(desk.carry_out(json.loads(request.body))).encode()
            return _write_answer("200 OK", answer, [("Content-Type", "application/json")]), 0
        desk.counts[f"multimail {name_route(request.method, request.path)}"] += 1
        desk.multimail.requests.clear()  # nobody reads them, and they keep every body
        return _call(desk.multimail.app, request), self._latencies.multimail

    def chat(self, request: _Request) -> tuple[bytes, float]:
        body = json.loads(request.body)
        step, message = self._desk.answer_chat(body)
        latency = self._latencies.draft if step == "draft" else self._latencies.triage
        self._desk.counts[f"model {step}"] += 1
        used = count_wire_tokens(body, message)
        self._desk.counts["tokens in"] += used[0]
        self._desk.counts["tokens out"] += used[1]
        completion = {
            "id": "chatcmpl-simulated", "object": "chat.completion", "created": 0, "model": "simulated-chat",
            "choices": [{
                "index": 0, "message": message,
                "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
            }],
            "usage": {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)},
        }  # fmt: skip
        answer = json.dumps(completion).encode()
        seconds = self._model.take(asyncio.get_running_loop().time(), latency)
        return _write_answer("200 OK", answer, [("Content-Type", "application/json")]), seconds


def name_route(method: str, path: str) -> str:
    """A MultiMail call without its ids: `GET emails/{}/tags`."""
    known = {"mailboxes", "emails", "threads", "tags", "reply", "allowlist", "cancel", "send"}
    parts = [part if part in known else "{}" for part in path.removeprefix("/v1/").split("/")]
    return f"{method} {'/'.join(parts).removeprefix('mailboxes/{}/')}"


def count_wire_tokens(body: dict[str, Any], message: dict[str, Any]) -> tuple[int, int]:
    """The o200k tokens of every text in a request (messages, tools, schema) and of its answer."""
    from benchmarks.tokens import count_tokens  # noqa: PLC0415 - the vocabulary is large

    sent = [text for part in body["messages"] for text in _texts(part)]
    sent += [json.dumps(body[name]) for name in ("tools", "response_format") if name in body]
    return sum(map(count_tokens, sent)), sum(map(count_tokens, _texts(message)))


def _texts(message: dict[str, Any]) -> list[str]:
    calls = message.get("tool_calls") or ()
    return [str(message.get("content") or ""), *(json.dumps(call["function"]) for call in calls)]


async def _serve(options: dict[str, Any]) -> None:
    from benchmarks.tokens import count_tokens  # noqa: PLC0415 - the client side does not need it

    count_tokens("warm")
    desk = _Desk(options["mailboxes"])
    services = _Services(desk, Latencies(**options["latencies"]))
    loop = asyncio.get_running_loop()
    urls = []
    for answer in (services.multimail, services.chat):
        server = await loop.create_server(lambda a=answer: _Connection(a), "127.0.0.1", 0, backlog=1024)  # type: ignore[misc]  # mypy's default argument
        urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    print(json.dumps({"multimail": urls[0], "chat": urls[1], "key": desk.key}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
