"""Evidence: a sentence is verified only by words of its source that say all of it."""

import random
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.__main__ import main
from evals.claims import load_claims
from evals.knowledge_set import FOLDER as KNOWLEDGE_SET
from shared.checks.evidence import (
    MAX_SENTENCES,
    MAX_VALUES,
    Source,
    SourceKind,
    judge_claims,
    split_sentences,
)
from shared.checks.lexicon import plain
from shared.checks.values import find_carriers, read_values
from shared.domain import Claim, JudgedClaim, Quote, Support
from shared.knowledge.files import KnowledgeFiles

HALL = (
    "## Kletterhalle Nordwand\n\nKinder unter 14 Jahren dürfen nur in Begleitung eines Erwachsenen klettern. "
    "Leihschuhe kosten 3,50 €, ein Gurt 3 €. Magnesia ist nur in flüssiger Form erlaubt. "
    "Die Halle öffnet werktags um 10 Uhr und schließt um 23 Uhr."
)
GYM = (
    "## Rivet Fitness\n\nYou can freeze your membership for up to three months per year. Requests must reach us by "
    "the 15th of the month. Personal training is not part of the basic fee; a session costs $45. "
    "Contact for invoices: Anna Keller. Contact for returns: Jonas Brandt."
)
FLOWERS = (
    "## Livraison\n\nNous livrons du mardi au samedi à Lyon. Les commandes passées avant 11 h sont livrées le jour même. "
    "Nous ne livrons pas les hôpitaux. Le bouquet Capucine mesure 40 cm."
)
BIKES = (
    "## Taller\n\nLa revisión básica cuesta 45 € y la completa, 80 €. Si la reparación supera los 120 €, le pedimos "
    "permiso antes de empezar. Guardamos la bicicleta un máximo de dos semanas."
)
BOOKS = (
    "## Księgarnia\n\nKsiążki można zwrócić w ciągu 14 dni, o ile nie noszą śladów używania. Karty podarunkowe nie "
    "podlegają wymianie na gotówkę. Spotkania odbywają się w każdy czwartek o 18:30, od 3 września 2026 r."
)
POTTERY = (
    "## 陶芸教室\n\n体験コースは90分で、料金は3,800円です。作品のお渡しは約1か月後になります。"
    "キャンセルは2日前の17時までにご連絡ください。駐車場はございません。"
)
TABLE = (
    "## Returns\n\n| Item | Return period | Condition |\n|---|---|---|\n| Shoes | 60 days | any |\n"
    "| Electronics | 14 days | sealed |\n"
)


def judge(source: str, quote: str, sentence: str, kind: SourceKind = SourceKind.APPROVED) -> JudgedClaim:
    sources = [Source("K1", kind, "help.md", source)]
    (judged,) = judge_claims(sentence, [Claim(sentence, "K1", quote)], sources)
    return judged


@pytest.mark.parametrize(
    ("source", "quote", "sentence"),
    [
        (
            HALL,
            "Kinder unter 14 Jahren dürfen nur in Begleitung",
            "Children under fourteen may climb only with an adult.",
        ),
        (HALL, "Leihschuhe kosten 3,50 €", "Renting shoes costs EUR 3.50."),
        (
            HALL,
            "öffnet werktags um 10 Uhr und schließt um 23 Uhr",
            "Werktags haben wir von 10:00 bis 23:00 Uhr geöffnet.",
        ),
        (
            GYM,
            "for up to three months per year",
            "Sie können die Mitgliedschaft höchstens 3 Monate im Jahr ruhen lassen.",
        ),
        (
            GYM,
            "Personal training is **not** part of the basic fee",
            "Le coaching n'est pas compris dans la cotisation de base.",
        ),
        (GYM, "“Requests must reach us by the 15th”", "Wniosek musi do nas dotrzeć do 15. dnia miesiąca."),
        (
            FLOWERS,
            "commandes passées avant 11 h",
            "Orders placed before 11 am are delivered on the same day.",
        ),
        (FLOWERS, "Nous ne livrons pas les hôpitaux.", "病院へのお届けは承っておりません。"),
        (BIKES, "un máximo de dos semanas", "Wir bewahren das Rad höchstens zwei Wochen auf."),
        (
            BIKES,
            "Si la reparación supera los 120 €, le pedimos permiso",
            "If the repair comes to more than €120, we ask you first.",
        ),
        (
            BOOKS,
            "Książki można zwrócić w ciągu 14 dni",
            "Books can be returned within two weeks if they show no signs of use.",
        ),
        (
            BOOKS,
            "o 18:30, od 3 września 2026 r.",
            "Los encuentros son los jueves a las 18:30 a partir del 3 de septiembre de 2026.",
        ),
        (
            POTTERY,
            "体験コースは９０分で、料金は３,８００円です",
            "Der Probekurs dauert 90 Minuten und kostet 3.800 Yen.",
        ),
        (POTTERY, "駐車場はございません", "There is no car park."),
        (TABLE, "| Shoes | 60 days |", "Shoes can be sent back within 60 days."),
        ("Order: A-1001\nStatus: shipped", "Order: A-1001\nStatus: shipped", "Order A-1001 was shipped."),
    ],
)
def test_a_sentence_that_says_what_its_source_says_is_verified(
    source: str, quote: str, sentence: str
) -> None:
    judged = judge(source, quote, sentence)
    assert (judged.support, judged.quotes) == (Support.VERIFIED, (Quote("help.md", quote),))


