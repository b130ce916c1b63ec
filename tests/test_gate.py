"""The gate: a reply leaves only where a human's approval stands between."""

import pytest

from shared.checks.gate import find_mode_refusal, find_recipient_refusal
from shared.domain import Decision, Mailbox, Outcome


def refusal(mode: str, *, allow: bool = False) -> Decision | None:
    return find_mode_refusal(Mailbox("mb_1", "us@ours.example", mode), allow_ungated=allow)


@pytest.mark.parametrize("mode", ["gated_send", "gated_all"])
def test_gated_mailboxes_may_submit(mode: str) -> None:
    assert refusal(mode) is None


@pytest.mark.parametrize("mode", ["monitored", "autonomous"])
def test_ungated_mailboxes_submit_only_where_the_operator_allowed_it(mode: str) -> None:
    found = refusal(mode)
    assert found is not None
    assert found.outcome is Outcome.BLOCKED_UNGATED
    assert refusal(mode, allow=True) is None


@pytest.mark.parametrize("mode", ["", "gated", "GATED_SEND", "gated_send_v2", "open"])
def test_an_unknown_mode_is_refused_whatever_the_operator_allowed(mode: str) -> None:
    found = refusal(mode, allow=True)
    assert found is not None
    assert found.outcome is Outcome.BLOCKED_UNGATED


def test_a_read_only_mailbox_is_triaged_for_a_human() -> None:
    found = refusal("read_only", allow=True)
    assert found is not None
    assert found.outcome is Outcome.ESCALATED


@pytest.mark.parametrize(
    "pattern",
    [
        "ann@customer.example",
        "ANN@Customer.Example",
        "*@customer.example",
        " *@CUSTOMER.example ",
        "*",
        "customer.example",
        "@customer.example",
        "Ann Lee <ann@customer.example>",
    ],
)
def test_a_recipient_on_the_allowlist_is_refused(pattern: str) -> None:
    found = find_recipient_refusal(["ann@customer.example"], ["x@y.example", pattern], allow_ungated=False)
    assert found is not None
    assert found.outcome is Outcome.BLOCKED_UNGATED


def test_an_allowlist_counts_for_every_address_that_a_service_could_take_for_its_own() -> None:
    for one, other in (("mark", "mar\u212a"), ("\u00e4nn", "\u00c4nn")):
        for sent_to, listed in ((one, other), (other, one)):
            addresses = [f"{sent_to}@customer.example"], [f"{listed}@customer.example"]
            assert find_recipient_refusal(*addresses, allow_ungated=False) is not None


@pytest.mark.parametrize("pattern", ["*@other.example", "anna@customer.example", "*@sub.customer.example"])
def test_other_allowlist_patterns_do_not_matter(pattern: str) -> None:
    assert find_recipient_refusal(["ann@customer.example"], [pattern], allow_ungated=False) is None


@pytest.mark.parametrize("pattern", ["*@münchen.example", "*@xn--mnchen-3ya.example", "Ann@MÜNCHEN.example"])
@pytest.mark.parametrize("host", ["münchen.example", "xn--mnchen-3ya.example"])
def test_both_spellings_of_an_international_address_are_one(host: str, pattern: str) -> None:
    assert find_recipient_refusal([f"ann@{host}"], [pattern], allow_ungated=False) is not None


def test_everybody_who_would_get_the_reply_is_looked_for() -> None:
    recipients = ["ann@customer.example", "bob@customer.example"]
    assert find_recipient_refusal(recipients, ["bob@customer.example"], allow_ungated=False) is not None
