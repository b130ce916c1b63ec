"""Paging through a listing whose cursor is the time of a page's last email, which others may share.

MultiMail's contract calls the cursor "received_at epoch from the previous page", but not whether it is
compared by `<` or by `<=`. With `<`, emails of the same second that did not fit on the page would be passed
over; with `<=`, a second that fills a page would be answered for ever. So the second in which a page ends is
listed once more by itself, and one that fills a page is gone round.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared.domain import EmailSummary
from shared.errors import TransientError

PAGE_SIZE = 100  # the most that the service lists at once
SECOND = timedelta(seconds=1)


class CrowdedSecondError(TransientError):
    """A listing could not be had whole: more emails than fit on a page were received in each of `seconds`."""

    def __init__(self, listing: str, seconds: Sequence[datetime]) -> None:
        self.seconds = tuple(seconds)
        times = ", ".join(f"{second:%Y-%m-%d %H:%M:%S} UTC" for second in self.seconds)
        super().__init__(
            f"{listing}: at least {PAGE_SIZE} emails were received within one second ({times}), and "
            "MultiMail lists none beyond the first page of them. All others were listed. Those that are "
            "unread appear as the first ones are read; look for the rest in MultiMail's dashboard."
        )


@dataclass(frozen=True, slots=True)
class Page:
    """The emails of one page that could be read, and the cursor to go on with."""

    emails: Sequence[EmailSummary]
    cursor: str | None

    @property
    def last_second(self) -> datetime | None:
        """The second in which the page ends; None when it has no email that could be read."""
        oldest = min((email.received_at for email in self.emails), default=None)
        return None if oldest is None else oldest.astimezone(UTC).replace(microsecond=0)


Fetch = Callable[[Mapping[str, str]], Page]


def list_pages(fetch: Fetch, filters: Mapping[str, str], listing: str) -> Iterator[Page]:
    """Every page of a listing, newest first; an email may be on several.

    Raises, after everything that can be had, CrowdedSecondError, and TransientError when it would never end.
    `listing` says in an error what was listed.
    """
    position: dict[str, str] = {}
    cursors, listed, crowded = set[str](), set[datetime](), list[datetime]()
    gone_round: dict[datetime, int] = {}
    while True:
        page = fetch({**filters, **position})
        yield page
        if page.cursor is None:
            break
        second = page.last_second
        if second is not None and second not in listed:
            listed.add(second)
            is_whole = yield from _list_second(fetch, filters, second)
            if not is_whole:
                crowded.append(second)
        if page.cursor not in cursors:
            cursors.add(page.cursor)
            position["cursor"] = page.cursor
            continue
        times = gone_round.get(second, 0) if second is not None else None
        if second is None or times is None or times > 1:
            raise TransientError(f"{listing} answered the same cursor twice: the listing would never end")
        gone_round[second] = times + 1
        # One second further when the service counts `date_before` itself among what is before it.
        position = {"date_before": format_time(second - times * SECOND)}
    if crowded:
        raise CrowdedSecondError(listing, crowded)


def _list_second(fetch: Fetch, filters: Mapping[str, str], second: datetime) -> Generator[Page, None, bool]:
    """The pages that have the emails of one second, and some of its neighbours'; whether it has them all."""
    after = max(filters.get("date_after", ""), format_time(second - SECOND))
    position = {"date_after": after, "date_before": format_time(second + SECOND)}
    seen: set[str] = set()
    ends_inside = False
    while True:
        page = fetch({**filters, **position})
        yield page
        ids = {email.id for email in page.emails if email.received_at >= second} - seen
        if ends_inside and not ids:
            return False
        last = page.last_second
        if page.cursor is None or last is None or last < second:
            return True
        ends_inside = last == second
        seen |= ids
        position["cursor"] = page.cursor


def format_time(moment: datetime) -> str:
    """A time as a filter: whole seconds, rounded down: a listing may start a little early, never late."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