@pytest.mark.parametrize(
    ("wrong", "source", "quote", "sentence"),
    [
        (
            "number",
            HALL,
            "Kinder unter 14 Jahren dürfen nur in Begleitung",
            "Children under 12 may climb only with an adult.",
        ),
        ("number", TABLE, "| Shoes | 60 days |", "Shoes can be sent back within 14 days."),
        ("amount", HALL, "Leihschuhe kosten 3,50 €, ein Gurt 3 €.", "Die Leihschuhe kosten 3 €."),
        (
            "amount",
            BIKES,
            "La revisión básica cuesta 45 € y la completa, 80 €.",
            "The full service costs 45 euros.",
        ),
        ("currency", GYM, "a session costs $45", "A session costs €45."),
        ("date", BOOKS, "od 3 września 2026 r.", "Es geht am 9. März 2026 los."),
        ("time", BOOKS, "o 18:30", "The meetings are at 6 pm."),
        ("unit", BIKES, "un máximo de dos semanas", "We keep the bike for two months at most."),
        ("unit", FLOWERS, "mesure 40 cm", "Le bouquet Capucine mesure 40 mm."),
        ("name", GYM, "Contact for returns: Jonas Brandt.", "Please write to Anna Keller about returns."),
        ("name", GYM, "Contact for returns: Jonas Brandt.", "Please write to Jonas Brunner about returns."),
        (
            "negation",
            GYM,
            "Personal training is not part of the basic fee",
            "Personal training is part of the basic fee.",
        ),
        ("negation", FLOWERS, "livrons pas les hôpitaux", "We deliver to hospitals."),
        ("negation", POTTERY, "駐車場はございません", "駐車場がございます。"),
        ("condition", HALL, "Magnesia ist nur in flüssiger Form erlaubt.", "Magnesia ist bei uns erlaubt."),
        (
            "condition",
            BOOKS,
            "Książki można zwrócić w ciągu 14 dni",
            "Książki można u nas zwrócić w ciągu 14 dni.",
        ),
        ("condition", TABLE, "| Electronics | 14 days |", "You can return electronics within 14 days."),
        (
            "direction",
            GYM,
            "for up to three months per year",
            "Sie können mindestens drei Monate im Jahr pausieren.",
        ),
        (
            "direction",
            POTTERY,
            "2日前の17時までにご連絡ください",
            "キャンセルは2日前の17時以降にご連絡ください。",
        ),
        (
            "order",
            FLOWERS,
            "commandes passées avant 11 h",
            "Orders placed after 11 am are delivered on the same day.",
        ),
        ("passage", TABLE, "| Shoes | 60 days |", "Electronics can be sent back within 60 days."),
        ("passage", GYM, "Contact for returns: Jonas Brandt.", "Rechnungen bearbeitet Jonas Brandt."),
        ("link", GYM, "a session costs $45", "A session costs $45, see https://rivet.example."),
        ("code", GYM, "a session costs $45", "A session costs $45 with the code RIV-20."),
        (
            "state",
            "Order: A-1001\nStatus: shipped",
            "Order: A-1001\nStatus: shipped",
            "Order A-1001 was lost.",
        ),
        ("state", "Order: A-1001\nStatus: shipped", "Status: shipped", "Your order was already delivered."),
    ],
)
def test_a_sentence_that_is_wrong_in_one_detail_is_asserted(
    wrong: str, source: str, quote: str, sentence: str
) -> None:
    assert judge(source, quote, sentence).support is Support.ASSERTED, wrong


