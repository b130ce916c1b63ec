"""The guard: plain code that says, before any model call, which emails never get an answer."""

import re
from collections.abc import Collection, Mapping

from shared.domain import Cause, Decision, Email, Outcome, parse_address

# Local parts that belong to machines. Anchored, so that a person called "Bouncer" is not one of them.
_MACHINE_SENDER = re.compile(
    r"(?:.*[-_.+])?(?:no|do[-_.]?not|dont|never)[-_.]?repl(?:y|ies)(?:[-_.+0-9].*)?"
    r"|mailer[-_.]?daemon.*|postmaster|.*[-_.]?bounces?(?:[-_.+=].*)?|auto[-_.]?(?:reply|responder|confirm|mailer)"
    r"|(?:.*[-_.])?notifications?(?:[-_.+].*)?|newsletters?|listserv|majordomo"
)
# Only what programs write word for word: people, too, write about failed deliveries and returned mail.
_END = r"\s*(?:[:：]|$)"
_MACHINE_SUBJECT = re.compile(
    r"\s*(?:"
    rf"(?:auto(?:matic|mated|matische)?[- ]?(?:reply|response|antwort)|out of (?:the )?office"
    rf"|vacation (?:reply|response)|abwesenheits?(?:notiz|nachricht|meldung)|r[ée]ponse automatique"
    rf"|respuesta autom[áa]tica|risposta automatica|undeliverable|(?:nicht |un)zustellbar){_END}"
    r"|自動(?:応答|返信)|不在(?:通知|のお知らせ|応答)|undelivered mail returned to sender"
    r"|returned mail: see transcript|delivery status notification \(|mail delivery failed: returning"
    r"|mail delivery (?:failed|failure|system)\s*$|mail system error\b|failure notice\s*$)",
    re.IGNORECASE,
)
_BULK_PRECEDENCE = frozenset({"bulk", "list", "junk", "auto_reply"})
_SUPPRESSED = frozenset({"all", "autoreply", "oof"})
_SPAM_VERDICTS = frozenset({"flagged", "quarantined"})
# What a person did with it at MultiMail before it was worked on or released.
_HANDLED_STATUSES = frozenset({"archived", "deleted", "rejected", "cancelled"})


def find_skip(email: Email, *, own_addresses: Collection[str]) -> Decision | None:
    """Say why an email must not be answered, judged by itself alone; None when it may be."""
    sender = parse_address(email.sender)
    causes = {
        Cause.OWN_ADDRESS: sender in own_addresses,
        Cause.MACHINE_SENDER: _MACHINE_SENDER.fullmatch(sender.rpartition("@")[0]) is not None,
        Cause.MACHINE_SUBJECT: _MACHINE_SUBJECT.match(email.subject) is not None,
        Cause.MACHINE_HEADERS: is_machine_mail(email.headers),
        Cause.SPAM: email.spam_verdict in _SPAM_VERDICTS or email.status.startswith("spam_"),
        Cause.HANDLED_BY_PERSON: email.status in _HANDLED_STATUSES,
    }
    cause = next((cause for cause, applies in causes.items() if applies), None)
    if cause is None:
        return None
    return Decision(Outcome.SKIPPED, cause, email.status if cause is Cause.HANDLED_BY_PERSON else "")


def is_machine_mail(headers: Mapping[str, str]) -> bool:
    """Say whether headers (lower-case names) mark automatic or list mail, after RFC 3834 and practice.

    `Auto-Submitted: no` and `X-Auto-Response-Suppress: None` are what a person's mail may carry.
    """
    values = {name: value.strip().lower() for name, value in headers.items()}
    suppressed = {part.strip() for part in values.get("x-auto-response-suppress", "").split(",")}
    return bool(
        values.get("auto-submitted", "no").partition(";")[0].strip() not in ("no", "")
        or values.get("precedence") in _BULK_PRECEDENCE
        or suppressed & _SUPPRESSED
        or values.get("return-path") == "<>"
        or values.get("content-type", "").startswith("multipart/report")
        or values.keys() & {"list-id", "list-unsubscribe", "x-autoreply", "x-autorespond", "x-loop"}
    )
