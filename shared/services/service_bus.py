"""The work queue in Azure: a Service Bus queue."""

import re
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any, cast

from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusSender
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
)

from shared.domain import WorkItem
from shared.errors import AgentError, ConfigurationError, TransientError
from shared.settings import Secret
from shared.telemetry import span

# The ledger enqueues again whatever was not delivered, so a send gives up soon: three tries of at
# most 10 seconds each, 30 seconds in all. Left alone, the SDK's tries have no bound.
_BOUNDS: dict[str, Any] = {"retry_total": 2, "retry_backoff_factor": 0.2, "try_timeout": 10.0}
_SEND_SECONDS = 30.0


class ServiceBusWorkQueue:
    """Work items for a Service Bus queue, over one connection per process.

    Safe to share between threads. `connect` builds a client; it is called on the first send and
    again after a send has failed.
    """

    def __init__(self, connect: Callable[[], ServiceBusClient], queue_name: str, host: str) -> None:
        self._connect = connect
        self._host = host
        self._queue_name = queue_name
        self._lock = threading.Lock()  # the SDK's senders are not thread-safe
        self._client: ServiceBusClient | None = None
        self._sender: ServiceBusSender | None = None

    def send(self, items: Sequence[WorkItem], lives: timedelta) -> None:
        """Put every item into the queue, in as few batches as they fit into; it vanishes after `lives`.

        Raises TransientError when some may not have arrived (the whole lot can be sent again), and
        ConfigurationError when the queue, the permission or the connection is wrong.
        """
        if not items:
            return
        with self._lock:
            try:
                count = {"messaging.batch.message_count": len(items)}
                with span("send work items", count, server=self._host):
                    if self._client is None or self._sender is None:
                        self._client = self._connect()
                        self._sender = self._client.get_queue_sender(self._queue_name)
                    # Gone before the ledger enqueues its row again. The id is random on purpose: one made
                    # from the row would make a queue with duplicate detection accept and drop, without a
                    # word, every further one inside its window (10 minutes by default). A doubled work item
                    # is harmless: one worker gets the row's lease. The SDK's own retries keep the id.
                    messages = [
                        ServiceBusMessage(
                            item.to_json(),
                            message_id=uuid.uuid4().hex,
                            content_type="application/json",
                            time_to_live=lives,
                        )
                        for item in items
                    ]
                    _send_batches(self._sender, messages)
            except AzureError as error:
                self._close()
                raise self._explain(error, len(items)) from error
            except BaseException:
                self._close()  # an interrupted link is in no known state
                raise

    def close(self) -> None:
        """Close the connection; a later send opens a new one."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        client, self._client, self._sender = self._client, None, None
        if client is not None:
            client.close()  # closes its sender too, and logs instead of raising

    def _explain(self, error: AzureError, count: int) -> AgentError:
        attempt = f"sending {count} work items to the Service Bus queue {self._queue_name!r}"
        # Service Bus answers 404 to the token for a queue that is not there, before any link is made.
        token_status = getattr(error.inner_exception, "status_code", None)
        if isinstance(error, MessagingEntityNotFoundError) or token_status == HTTPStatus.NOT_FOUND:
            return ConfigurationError(
                f"{attempt}: the queue does not exist. Set WORK_QUEUE_NAME to a queue of the namespace."
            )
        refused = isinstance(error, ServiceBusAuthenticationError | ServiceBusAuthorizationError)
        # A credential that yields no token arrives wrapped in a plain ServiceBusError.
        if refused or isinstance(error.inner_exception, ClientAuthenticationError):
            return ConfigurationError(
                f"{attempt}: refused as unauthorised ({type(error).__name__}). Check "
                "ServiceBusConnection__fullyQualifiedNamespace, and grant the app's identity the role "
                "Azure Service Bus Data Sender on the queue."
            )
        return TransientError(f"{attempt} failed: {type(error).__name__}: {error.message}")


def build_service_bus_work_queue(
    *,
    namespace: str | None,
    credential: TokenCredential | None,
    connection_string: Secret | None,
    queue_name: str,
) -> ServiceBusWorkQueue:
    """Build the queue without connecting.

    `namespace` is the fully qualified host name and goes with `credential`; a connection string
    (the emulator, or one machine) wins over both. Raises ConfigurationError when neither is there.
    """
    if connection_string is None and (namespace is None or credential is None):
        raise ConfigurationError(
            "ServiceBusConnection__fullyQualifiedNamespace is not set: set it to "
            "NAMESPACE.servicebus.windows.net (for the emulator, set ServiceBusConnection instead)."
        )
    stated = re.search("Endpoint=sb://([^/;]+)", connection_string.value) if connection_string else None
    host = stated[1] if stated else namespace or "Service Bus"
    return ServiceBusWorkQueue(lambda: _connect(namespace, credential, connection_string), queue_name, host)


def _connect(
    namespace: str | None, credential: TokenCredential | None, connection_string: Secret | None
) -> ServiceBusClient:
    if connection_string is None:
        return ServiceBusClient(str(namespace), cast(TokenCredential, credential), **_BOUNDS)
    try:
        return ServiceBusClient.from_connection_string(connection_string.value, **_BOUNDS)
    except ValueError:
        # The SDK's words are left out: they could quote the string, which holds a key.
        raise ConfigurationError(
            "ServiceBusConnection is not a Service Bus connection string: copy it again "
            "(Endpoint=sb://...;SharedAccessKeyName=...;SharedAccessKey=...)."
        ) from None


def _send_batches(sender: ServiceBusSender, messages: Sequence[ServiceBusMessage]) -> None:
    batch = sender.create_message_batch()
    for message in messages:
        try:
            batch.add_message(message)
        except MessageSizeExceededError:  # the batch is full
            sender.send_messages(batch, timeout=_SEND_SECONDS)
            batch = sender.create_message_batch()
            batch.add_message(message)
    sender.send_messages(batch, timeout=_SEND_SECONDS)
