"""The audit trail as it is kept: records in chains, each bound by a keyed hash to the one before it."""

import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from shared.errors import TransientError
from shared.ledger.keys import AFTER
from shared.ledger.rows import from_row, to_row
from shared.ledger.store import MAX_CHANGES, Change, Row, Store, Verb
from shared.settings import Secret

# Several, so that processes seldom meet: one that does goes on with the next chain, and stays there.
CHAINS = tuple(f"{number:02}" for number in range(8))
RECORD, HEAD = "record|", "head"
TRIES = 5 * len(CHAINS)
MAX_RECORDS = MAX_CHANGES - 1  # in one `append`, with the head


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A record of a chain, numbered from 1. `facts`: a JSON object, as it was written.

    `mac` binds it to its place and to the record before it, under the key with the fingerprint `key_id`.
    """

    number: int
    facts: str
    mac: str
    key_id: str


@dataclass(frozen=True, slots=True)
class AuditHead:
    """How many records a chain has, and the MAC of the last. `seal` is a MAC of this under the same key."""

    number: int
    mac: str
    seal: str
    key_id: str


@dataclass(frozen=True, slots=True)
class AuditChain:
    """A chain as it was read: its records by number, and its head, None where it has none."""

    name: str
    records: Sequence[AuditRecord]
    head: AuditHead | None


class AuditChains:
    """The chains of a ledger. `append` is for one thread at a time.

    Without the key no record can be changed, inserted, moved or left out unseen. Nor can the last ones be cut
    off, unless an earlier head, which was copied then, is put back: that an anchor shows, kept elsewhere.
    Every method raises what its store raises.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._place = 0  # of the chain that this process writes to
        self._seen: tuple[AuditHead, str] | None = None  # its head as last written, with its ETag

    def append(self, facts: Sequence[str], key: Secret) -> None:
        """Add records, at most MAX_RECORDS, all or none.

        Raises TransientError when other processes are faster every time.
        """
        for _ in range(TRIES):
            chain = CHAINS[self._place]
            seen, self._seen = self._seen or self._read_head(chain), None
            before, etag = seen if seen is not None else (None, "")
            records = _link(chain, before, facts, key)
            head = AuditHead(
                records[-1].number, records[-1].mac, _seal(chain, records[-1], key), key.fingerprint
            )
            verb = Verb.INSERT if before is None else Verb.REPLACE
            changes = [Change(Verb.INSERT, _record_row(chain, record)) for record in records]
            changes.append(Change(verb, Row(_partition(chain), HEAD, to_row(head), etag)))
            etags = self._store.write(changes)
            if etags is not None:
                self._seen = head, etags[-1]
                return
            self._place = (self._place + 1) % len(CHAINS)
        raise TransientError("the audit trail is written by too many processes at once")

    def read(self) -> Sequence[AuditChain]:
        """Every chain whole. Reads history: for people."""
        return [AuditChain(name, [*self._read_records(name)], self._find_head(name)) for name in CHAINS]

    def find_heads(self) -> Mapping[str, AuditHead]:
        """The heads of the chains that have any record, by the chain's name."""
        heads = {name: self._find_head(name) for name in CHAINS}
        return {name: head for name, head in heads.items() if head is not None}

    def _read_records(self, chain: str) -> Iterator[AuditRecord]:
        for row in self._store.scan([_partition(chain)], RECORD, RECORD + AFTER):
            yield from_row(AuditRecord, row.fields)

    def _find_head(self, chain: str) -> AuditHead | None:
        found = self._read_head(chain)
        return None if found is None else found[0]

    def _read_head(self, chain: str) -> tuple[AuditHead, str] | None:
        row = self._store.get(_partition(chain), HEAD)
        return None if row is None else (from_row(AuditHead, row.fields), row.etag)


def read_facts(chains: Sequence[AuditChain]) -> list[Mapping[str, Any]]:
    """The facts of every record, oldest first; what somebody made unreadable is left out."""
    found = []
    for chain in chains:
        for record in chain.records:
            facts = parse_facts(record)
            if facts:
                found.append(facts)
    return sorted(found, key=lambda facts: str(facts.get("at", "")))


