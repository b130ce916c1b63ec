"""The ledger's rows in Azure Table Storage."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential, TokenCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DeserializationError,
    HttpResponseError,
)
from azure.core.pipeline import PipelineResponse
from azure.core.pipeline.transport import RequestsTransport
from azure.data.tables import TableEntity, TableServiceClient, UpdateMode

from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    LeaseLostError,
    NotFoundError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.ledger.ledger import NAME, Ledger
from shared.ledger.store import Change, Row, Verb
from shared.services.http_session import build_session, find_retry_after
from shared.telemetry import span

_Operation = tuple[str, Mapping[str, Any], Mapping[str, Any]]  # as the SDK takes it: verb, entity, options

TABLE = NAME

# https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
MAX_TEXT_BYTES = 64 * 1024
_MAX_PAGE_ROWS = 1000
_NOT_FIELDS = ("PartitionKey", "RowKey", "write_id")

_MEANINGS: Mapping[int, type[AgentError]] = {
    400: PermanentError,
    404: NotFoundError,
    409: ConflictError,
    412: LeaseLostError,
    413: PermanentError,
}
_FORBIDDEN = (401, 403)
_BUSY = (429, 503)


def build_table_ledger(
    endpoint: str, credential: TokenCredential | AzureNamedKeyCredential, table: str = TABLE
) -> Ledger:
    """Build the ledger of a storage account's Table endpoint. Nothing is asked of the account yet.

    A call fails after at most three tries of 20 seconds, and at once when the service names a delay.
    """
    session = build_session(endpoint)
    service = TableServiceClient(
        endpoint,
        credential=credential,
        retry_total=2,
        retry_backoff_factor=0.4,
        transport=RequestsTransport(
            session=session,
            session_owner=False,
            connection_verify=session.verify,
            connection_timeout=5,
            read_timeout=15,
        ),
        logging_enable=False,
        raw_response_hook=_refuse_to_sleep,
    )
    return Ledger(TableStore(service, table), table)


class TableStore:
    """A Store in one table, which is created when first written to. Building it does no I/O.

    The only place that meets the SDK's types and errors.
    """

    def __init__(self, service: TableServiceClient, table: str = TABLE) -> None:
        self._service = service
        self._table = table
        self._client = service.get_table_client(table)
        self._whole: Mapping[str, Any] = {"mode": UpdateMode.REPLACE}
        self._if_unchanged = {"match_condition": MatchConditions.IfNotModified, **self._whole}

    def close(self) -> None:
        """Let the connections go."""
        self._service.close()

    def get(self, partition: str, key: str) -> Row | None:
        """The row, or None; a missing table has no rows."""
        found = self._find(partition, key)
        return _to_row(found) if found is not None else None

    def scan(self, partitions: Sequence[str], first: str, last: str) -> Iterator[Row]:
        """The rows of these partitions with `first` <= key < `last`, page by page as they are taken.

        One query for each partition: one over several would read all that lies between their ranges of keys.
        """
        condition = "PartitionKey eq @partition and RowKey ge @first and RowKey lt @last"
        for partition in partitions:
            parameters = {"partition": partition, "first": first, "last": last}
            pages = self._client.query_entities(
                condition, parameters=parameters, results_per_page=_MAX_PAGE_ROWS
            ).by_page()
            rows: list[Row] | None = []
            while rows is not None:  # an empty page need not be the last
                yield from rows
                try:
                    with self._call("query", f"rows of partition {partition}"):
                        page = next(pages, None)
                        rows = None if page is None else [_to_row(entity) for entity in page]
                except NotFoundError:
                    rows = None

    def write(self, changes: Sequence[Change]) -> tuple[str, ...] | None:
        """Make all changes in one transaction, or none and return None when a condition did not hold."""
        write_id = uuid4().hex
        operations: list[_Operation] = []
        for change in changes:
            row = change.row
            for name, value in row.fields.items():
                if (
                    isinstance(value, str)
                    and len(value.encode("utf-16-le", "surrogatepass")) > MAX_TEXT_BYTES
                ):
                    raise PermanentError(
                        f"{name} of row {row.partition} {row.key} has {len(value)} characters: "
                        "Table Storage stores 64 KiB of UTF-16 in one value"
                    )
            entity = {"PartitionKey": row.partition, "RowKey": row.key, **row.fields, "write_id": write_id}
            by_verb: Mapping[Verb, _Operation] = {
                Verb.INSERT: ("create", entity, {}),
                Verb.REPLACE: ("update", entity, {"etag": row.etag, **self._if_unchanged}),
                Verb.UPSERT: ("upsert", entity, self._whole),
                Verb.DELETE: ("delete", entity, {}),
            }
            operations.append(by_verb[change.verb])
        try:
            written = self._submit(changes[0].row, operations)
        except (ConflictError, LeaseLostError, NotFoundError):
            # It may be written after all: the SDK's second try meets what the first one wrote.
            etags = []
            for change in changes:
                is_gone = change.verb is Verb.DELETE
                found = None if is_gone else self._find(change.row.partition, change.row.key)
                if not is_gone and (found is None or found.get("write_id") != write_id):
                    return None
                etags.append("" if found is None else str(found.metadata["etag"]))
            return tuple(etags) if any(etags) else None
        return tuple(str(answer.get("etag", "")) for answer in written)

    def _find(self, partition: str, key: str) -> TableEntity | None:
        try:
            with self._call("read", f"row {partition} {key}"):
                return self._client.get_entity(partition, key)
        except NotFoundError:
            return None

    def _submit(self, first: Row, operations: "Sequence[_Operation]") -> Sequence[Mapping[str, Any]]:
        def submit() -> Sequence[Mapping[str, Any]]:
            with self._call("write", f"{len(operations)} rows, the first {first.partition} {first.key},"):
                # By default the SDK does not repeat a POST whose answer was lost.
                return self._client.submit_transaction(operations, retry_on_methods=["POST"])

        try:
            return submit()
        except NotFoundError:
            with self._call("create", "the table"):
                self._service.create_table_if_not_exists(self._table)
        return submit()

    @contextmanager
    def _call(self, verb: str, what: str) -> Iterator[None]:
        """One call to the service, with its span and our errors for the SDK's."""
        try:
            with span(f"{verb} {self._table}", {"db.collection.name": self._table}, server=self._service.url):
                yield
        except (AzureError, DeserializationError) as error:
            attempt, kind = f"could not {verb} {what} in table {self._table}", type(error).__name__
            if isinstance(error, ClientAuthenticationError):
                raise _refused(attempt, kind) from error
            if getattr(error, "error_code", None) == "TableBeingDeleted":  # a 409, but no row is in the way
                raise TransientError(f"{attempt}: the table is being deleted") from error
            if isinstance(error, HttpResponseError) and error.response is not None:
                raise _error_for(attempt, error.response) from error
            raise TransientError(
                f"{attempt}: no usable answer from LEDGER_TABLE_ENDPOINT ({kind})"
            ) from error