@pytest.mark.parametrize(
    ("kind", "support"),
    [
        (SourceKind.APPROVED, Support.VERIFIED),
        (SourceKind.OURS, Support.VERIFIED),
        (SourceKind.SENDER, Support.FROM_SENDER),
    ],
)
def test_what_only_the_sender_says_is_never_verified(kind: SourceKind, support: Support) -> None:
    assert (
        judge("My order 4711 came on Monday.", "order 4711", "Your order 4711 came on Monday.", kind).support
        is support
    )


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ('Die Garantie gilt für den Akku.', 'Your account has been closed.'),
        ('Versand innerhalb von 3 Tagen.', 'Refunds are made within 3 days.'),
        ('Delivery takes 3 days.', 'Your account is deleted after 3 days.'),
        ('You can return unworn shoes within 30 days.', 'You can return used shoes within 30 days.'),
        ('We pay for the return.', 'You pay for the return.'),
        ('The customer pays for the return.', 'We pay for the return.'),
        ('Wir tragen die Kosten der Rücksendung.', 'Sie tragen die Kosten der Rücksendung.'),
        ('Nous payons le retour.', 'Vous payez le retour.'),
        ('Pagamos la devolución.', 'Usted paga la devolución.'),
        ('Koszt zwrotu ponosimy my.', 'Koszt zwrotu ponosi klient.'),
        ('返送料は当店が負担します。', '返送料はお客様が負担します。'),
        ('返送料は当店負担です。', '返送料はお客様負担です。'),
        ('We pay for the return.', 'Sie zahlen die Rücksendung.'),
        ('The heater is for indoor use.', 'The heater is for outdoor use.'),
        ('Der Heizer ist für den Innenbereich.', 'Der Heizer ist für den Außenbereich.'),
        ("L'appareil est prévu pour l'intérieur.", "L'appareil est prévu pour l'extérieur."),
        ('El aparato es para uso en interiores.', 'El aparato es para uso en exteriores.'),
        ('Urządzenie jest do użytku wewnątrz.', 'Urządzenie jest do użytku na zewnątrz.'),
        ('この機器は屋内用です。', 'この機器は屋外用です。'),
        ('The heater is for indoor use.', 'Der Heizer ist für draußen.'),
        ('We deliver outside the EU.', 'We deliver inside the EU.'),
        ('We deliver outside the EU.', 'We deliver in the EU.'),
        ('Wir liefern außerhalb der EU.', 'Wir liefern innerhalb der EU.'),
        ('Nous livrons en dehors de la France.', 'Nous livrons en France.'),
        ('Entregamos fuera de España.', 'Entregamos en España.'),
        ('Dostarczamy poza Polskę.', 'Dostarczamy w Polsce.'),
        ('EU外に配送します。', 'EU内に配送します。'),
        ('The first service is free.', 'The second service is free.'),
        ('Die erste Wartung ist kostenlos.', 'Die zweite Wartung ist kostenlos.'),
        ('La première révision est gratuite.', 'La deuxième révision est gratuite.'),
        ('La primera revisión es gratis.', 'La segunda revisión es gratis.'),
        ('Pierwszy przegląd jest bezpłatny.', 'Drugi przegląd jest bezpłatny.'),
        ('初回の点検は無料です。', '2回目の点検は無料です。'),
        ('Store the battery charged.', 'Store the battery discharged.'),
        ('Lagern Sie den Akku geladen.', 'Lagern Sie den Akku entladen.'),
        ('Rangez la batterie chargée.', 'Rangez la batterie déchargée.'),
        ('Guarde la batería cargada.', 'Guarde la batería descargada.'),
        ('Przechowuj akumulator naładowany.', 'Przechowuj akumulator rozładowany.'),
        ('電池は充電した状態で保管してください。', '電池は放電した状態で保管してください。'),
        ('The pickup is free of charge.', 'The pickup is charged.'),
        ('Die Abholung ist kostenlos.', 'Die Abholung ist kostenpflichtig.'),
        ("L'enlèvement est gratuit.", "L'enlèvement est payant."),
        ('La recogida es gratuita.', 'La recogida es de pago.'),
        ('Odbiór jest bezpłatny.', 'Odbiór jest płatny.'),
        ('集荷は無料です。', '集荷は有料です。'),
        ('The pickup is free of charge.', 'Die Abholung wird berechnet.'),
        ('You can return unopened boxes.', 'You can return opened boxes.'),
        ('Ungetragene Schuhe nehmen wir zurück.', 'Getragene Schuhe nehmen wir zurück.'),
        ('未使用の靴は返品できます。', '使用済みの靴は返品できます。'),
        ("The buyer bears the cost of the return.", "We bear the cost of the return."),
        ("Return postage is at the customer's expense.", "Return postage is at our expense."),
        ("Die Rücksendung geht zu Lasten des Kunden.", "Die Rücksendung geht zu unseren Lasten."),
        ("Le client paie les frais de retour.", "Nous payons les frais de retour."),
        ("Koszty zwrotu są po Państwa stronie.", "Koszty zwrotu są po naszej stronie."),
        ("The customer pays for the return.", "返送料は当社が負担します。"),
        ("Der Akku wird geladen geliefert.", "The battery is delivered discharged."),
        ('The parcel is uninsured.', 'The parcel is insured.'),
        ('Towar nieuszkodzony przyjmujemy.', 'Towar uszkodzony przyjmujemy.'),
        ('We deliver in the EU.', 'We deliver outside the EU.'),
        ('Die Batterie hält 3 Stunden.', 'The water is cold after 3 hours.'),
    ],
)  # fmt: skip
def test_a_sentence_about_something_else_or_the_opposite_is_asserted(source: str, sentence: str) -> None:
    assert judge(source, source, source).support is Support.VERIFIED
    assert judge(source, source, sentence).support is Support.ASSERTED


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("Die Garantie gilt für den Akku.", "The battery is covered by the warranty."),
        ("Der Versand dauert 3 Tage.", "Delivery takes 3 days."),
        ("We pay for the return.", "Wir zahlen die Rücksendung."),
        ("The customer pays for the return.", "Vous payez le retour."),
        ("We deliver outside the EU.", "Wir liefern ins Ausland."),
        ("The heater is for indoor use.", "Der Heizer ist für den Innenbereich."),
        ("Return unworn shoes within 30 days.", "You can return shoes within 30 days if they are unworn."),
    ],
)
def test_what_is_tied_to_its_source_is_verified(source: str, sentence: str) -> None:
    assert judge(source, source, sentence).support is Support.VERIFIED