def parse_facts(record: AuditRecord) -> Mapping[str, Any]:
    """The facts of a record; none where they cannot be read."""
    try:
        facts = json.loads(record.facts)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def find_problems(chain: AuditChain, key: Secret) -> Iterator[str]:
    """Say in a sentence each what was changed in a chain, what is missing, and what this key cannot check."""
    end, mac, is_linked = 0, "", True
    for record in chain.records:
        if record.number != end + 1:
            yield f"{_name_records(chain.name, end + 1, record.number - 1)} missing."
            is_linked = False
        wanted = _sign(key, chain.name, record.number, mac, record.facts)
        if is_linked and record.key_id == key.fingerprint and not _is_same(record.mac, wanted):
            email_id = parse_facts(record).get("email_id", "")
            about = f", which is about {email_id}," if email_id else ""
            yield f"Record {record.number} of chain {chain.name}{about} was changed, or put there."
        end, mac, is_linked = record.number, record.mac, True
    if problem := _check_end(chain, key, end, mac):
        yield problem
    key_ids = {record.key_id for record in chain.records} | ({chain.head.key_id} if chain.head else set())
    for key_id in sorted(key_ids - {key.fingerprint}):
        yield f"Chain {chain.name} has records under another key ({key_id}), which this one cannot check."


def _check_end(chain: AuditChain, key: Secret, end: int, mac: str) -> str:
    """What is wrong with where a chain ends; empty where nothing is, or another key would have to say it."""
    head = chain.head
    if head is None:
        return f"Chain {chain.name} has {end} records and no head: its end is not known." if end else ""
    sealed = AuditRecord(head.number, "", head.mac, "")
    if head.key_id == key.fingerprint and not _is_same(head.seal, _seal(chain.name, sealed, key)):
        return f"The head of chain {chain.name} was changed: its end is not known."
    if head.number > end:
        return f"{_name_records(chain.name, end + 1, head.number)} missing at its end."
    if (head.number, head.mac) != (end, mac):
        return f"Chain {chain.name} does not end as its head says: it has {end} records, not {head.number}."
    return ""


def build_anchor(numbers_and_macs: Sequence[tuple[int, str]], key: Secret) -> str:
    """How long each of CHAINS is, and a MAC of where they end: to be kept elsewhere, and checked later."""
    numbers = ".".join(str(number) for number, _ in numbers_and_macs)
    return f"{numbers}-{_sign(key, 'anchor', *(part for pair in numbers_and_macs for part in pair))[:32]}"


def find_anchor(heads: Mapping[str, AuditHead], key: Secret) -> str:
    """The anchor of the chains as they are now."""
    ends = [(heads[name].number, heads[name].mac) if name in heads else (0, "") for name in CHAINS]
    return build_anchor(ends, key)


def check_anchor(anchor: str, chains: Sequence[AuditChain], key: Secret) -> Iterator[str]:
    """Say what of the trail is no longer as it was when this anchor was taken. Raises ValueError."""
    numbers = [int(part) for part in anchor.partition("-")[0].split(".")]
    if len(numbers) != len(CHAINS):
        raise ValueError(f"{anchor!r} is not an anchor")
    ends = []
    for chain, number in zip(chains, numbers, strict=True):
        macs = {record.number: record.mac for record in chain.records}
        last = max(macs, default=0)
        if last < number:
            yield f"{_name_records(chain.name, last + 1, number)} missing: the anchor has seen them."
        ends.append((number, macs.get(number, "")))
    if not _is_same(build_anchor(ends, key), anchor):
        yield "The trail is not the one that the anchor was taken of, or the key is another one."


def _link(chain: str, head: AuditHead | None, facts: Sequence[str], key: Secret) -> list[AuditRecord]:
    number, mac = (0, "") if head is None else (head.number, head.mac)
    records = []
    for text in facts:
        number += 1
        mac = _sign(key, chain, number, mac, text)
        records.append(AuditRecord(number, text, mac, key.fingerprint))
    return records


def _seal(chain: str, last: AuditRecord, key: Secret) -> str:
    return _sign(key, "head", chain, last.number, last.mac)


def _sign(key: Secret, *parts: str | int) -> str:
    return hmac.new(key.value.encode(), json.dumps(parts).encode(), sha256).hexdigest()


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _name_records(chain: str, first: int, last: int) -> str:
    if first == last:
        return f"Record {first} of chain {chain} is"
    return f"Records {first} to {last} of chain {chain} are"


def _partition(chain: str) -> str:
    return f"audit|{chain}"


def _record_row(chain: str, record: AuditRecord) -> Row:
    return Row(_partition(chain), f"{RECORD}{record.number:012}", to_row(record))
