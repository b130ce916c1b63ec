"""The protocol keeps its promises in every state of its model, and needs every one of its guards."""

from collections.abc import Callable

import pytest

from tests.protocol_model import GUARDS, Protocol, explore, find_break

NEVER_ENDS = "the email never ends visibly"
BLIND = "a blind resend: an earlier try may have arrived, its key says nothing"
OTHER_BYTES = "other bytes under a used key"
TWICE = "two live workers pay for the same email"
BESIDE = "a reply although a person had answered"
UNGATED = "a reply without approval although the mode was to be read"
BREAKS = {
    "conditional claim": TWICE,
    "lease": TWICE,
    "fencing": TWICE,
    "draft stored": OTHER_BYTES,
    "intent stored": BLIND,
    "same key": BLIND,
    "24 h rule": BLIND,
    "late look": BESIDE,
    "look at a repeat": BESIDE,
    "gate": UNGATED,
    "gate at a repeat": UNGATED,
    "tracking": NEVER_ENDS,
    "withdrawal": NEVER_ENDS,
    "bounded run": BLIND,
    "one transaction": NEVER_ENDS,
    "watermark last": NEVER_ENDS,
    "sweep": NEVER_ENDS,
}


def test_with_all_guards_every_promise_holds_in_every_state(measured: Callable[[str], None]) -> None:
    """The short form: one worker and all that people do, two workers that nobody disturbs."""
    results = [explore(workers=1), explore(acts=0)]
    for result in results:
        assert result.broken == "", "\n".join(result.trace)
        assert result.states > 10_000
    states = sum(result.states for result in results)
    measured(f"protocol model: {states} states, every promise holds in all of them")


@pytest.mark.parametrize("guard", GUARDS)
def test_without_any_one_guard_a_promise_is_broken(guard: str) -> None:
    result = find_break(guard)
    assert result.broken == BREAKS[guard]
    assert result.trace


def test_a_guard_that_does_not_exist_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="no such guard: luck"):
        Protocol(["luck"])