def test_approved_words_count_before_those_of_the_sender() -> None:
    sentence = "A session costs $45."
    sources = [
        Source("E1", SourceKind.SENDER, "Ann's email", "A session costs $45, right?"),
        Source("K1", SourceKind.APPROVED, "gym.md", GYM),
    ]
    claims = [Claim(sentence, "E1", "A session costs $45"), Claim(sentence, "K1", "a session costs $45")]
    (judged,) = judge_claims(sentence, claims, sources)
    assert (judged.support, judged.quotes[0].source) == (Support.VERIFIED, "gym.md")


BICYCLES = (
    "## Dogs and bicycles\n\nA dog of up to **40 kg** may ride. You may return a complete bicycle within 14 days. "
    "Rods may look alike. They must not be mixed up. We deliver on weekdays, and parcels are not sent to islands.\n\n"
    "Lengths in cm:\n\n| Model | Code | Length | Remark |\n|---|---|---|---|\n| Heron 2 | H2-E | 255 | yes, no assist |\n"
    "| Heron 2 Long | H2L-E | 274 | none |\n\n| Code | Price |\n|---|---|\n| H2-E | £5,490 |\n| H2L-E | £5,890 |\n"
)


@pytest.mark.parametrize(
    ("email", "quote", "sentence", "support"),
    [
        ("My dog is 34 kg.", "A dog of up to **40 kg**", "Your 34 kg dog may ride: up to 40 kg.", "verified"),
        (
            "Mon chien pèse 34 kg.",
            "A dog of up to **40 kg**",
            "Votre chien de 34 kg peut monter : jusqu'à 40 kg.",
            "verified",
        ),
        ("My dog is 44 kg.", "A dog of up to **40 kg**", "Your 44 kg dog may ride.", "asserted"),
        ("30 days?", "return a complete bicycle within 14 days", "You may return it within 30 days.", "asserted"),
        ("The Dunlin?", "return a complete bicycle within 14 days", "Den Dunlin können Sie binnen 14 Tagen zurückgeben.", "verified"),
        ("", "return a complete bicycle within 14 days", "You may return the Dunlin within 14 days.", "asserted"),
        ("", "| Heron 2 | H2-E | 255 |", "Der Heron 2 ist 255 cm lang.", "verified"),
        ("", "| Heron 2 | H2-E | 255 |", "Der Heron 2 Long ist 255 cm lang.", "asserted"),
        ("", "| Heron 2 | H2-E | 255 |", "Der Heron 2 ist 255 mm lang.", "asserted"),
        ("", "| H2-E | £5,490 |", "La Heron 2 cuesta 5490 £.", "verified"),
        ("The Dunlin?", "| H2-E | £5,490 |", "La Dunlin cuesta 5490 £.", "asserted"),
        ("", "| Heron 2 | H2-E | 255 | yes, no assist |", "The Heron 2 has a length of 255 cm.", "verified"),
        ("", "| Heron 2 | H2-E | 255 | yes, no assist |", "The Heron 2 rides with assist.", "asserted"),
        ("My account is GB29 NWBK 6016 1331 9268 19.", "return a complete bicycle within 14 days", "GB29 NWBK 6016 1331 9268 19", "asserted"),
        ("", "They must not be mixed up.", "The rods must not be mixed up.", "verified"),
        ("", "We deliver on weekdays, and parcels are not sent to islands.", "We deliver on weekdays.", "verified"),
        ("", "We deliver on weekdays, and parcels are not sent to islands.", "Parcels are sent to islands.", "asserted"),
    ],
)  # fmt: skip
def test_a_sentence_may_repeat_the_customer_but_never_instead_of_the_page(
    email: str, quote: str, sentence: str, support: str
) -> None:
    sources = [
        Source("E1", SourceKind.SENDER, "", email),
        Source("K1", SourceKind.APPROVED, "help.md", BICYCLES),
    ]
    (judged,) = judge_claims(sentence, [Claim(sentence, "K1", quote)], sources)
    assert judged.support.value == support