def _to_row(entity: TableEntity) -> Row:
    fields = {name: value for name, value in entity.items() if name not in _NOT_FIELDS}
    return Row(entity["PartitionKey"], entity["RowKey"], fields, str(entity.metadata["etag"]))


def _refuse_to_sleep(response: PipelineResponse[Any, Any]) -> None:
    """Hand on a delay that the service asks for: azure-core would sleep it off, however long it is."""
    answer = response.http_response
    if answer.status_code >= HTTPStatus.BAD_REQUEST and "Retry-After" in answer.headers:
        raise _error_for("a call to Table Storage was put off", answer)


def _error_for(attempt: str, answer: Any) -> AgentError:
    """What the caller must do about an HTTP answer (either of azure-core's two response types)."""
    status = answer.status_code
    came_back = f"{attempt}: status {status}"
    if status in _FORBIDDEN:
        return _refused(attempt, f"status {status}")
    if status in _MEANINGS:
        return _MEANINGS[status](came_back)
    error = ThrottledError if status in _BUSY else TransientError
    return error(came_back, retry_after_seconds=find_retry_after(answer.headers))


def _refused(attempt: str, came_back: str) -> ConfigurationError:
    return ConfigurationError(
        f"LEDGER_TABLE_ENDPOINT: {attempt} ({came_back}): give the app's identity the role "
        "Storage Table Data Contributor on that storage account (a new role takes up to ten minutes)."
    )
