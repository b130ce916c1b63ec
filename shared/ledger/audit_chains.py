"""The audit trail as it is kept: records in chains, each bound by a keyed hash to the one before it."""

import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, TypeVar

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

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A record of a chain. `facts`: a JSON object, as it was written; that of record 0, the first, is empty.

    `mac` binds it to its place and to the record before it, under the key with the fingerprint `key_id`,
    which is empty where the row could not be read.
    """

    number: int
    facts: str
    mac: str
    key_id: str


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The number and the MAC of a chain's last record, and of both a MAC under the same key, `seal`.

    `key_id` is empty where the row could not be read.
    """

    number: int
    mac: str
    seal: str
    key_id: str


NO_HEAD = AuditHead(0, "", "", "")  # in place of one that cannot be read


@dataclass(frozen=True, slots=True)
class AuditChain:
    """A chain of a ledger as it was read: its records by number, and its head, None where it has none."""

    ledger: str
    name: str
    head: AuditHead | None
    records: Sequence[AuditRecord]


class AuditChains:
    """The chains of a ledger. `append` is for one thread at a time.

    Without the key no record can be changed, inserted, moved or left out unseen, here or from a ledger of
    another name, and no chain be removed: all are begun at once. Nor can the last ones be cut off, unless an
    earlier head, which was copied then, is put back: that an anchor shows, kept elsewhere.
    Every method raises what its store raises.
    """

    def __init__(self, store: Store, ledger: str) -> None:
        self._store = store
        self._ledger = ledger
        self._place = 0  # of the chain that this process writes to
        self._seen: tuple[AuditHead, str] | None = None  # its head as last written, with its ETag

    def append(self, facts: Sequence[str], key: Secret) -> None:
        """Add records, at most MAX_RECORDS, all or none.

        Raises TransientError when no chain can take them now: other processes are faster every time, or
        somebody changed the heads.
        """
        for _ in range(TRIES):
            chain = CHAINS[self._place]
            seen, self._seen = self._seen or self._find_sound_head(chain, key), None
            if seen is not None:
                before, etag = seen
                changes, head = self._link(chain, before, facts, key)
                changes.append(Change(Verb.REPLACE, Row(_partition(chain), HEAD, to_row(head), etag)))
                etags = self._store.write(changes)
                if etags is not None:
                    self._seen = head, etags[-1]
                    return
            self._place = (self._place + 1) % len(CHAINS)
        raise TransientError(
            "no chain of the audit trail can be written: too many processes do it at once, or their heads "
            "were changed, which `audit verify` says"
        )

    def read(self) -> Sequence[AuditChain]:
        """Every chain whole. Reads history: for people.

        Its head is read first: what is appended meanwhile comes after it.
        """
        heads = self.find_heads()
        return [
            AuditChain(self._ledger, name, heads.get(name), [*self._read_records(name)]) for name in CHAINS
        ]

    def find_heads(self) -> Mapping[str, AuditHead]:
        """The heads of the chains, by the chain's name; none before the first record."""
        rows = {name: self._store.get(_partition(name), HEAD) for name in CHAINS}
        return {name: _parse_head(row) for name, row in rows.items() if row is not None}

    def _read_records(self, chain: str) -> Iterator[AuditRecord]:
        return map(_parse_record, self._store.scan([_partition(chain)], RECORD, RECORD + AFTER))

    def _find_sound_head(self, chain: str, key: Secret) -> tuple[AuditHead, str] | None:
        """The head to go on from, with its ETag; None where somebody removed or changed it: so it stays."""
        row = self._store.get(_partition(chain), HEAD)
        if row is None:
            self._begin(key)
            row = self._store.get(_partition(chain), HEAD)
        head = _parse_head(row) if row is not None else NO_HEAD
        wanted = _seal(key, self._ledger, chain, head) if head.key_id == key.fingerprint else head.seal
        is_sound = head.key_id and _is_same(head.seal, wanted)
        return (head, row.etag) if row is not None and is_sound else None

    def _begin(self, key: Secret) -> None:
        """Begin every chain, unless that was done: a chain without a head is then one that was removed.

        What was cut short is made up for, as long as there is no record.
        """
        if any(head.number for head in self.find_heads().values()):
            return
        for chain in reversed(CHAINS):
            changes, head = self._link(chain, None, ["{}"], key)
            self._store.write([*changes, Change(Verb.INSERT, Row(_partition(chain), HEAD, to_row(head)))])

    def _link(
        self, chain: str, before: AuditHead | None, facts: Sequence[str], key: Secret
    ) -> tuple[list[Change], AuditHead]:
        """The insertions of the records that come after this head, and the new head."""
        number, mac, key_id = (before.number, before.mac, before.key_id) if before else (-1, "", "")
        changes = []
        for text in facts:
            number, mac = number + 1, _sign(key, self._ledger, chain, number + 1, mac, key_id, text)
            key_id = key.fingerprint
            fields = to_row(AuditRecord(number, text, mac, key_id))
            changes.append(Change(Verb.INSERT, Row(_partition(chain), f"{RECORD}{number:012}", fields)))
        head = AuditHead(number, mac, "", key_id)
        return changes, replace(head, seal=_seal(key, self._ledger, chain, head))