@pytest.mark.parametrize("source", ["K2", "", "K1 "])
def test_a_source_that_was_not_shown_carries_nothing(source: str) -> None:
    sources = [Source("K1", SourceKind.APPROVED, "gym.md", GYM)]
    (judged,) = judge_claims(
        "A session costs $45.", [Claim("A session costs $45.", source, "a session costs $45")], sources
    )
    assert judged == JudgedClaim("A session costs $45.", Support.ASSERTED)


def test_every_sentence_of_the_reply_is_judged_in_its_order() -> None:
    reply = (
        "Dear Ann,\n\nThank you for your email. **A session costs $45.** You get the first one free.\n\n"
        "- Please write to Anna Keller about invoices.\n\nWhich day suits you?\n\nKind regards\nRivet Fitness"
    )
    claims = [
        Claim("A session costs $45.", "K1", "a session costs $45"),
        Claim("Please write to Anna Keller about invoices.", "K1", "Contact for invoices: Anna Keller."),
        Claim("We open at 6 am.", "K1", "a session costs $45"),  # not in the reply
    ]
    judged = judge_claims(reply, claims, [Source("K1", SourceKind.APPROVED, "gym.md", GYM)])
    assert [(claim.sentence, claim.support.value) for claim in judged] == [
        ("Dear Ann,", "free"),
        ("Thank you for your email.", "free"),
        ("A session costs $45.", "verified"),
        ("You get the first one free.", "asserted"),
        ("Please write to Anna Keller about invoices.", "verified"),
        ("Which day suits you?", "free"),
        ("Kind regards", "free"),
        ("Rivet Fitness", "free"),
    ]


def test_two_claims_carry_a_sentence_together() -> None:
    sentence = "A session costs $45, and Anna Keller is the contact for invoices."
    claims = [
        Claim(sentence, "K1", "a session costs $45"),
        Claim(sentence, "K1", "Contact for invoices: Anna Keller."),
    ]
    (judged,) = judge_claims(sentence, claims, [Source("K1", SourceKind.APPROVED, "gym.md", GYM)])
    assert judged.support is Support.VERIFIED
    (alone,) = judge_claims(sentence, claims[:1], [Source("K1", SourceKind.APPROVED, "gym.md", GYM)])
    assert alone.support is Support.ASSERTED


