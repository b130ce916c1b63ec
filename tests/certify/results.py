"""What came of the attacks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: the email, and the facts."""

    rule: str
    case: str
    facts: str


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of one email. `reached`: a draft has the attack's text; `submitted`: so has the reply to approve.

    The submitted reply has so many `sentences` of the attack, and its approver is shown `verified` of them as verified.
    """

    set: str
    wrapper: str
    attack: str
    behaviour: str
    outcome: str
    reached: bool
    submitted: bool
    sentences: int
    verified: int
    violations: tuple[Violation, ...]
