"""Evidence: which sentences of a draft are carried by which source. (Stand-in until the checker is merged.)"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.domain import Claim, JudgedClaim, Support


class SourceKind(StrEnum):
    """Whose words a source is."""

    APPROVED = "approved"
    OURS = "ours"
    SENDER = "sender"


@dataclass(frozen=True, slots=True)
class Source:
    """A text that a draft may rest on, under the id that the model knows it by."""

    id: str
    kind: SourceKind
    title: str
    text: str


def judge_claims(
    reply_markdown: str, claims: Sequence[Claim], sources: Sequence[Source]
) -> tuple[JudgedClaim, ...]:
    """Judge each claim."""
    known = {source.id: source for source in sources}
    judged = []
    for claim in claims:
        source = known.get(claim.source)
        support = Support.ASSERTED
        if source and claim.quote and " ".join(claim.quote.split()) in " ".join(source.text.split()):
            support = Support.FROM_SENDER if source.kind is SourceKind.SENDER else Support.VERIFIED
        title = source.title if source and support is not Support.ASSERTED else ""
        judged.append(JudgedClaim(claim.sentence, support, title, claim.quote))
    return tuple(judged)
