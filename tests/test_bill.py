"""The bill on paper: a wrong figure would mislead the person who decides by it."""

from pathlib import Path

import pytest

from capacity import bill
from capacity.page import Block


def test_the_bill_adds_up() -> None:
    rates = bill.read_rates()
    mixed, reply = bill.get_mixed_use(rates), bill.get_email_use(rates, "reply")
    assert mixed.drafts == pytest.approx(rates.assumption["reply_share"])
    assert (
        reply.table_transactions
        == rates.counts["reply: Table transactions"] + rates.assumption["looks_at_a_reply"]
    )
    assert bill.get_email_use(rates, "machine mail").triages == 0
    month, more = bill.price_month(rates, 1_000), bill.price_month(rates, 2_000)
    assert more["Triage"] == pytest.approx(2 * month["Triage"])
    assert month["Draft"] < more["Draft"] < 2 * month["Draft"]  # more of the knowledge is still cached
    assert bill.price_month(rates, 2_000, mailboxes=2)["Draft"] == pytest.approx(2 * month["Draft"])
    assert month["Service Bus"] == more["Service Bus"]


def test_cached_knowledge_is_billed_at_its_own_price() -> None:
    rates = bill.read_rates()
    saved = rates.price_call("draft") - rates.price_call("draft", cached_share=0.5)
    price = rates.price["draft_million_input_tokens"] - rates.price["draft_million_cached_tokens"]
    assert saved == pytest.approx(0.5 * rates.assumption["knowledge_tokens"] * price / 1e6)
    assert rates.price_call("triage", cached_share=0.5) == rates.price_call("triage")
    assert rates.get_cached_share(0) == 0
    assert 0.9 < rates.get_cached_share(1_000) < 1


def test_the_cost_table_in_the_documentation_is_current() -> None:
    text = bill.BLOCK.page.read_text(encoding="utf-8")
    current = bill.BLOCK.replace_in(text, bill.build_table(bill.read_rates()))
    assert text == current, "run: make capacity ARGS=--write"


def test_a_page_without_its_marks_is_named() -> None:
    block = Block(Path("page.md"), "cost")
    assert block.replace_in("\n".join(["a", *block.marks, "b"]), "| new |").split("\n") == [
        "a",
        block.marks[0],
        "| new |",
        block.marks[1],
        "b",
    ]
    with pytest.raises(ValueError, match=r"page\.md has no block"):
        block.replace_in("a page without marks", "| new |")
