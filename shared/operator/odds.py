"""How much a count of approvals shows: an exact bound for one look, and a plan for looks on any day."""

import math
from functools import lru_cache

TARGET_SHARE = 0.98  # of the drafts approved unchanged
DOUBT = 0.05  # a confidence of 95 %
HALVINGS = 50  # of the interval in which the lower bound is: what is left is 1e-15

# The plan weighs a good mailbox against one that just misses the target.
GOOD_SHARE = 0.995
APPROVAL_WEIGHT = math.log(GOOD_SHARE / TARGET_SHARE)
REJECTION_WEIGHT = math.log((1 - GOOD_SHARE) / (1 - TARGET_SHARE))  # below zero
GOAL = math.log(1 / DOUBT)


def compute_lower_bound(approved: int, decided: int) -> float:
    """The share of approvals that is exceeded with a confidence of 95 %, 0 to 1; 0 without any decision.

    It is the lower end of the one-sided Clopper-Pearson interval: the share that would make at least so many
    approvals come about with a probability of DOUBT. Unlike approximations it never promises too much, also
    where the share is near 1. The confidence is that of one look. C. J. Clopper and E. S. Pearson, 1934:
    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval
    """
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if compute_chance(approved, decided, middle) <= DOUBT:
            low = middle
        else:
            high = middle
    return low


@lru_cache(maxsize=4096)
def compute_chance(approved: int, decided: int, share: float) -> float:
    """The probability of at least so many approvals if `share` (over 0, under 1) of all drafts were good."""
    return math.fsum(
        math.exp(
            math.lgamma(decided + 1) - math.lgamma(count + 1) - math.lgamma(decided - count + 1)
            + count * math.log(share) + (decided - count) * math.log1p(-share)
        )
        for count in range(approved, decided + 1)
    )  # fmt: skip


def count_approvals_missing(approved: int, refused: int) -> int:
    """How many approvals in a row the plan still wants; 0 once the target is shown, on whichever day.

    The plan is Wald's sequential test. Its likelihood ratio of GOOD_SHARE to TARGET_SHARE is multiplied by a
    factor for each decision, whose expected value is at most 1 while the true share is at most TARGET_SHARE.
    So the ratio reaches 1 / DOUBT at any time at all with a probability of at most DOUBT (Ville's
    inequality), however often somebody looks. A. Wald, 1945: https://doi.org/10.1214/aoms/1177731118
    """
    shown = approved * APPROVAL_WEIGHT + refused * REJECTION_WEIGHT
    return max(0, math.ceil((GOAL - shown) / APPROVAL_WEIGHT))