@pytest.mark.parametrize(
    "sentence",
    [
        "Vielen Dank für Ihre Nachricht.",
        "Nous vous remercions de votre message.",
        "Gracias por su paciencia.",
        "Z poważaniem",
        "お問い合わせいただきありがとうございます。",
        "Please do not hesitate to contact us.",
        "Could you tell us the serial number?",
        "Please send the photos and the name of the shop today.",
        "Schicken Sie bitte ein Foto der Stelle.",
        "Merci de joindre une photo de la roue.",
        "Por favor, envíe una foto del desperfecto.",
        "Proszę przesłać zdjęcie opakowania.",
        "写真をお送りください。",
        "A colleague will look into your question and write to you.",
        "Welche Farbe vorrätig ist, prüft eine Kollegin und schreibt Ihnen.",
        "Se la borsa entra nella cassa, lo verificherà un collega, che Le scriverà.",
        "Here are the answers to your three questions:",
        "Zu Ihren Fragen im Einzelnen:",
        "Would you like a refund or a replacement?",
        "Welche Farbe hat das Rad?",
        "Könnten Sie uns ein Foto schicken?",
        "Pourriez-vous nous envoyer une photo ?",
        "Quel est le numéro de série ?",
        "¿Puede enviarnos una foto?",
        "¿Cuál es el número de serie?",
        "Czy mogą Państwo przesłać zdjęcie?",
        "写真をお送りいただけますか？",
        "To check this, could you send us a photo?",
        "We are sorry for the trouble.",
        "Thank you for your patience.",
        "Es tut uns leid, dass Sie warten mussten.",
        "May we call you?",
        "And when did you buy it?",
        "Darf ich fragen, wann Sie es gekauft haben?",
        "Kunt u ons een foto sturen?",
        "Può inviarci una foto?",
        "Vielen Dank!",
        "Danke.",
        "Gerne!",
        "We understand that this is annoying.",
        "Thank you for your order.",
    ],
)
def test_courtesy_needs_no_source(sentence: str) -> None:
    assert judge_claims(sentence, [], [])[0].support is Support.FREE


@pytest.mark.parametrize(
    "sentence",
    [
        "Thank you, the refund of 20 € is on its way.",
        "Sorry, we do not deliver to hospitals.",
        "Unsere Lieferung ist kostenlos und versichert.",
        "See https://rivet.example.",
        "Does Monday suit you?",
        "Please pay the 20 € by Friday.",
        "Bitte beachten Sie, dass der Versand kostenlos ist.",
        "Please send it to us, for our repairs are done in the house.",
        "We repair every make, and a colleague will write to you.",
        "The delivery is free, and a colleague will write to you.",
        "La livraison est offerte pour les lieux suivants :",
        "Liability accepted.",
        "You are insured.",
        "It is guaranteed.",
        "Yes, agreed.",
        "Did you know that returns are free for ever?",
        "A colleague will check it and pay you the damage.",
        "Thank you for your order, which we deliver free of charge.",
        "Haftung übernommen.",
        "Wussten Sie, dass Rückgaben immer kostenlos sind?",
        "Your refund is on its way, OK?",
        "Ein Kollege prüft es und erstattet den Schaden.",
        "Merci pour votre commande, que nous livrons gratuitement.",
        "You are insured, are you not?",
        "Returns are free, right?",
        "Saviez-vous que les retours sont gratuits ?",
        "返品は無料だとご存じですか？",
        "Gracias por su pedido, que enviamos gratis.",
        "Dziękujemy za zamówienie, które dostarczymy bezpłatnie.",
        "Thank you, we accept liability.",
        "Thank you, you are insured.",
    ],
)
def test_a_fact_without_a_claim_is_asserted(sentence: str) -> None:
    assert judge_claims(sentence, [], [])[0].support is Support.ASSERTED


def test_short_lines_at_both_ends_of_a_reply_need_no_source() -> None:
    reply = (
        "Grüß Gott Herr Moosgruber,\n\nWir liefern gern bis Ulm\n\n(d) Ja.\n\nGet well soon to the kids,\n"
        "Your Rivet Fitness help desk team\nDelivery is free"
    )
    supports = {one.sentence: one.support.value for one in judge_claims(reply, [], [])}
    assert supports == {
        "Grüß Gott Herr Moosgruber,": "free",
        "Wir liefern gern bis Ulm": "asserted",
        "Ja.": "asserted",
        "Get well soon to the kids,": "free",
        "Your Rivet Fitness help desk team": "free",
        "Delivery is free": "asserted",
    }


