"""A process that runs the app in the library worker of Python 3.13, through its own event functions.

It stands for the process around that library and speaks to `worker.py`: an object per line in both directions.
The first line out names the functions. In comes an invocation, out goes its answer, and every log record.
The library takes the classes of its messages from its host: here they are plain objects.
"""

import asyncio
import base64
import importlib.metadata
import json
import logging
import os
import sys
import threading
from types import SimpleNamespace
from typing import Any

from azure_functions_runtime import handle_event
from azure_functions_runtime.utils.executor import invocation_id_cv

APP = sys.argv[1]
KINDS = ("string", "json", "bytes", "http", "data")
OUT_LOCK = threading.Lock()
OUT = os.fdopen(os.dup(1), "w", encoding="utf-8")


class Message(SimpleNamespace):
    """A protobuf message as the library uses it; what is not set is an empty message."""

    def __getattr__(self, name: str) -> "Message":
        if not name[0].islower():  # no field
            raise AttributeError(name)
        return Message()

    def WhichOneof(self, _group: str) -> str | None:  # protobuf's name
        return next((kind for kind in KINDS if kind in vars(self)), None)


class Protos:
    """The module of message classes."""

    RpcHttpCookie = SimpleNamespace(SameSite=SimpleNamespace())
    StatusResult = type("StatusResult", (Message,), {"Success": "Success", "Failure": "Failure"})
    BindingInfo = type("BindingInfo", (Message,), {"undefined": 0, "inout": 2, "out": 1})

    def __getattr__(self, _name: str) -> type[Message]:
        return Message


class Handler(logging.Handler):
    """Passes on every record, with the invocation that it belongs to."""

    def emit(self, record: logging.LogRecord) -> None:
        log = {"logger": record.name, "level": record.levelname, "message": record.getMessage()}
        say({"log": log | {"invocation_id": invocation_id_cv.get()}})


def say(line: dict[str, Any]) -> None:
    with OUT_LOCK:
        OUT.write(json.dumps(line) + "\n")
        OUT.flush()


def build_data(data: dict[str, Any]) -> Message:
    (kind, value) = next(iter(data.items()))
    if kind == "bytes":
        value = base64.b64decode(value)
    elif kind == "http":
        value = Message(**value | {"body": build_data(value["body"])})
    return Message(**{kind: value})


def build_request(asked: dict[str, Any], function_id: str) -> Message:
    trace = Message(trace_parent=asked["traceparent"], trace_state="", attributes={})
    return Message(
        invocation_id=asked["id"],
        function_id=function_id,
        input_data=[Message(name=asked["parameter"], data=build_data(asked["data"]))],
        trigger_metadata={name: build_data(data) for name, data in asked["metadata"].items()},
        trace_context=trace,
        retry_context=Message(retry_count=0, max_retry_count=0, exception=None),
    )


def describe(response: Message) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": response.invocation_id, "error": None, "http": None}
    if response.result.status != "Success":
        answer["error"] = response.result.exception.message
    if "return_value" in vars(response) and response.return_value is not None:
        http = response.return_value.http
        body = getattr(http.body, http.body.WhichOneof("data"))
        text = body.decode() if isinstance(body, bytes) else body
        answer["http"] = {"status": int(http.status_code), "headers": dict(http.headers), "body": text}
    return answer


async def main() -> None:
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(Handler())
    sys.path.insert(0, APP)
    init = Message(capabilities={}, function_app_directory=APP)
    properties = {"host": "127.0.0.1", "protos": Protos()}
    started = await handle_event.worker_init_request(
        Message(request=Message(worker_init_request=init), properties=properties)
    )
    if started.result.status != "Success":
        raise SystemExit(started.result.exception.message)
    metadata = await handle_event.functions_metadata_request(Message(properties=properties))
    ids = {found.name: found.function_id for found in metadata.function_metadata_results}
    bindings = {
        found.name: [json.loads(raw) for raw in found.raw_bindings]
        for found in metadata.function_metadata_results
    }
    version = f"azure-functions-runtime {importlib.metadata.version('azure-functions-runtime')}"
    say({"functions": bindings, "worker": version})
    tasks = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        tasks.add(asyncio.create_task(invoke(build_request(asked, ids[asked["function"]]))))


async def invoke(request: Message) -> None:
    envelope = Message(request=Message(invocation_request=request))
    say(describe(await handle_event.invocation_request(envelope)))


if __name__ == "__main__":
    asyncio.run(main())
