"""The draft checks: what an attacker would want to see in a reply does not leave."""

import re

import pytest

from shared.checks.draft_checks import SENTENCES, find_failed_checks
from shared.model.prompting import load_prompt

THREAD = (
    "My number is 030 1234567, see https://www.acme.example/help. Order A-2026-118.\n"
    "IBAN DE89 3704 0044 0532 0130 00, write to ann@customer.example or [ticket 7]."
)


def problems(draft: str) -> tuple[str, ...]:
    failed = find_failed_checks(draft, [THREAD], ["support@ours.example"], load_prompt("draft"))
    return tuple(SENTENCES[check] for check in failed)


@pytest.mark.parametrize(
    "draft",
    [
        "Dear Ann,\n\nthank you, we look at https://acme.example/help and call you at 030 1234567.\n\nBest,\nSupport",
        "We meet on 2026-11-24 or 24.11.2026, 14:00-15:00, room 2041.",
        "Write to support@ours.example. Your IBAN DE89370400440532013000 is noted.",
        "thanks.We see: Node.js v1.2, report.pdf, e.g. this. 5 < 6 and 7 > 3.",
        "Of course, we will look at it.\n\n- [ ] order\n- [x] invoice",
        "Sobre [ticket 7]: todo está bien.",
        "お問い合わせありがとうございます。担当者よりご連絡いたします。",
        "Please see <https://acme.example/help>.",
        "The total is 1,250.00 EUR for 12 sensors.",
        "Is acme.example down? We look at customer.example, too.",
        "Closed 03.04.-06.04.2026. Tickets A-2026-118 - 7.",
        "To change the password: please open your profile. Secret: nothing.",
        "The export shows `<br>`, and `List<String>` is right.",
        "سلام، همکاران ما می\u200cدهند. 👩\u200d🔧",
        "It works with Node.js/Express and report.pdf/page 2.",
    ],
)
def test_an_honest_draft_may_leave(draft: str) -> None:
    assert problems(draft) == ()


@pytest.mark.parametrize(
    ("draft", "word"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("x" * 8001, "longer"),
        ("See https://evil.example/login", "link"),
        ("See HTTPS://EVIL.EXAMPLE/login", "link"),
        ("See https://acme.example/help/../steal", "link"),
        ("See https://acme.example.evil.example/help", "link"),
        ("See evil.com/login", "link"),
        ("See www.evil.com", "link"),
        ("[here](//evil.com/x)", "link"),
        ("[here](javascript:alert(1))", "link"),
        ("[here](/)", "link"),
        ("[here][1]\n\n[1]: https://evil.com", "link"),
        ("data:text/html;base64,AAAA", "link"),
        ("mailto:eve@evil.example", "address"),
        ("Write to eve@evil.example", "address"),
        ("Call +1 (555) 123-4567", "phone"),
        ("Call 1234567890", "phone"),
        ("Pay to GB29 NWBK 6016 1331 9268 19", "account"),
        ("Hi [Name],", "placeholder"),
        ("Hi {{first_name}}", "placeholder"),
        ("[お名前]様", "placeholder"),
        ("It costs XXX euro", "placeholder"),
        ("Here is a draft reply:\n\nHello", "remark"),
        ("Sure! Here's the response you asked for.", "remark"),
        ("Subject: Re: order\n\nHello", "remark"),
        ("Hier ist ein Entwurf: Hallo", "remark"),
        ("The key is sk-simulated-0123456789abcdef0123", "key"),
        ("mm_live_abc", "key"),
        ("AKIA" + "IOSFODNN7EXAMPLE", "key"),
        ("SharedAccessSignature = sv%3D2020", "key"),
        ("your api key: 4711-ab", "key"),
        ("Passwort=geheim99", "key"),
        ("the secret: a1b2c3d4", "key"),
        ("Bearer\nabcdefghijklmnop", "key"),
        ("-----BEGIN PGP MESSAGE-----", "key"),
        ("We fill this in. TODO", "placeholder"),
        ("The date is TBD", "placeholder"),
        ("Lorem ipsum dolor", "placeholder"),
        ("Hello\rfrom elsewhere", "invisible"),
        ("a\x07b", "invisible"),
        ("AccountKey=abcdef==", "key"),
        ("password: hunter22", "key"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0", "key"),
        ("Token 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", "key"),
        ("<img src=https://acme.example/help>", "markup"),
        ("![x](https://acme.example/help)", "markup"),
        ("<script>alert(1)</script>", "markup"),
        ("Hello\u202eolleh", "invisible"),
        ("Hello\U000e0041", "invisible"),
        ("Hello\U000e0158", "invisible"),
        ("Hello\u200c\u200d\u200c", "invisible"),
        ("Hello\u3164", "invisible"),
        ("Hello\ud800", "invisible"),
        ("Hello\n\n \n\n\n\t\n\n\n\nWe take the blame.", "blank lines"),
        ("See EVIL.COM", "link"),
        ("See Evil.Com/login", "link"),
        ("See evil.zip/login", "link"),
        ("See ...evil.com and _evil.com_", "link"),
        ("See www.evil.photography", "link"),
        ("See https://evil/login", "link"),
        ("Use " + "xoxb-" + "abcdefghij", "key"),
        ("See evil。com", "link"),
        ("See ｅｖｉｌ．ｃｏｍ", "link"),
        ("See 10.1.2.3/login", "link"),
        ("See acme.example/steal", "link"),
        ("See `evil.com`", "link"),
        ("Write to eve＠evil.zip", "address"),
        ("Call 020–7946–0958", "phone"),
        ("Call 020·7946·0958", "phone"),
        ("Call 06.12.34.56.78", "phone"),
        ("Pay to gb29nwbk60161331926819", "account"),
        ("api key: abc-defgh", "key"),
        ("a ` b\n c `<img src=x>`", "markup"),
        ("\\`<img src=x>`", "markup"),
        ("``<img src=x>`", "markup"),
    ],
)
def test_a_draft_that_could_harm_is_held_back(draft: str, word: str) -> None:
    assert any(word in problem for problem in problems(draft)), problems(draft)


@pytest.mark.parametrize("words_before", range(9))
def test_the_instructions_are_not_repeated(words_before: int) -> None:
    words = re.findall(r"\w+", load_prompt("draft"))
    before = "well " * words_before
    assert "it repeats the instructions" in problems(f"{before}{' '.join(words[3:12]).upper()}.")
    assert "it repeats the instructions" not in problems(f"{before}{' '.join(words[3:11])}, well.")


def test_a_problem_never_quotes_the_draft() -> None:
    assert "evil" not in " ".join(problems("https://evil.example eve@evil.example sk-evilevilevilevil1234"))


def test_hostile_texts_are_judged_quickly() -> None:
    """No pattern goes quadratic: where one does, this test takes minutes instead of a second."""
    for piece in ("a", "a.", "1 ", "(", "[", "](", "@", "<a", "A1 ", "{{", "\n[", "x@", "-", "a@a."):
        find_failed_checks(piece * (8_000 // len(piece)), [piece * 10_000], [], "instructions")
