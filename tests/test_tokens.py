"""The estimate of tokens is never too low, for any script, and hardly too high for English and German."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.tokens import count_tokens
from evals.cases import load_cases
from shared.model.tokens import estimate_tokens

TEXTS = {
    "English": "Delivery takes three working days. If your parcel has not arrived within a week, please reply with "
    "the order number and we will look into it. Returns are free for thirty days, unless the seal is broken.",
    "German": "Die Kalibrierung dauert fünf Arbeitstage. Bitte schicken Sie das Messgerät mit dem ausgefüllten "
    "Rücksendeformular an unsere Werkstatt. Die Gewährleistung beträgt zwei Jahre ab dem Kaufdatum.",
    "Polish": "Dzień dobry, chciałbym zapytać, kiedy zostanie wysłane moje zamówienie. Zgłosiłem reklamację w "
    "zeszłym tygodniu i nadal czekam na odpowiedź. Proszę również o przesłanie faktury.",
    "Turkish": "Siparişim hâlâ gelmedi, lütfen kargonun nerede olduğunu öğrenebilir misiniz? Müşteri hizmetlerine "
    "bir türlü ulaşamıyorum, ürünü iade etmek istiyorum.",
    "Vietnamese": "Xin chào, tôi muốn hỏi khi nào đơn hàng của tôi sẽ được giao. Tôi đã thanh toán tuần trước nhưng "
    "chưa nhận được xác nhận. Sản phẩm có được bảo hành không?",
    "Russian": "Здравствуйте! Подскажите, пожалуйста, когда будет отправлен мой заказ? Калибровка прибора заняла "
    "больше времени, чем обещали. Прошу выставить счёт на юридическое лицо.",
    "Ukrainian": "Доброго дня! Підкажіть, будь ласка, коли буде відправлено моє замовлення? Є також питання щодо гарантії.",
    "Greek": "Καλημέρα, θα ήθελα να μάθω πότε θα παραδοθεί η παραγγελία μου. Η βαθμονόμηση του οργάνου καθυστέρησε.",
    "Arabic": "مرحبا، أود أن أسأل متى سيتم تسليم طلبي. لقد دفعت الأسبوع الماضي ولم أتلق أي تأكيد حتى الآن.",
    "Hebrew": "שלום, רציתי לשאול מתי תישלח ההזמנה שלי. שילמתי בשבוע שעבר ועדיין לא קיבלתי אישור.",
    "Hindi": "नमस्ते, मैं जानना चाहता हूँ कि मेरा ऑर्डर कब भेजा जाएगा। मैंने पिछले सप्ताह भुगतान किया था।",
    "Thai": "สวัสดีค่ะ อยากสอบถามว่าสินค้าจะจัดส่งเมื่อไหร่ ชำระเงินไปแล้วเมื่อสัปดาห์ก่อน",
    "Chinese": "您好，请问我的订单什么时候发货？我上周已经付款，但是还没有收到确认邮件。校准证书的有效期是多久？",
    "Traditional Chinese": "您好，請問我的訂單什麼時候發貨？儀器校準需要幾天？",
    "Japanese": "お世話になっております。注文した商品はいつ発送されますでしょうか。カスタマーサポートへの電話番号を教えてください。",
    "Korean": "안녕하세요, 제 주문은 언제 배송되나요? 지난주에 결제했는데 아직 확인 메일을 받지 못했습니다.",
    "Emoji": "😀😂👍🏽❤️🎉👨‍👩‍👧‍👦🇩🇪🏳️‍🌈✨🔥🫠🪿🧌🫨",
    "Digits": "1234567890 42 3.14159 2024-11-27 0049 30 123456 998877665544332211 1 2 3 4 5",
    "Code": "def f(x):\n    return {k: v for k, v in x.items() if v is not None}\n\nfor(int i=0;i<10;++i){a[i]=b[i]*c;}\n",
    "Base64": "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==",
    "URL": "https://track.northwind.example/p/AbC9xZ?utm_source=mail&utm_campaign=q3_2024&id=77-ab_CD%20x",
    "Blanks": "a\n\n\n\n     b\t\t\t\tc \n \n \n" + " " * 200 + "\r\n\r\n",
    "Table": "| Model | Price | Range |\n|---|---:|---|\n| HL-200 | € 129.00 | −40 … +85 °C |\n| HL-310 | £ 1,249.50 | 0 … 50 °C |\n",
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_the_estimate_is_never_under_the_count(name: str) -> None:
    assert estimate_tokens(TEXTS[name]) >= count_tokens(TEXTS[name])


@pytest.mark.parametrize("name", ["English", "German"])
def test_ordinary_text_is_not_taken_for_much_more_than_it_is(name: str) -> None:
    assert estimate_tokens(TEXTS[name]) <= 1.3 * count_tokens(TEXTS[name])


def test_emails_of_many_kinds_are_not_estimated_too_low() -> None:
    for case in load_cases():
        assert estimate_tokens(case.markdown) >= count_tokens(case.markdown), case.id


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(st.lists(st.sampled_from(sorted(TEXTS)), min_size=1, max_size=8), st.sampled_from(["", " ", "\n", "\n\n"]))  # fmt: skip
def test_a_mix_of_scripts_is_not_estimated_too_low(names: list[str], between: str) -> None:
    mixed = between.join(TEXTS[name] for name in names)
    assert estimate_tokens(mixed) >= count_tokens(mixed)


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(
    st.permutations([word for text in TEXTS.values() for word in text.split()]).map(lambda words: words[:60])
)
def test_words_in_any_order_are_not_estimated_too_low(words: list[str]) -> None:
    mixed = " ".join(words)
    assert estimate_tokens(mixed) >= count_tokens(mixed)


def test_nothing_has_no_tokens_and_any_character_can_be_estimated() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("\ud800\x00\U0001f600") > 0