def read_facts(chains: Sequence[AuditChain]) -> list[Mapping[str, Any]]:
    """The facts of every record, oldest first; what somebody made unreadable is left out."""
    facts = [parse_facts(record) for chain in chains for record in chain.records]
    return sorted((one for one in facts if one), key=lambda one: str(one["at"]))


def parse_facts(record: AuditRecord) -> Mapping[str, Any]:
    """The facts of a record, with a time as text in `at`; none where they cannot be read."""
    try:
        facts = json.loads(record.facts)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(facts, dict) or not isinstance(facts.get("at"), str):
        return {}
    return facts if all(isinstance(value, str | int | float) for value in facts.values()) else {}


def find_problems(chains: Sequence[AuditChain], key: Secret) -> Iterator[str]:
    """Say in a sentence each what was changed in the chains, what is missing, what this key cannot check.

    Before the first record there are no chains, and nothing to say.
    """
    if not any(chain.head or chain.records for chain in chains):
        return
    for chain in chains:
        if not chain.head and not chain.records:
            yield f"Chain {chain.name} is missing: somebody removed it with its head."
            continue
        yield from _check_records(chain, key)
        if problem := _check_end(chain, key):
            yield problem
    unchecked = Counter(record.key_id for chain in chains for record in chain.records)
    for key_id in sorted(unchecked.keys() - {key.fingerprint, ""}):
        yield f"{unchecked[key_id]} records are under another key ({key_id}), which this one cannot check."


def _check_records(chain: AuditChain, key: Secret) -> Iterator[str]:
    before, is_linked = AuditRecord(-1, "", "", ""), True
    for record in chain.records:
        if record.number <= before.number:
            yield f"{_name_records(chain.name, record.number, record.number)} there twice: one was put there."
            continue
        if record.number != before.number + 1:
            yield f"{_name_records(chain.name, before.number + 1, record.number - 1)} missing."
            is_linked = False
        wanted = _sign(key, chain.ledger, chain.name, record.number, before.mac, before.key_id, record.facts)
        if not record.key_id:
            yield f"Record {record.number} of chain {chain.name} cannot be read: it was changed."
        elif is_linked and record.key_id == key.fingerprint and not _is_same(record.mac, wanted):
            email_id = parse_facts(record).get("email_id", "")
            about = f", which is about {email_id}," if email_id else ""
            yield f"Record {record.number} of chain {chain.name}{about} was changed, or put there."
        before, is_linked = record, bool(record.key_id)


def _check_end(chain: AuditChain, key: Secret) -> str:
    """What is wrong with where a chain ends; empty where nothing is, or another key would have to say it."""
    head = chain.head
    ends = {record.number: (record.mac, record.key_id) for record in chain.records}
    end = max(ends, default=-1)
    if head is None:
        return f"Chain {chain.name} has {end} records and no head: its end is not known."
    is_ours = head.key_id == key.fingerprint
    if not head.key_id or (is_ours and not _is_same(head.seal, _seal(key, chain.ledger, chain.name, head))):
        return f"The head of chain {chain.name} was changed: its end is not known."
    if head.number > end:
        return f"{_name_records(chain.name, end + 1, head.number)} missing at its end."
    if (head.mac, head.key_id) != ends.get(head.number):
        return f"Chain {chain.name} does not end as its head says: record {head.number} is another one."
    return ""


def build_anchor(numbers_and_macs: Sequence[tuple[int, str]], key: Secret) -> str:
    """How long each of CHAINS is, and a MAC of where they end: to be kept elsewhere, and checked later."""
    numbers = ".".join(str(number) for number, _ in numbers_and_macs)
    return f"{numbers}-{_sign(key, 'anchor', *(part for pair in numbers_and_macs for part in pair))[:32]}"


def find_anchor(heads: Mapping[str, AuditHead | None], key: Secret) -> str:
    """The anchor of the chains as they are now."""
    ends = [heads.get(name) or NO_HEAD for name in CHAINS]
    return build_anchor([(head.number, head.mac if head.number else "") for head in ends], key)


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
        ends.append((number, macs.get(number, "") if number else ""))
    if not _is_same(build_anchor(ends, key), anchor):
        yield "The trail is not the one that the anchor was taken of, or the key is another one."


def _seal(key: Secret, ledger: str, chain: str, head: AuditHead) -> str:
    return _sign(key, "head", ledger, chain, head.number, head.mac)


def _sign(key: Secret, *parts: str | int) -> str:
    return hmac.new(key.value.encode(), json.dumps(parts).encode(), sha256).hexdigest()


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode())


def _name_records(chain: str, first: int, last: int) -> str:
    if first == last:
        return f"Record {first} of chain {chain} is"
    return f"Records {first} to {last} of chain {chain} are"


def _partition(chain: str) -> str:
    return f"audit|{chain}"


def _parse_record(row: Row) -> AuditRecord:
    number = row.key.removeprefix(RECORD)
    unreadable = AuditRecord(int(number) if number.isdecimal() else 0, "", "", "")
    return _parse(AuditRecord, row) or unreadable


def _parse_head(row: Row) -> AuditHead:
    return _parse(AuditHead, row) or NO_HEAD


def _parse(kind: Callable[..., T], row: Row) -> T | None:
    """What the row has; None where somebody took a part of it away, or made it another thing."""
    try:
        found = from_row(kind, row.fields)
    except (TypeError, ValueError):
        return None
    return found if type(row.fields["number"]) is int else None
