"""A process that runs the app in Microsoft's whole worker: this is its host, over gRPC.

It speaks to `worker.py` as `runtime_peer.py` does. The worker's package, with its compiled messages, is on the path.
"""

import importlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict

APP, PACKAGE = sys.argv[1:]
protos = importlib.import_module(f"{PACKAGE}.protos")
VERSION = importlib.import_module(f"{PACKAGE}.version").VERSION
LEVELS = {"Information": "INFO", "Warning": "WARNING", "Error": "ERROR", "Critical": "CRITICAL"}
OUT_LOCK = threading.Lock()


class Host(protos.FunctionRpcServicer):  # type: ignore[misc, name-defined]  # generated code has no types
    """The service that the worker connects to: one stream in each direction."""

    def __init__(self) -> None:
        self.outgoing: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()

    def EventStream(self, incoming: Iterator[Any], _context: object) -> Iterator[Any]:
        threading.Thread(target=self.read, args=(incoming,), daemon=True).start()
        while (message := self.outgoing.get()) is not None:
            yield message

    def read(self, incoming: Iterator[Any]) -> None:
        try:
            for message in incoming:
                self.take(MessageToDict(message, preserving_proto_field_name=True))
        except grpc.RpcError:
            pass  # the worker has ended

    def take(self, message: dict[str, Any]) -> None:
        if "rpc_log" in message:
            say({"log": describe_log(message["rpc_log"])})
        elif "invocation_response" in message:
            say(describe(message["invocation_response"]))
        else:
            self.answers.put(message)

    def send(self, **content: Any) -> None:
        self.outgoing.put(ParseDict({"request_id": "request", **content}, protos.StreamingMessage()))

    def ask(self, answer: str, **content: Any) -> dict[str, Any]:
        """Send a request, and wait for the message `answer`."""
        self.send(**content)
        found: dict[str, Any] = self.answers.get(timeout=60)[answer]
        if found["result"].get("status") != "Success":
            raise SystemExit(found["result"]["exception"]["message"])
        return found


def say(line: dict[str, Any]) -> None:
    with OUT_LOCK:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def describe_log(log: dict[str, Any]) -> dict[str, Any]:
    level = LEVELS.get(log.get("level", ""), "DEBUG")
    found = {"logger": log.get("category", ""), "level": level, "message": log.get("message", "")}
    return found | {"invocation_id": log.get("invocation_id")}


def describe(response: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": response["invocation_id"], "error": None, "http": None}
    if response["result"].get("status") != "Success":
        answer["error"] = response["result"]["exception"]["message"]
    if "return_value" in response:
        http = response["return_value"]["http"]
        body = next(iter(http.get("body", {}).items()), ("string", ""))
        text = ParseDict({body[0]: body[1]}, protos.TypedData())
        raw = getattr(text, body[0])
        answer["http"] = {
            "status": int(http["status_code"]),
            "headers": http.get("headers", {}),
            "body": raw.decode() if isinstance(raw, bytes) else raw,
        }
    return answer


def start(host: Host) -> dict[str, str]:
    """Bring the worker to the point where functions can be invoked; return their ids by name."""
    if "start_stream" not in host.answers.get(timeout=60):
        raise SystemExit("the worker did not begin with StartStream")
    init = {"function_app_directory": APP, "capabilities": {}, "host_version": "4"}
    host.ask("worker_init_response", worker_init_request=init)
    wanted = {"function_app_directory": APP}
    found = host.ask("function_metadata_response", functions_metadata_request=wanted)
    functions = found["function_metadata_results"]
    for function in functions:
        load = {"function_id": function["function_id"], "metadata": function}
        host.ask("function_load_response", function_load_request=load)
    bindings = {f["name"]: [json.loads(raw) for raw in f["raw_bindings"]] for f in functions}
    say({"functions": bindings, "worker": f"{PACKAGE} {VERSION}"})
    return {function["name"]: function["function_id"] for function in functions}


def main() -> None:
    host = Host()
    server = grpc.server(ThreadPoolExecutor(4))
    protos.add_FunctionRpcServicer_to_server(host, server)
    address = ["--host", "127.0.0.1", "--port", str(server.add_insecure_port("127.0.0.1:0"))]
    server.start()
    ids = ["--workerId", "worker", "--requestId", "request"]
    environment = {**os.environ, "AzureWebJobsScriptRoot": APP}
    worker = subprocess.Popen(
        [sys.executable, "-m", PACKAGE, *address, *ids], env=environment, cwd=APP, stdout=sys.stderr
    )
    try:
        functions = start(host)
        for line in sys.stdin:
            asked = json.loads(line)
            host.send(
                invocation_request={
                    "invocation_id": asked["id"],
                    "function_id": functions[asked["function"]],
                    "input_data": [{"name": asked["parameter"], "data": asked["data"]}],
                    "trigger_metadata": asked["metadata"],
                    "trace_context": {"trace_parent": asked["traceparent"]},
                }
            )
    finally:
        worker.terminate()
        worker.wait()
        host.outgoing.put(None)
        server.stop(None)


if __name__ == "__main__":
    main()
