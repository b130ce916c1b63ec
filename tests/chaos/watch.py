"""What one worker does directly before each of its submissions, read off its outside calls."""

MAILBOXES, ALLOWLIST, THREAD = "GET mailboxes", "GET mailboxes/*/allowlist", "GET mailboxes/*/threads/*"
SUBMISSIONS = ("POST mailboxes/*/reply/*", "POST mailboxes/*/send")
_READS = ("GET ", "get ", "scan ")


class SubmissionWatch:
    """Notes every submission that does not directly follow a whole reading of the gate, or a late look at the thread.

    Between the gate's two readings and the POST no other call of any service may come; between the reading of the
    thread and the POST no call that writes, and none of the model, which takes seconds.
    """

    def __init__(self) -> None:
        self.ungated: list[str] = []
        self.late: list[str] = []
        self.read_gate: list[
            tuple[str, str]
        ] = []  # since the last other call: what was read, and of which mailbox
        self.has_fresh_thread = False

    def note(self, name: str, lane: str, *, went_well: bool) -> None:
        """Take one call, after its end."""
        if name in (MAILBOXES, ALLOWLIST):
            self.read_gate += [(name, lane)] * went_well
            return
        self.read_gate = []
        if name == THREAD:
            self.has_fresh_thread = went_well
        elif not name.startswith(_READS):
            self.has_fresh_thread = False

    def submit(self, name: str, lane: str) -> None:
        """Take a submission before it is made."""
        missing = [of for of in ((MAILBOXES, ""), (ALLOWLIST, lane)) if of not in self.read_gate]
        if missing:
            names = " and ".join(of for of, _ in missing)
            self.ungated.append(f"{name} without {names} directly before it")
        if not self.has_fresh_thread:
            self.late.append(f"{name} without a look at the thread directly before the gate")


def is_submission(name: str) -> bool:
    """Whether a call submits an email."""
    return name in SUBMISSIONS
