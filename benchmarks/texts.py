"""The mail that the benchmarks deliver, and what their simulated model says to it."""

import json
from typing import Any

# One letter in the subject tells the simulated model what to decide: `Case R 17`.
ACTIONS = {"R": "reply", "E": "escalate", "I": "ignore"}

QUESTION = (
    "Hello, we have used your T2 sensors in our three cold stores since last spring and are happy with them. "
    "Last week one of them began to report a value that is about two degrees higher than the thermometer beside "
    "it, and the difference seems to grow when the door stays open for a while. We changed the battery, moved "
    "the sensor to another shelf and restarted the gateway, but nothing helped. Before I send it in I would like "
    "to know whether it can be recalibrated here on site, which reference you recommend for that, and how long "
    "we would have to do without it if it has to go back to you. Our next inspection is in about three weeks, so "
    "it would help me a lot to know by then what to plan for. I have attached the readings of the last ten days "
    "as a table. Many thanks for your help and best regards from the coast, Ann Lee, Customer Cold Stores"
)
REPLY = (
    "Dear Ann,\n\nthank you for the careful description and for the readings that you attached. It is good to "
    "know that you already changed the battery, moved the sensor and restarted the gateway: that rules out the "
    "usual reasons. A colleague from our calibration team will look at your readings and write to you about "
    "whether the sensor can be recalibrated on site, which reference to use, and how long a return would take, "
    "in time for your inspection in three weeks. Until then please keep the sensor where it is, so that the "
    "readings stay comparable.\n\nKind regards\nYour support team"
)
DRAFT = {
    "reply_markdown": REPLY,
    "claims": [
        {
            "sentence": "It is good to know that you already changed the battery, moved the sensor and restarted the "
            "gateway: that rules out the usual reasons.",
            "source": "E1",
            "quote": "We changed the battery, moved the sensor to another shelf and restarted the gateway",
        },
        {
            "sentence": "A colleague from our calibration team will look at your readings and write to you about "
            "whether the sensor can be recalibrated on site, which reference to use, and how long a return would "
            "take, in time for your inspection in three weeks.",
            "source": "E1",
            "quote": "Our next inspection is in about three weeks",
        },
    ],
    "open_points": ["Whether the sensor can be recalibrated on site, and with which reference."],
    "follow_up": "A colleague writes about the calibration before the inspection in three weeks.",
    "confidence": 0.9,
}


def build_subject(kind: str, number: int) -> str:
    """The subject of the email with this number; `kind` is a key of ACTIONS."""
    return f"Case {kind} {number}"


def answer_in_schema(body: dict[str, Any]) -> str:
    """The simulated model's triage or draft, whichever the request's schema asks for."""
    asked = body["response_format"]["json_schema"]["name"]
    if asked == "draft":
        return json.dumps(DRAFT)
    shown = str(body["messages"][-1]["content"])
    kind = next((kind for kind in ACTIONS if f"Case {kind} " in shown), "R")
    return json.dumps(
        {
            "action": ACTIONS[kind],
            "category": "support",
            "urgency": "normal",
            "sentiment": "neutral",
            "confidence": 0.9,
            "summary": "A sensor reports values that are two degrees too high and keeps doing so.",
            "reason": "A customer asks about recalibration before an inspection in three weeks.",
            "query": "recalibrate a sensor on site, temperature deviates, reference thermometer",
            "language": "en",
            "knowledge_answers": ACTIONS[kind] == "reply",
            "needs_case_facts": True,
        }
    )
