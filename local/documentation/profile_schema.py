"""The JSON Schema of the profile file, from the declarations of its fields, for editors."""

import json
from typing import Any

from shared.profiles.fields import FIELDS
from shared.profiles.profile_file import DEFAULT


def render_profile_schema() -> str:
    """Render config/mailboxes.schema.json. It knows what can be said of one field alone, not of several."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Mailbox profiles",
        "description": "Written by `make docs` from shared/profiles/fields.py; see docs/profiles.md.",
        "type": ["object", "null"],
        "properties": {
            DEFAULT: _refer("The profile of every mailbox that has none, and what others inherit.")
        },
        "additionalProperties": _refer("The profile of one mailbox, under its id or address."),
        "definitions": {
            "profile": {
                "type": ["object", "null"],
                "additionalProperties": False,
                "properties": {
                    name: {"description": field.meaning, **field.kind.schema}
                    for name, field in FIELDS.items()
                },
            }
        },
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _refer(description: str) -> dict[str, Any]:
    """A reference with a description of its own: draft 7 reads nothing next to `$ref`."""
    return {"description": description, "allOf": [{"$ref": "#/definitions/profile"}]}
