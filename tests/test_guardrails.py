"""The guard: machine mail never costs a model call, people's mail is never taken for it."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.domain import Cause, Email, base_address, parse_address
from shared.mail.machine_mail import is_machine_mail
from shared.replying.envelope import find_skip

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def reason_for(**changes: object) -> Cause | None:
    fields: dict[str, object] = {
        "id": "em_1", "sender": "Ann Lee <ann@customer.example>", "to": ("support@ours.example",),
        "subject": "A question", "status": "unread", "received_at": NOW - timedelta(hours=1), "markdown": "Hello",
    }  # fmt: skip
    email = Email(**(fields | changes))  # type: ignore[arg-type]  # fields by name, values of any type
    own = {"support@ours.example", "sales@ours.example"}
    decision = find_skip(email, own_addresses=own)
    return decision.cause if decision else None


def test_a_persons_mail_passes() -> None:
    assert reason_for() is None


@pytest.mark.parametrize(
    "sender",
    [
        "noreply@shop.example", "no-reply@shop.example", "No_Reply@shop.example", "no.reply+x@shop.example",
        "do-not-reply@shop.example", "donotreply@shop.example", "orders-noreply@shop.example",
        "noreply-dmarc@shop.example", "noreply2@shop.example", "MAILER-DAEMON@mx.example",
        "Mail Delivery <mailer-daemon@mx.example>", "postmaster@mx.example", "bounce@mx.example",
        "bounces+123=ours.example@mx.example", "list-bounces@lists.example", "notifications@forge.example",
        "notification@forge.example", "newsletter@shop.example", "auto-confirm@shop.example",

    ],
)  # fmt: skip
def test_machine_senders_are_skipped(sender: str) -> None:
    assert reason_for(sender=sender) is Cause.MACHINE_SENDER


@pytest.mark.parametrize(
    "sender",
    [
        "reply@customer.example", "norah.reply@customer.example", "info@customer.example", "bouncer@club.example",
        "nora@noreply-company.example", "marketing@customer.example", "news.editor@paper.example",
        "arno.replyson@customer.example", "autumn@customer.example", "shop-owner@mail.example", "service-request@customer.example",
    ],
)  # fmt: skip
def test_people_with_similar_addresses_pass(sender: str) -> None:
    assert reason_for(sender=sender) is None


@pytest.mark.parametrize(
    "subject",
    [
        "Automatic reply: Your order", "Auto-Reply: hello", "Autoreply: x", "Out of Office", "Out of the office: back Monday",
         "Automatische Antwort: Rechnung", "Abwesenheitsnotiz: Urlaub", "Réponse automatique : absence",
        "Respuesta automática: fuera", "自動応答: 不在", "不在通知", "Undeliverable: offer", "Undelivered Mail Returned to Sender",
        "Delivery Status Notification (Failure)", "Mail delivery failed: returning message to sender",
        "Returned mail: see transcript for details", "Unzustellbar: Angebot", "failure notice",
    ],
)  # fmt: skip
def test_automatic_subjects_are_skipped(subject: str) -> None:
    assert reason_for(subject=subject) is Cause.MACHINE_SUBJECT


@pytest.mark.parametrize(
    "subject",
    [
        "Re: Automatic reply settings?", "Out of office next week, who covers?", "Your automatic reply is broken",
        "Undelivered order 118", "Delivery failed for order 123, please help", "Delivery failure - where is my parcel?",
        "Undelivered: my parcel 77", "Returned mail from your warehouse", "OOO: sensor reads zero", "Abwesend - wer vertritt?",
        "Failure notice for our freezer", "Mail delivery failed to reach our new office, new address", "Automatic replying machine",
    ],
)  # fmt: skip
def test_people_who_write_about_automatic_mail_pass(subject: str) -> None:
    assert reason_for(subject=subject) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"auto-submitted": "auto-replied"}, {"auto-submitted": "auto-generated; x=1"}, {"precedence": "bulk"},
        {"precedence": " List "}, {"x-auto-response-suppress": "DR, OOF, AutoReply"}, {"return-path": "<>"},
        {"list-id": "<x.lists.example>"}, {"list-unsubscribe": "<mailto:x@y.example>"}, {"x-autoreply": "yes"},
        {"content-type": "multipart/report; report-type=delivery-status"},
    ],
)  # fmt: skip
def test_headers_of_machine_mail_are_honoured(headers: dict[str, str]) -> None:
    assert is_machine_mail(headers)
    assert reason_for(headers=headers) is Cause.MACHINE_HEADERS


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"auto-submitted": "no"}, {"auto-submitted": "No; comment=x"}, {"x-auto-response-suppress": "None"},
        {"precedence": "first-class"}, {"return-path": "<ann@customer.example>"}, {"content-type": "text/plain"},
    ],
)  # fmt: skip
def test_headers_of_a_persons_mail_pass(headers: dict[str, str]) -> None:
    assert not is_machine_mail(headers)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"sender": "Us <Support@Ours.example>"}, Cause.OWN_ADDRESS),
        ({"sender": "Us <Support+Returns@Ours.example>"}, Cause.OWN_ADDRESS),
        ({"spam_verdict": "flagged"}, Cause.SPAM),
        ({"status": "spam_quarantined"}, Cause.SPAM),
        ({"status": "archived"}, Cause.HANDLED_BY_PERSON),
        ({"status": "deleted"}, Cause.HANDLED_BY_PERSON),
        ({"status": "rejected"}, Cause.HANDLED_BY_PERSON),
    ],
)
def test_other_mail_that_must_not_be_answered_is_skipped(changes: dict[str, object], cause: Cause) -> None:
    assert reason_for(**changes) is cause


def test_a_display_name_cannot_pose_as_the_sender() -> None:
    assert reason_for(sender='"support@ours.example" <ann@customer.example>') is None
    assert reason_for(sender='"noreply@x.example" <ann@customer.example>') is None


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("ann@customer.example", "ann@customer.example"),
        ("Ann Lee <Ann@Customer.example>", "ann@customer.example"),
        ('"Lee, Ann" <ann@customer.example>', "ann@customer.example"),
        ("Lee, Ann <ann@customer.example>", "ann@customer.example"),
        ("Müller; Hans <h@customer.example>", "h@customer.example"),
        ("Team @ Acme <t@customer.example>", "t@customer.example"),
        ("ann@customer.example <ann@customer.example>", "ann@customer.example"),
        ("Ann [Acme] < ann@customer.example >", "ann@customer.example"),
        ("ann@customer.example (Ann Lee)", "ann@customer.example"),
        ("Ann Lee <ann@customer.example> (via web)", "ann@customer.example"),
        ("'ann@customer.example' <ann@customer.example>", "ann@customer.example"),
        ('"ann@customer.example" <Ann@customer.example>', "ann@customer.example"),
        ("'ann@customer.example'", ""),
        ("Ann @Acme Inc. <ann@customer.example>", "ann@customer.example"),
        ("Ann <ann@customer.example>, ", "ann@customer.example"),
        ("ann@customer.example,", "ann@customer.example"),
        ("Team: ann@customer.example;", "ann@customer.example"),
        ("Team: Ann Lee <ann@customer.example>;", "ann@customer.example"),
        ("=?utf-8?q?M=C3=BCller=2C_Ann?= <ann@customer.example>", "ann@customer.example"),
        ("李安 <ann@customer.example>", "ann@customer.example"),
        ('"Bob (bob@x.example), via list" <ann@customer.example>', "ann@customer.example"),
        ("<ann@customer.example> <ANN@customer.example>", "ann@customer.example"),
        ("root@host", "root@host"),
        ("MAR\u212a@Customer.Example", "mar\u212a@customer.example"),
        ("\u0130\u00c4NN <\u0130\u00c4NN@customer.example>", "\u0130\u00c4nn@customer.example"),
        ("mark@customer.example <mar\u212a@customer.example>", ""),
        ("Ann <ann@B\u00dcCHER.example> <ann@b\u00fccher.example>", "ann@xn--bcher-kva.example"),
        ("Re: ann@customer.example", ""),
        ("Ann Lee ann@customer.example", ""),
        ("Team: a@x.example, b@y.example;", ""),
        ("(eve@evil.example) ann@customer.example", ""),
        ("Ann (eve@evil.example) <ann@customer.example>", ""),
        ("eve@evil.example <ann@customer.example>", ""),
        ("'eve@evil.example' <ann@customer.example>", ""),
        ("eve @ evil.example <ann@customer.example>", ""),
        ('"eve"@evil.example <ann@customer.example>', ""),
        ("eve(x)@evil.example <ann@customer.example>", ""),
        ("annann@customer.example.evil.example <ann@customer.example>", ""),
        ('"a\\" <eve@evil.example> \\"" <ann@customer.example>', ""),
        ('"a\\" <eve@evil.example> "b" <ann@customer.example>', ""),
        ('Ann " <ann@customer.example>', ""),
        ("Ann <<ann@customer.example>>", ""),
        ("Ann <ann@customer.example", ""),
        ("Ann <ann@a@customer.example>", ""),
        ('"ann@customer.example"', ""),
        ("", ""),
        ("Ann Lee", ""),
        ("<>", ""),
        ("a@x.example, b@y.example", ""),
        ("A <a@x.example>, B <b@y.example>", ""),
        ("A <a@x.example> b@y.example", ""),
        ("x" * 2000 + "@y.example", ""),
        ("Ann <ann@customer.example\n>, <eve@evil.example>", ""),
        ("eve@elsewhere (<ann@customer.example>) .example", ""),
        ("eve@elsewhere ((<ann@customer.example>)) .example", ""),
        ("eve@elsewhere (a(b)<ann@customer.example>) .example", ""),
        ("eve@elsewhere(x <ann@customer.example> y).example", ""),
        ("<ann@customer.example>, eve@elsewhere .example", ""),
        ("<ann@customer.example>, eve@elsewhere. example", ""),
        ("<ann@customer.example>, eve@else where.example", ""),
        ("<ann@customer.example>, eve@elsewhere (x).example", ""),
        ("<ann@customer.example>, eve@(x)[IPv6:2001:db8::1]", ""),
        ("<ann@customer.example>, eve@elsewhere\u3002example", ""),
        ("<ann@customer.example>, eve\uff20elsewhere\uff0eexample", ""),
        ("<ann@customer.example>, 'ann@customer.example", ""),
        ("Ann Lee ann@customer.example <ann@customer.example>", ""),
        ('"eve@elsewhere.example", <ann@customer.example>', ""),
        ('"eve@elsewhere.example" ann@customer.example', ""),
        ('"Ann" ann@customer.example', ""),
        ("<ann@customer.example>, =?utf-8?b?PGV2ZUBldmlsLmV4YW1wbGU+?=", ""),
        ("=?utf-8?q?eve=40e?= =?utf-8?q?vil.example=2C?= <ann@customer.example>", ""),
        ("=?utf-8?b?a?= <ann@customer.example>", ""),
        ("=?x-unknown?q?M=FCller?= <ann@customer.example>", "ann@customer.example"),
        ("M\u00fcller =?utf-8?q?Ann?= <ann@customer.example>", "ann@customer.example"),
        ("Ann :) <ann@customer.example>", "ann@customer.example"),
    ],
)
def test_a_sender_is_one_readable_address_or_none(header: str, address: str) -> None:
    assert parse_address(header) == address


@pytest.mark.parametrize(
    "unit", ['"', "<", "(", "a@b.c ", "@", "\\", '"\\', '"a', "<a", "a:", "'", " ", "a@b.c,", "( ", '"\\@']
)
def test_a_hostile_sender_ends_soon(unit: str) -> None:
    """A pattern that tries every way would not come back."""
    for tail in ("", "ann@x.example", " <ann@x.example>"):
        assert parse_address((unit * 998)[: 998 - len(tail)] + tail) in ("", "ann@x.example", "a@b.c")


@pytest.mark.parametrize(
    ("address", "base"),
    [
        ("ann@customer.example", "ann@customer.example"),
        ("ann+orders@customer.example", "ann@customer.example"),
        ("ann+orders+4711@customer.example", "ann@customer.example"),
        ("ann+@customer.example", "ann@customer.example"),
        ("+ann@customer.example", "+ann@customer.example"),
        ("ann@a+b.example", "ann@a+b.example"),
        ("reply-4711@desk.example", "reply-4711@desk.example"),
        ("bounce=ann=customer.example@desk.example", "bounce=ann=customer.example@desk.example"),
        ("", ""),
    ],
)
def test_a_subaddress_belongs_to_its_base_address(address: str, base: str) -> None:
    assert base_address(address) == base


def test_a_stranger_with_a_subaddress_is_not_taken_for_one_of_us() -> None:
    assert reason_for(sender="support+ours@customer.example") is None
    assert reason_for(sender="Support-Team <support-returns@ours.example>") is None
