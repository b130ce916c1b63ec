"""Machine mail is told from people's mail in the world's languages."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from shared.mail.machine_mail import is_machine_sender, is_machine_subject

DATA = Path(__file__).parent / "machine_mail"
SENDER = "Ann Lee <ann@customer.example>"
MIN_LANGUAGES = 30
MIN_RECALL = 0.9


def load(name: str) -> dict[str, Any]:
    return tomllib.loads((DATA / name).read_text(encoding="utf-8"))


def test_gathered_subjects_of_machines_are_recognised_in_many_languages() -> None:
    data = load("automatic.toml")
    gathered = [
        (language, subject)
        for group in data["group"]
        for language, subjects in group["subjects"].items()
        for subject in subjects
    ]
    missed = {subject for _, subject in gathered if not is_machine_subject(subject, SENDER)}
    recall = 1 - sum(subject in missed for _, subject in gathered) / len(gathered)
    languages = {language for language, subject in gathered if subject not in missed}
    print(f"{recall:.1%} of {len(gathered)} subjects, {len(languages)} languages")
    assert missed == set(data["known_misses"])
    assert recall >= MIN_RECALL
    assert len(languages) >= MIN_LANGUAGES


@pytest.mark.parametrize(
    "subject",
    [*load("people.toml")["written"], *load("people.toml")["gathered"], *load("people.toml")["independent"]],
)
def test_subjects_that_people_write_about_automatic_mail_pass(subject: str) -> None:
    assert not is_machine_subject(subject, SENDER)


@pytest.mark.parametrize(
    "subject",
    [
        "AUTO: Ann Lee is out of the office (returning 03/09/2026)", "Ann Lee is out of the office.", "Out of office - Ann Lee",
        "Ann Lee: Absence du bureau", "Automatic reply | Automatische Antwort", "Out of Office/Abwesenheitsnotiz: Offer",
        "Automatische Antwort (Automatic reply): Angebot", "Out of office Re: Your offer", "AUTO-REPLY",
        "[EXT] [SPAM] Automatic reply: offer", "EXTERNAL: Automatic reply: offer", "***SPAM*** Undeliverable: offer",
        "{Spam?} Out of Office: offer", "【外部】自動応答：見積", "[Auto-Reply] offer", "＊自動返信＊", "［自動返信］見積",
        "\u200fמענה אוטומטי: הצעה", "AUTOMATISCHE\u00a0ANTWORT : Angebot", "Re\u0301ponse automatique : devis", "OTOMATİK YANIT: fiyat",
        "پاسخ خودکار: سلام", "پاسخ خودكار: سلام", "부재 중: 견적", "自动 回复：报价", "Message status - undeliverable",
        "Warning: message 1abc-000 delayed 24 hours", "DELIVERY FAILURE: User ann (ann@x.example) not listed in Domino Directory",
        "Delayed Mail (still being retried)", "Returned mail: User unknown", "Mail failure - malformed recipient address",
    ],
)  # fmt: skip
def test_forms_of_servers_and_gateways_are_recognised(subject: str) -> None:
    assert is_machine_subject(subject, SENDER)


@pytest.mark.parametrize(
    "subject",
    [
        "", ":", "[]", "-", "Ann Lee", "Ann Lee: a question", "Bob Ray is out of the office", "Out of office - Bob Ray", "Auto",
        "Out of office - who covers?", "[External] Re: Automatic reply: offer", "Fwd: [EXT] Undeliverable: offer",
        "Undeliverable", "Teslim edilemedi", "Delivery failure: 5 parcels", "OOO: sensor reads zero", "自動返信メールについて",
        "Not delivered: order 5521", "Falha na entrega", "Ikke leveret: ordre 88", "Не доставлено: заказ 12", "投递失败", "Delivery failure",
        "Leveransfel", "Nedoručeno: zásilka 4", "Delivery status",
    ],
)  # fmt: skip
def test_what_only_resembles_those_forms_passes(subject: str) -> None:
    assert not is_machine_subject(subject, SENDER)


@pytest.mark.parametrize("sender", ["office@acme.example", "Auto Reply <reply@auto.example>"])
def test_a_senders_name_made_of_the_words_changes_nothing(sender: str) -> None:
    assert is_machine_subject("Out of office", sender)
    assert not is_machine_subject("Reply", sender)


@pytest.mark.parametrize(
    "local_part",
    [
        "ne-pas-repondre", "nepasrepondre", "nicht-antworten", "no-responder", "no_contestar", "nao-responda", "não-responda",
        "niet-beantwoorden", "ikke-svar", "svara-inte", "ej.svar", "nie-odpowiadaj", "neodpovidat", "ne-otvechat", "не-отвечать",
        "yanitlama", "yanıtlama", "nuraspunde", "non-rispondere", "ala-vastaa", "ne-valaszoljon", "ne-odgovarajte", "nevidpovidaty",
        "min-apantate", "jangan-balas", "khong-tra-loi", "qing-wu-hui-fu", "shop-nicht-antworten", "nicht-antworten2",
        "vui-long-khong-tra-loi", "do.not.respond", "alerts", "www-data", "cron-daemon", "mailer-daemon1", "mail-system",
        "MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e", "system-alerts", "shop-benachrichtigungen", "powiadomienia",
    ],
)  # fmt: skip
def test_senders_that_ask_for_no_answer_are_recognised(local_part: str) -> None:
    assert is_machine_sender(f"{local_part}@shop.example".lower())


@pytest.mark.parametrize(
    "local_part",
    [
        "ann", "no", "reply", "antworten", "nina.antworten", "svar", "nao.tanaka", "ali.yanit", "noresponderos", "repondre",
        "system", "daemon.clark", "alerta.gomez", "microsoftexchange", "anna.notifyer", "support", "",
    ],
)  # fmt: skip
def test_people_and_teams_with_similar_addresses_pass(local_part: str) -> None:
    assert not is_machine_sender(f"{local_part}@customer.example" if local_part else "")


@pytest.mark.parametrize(
    "unit", ["[", "(a)", "*a", "- ", "a:", "out of office, ", "* * ", "-a-", "\u0301", "warning: message "]
)
def test_a_hostile_subject_ends_soon(unit: str) -> None:
    """A pattern that tries every way would not come back."""
    assert is_machine_subject(unit * 10_000, unit * 10_000) in (True, False)
    assert is_machine_sender(unit.replace("@", "") * 300 + "@x.example") in (True, False)
