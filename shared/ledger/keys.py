"""Where the ledger's rows are: the partitions, and how keys are made."""

import json
import re
from hashlib import sha256

# An email's row, its open work, its tracked reply and its matters are in one partition: each step is one
# transaction. Sixteen partitions, because open work and replies are read over all mailboxes, and one serves
# 2,000 rows a second. A mailbox is always in the same one: its history is one range of keys, and a reply is
# found by its id. It takes tens of emails a second in one mailbox to fill it (docs/scaling.md).
SHARDS = tuple(f"{number:02}" for number in range(16))
AFTER = "~"  # comes after every character that the rest of a key has


def name_shard(mailbox_id: str) -> str:
    """The partition of a mailbox's emails, open work, tracked replies and matters."""
    return SHARDS[sha256(json.dumps(mailbox_id).encode()).digest()[0] % len(SHARDS)]


def name_mailbox_partition(mailbox_id: str) -> str:
    """The partition of what is remembered of a mailbox as a whole."""
    return f"mailbox|{encode_key(mailbox_id)}"


def encode_key(value: str) -> str:
    """A part of a key: a value that cannot be one becomes a hash, and its row has it in full.

    A key has up to three parts and at most 512 characters (Azure Tables: 1 KiB of UTF-16).
    """
    if re.fullmatch(r"[A-Za-z0-9._@:-]{1,160}", value):
        return value
    return "!" + sha256(json.dumps(value).encode()).hexdigest()
