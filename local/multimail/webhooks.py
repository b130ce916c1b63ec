"""The simulated MultiMail's webhooks: signed events, delivered in the background and again when refused."""

import hmac
import json
import threading
from dataclasses import dataclass, field
from hashlib import sha256
from queue import SimpleQueue
from urllib.parse import urlsplit

import requests

from local.multimail.emails import Webhook

SIGNATURE_HEADER = "X-MultiMail-Signature"
RETRIES = 3
TIMEOUT_SECONDS = 10


@dataclass(slots=True)
class Delivery:
    """One event on its way to one subscriber. `statuses` has an answer per try, None where there was none."""

    event: str
    url: str
    body: bytes
    signature: str
    statuses: list[int | None] = field(default_factory=list)


class WebhookSender:
    """Delivers events one after the other, each with up to three retries, on a thread of its own.

    Simulated mail stays on this machine: a subscriber elsewhere gets nothing.
    """

    def __init__(self, pause_seconds: float = 0.2) -> None:
        self.deliveries: list[Delivery] = []
        self._pause_seconds = pause_seconds
        self._queue: SimpleQueue[Delivery] = SimpleQueue()
        self._changed = threading.Condition()
        self._under_way = 0
        self._thread: threading.Thread | None = None

    def send(self, webhook: Webhook, event: str, content: object) -> None:
        """Sign an event and have it delivered soon."""
        if urlsplit(webhook.url).hostname not in ("127.0.0.1", "localhost"):
            return
        body = json.dumps(content).encode()
        digest = hmac.digest(webhook.signing_secret.encode(), body, sha256).hex()
        delivery = Delivery(event, webhook.url, body, f"sha256={digest}")
        with self._changed:
            self.deliveries.append(delivery)
            self._under_way += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)
                self._thread.start()
        self._queue.put(delivery)

    def wait_until_idle(self, timeout_seconds: float = 10) -> bool:
        """Wait until every event was delivered or given up; False when that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._under_way == 0, timeout_seconds)

    def _work(self) -> None:
        while True:
            delivery = self._queue.get()
            self._deliver(delivery)
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def _deliver(self, delivery: Delivery) -> None:
        for tries in range(1 + RETRIES):
            if tries:
                threading.Event().wait(self._pause_seconds)
            try:
                answer = requests.post(
                    delivery.url,
                    data=delivery.body,
                    headers={SIGNATURE_HEADER: delivery.signature, "Content-Type": "application/json"},
                    timeout=TIMEOUT_SECONDS,
                )
            except requests.RequestException:
                delivery.statuses.append(None)
                continue
            delivery.statuses.append(answer.status_code)
            if answer.ok:
                return
