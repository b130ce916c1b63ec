"""What the sender wrote: new words apart from quotes, signature and disclaimers; links without wrappers."""

import json
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mailparser_reply.parser import EmailMessage

from shared.mail.own_words import show_link_targets, split_own_words

NEW = "The freezer is off, call us!"
DISCLAIMER = (
    "This e-mail and its attachments are confidential and meant for the addressee alone; "
    "if it reached you by mistake, kindly tell the sender and delete it."
)

# By mail program and language: the lines between the new words and what they answer.
HEADERS = {
    "Gmail, English": "On Mon, 2 Mar 2026 at 10:00, Support <us@ours.example> wrote:",
    "Gmail, English, wrapped": "On Mon, 2 Mar 2026 at 10:00, Support of Our Company\n<us@ours.example> wrote:",
    "Apple Mail, German": "Am 02.03.2026 um 10:00 schrieb Support <us@ours.example>:",
    "Gmail, French": "Le lun. 2 mars 2026 à 10:00, Support <us@ours.example> a écrit :",
    "Gmail, Spanish": "El lun, 2 mar 2026 a las 10:00, Support (<us@ours.example>) escribió:",
    "Gmail, Italian": "Il giorno lun 2 mar 2026 alle ore 10:00 Support <us@ours.example> ha scritto:",
    "Gmail, Dutch": "Op ma 2 mrt 2026 om 10:00 schreef Support <us@ours.example>:",
    "Gmail, Polish": "pon., 2 mar 2026 o 10:00 Support <us@ours.example> napisał(a):",
    "Gmail, Portuguese": "Em seg., 2 de mar. de 2026 às 10:00, Support <us@ours.example> escreveu:",
    "Gmail, Swedish": "Den mån 2 mars 2026 kl 10:00 skrev Support <us@ours.example>:",
    "Gmail, Russian": "пн, 2 мар. 2026 г. в 10:00, Support <us@ours.example>:",
    "Gmail, Japanese": "2026年3月2日(月) 10:00 Support <us@ours.example>:",
    "Thunderbird, English": "On 3/2/26 10:00 AM, Support wrote:",
}
OUTLOOK = {
    "English": ("From", "Sent", "To", "Subject"),
    "German": ("Von", "Gesendet", "An", "Betreff"),
    "French": ("De ", "Envoyé ", "À ", "Objet "),
    "Spanish": ("De", "Enviado", "Para", "Asunto"),
    "Italian": ("Da", "Inviato", "A", "Oggetto"),
    "Dutch": ("Van", "Verzonden", "Aan", "Onderwerp"),
    "Polish": ("Od", "Wysłano", "Do", "Temat"),
    "Swedish": ("Från", "Skickat", "Till", "Ämne"),
    "Danish": ("Fra", "Sendt", "Til", "Emne"),
    "Czech": ("Od", "Odesláno", "Komu", "Předmět"),
    "Finnish": ("Lähettäjä", "Lähetetty", "Vastaanottaja", "Aihe"),
    "Russian": ("От", "Отправлено", "Кому", "Тема"),
    "Japanese": ("差出人", "送信日時", "宛先", "件名"),
    "Chinese": ("发件人", "发送时间", "收件人", "主题"),
    "Korean": ("보낸 사람", "보낸 날짜", "받는 사람", "제목"),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_new_words_above_below_and_between_quotes_are_kept(header: str) -> None:
    above = f"{NEW}\n\n{header}\n\n> old words\n> more of them"
    below = f"{header}\n> old words\n> more of them\n\n{NEW}"
    for text in (above, below):
        words = split_own_words(text)
        assert words.own.splitlines()[-1 if text is below else 0] == NEW
        assert "old words" not in words.own
        assert "old words" in words.rest
        assert header.splitlines()[-1] in words.rest
    between = split_own_words(f"{header}\n> Is it on?\n\n{NEW}\n\n> Since when?\n\nSince today.")
    assert between.own.split("\n\n")[-2:] == [NEW, "\nSince today."]


@pytest.mark.parametrize("mark", ["", "**"])
@pytest.mark.parametrize("labels", OUTLOOK.values(), ids=OUTLOOK)
def test_an_email_quoted_without_marks_is_parted_at_its_header(labels: tuple[str, ...], mark: str) -> None:
    values = ("Support <us@ours.example>", "2 March 2026 10:00", "Ann <ann@customer.example>", "Re: Freezer")
    header = "\n".join(f"{mark}{label}:{mark} {value}" for label, value in zip(labels, values, strict=True))
    words = split_own_words(f"{NEW}\n\n{header}\n\nDear Ann,\n\nold words")
    assert words.own == NEW
    assert words.rest == f"{header}\n\nDear Ann,\n\nold words"


@pytest.mark.parametrize(
    "signature",
    [
        "-- \nAnn Lee\nCustomer Ltd, 12 Mill Lane", "Kind regards\nAnn Lee", "Mit freundlichen Grüßen\n\nAnn Lee",
        "Cordialement,\nAnne", "Saludos,\nAna", "Met vriendelijke groet,\nAnna", "Pozdrawiam\nAnna",
        "Med vänliga hälsningar\nAnna", "S pozdravem,\nAnna", "Sent from my iPhone", "Gesendet von meinem iPhone",
        f"-- \nAnn Lee\n{DISCLAIMER}", f"Best regards\nAnn\n\n{DISCLAIMER}", DISCLAIMER,
        "Disclaimer: this e-mail is for the intended recipient only.",
    ],
)  # fmt: skip
def test_signature_and_disclaimer_are_no_new_words(signature: str) -> None:
    words = split_own_words(f"Hello,\n\n{NEW}\n\n{signature}")
    assert words.own == f"Hello,\n\n{NEW}"
    assert words.rest == signature


def test_a_warning_of_the_mail_server_is_no_new_word() -> None:
    warning = "CAUTION: This email originated from outside of the organization. Do not click links."
    assert split_own_words(f"{warning}\n\n{NEW}").own == NEW


@pytest.mark.parametrize(
    "text",
    [
        "Thanks,\nthat all worked for the old one. But the new freezer is off.\nPlease call.",
        "Best regards is how you end every letter, but where is my freezer?",
        "Please quote:\n\nFrom: Hamburg\nTo: Oslo\nDate: 3 May\n\nHow much is it?",
        "Please treat this as confidential: my colleagues read this mailbox, and I want to talk about one of them.",
        "We need:\n- two freezers\n- one gateway\n\nWhen can you deliver?",
        "I tried what you wrote:\n\nhold the button, then wait.\n\nIt did not help.",
        "Warning: the battery burns and the email address on it is gone.",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_quote_or_signature_stays(text: str) -> None:
    assert split_own_words(text).own == text


@pytest.mark.parametrize(
    "text",
    [
        "---------- Forwarded message ---------\nFrom: Bob <bob@x.example>\nDate: Mon, 2 Mar 2026 at 10:00\n"
        f"Subject: Help\nTo: Ann <ann@customer.example>\n\n{NEW}",
        f"> {NEW}", f"-- \n{NEW}", f"Hi\n\n{NEW}", "", "\n\n",
    ],
)  # fmt: skip
def test_where_nothing_seems_new_all_of_it_is(text: str) -> None:
    assert split_own_words(text).own == text.strip()


def test_a_text_that_the_library_fails_on_is_parted_by_its_quote_marks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: EmailMessage) -> EmailMessage:
        raise RecursionError

    monkeypatch.setattr(EmailMessage, "read", fail)
    words = split_own_words(f"{NEW}\n\nKind regards\n\n> old words")
    assert words.own == f"{NEW}\n\nKind regards"


@given(
    st.lists(
        st.sampled_from(["> a", "Hi", "", "From: a@b.example", "To: c", "--", "Thanks,", "On 10:00 wrote:"])
    )
)
def test_no_line_is_lost(lines: list[str]) -> None:
    words = split_own_words("\n".join(lines))
    kept = [line for line in f"{words.own}\n{words.rest}".split("\n") if line]
    assert sorted(kept) == sorted(line for line in lines if line)


WRAPPED = {
    "https://eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2Fshop.example%2Fa%3Fb%3D1&data=05%7C02":
        "https://shop.example/a?b=1",
    "https://urldefense.proofpoint.com/v1/url?u=http://shop.example/&k=oIvRg1%2BdGAgOoM1BIlLLqw%3D%3D":
        "http://shop.example/",
    "https://urldefense.proofpoint.com/v2/url?u=http-3A__www.shop.example_pa-2Dth_-3Fq-3D1&d=DwMFaQ&c=x":
        "http://www.shop.example/pa-th/?q=1",
    "https://urldefense.com/v3/__https://shop.example/a*b?c=**Dd__;I-KCrOKCrOKCrOKCrOKCrA!!abc$":
        "https://shop.example/a#b?c=€€€€€d",
    "https://urldefense.com/v3/__https:/shop.example__;!!abc$": "https://shop.example",
    "https://protect-eu.mimecast.com/s/AbCd?domain=shop.example": "https://shop.example",
    "https://linkprotect.cudasvc.com/url?a=https%3a%2f%2fshop.example&c=E,1": "https://shop.example",
    "https://www.google.com/url?sa=t&url=https%3A%2F%2Fshop.example%2Fx&usg=1": "https://shop.example/x",
    "https://secure-web.cisco.com/1abc/https%3A%2F%2Fshop.example%2Fc": "https://shop.example/c",
    "https://abc.r.us-east-1.awstrack.me/L0/https:%2F%2Fshop.example%2Fz/1/01/x=1": "https://shop.example/z",
    "https://eu-west-1.protection.sophos.com/?d=x&u=aHR0cHM6Ly9zaG9wLmV4YW1wbGU=&i=1": "https://shop.example",
}  # fmt: skip


@pytest.mark.parametrize(("link", "target"), WRAPPED.items())
def test_the_target_of_a_wrapped_link_is_shown(link: str, target: str) -> None:
    assert show_link_targets(f"see [here]({link}), or {link} now") == f"see [here]({target}), or {target} now"


def test_a_link_that_is_wrapped_twice_is_unwrapped_twice() -> None:
    inner = json.dumps({"s": "x", "p": json.dumps({"u": 1, "url": "https://shop.example/m"})})
    packed = urlsafe_b64encode(inner.encode()).decode().rstrip("=")
    mandrill = f"https%3A%2F%2Fmandrillapp.com%2Ftrack%2Fclick%2F1%3Fp%3D{packed}"
    link = f"https://eur01.safelinks.protection.outlook.com/?url={mandrill}&data=1"
    assert show_link_targets(link) == "https://shop.example/m"


@pytest.mark.parametrize(
    "link",
    [
        "https://u1.ct.sendgrid.net/ls/click?upn=abc", "https://www.google.com/search?q=https://x.example",
        "https://safelinks.protection.outlook.com/?url=javascript%3Aalert", "https://[", "https://mandrillapp.com/?p=7",
        "https://notsafelinks.protection.outlook.com.evil.example/?url=https%3A%2F%2Fshop.example",
        "https://safelinks.protection.outlook.com/?url=https%3A%2F%2Fx.example%2F%0AForged%3A%20line",
        "https://eu.protection.sophos.com/?u=%ff", "https://urldefense.com/v3/__https://x.example__;/w!",
    ],
)  # fmt: skip
def test_a_link_without_its_target_stays(link: str) -> None:
    assert show_link_targets(link) == link
