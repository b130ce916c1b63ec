"""An Application Insights endpoint on loopback: it takes every row that the exporter sends, and keeps it."""

import gzip
import json
import threading
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, jsonify, request

INSTRUMENTATION_KEY = "00000000-0000-0000-0000-000000000001"
EXPORT_SECONDS = 60.0  # the exporter sends every five
TABLES = {
    "MessageData": "AppTraces", "RemoteDependencyData": "AppDependencies", "RequestData": "AppRequests",
    "ExceptionData": "AppExceptions", "MetricData": "AppMetrics", "EventData": "AppEvents",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What was sent for one row: the table that it goes to, its fields, its trace and its size."""

    table: str
    data: dict[str, Any]
    trace_id: str
    size: int

    @property
    def name(self) -> str:
        """The name of a span or metric, the text of a message."""
        if self.table == "AppMetrics":
            return str(self.data["metrics"][0]["name"])
        return str(self.data.get("name") or self.data.get("message"))

    @property
    def properties(self) -> dict[str, Any]:
        return self.data.get("properties") or {}


class Collector:
    """Serve `app`; the exporter is pointed at it by `build_settings`."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._arrived = threading.Condition()
        self.pings = 0
        self.app = Flask("collector", static_folder=None)
        self.app.add_url_rule("/v2.1/track", view_func=self._take, methods=["POST"])
        self.app.add_url_rule("/QuickPulseService.svc/ping", view_func=self._ping, methods=["POST"])

    def wait_for(self, trace_id: str, name: str, seconds: float = EXPORT_SECONDS) -> None:
        """Wait until a row of a trace has come whose name or message begins so."""

        def has_come() -> bool:
            return any(row.trace_id == trace_id and row.name.startswith(name) for row in self.rows)

        with self._arrived:
            if not self._arrived.wait_for(has_come, seconds):
                raise AssertionError(f"no {name}: {[row for row in self.rows if row.trace_id == trace_id]}")

    def _take(self) -> Response:
        body = request.get_data()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        envelopes = json.loads(body)
        with self._arrived:
            self.rows += [_read(envelope) for envelope in envelopes]
            self._arrived.notify_all()
        count = len(envelopes)
        return jsonify({"itemsReceived": count, "itemsAccepted": count, "errors": []})

    def _ping(self) -> Response:
        """Nobody looks at live metrics."""
        self.pings += 1
        return Response(headers={"x-ms-qps-subscribed": "false"})


def build_settings(url: str) -> dict[str, str]:
    """The app settings that export telemetry to the collector at `url`, else as in Azure."""
    return {
        "PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY": "true",
        "APPLICATIONINSIGHTS_CONNECTION_STRING": (
            f"InstrumentationKey={INSTRUMENTATION_KEY};IngestionEndpoint={url};LiveEndpoint={url}"
        ),
    }


def _read(envelope: dict[str, Any]) -> Row:
    table = TABLES[envelope["data"]["baseType"]]
    trace_id = envelope.get("tags", {}).get("ai.operation.id", "")
    return Row(table, envelope["data"]["baseData"], trace_id, len(json.dumps(envelope)))