def test_an_open_point_may_repeat_what_the_customer_wrote() -> None:
    email = Source("E1", SourceKind.SENDER, "", "Where is my refund of 20 € for RT-117790?")
    for sentence, support in (
        ("A colleague will look into return RT-117790 and write to you.", Support.FREE),
        ("A colleague will look into return RT-117791 and write to you.", Support.ASSERTED),
        ("Thank you, the 20 € are on their way.", Support.ASSERTED),
    ):
        assert judge_claims(sentence, [], [email])[0].support is support, sentence


def test_sentences_end_where_they_end() -> None:
    text = "Wir liefern z. B. am 3. März um 10.30 Uhr. Dr. Lind hilft. Kostet es 3.50 €? Ja!\n| a | b |\n|---|---|\n今日です。 明日も。"
    assert split_sentences(text) == [
        "Wir liefern z. B. am 3. März um 10.30 Uhr.",
        "Dr. Lind hilft.",
        "Kostet es 3.50 €?",
        "Ja!",
        "| a | b |",
        "今日です。",
        "明日も。",
    ]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1.250,50 €", "EUR 1,250.50"),
        ("50 000 zł", "50.000 złotych"),
        ("two weeks", "14 Tage"),
        ("vierundzwanzig Stunden", "1 day"),
        ("trescientos ochenta", "380"),
        ("dix pour cent", "10 %"),
        ("zweijährige Garantie", "24 months"),
        ("٣٠ days", "30 días"),
        ("三か月", "3 mois"),
        ("3 to 5 days", "3-5 jours"),
        ("5営業日", "five working days"),
        ("2026-11-03", "3. November 2026"),
        ("03/11/2026", "3 listopada 2026"),
        ("11月3日", "November 3rd"),
        ("午後7時半", "19:30"),
        ("14h30", "2.30 pm"),
        ("las seis de la tarde", "18 Uhr"),
        ("土曜日", "Saturdays"),
        ("Do., 12.11.2026", "jeudi 12 novembre 2026"),
        ("1,5 kg", "1500 g"),
        ("KX 210s", "KX 210S"),
    ],
)
def test_values_are_the_same_however_they_are_written(a: str, b: str) -> None:
    one, other = read_values(plain(a)), read_values(plain(b))
    assert one
    assert other
    assert all(find_carriers(value, other, plain(b)) for value in one)
    assert all(find_carriers(value, one, plain(a)) for value in other)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("30 days", "30 weeks"),
        ("5 working days", "5 days"),
        ("1,250 €", "1,251 €"),
        ("45 €", "45 $"),
        ("3.11.2026", "11.3.2026"),
        ("7 am", "7 pm"),
        ("Monday", "Sonntag"),
        ("-18 °C", "18 °C"),
        ("20 m²", "20 m"),
        ("X200", "X2000"),
        ("LB-14", "LB-14H"),
    ],
)
def test_values_that_differ_are_not_the_same(a: str, b: str) -> None:
    assert not any(find_carriers(value, read_values(plain(b)), plain(b)) for value in read_values(plain(a)))


def test_what_lies_beyond_the_limits_is_asserted_unread() -> None:
    sentences = [f"A session in room R{n} costs $45." for n in range(MAX_SENTENCES + 1)]
    source = Source("K1", SourceKind.APPROVED, "", " ".join(sentences))
    claims = [Claim(sentences[-1], "K1", sentences[-1]), *(Claim(s, "K1", s) for s in sentences[:3])]
    judged = judge_claims(" ".join(sentences), claims, [source])
    assert [one.sentence for one in judged] == sentences
    assert [one.support for one in judged[:4]] == [Support.VERIFIED] * 3 + [Support.ASSERTED]
    assert judged[-1] == JudgedClaim(sentences[-1], Support.ASSERTED)
    assert judge_claims(sentences[-1], claims, [source])[0].support is Support.VERIFIED


def test_a_sentence_with_too_many_values_is_asserted() -> None:
    for count, support in ((MAX_VALUES, Support.VERIFIED), (MAX_VALUES + 1, Support.ASSERTED)):
        sentence = f"The rooms are {' and '.join(map(str, range(100, 100 + count)))}."
        assert judge(sentence, sentence, sentence).support is support


def test_a_row_is_compared_with_those_around_it_in_a_long_table() -> None:
    rows = [f"| Part P{n}-A | {n} days |" for n in range(1_000)]
    table = "\n".join(["| Part | Delivery |", "|---|---|", *rows])
    assert judge(table, rows[500], "Part P500-A has a delivery of 500 days.").support is Support.VERIFIED
    assert judge(table, rows[500], "Part P501-A has a delivery of 500 days.").support is Support.ASSERTED


@given(st.text(min_size=1, max_size=60), st.text(max_size=200))
def test_a_quote_that_is_not_in_its_source_verifies_nothing(quote: str, text: str) -> None:
    """Whatever the texts: the mark in front of the quote is in no source."""
    judged = judge_claims(
        text, [Claim(text, "K1", f"qqzx {quote}")], [Source("K1", SourceKind.APPROVED, "", text)]
    )
    assert {claim.support for claim in judged} <= {Support.ASSERTED, Support.FREE}


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=80))
def test_no_text_raises(reply: str, source: str, quote: str) -> None:
    sources = [Source("K1", SourceKind.APPROVED, "", source)]
    judged = judge_claims(reply, [Claim(reply, "K1", quote), Claim(source, "K1", source)], sources)
    assert [claim.sentence for claim in judged] == split_sentences(reply)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "1",
        "1.",
        "1,",
        "9 ",
        "a1-",
        "10:",
        "- ",
        "|",
        "[",
        "](",
        "*a",
        "if ",
        "not ",
        "A b. ",
        "一",
        "十",
        "日",
        "1日",
        "ne ",
        "@",
        "a@a.",
        "https://",
        "\n#",
        "  ",
        "½",
        "two ",
        "twenty ",
    ],
)
def test_hostile_texts_are_judged_quickly(piece: str) -> None:
    """No pattern goes quadratic: where one does, this test takes minutes instead of a second."""
    reply, source = piece * (8_000 // len(piece)), piece * (60_000 // len(piece))
    claims = [Claim(reply[:300], "K1", reply[:200]), Claim(reply, "K1", source)]
    judge_claims(reply, claims, [Source("K1", SourceKind.APPROVED, "", source)])


def test_mixed_hostile_texts_are_judged_quickly() -> None:
    choose = random.Random(7)
    words = [word for claim in load_claims("development") for word in claim.source.split()]
    text = " ".join(choose.choice(words) for _ in range(1_500))
    claims = [Claim(part, "K1", part) for part in split_sentences(text)]
    judge_claims(text, claims, [Source("K1", SourceKind.APPROVED, "", text * 10)])


def test_the_claim_set_is_measured_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--set", "claims"]) == 1  # a goal is missed: true sentences in quite other words
    printed = capsys.readouterr().out
    assert "development half" in printed
    assert "all true: not verified" in printed
    held_out = printed.partition("The held-out half")[2]
    for words in ("the first run", "the last run", "wrong_passage", "10 (0.20)", "6 (0.12)", "26 (0.52)"):
        assert words in held_out


def test_the_development_half_keeps_its_figures() -> None:
    claims = load_claims("development")
    assert sum(not claim.is_right for claim in claims if claim.kind != "true") <= 2
    assert sum(not claim.is_right for claim in claims if claim.kind == "true") <= 15


def test_no_false_statement_made_from_recorded_drafts_is_verified() -> None:
    knowledge = KnowledgeFiles(KNOWLEDGE_SET / "config" / "knowledge").read(["help"], "", 1_000_000)
    pages = [
        Source(f"K{n}", SourceKind.APPROVED, f"{passage.source} › {passage.title}", passage.text)
        for n, passage in enumerate(knowledge.passages, 1)
    ]
    text = Path(__file__).with_name("evidence").joinpath("false_statements.toml").read_text(encoding="utf-8")
    verified = []
    for one in tomllib.loads(text)["statement"]:
        sources = [*pages, Source("E1", SourceKind.SENDER, "", one["email"])]
        quoted = " ".join(one["quote"].replace("**", "").split())
        (page,) = [p.id for p in pages if quoted in " ".join(p.text.replace("**", "").split())]
        claim = Claim(one["sentence"], page, one["quote"])
        if any(j.support is Support.VERIFIED for j in judge_claims(one["sentence"], [claim], sources)):
            verified.append(one["sentence"])
    assert verified == []
