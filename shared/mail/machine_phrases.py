"""The words by which programs say, in many languages, that no person wrote an email.

They are those of the language packs of Exchange and Outlook, Domino, Zimbra, GroupWise, Gmail and Sieve's
`vacation` (RFC 5230), and of the bounces of Postfix, Exim, qmail and sendmail. Case, accents, hyphens and
spaces do not count when they are compared.
"""

# Names of automatic replies: alone, or before a colon and the subject that is answered.
AUTOMATIC_REPLIES = {
    "en": (
        "automatic reply", "automatic response", "automated reply", "automated response", "auto reply",
        "auto response", "auto responder", "auto answer", "automatic email reply", "out of office",
        "out of the office", "out of office reply", "out of office response", "out of office message",
        "out of office notice", "out of office notification", "out of office autoreply",
        "out of office automatic reply", "out of office auto response", "ooo auto reply", "ooo reply",
        "vacation reply", "vacation response", "vacation message", "vacation notice",
        "vacation auto reply", "vacation auto response", "holiday auto reply", "away from office",
        "away from my mail", "away from the office", "automatic out of office reply",
        "this is an automatic reply", "automatic acknowledgement", "this is an automated response",
        "this is an automatic response", "yahoo! auto response", "yahoo auto response",
    ),
    "de": (
        "automatische antwort", "automatische rückantwort", "automatische rückmeldung",
        "automatische nachricht", "automatische abwesenheitsnotiz", "automatische empfangsbestätigung",
        "autoantwort", "abwesenheitsnotiz", "abwesenheitsnachricht", "abwesenheitsmeldung",
        "abwesenheitsbenachrichtigung", "abwesenheitsassistent", "abwesenheitsinfo",
        "abwesenheitsmitteilung", "abwesenheitsantwort", "urlaubsbenachrichtigung", "urlaubsnachricht",
        "urlaubsnotiz", "urlaubsmeldung", "nicht im büro", "außer haus", "antwort bei abwesenheit",
        "automatische antwort bei abwesenheit",
    ),
    "fr": (
        "réponse automatique", "réponse automatisée", "réponse automatique d'absence", "absent du bureau",
        "absence du bureau", "message d'absence", "notification d'absence", "avis d'absence",
        "hors du bureau", "réponse automatique d'absence du bureau", "message automatique",
        "message automatique d'absence", "réponse auto", "répondeur automatique",
        "accusé de réception automatique",
    ),
    "es": (
        "respuesta automática", "respuesta automatizada", "autorespuesta", "autorrespuesta",
        "fuera de oficina", "fuera de la oficina", "mensaje automático",
        "respuesta automática de vacaciones", "aviso de ausencia", "respuesta automática por vacaciones",
        "contestación automática", "mensaje de ausencia",
    ),
    "ca": ("resposta automàtica", "fora de l'oficina"),
    "gl": ("resposta automática", "fóra da oficina"),
    "eu": ("erantzun automatikoa", "bulegotik kanpo"),
    "it": (
        "risposta automatica", "risposta automatizzata", "risponditore automatico", "fuori sede",
        "fuori ufficio", "messaggio automatico", "risposta automatica di assenza", "messaggio di assenza",
        "avviso di assenza", "assenza dall'ufficio", "assente dall'ufficio",
    ),
    "pt": (
        "resposta automática", "resposta automatizada", "autoresposta", "ausência temporária",
        "fora do escritório", "ausente do escritório", "mensagem automática",
        "resposta automática de férias", "resposta de férias", "aviso de ausência",
        "mensagem de ausência",
    ),
    "nl": (
        "automatisch antwoord", "automatische antwoord", "automatische reactie", "automatisch bericht",
        "autoantwoord", "automatische beantwoording", "afwezigheidsbericht", "afwezigheidsmelding",
        "niet op kantoor", "niet aanwezig", "afwezigheidsassistent", "automatische afwezigheidsmelding",
        "vakantiebericht", "automatische e-mail reactie", "automatisch afwezigheidsbericht",
        "buiten kantoor",
    ),
    "af": ("outomatiese antwoord", "buite kantoor"),
    "sv": (
        "utanför kontoret", "borta från kontoret", "automatiskt svar", "autosvar", "automatsvar",
        "frånvaromeddelande", "inte på kontoret", "ej på kontoret", "frånvarobesked",
        "automatiskt meddelande", "semestersvar", "automatiskt frånvaromeddelande", "ej på plats",
    ),
    "da": (
        "ude af kontoret", "væk fra kontoret", "automatisk svar", "autosvar", "ikke til stede",
        "ikke på kontoret", "fraværsbesked", "fraværsmeddelelse", "feriebesked",
        "automatisk fraværsbesked", "automatisk besked", "feriesvar",
    ),
    "nb": (
        "ute av kontoret", "borte fra kontoret", "automatisk svar", "autosvar", "fraværsmelding",
        "fraværsbeskjed", "ikke på kontoret", "ikke til stede", "feriemelding",
        "automatisk fraværsmelding", "automatisk melding", "utenfor kontoret",
    ),
    "is": ("sjálfvirkt svar", "ekki á skrifstofunni"),
    "fi": (
        "automaattinen vastaus", "automaattivastaus", "poissaoloilmoitus", "poissaoloviesti",
        "poissa toimistosta", "automaattinen poissaoloviesti", "automaattinen poissaoloilmoitus",
        "lomavastaus", "lomaviesti", "lomailmoitus", "automaattinen viesti",
    ),
    "et": ("automaatvastus", "automaatne vastus", "kontorist väljas", "kontorist ära"),
    "lv": ("automātiskā atbilde", "automātiski atbildēts", "ārpus biroja"),
    "lt": ("automatinis atsakymas", "automatinis atsakas", "ne biure", "ne darbo vietoje"),
    "pl": (
        "automatyczna odpowiedź", "odpowiedź automatyczna", "autoodpowiedź", "poza biurem",
        "informacja o nieobecności", "powiadomienie o nieobecności", "autoresponder",
        "nieobecność w biurze", "wiadomość automatyczna", "automatyczna wiadomość",
        "autoodpowiedź na nieobecność", "odpowiedź wakacyjna",
    ),
    "cs": (
        "automatická odpověď", "odpověď v nepřítomnosti", "mimo kancelář", "oznámení o nepřítomnosti",
        "nejsem v kanceláři", "automatická odpověď v nepřítomnosti", "automatická odpověď mimo kancelář",
        "automatická zpráva", "autoodpověď",
    ),
    "sk": (
        "automatická odpoveď", "odpoveď v neprítomnosti", "mimo kancelárie", "mimo kanceláriu",
        "oznámenie o neprítomnosti", "automatická správa", "správa o neprítomnosti",
    ),
    "hu": (
        "automatikus válasz", "automata válasz", "automatikus üzenet", "házon kívül", "irodán kívül",
        "távolléti üzenet", "távolléti értesítés", "szabadság értesítő", "automatikus válaszüzenet",
        "nem vagyok az irodában",
    ),
    "ro": (
        "răspuns automat", "mesaj automat", "absent de la birou", "plecat din birou", "în afara biroului",
        "răspuns automat de concediu", "mesaj de absență", "lipsă din birou",
    ),
    "bg": (
        "автоматичен отговор", "автоматичен отговор при отсъствие", "извън офиса",
        "автоматично съобщение", "авто отговор",
    ),
    "mk": ("автоматски одговор", "надвор од канцеларија"),
    "sr": (
        "аутоматски одговор", "automatski odgovor", "ван канцеларије", "van kancelarije",
        "аутоматска порука", "automatska poruka", "odsutan iz kancelarije",
    ),
    "hr": (
        "automatski odgovor", "automatska poruka", "izvan ureda", "odsutan iz ureda",
        "obavijest o odsutnosti",
    ),
    "sl": (
        "samodejni odgovor", "avtomatski odgovor", "samodejno sporočilo", "odsoten iz pisarne",
        "zunaj pisarne", "odgovor v odsotnosti", "obvestilo o odsotnosti", "ni v pisarni",
    ),
    "sq": ("përgjigje automatike", "jashtë zyrës"),
    "ru": (
        "автоматический ответ", "автоответ", "автоответчик", "автоматическое сообщение",
        "автоматическое уведомление", "нет на рабочем месте", "нет на месте", "вне офиса",
        "отсутствие на рабочем месте", "отсутствует на рабочем месте", "уведомление об отсутствии",
        "сообщение об отсутствии", "ответ автоответчика", "автоматический ответ об отсутствии",
    ),
    "uk": (
        "автоматична відповідь", "автовідповідь", "автовідповідач", "автоматичне повідомлення",
        "поза офісом", "немає на робочому місці", "відсутність на робочому місці",
        "повідомлення про відсутність", "не в офісі",
    ),
    "be": ("аўтаматычны адказ",),
    "kk": ("автоматты жауап", "автоматты түрде жауап беру"),
    "az": ("avtomatik cavab",),
    "ka": ("ავტომატური პასუხი",),
    "hy": ("ավտոմատ պատասխան",),
    "tr": (
        "otomatik yanıt", "otomatik cevap", "otomatik yanıtlama", "otomatik mesaj", "ofis dışında",
        "ofis dışı", "işyeri dışında", "tatil yanıtı", "izin mesajı", "ofis dışında otomatik yanıt",
        "tatil mesajı",
    ),
    "el": (
        "αυτόματη απάντηση", "εκτός γραφείου", "μήνυμα απουσίας", "αυτόματο μήνυμα",
        "απάντηση εκτός γραφείου",
    ),
    "he": (
        "תשובה אוטומטית", "מענה אוטומטי", "תגובה אוטומטית", "הודעה אוטומטית", "מחוץ למשרד", "לא במשרד",
    ),
    "ar": (
        "رد تلقائي", "الرد التلقائي", "رد آلي", "الرد الآلي", "رد أوتوماتيكي", "خارج المكتب",
        "رسالة تلقائية", "إجابة تلقائية", "رد تلقائي خارج المكتب",
    ),
    "fa": ("پاسخ خودکار", "پاسخگوی خودکار", "پاسخ اتوماتیک", "خارج از دفتر", "پیام خودکار"),
    "ur": ("خودکار جواب",),
    "hi": ("स्वचालित उत्तर", "स्वत: उत्तर", "स्वतः उत्तर", "स्वचालित जवाब", "कार्यालय से बाहर"),
    "bn": ("স্বয়ংক্রিয় উত্তর", "স্বয়ংক্রিয় জবাব"),
    "ja": (
        "自動応答", "自動返信", "自動回答", "自動応答メール", "自動返信メール", "不在通知",
        "不在のお知らせ", "不在応答", "不在自動応答", "不在時の自動応答", "不在メッセージ",
        "不在時自動応答", "不在自動返信", "外出中", "休暇のお知らせ", "休暇中の自動返信",
        "自動配信メール",
    ),
    "ko": (
        "자동 회신", "자동 응답", "자동 답장", "부재 중", "부재중 알림", "부재중 자동 응답",
        "부재 중 자동 회신", "자동 응답 메일", "휴가 알림", "부재 알림",
    ),
    "zh-Hans": (
        "自动答复", "自动回复", "自动应答", "自动回信", "自动回覆", "不在办公室", "外出自动回复",
        "外出答复", "休假自动回复", "假期自动回复", "外出通知", "休假通知", "度假自动回复", "离开办公室",
        "自动回复邮件",
    ),
    "zh-Hant": (
        "自動回覆", "自動回復", "自動答覆", "自動回信", "自動回應", "不在辦公室", "外出自動回覆",
        "休假自動回覆", "假期自動回覆", "不在座位", "外出通知", "休假通知", "離開辦公室", "自動回覆郵件",
    ),
    "th": (
        "ตอบกลับอัตโนมัติ", "การตอบกลับอัตโนมัติ", "ข้อความตอบกลับอัตโนมัติ", "ไม่อยู่ที่สำนักงาน",
        "ตอบอัตโนมัติ", "อยู่นอกสำนักงาน",
    ),
    "vi": (
        "trả lời tự động", "thư trả lời tự động", "phản hồi tự động", "tự động trả lời",
        "hồi đáp tự động", "vắng mặt tại văn phòng", "ngoài văn phòng", "không có mặt tại văn phòng",
        "thông báo vắng mặt",
    ),
    "id": (
        "balasan otomatis", "balas otomatis", "jawaban otomatis", "respons otomatis", "di luar kantor",
        "pesan otomatis", "tidak di kantor", "pemberitahuan cuti",
    ),
    "ms": ("balasan automatik", "jawapan automatik", "di luar pejabat"),
    "tl": ("awtomatikong tugon", "awtomatikong sagot"),
    "cy": ("ateb awtomatig", "allan o'r swyddfa"),
    "ga": ("freagra uathoibríoch",),
}  # fmt: skip

# Machine mail only as the whole subject, next to the sender's name at most: people, too, write of these.
ABSENCES = {
    "en": (
        "ooo", "is out of the office", "is out of office", "is currently out of the office", "is away",
        "i am out of the office", "i am out of office", "i am currently out of the office",
        "i'm out of the office", "i'm out of office", "on vacation", "on holiday", "on leave",
        "annual leave", "on annual leave", "away from my desk", "i am on vacation", "i am away",
    ),
    "de": (
        "urlaub", "abwesenheit", "abwesend", "ist außer haus", "ist abwesend", "ist nicht im büro",
        "im urlaub", "ich bin im urlaub",
    ),
    "fr": (
        "vacances", "en vacances", "absence", "absent", "absente", "est absent", "est absente",
        "est absent du bureau", "en congé", "en congés", "congés",
    ),
    "es": (
        "vacaciones", "fuera del trabajo", "ausente", "ausencia", "de vacaciones",
        "está fuera de la oficina", "no está en la oficina", "en vacaciones",
    ),
    "it": ("ferie", "assente", "assenza", "in ferie", "è fuori ufficio", "è fuori sede"),
    "pt": (
        "férias", "ausente", "ausência", "em férias", "de férias", "está fora do escritório",
        "estou de férias",
    ),
    "nl": (
        "vakantie", "afwezig", "afwezigheid", "is afwezig", "op vakantie", "is niet op kantoor",
        "met vakantie",
    ),
    "sv": ("frånvaro", "frånvarande", "är inte på kontoret", "semester", "på semester"),
    "da": ("fravær", "fraværende", "er ikke på kontoret", "på ferie", "holder ferie"),
    "nb": ("fravær", "fraværende", "er ikke på kontoret", "på ferie", "er ute av kontoret"),
    "fi": ("poissa", "poissaolo", "lomalla", "olen lomalla", "vuosilomalla", "on poissa toimistosta"),
    "pl": ("nieobecność", "nieobecny", "nieobecna", "urlop", "na urlopie"),
    "cs": ("nepřítomnost", "nepřítomen", "dovolená", "na dovolené"),
    "sk": ("neprítomnosť", "neprítomný", "dovolenka", "na dovolenke"),
    "hu": ("távollét", "szabadságon", "szabadságon vagyok"),
    "ro": ("în vacanță", "vacanță", "sunt în concediu", "absență", "concediu", "în concediu"),
    "bg": ("отсъствие", "отсъствам", "в отпуск", "отпуск"),
    "sr": ("odsutan", "odsutna", "odsustvo", "na odmoru", "на одмору", "одсутан"),
    "hr": ("odsutan", "odsutna", "odsutnost", "na godišnjem odmoru", "godišnji odmor"),
    "sl": ("odsoten", "odsotna", "odsotnost", "na dopustu"),
    "ru": ("отсутствие", "отсутствую", "в отпуске", "отпуск", "я в отпуске"),
    "uk": ("відсутність", "відсутній", "у відпустці", "відпустка"),
    "tr": ("izinli", "izinliyim", "yıllık izindeyim", "izindeyim", "yıllık izin", "izinde", "tatildeyim"),
    "el": ("απουσία", "σε άδεια", "άδεια"),
    "he": ("בחופשה", "חופשה"),
    "ar": ("في إجازة", "إجازة"),
    "fa": ("مرخصی", "در مرخصی"),
    "ja": ("不在", "休暇", "休暇中", "出張中"),
    "ko": ("부재중 안내", "부재 안내", "휴가 안내", "휴가중 안내", "부재", "휴가", "휴가 중"),
    "zh": ("外出", "休假", "休假中", "外出中", "不在"),
    "th": ("ไม่อยู่ที่ทำงาน", "ลาพักผ่อน", "ลาพักร้อน"),
    "vi": ("vắng mặt", "nghỉ phép"),
    "id": ("cuti", "sedang cuti"),
    "ca": ("fora de la feina", "absent", "absència", "de vacances"),
    "gl": ("fóra do traballo", "ausente", "de vacacións"),
    "eu": ("lanetik kanpo", "oporretan", "kanpoan"),
    "is": ("er ekki við", "í fríi", "fjarverandi", "í sumarfríi"),
    "lt": ("esu išvykęs", "esu išvykusi", "atostogos", "atostogauju"),
    "lv": ("atvaļinājums", "atvaļinājumā", "prombūtne"),
    "et": ("puhkusel", "puhkus", "eemal"),
    "mk": ("отсутен", "отсутна", "на одмор"),
}  # fmt: skip

# Before a colon and the subject that was not delivered; alone they may be a parcel. `auto` is RFC 5230's.
UNDELIVERABLE = {
    "en": (
        "auto", "undeliverable", "undeliverable mail", "undeliverable message", "undeliverable email",
        "undelivered mail", "ndn", "ndr", "non delivery report", "non delivery notification",
        "message not delivered", "mail not delivered", "email not delivered", "message undeliverable",
        "mail undeliverable", "message delivery failure",
    ),
    "de": (
        "konnte nicht zugestellt werden", "nachricht konnte nicht zugestellt werden",
        "unzustellbarkeitsbericht", "unzustellbar", "nicht zustellbar", "unzustellbare nachricht",
        "unzustellbare mail", "nachricht nicht zugestellt",
    ),
    "fr": (
        "impossible de remettre", "n'a pas pu être remis", "rapport de non remise",
        "notification d'échec de remise", "non remis", "non délivré", "non distribuable",
        "message non remis", "message non délivré", "non livrable",
    ),
    "es": (
        "no se ha podido entregar", "informe de no entrega", "notificación de no entrega",
        "no se puede entregar", "no se pudo entregar", "mensaje no entregado", "imposible de entregar",
    ),
    "ca": ("no es pot lliurar",),
    "it": (
        "non recapitato", "recapito non riuscito", "rapporto di mancato recapito",
        "notifica di mancato recapito", "non recapitabile", "non consegnabile", "mancato recapito",
        "impossibile recapitare", "messaggio non recapitato",
    ),
    "pt": (
        "não entregues", "relatório de não entrega", "notificação de não entrega",
        "não é possível entregar", "não entregue", "não foi possível entregar", "mensagem não entregue",
        "não entregável",
    ),
    "nl": (
        "kon niet worden bezorgd", "rapport van niet bezorging", "onbestelbaar", "niet te bezorgen",
        "kan niet worden bezorgd", "bericht niet bezorgd",
    ),
    "sv": (
        "kunde inte levereras", "rapport om utebliven leverans", "olevererbart", "kan inte levereras",
        "går inte att leverera", "det går inte att leverera",
    ),
    "da": ("kan ikke leveres", "kunne ikke leveres", "meddelelsen kan ikke leveres"),
    "nb": ("kan ikke leveres", "kunne ikke leveres", "meldingen kan ikke leveres"),
    "fi": (
        "ei voitu toimittaa", "viestiä ei voitu toimittaa", "ei voi toimittaa", "ei toimitettavissa",
        "toimittamaton", "viestiä ei voi toimittaa",
    ),
    "et": ("kohaletoimetamatu", "ei saa kohale toimetada"),
    "lv": ("nevar piegādāt", "nepiegādājams"),
    "lt": ("nepristatoma", "negalima pristatyti"),
    "pl": (
        "nie udało się dostarczyć", "nie można doręczyć", "raport o niedostarczeniu",
        "nie można dostarczyć wiadomości", "niedostarczalne", "nie można dostarczyć",
        "wiadomość niedostarczona",
    ),
    "cs": (
        "zprávu nelze doručit", "zpráva o nedoručení", "nedoručitelné", "nedoručitelná zpráva",
        "nelze doručit", "nedoručená zpráva",
    ),
    "sk": (
        "správu nie je možné doručiť", "správa o nedoručení", "nedoručiteľné", "nedoručiteľná správa",
        "nedá sa doručiť", "nedoručená správa",
    ),
    "hu": (
        "nem sikerült kézbesíteni", "az üzenet nem kézbesíthető", "kézbesíthetetlen", "nem kézbesíthető",
        "kézbesíthetetlen üzenet", "kézbesíthetetlen levél",
    ),
    "ro": (
        "nu a putut fi livrat", "raport de nelivrare", "nelivrabil", "imposibil de livrat",
        "mesaj nelivrat", "nu poate fi livrat",
    ),
    "bg": ("недоставимо", "не може да се достави", "не може да бъде доставено"),
    "sr": (
        "неиспоручиво", "neisporučivo", "nije moguće isporučiti", "није могуће испоручити",
        "ne može se isporučiti",
    ),
    "hr": (
        "nije bilo moguće isporučiti", "neisporučivo", "nije moguće isporučiti", "ne može se isporučiti",
    ),
    "sl": ("ni bilo mogoče dostaviti", "nedostavljivo", "ni mogoče dostaviti"),
    "ru": (
        "невозможно доставить", "отчет о недоставке", "уведомление о недоставке",
        "сообщение о недоставке", "не удается доставить", "не удалось доставить", "недоставленное",
        "недоставленное сообщение",
    ),
    "uk": (
        "звіт про недоставлення", "повідомлення про недоставлення", "не вдалося доставити",
        "неможливо доставити", "не вдається доставити",
    ),
    "tr": (
        "teslim edilemedi bildirimi", "teslim edilemedi", "teslim edilemeyen", "teslim edilemez",
        "iletilemedi", "iletilemiyor", "iletilemeyen",
    ),
    "el": ("αδύνατη η παράδοση", "μη παραδοτέο", "δεν είναι δυνατή η παράδοση"),
    "he": (
        "לא ניתן היה למסור", "לא ניתן היה להעביר", "לא היה ניתן למסור", "לא ניתן למסירה",
        "לא ניתן להעברה", "בלתי ניתן למסירה",
    ),
    "ar": ("غير قابل للتسليم", "تعذر التسليم", "يتعذر تسليمه", "تعذر تسليم"),
    "fa": ("غیر قابل تحویل",),
    "hi": ("वितरित नहीं किया जा सकता", "अवितरणीय"),
    "ja": ("配信不能", "配信不可", "配信できません", "配信できませんでした", "未配信"),
    "ko": (
        "반송 메일", "배달되지 않음", "배달할 수 없음", "전달할 수 없음", "전달되지 않음", "전송 실패",
    ),
    "zh-Hans": (
        "退信", "系统退信", "退信通知", "未送达", "无法传递", "无法送达", "无法投递", "未传递",
        "无法传送", "传递失败",
    ),
    "zh-Hant": (
        "退信", "系統退信", "退信通知", "未送達", "無法傳遞", "無法送達", "無法投遞", "未傳遞",
        "無法傳送", "傳遞失敗",
    ),
    "th": ("ไม่สามารถส่งได้", "ไม่สามารถนำส่งได้", "ส่งไม่ได้"),
    "vi": ("không thể gửi", "không gửi được", "không chuyển được", "không thể chuyển"),
    "id": ("tidak terkirim", "tidak dapat dikirim", "tidak dapat dikirimkan", "tak terkirim"),
    "ms": ("tidak dapat dihantar",),
    "is": ("ekki hægt að afhenda", "óafhendanlegt"),
}  # fmt: skip

# The whole subject of a bounce. Each names mail or a report: a failed delivery alone may be a parcel's.
BOUNCES = {
    "en": (
        "the email is returned", "the email was returned", "your email was returned", "failure notice",
        "mail delivery failed", "mail delivery failure", "mail delivery system", "mail failure",
        "email delivery failure", "message delivery failure", "delivery failure notification",
        "delivery status notification", "mail delivery error", "mail delivery problem",
        "mail delivery report", "mail delivery status report", "undeliverable mail",
        "undeliverable message", "undeliverable email", "undelivered mail", "undelivered message",
        "undelivered email", "nondeliverable mail", "returned mail", "returned email", "returned message",
        "mail returned", "mail system error", "mail error", "mail undeliverable", "message undeliverable",
        "unable to deliver mail", "unable to deliver your message", "unable to deliver email",
        "your message could not be delivered", "your email could not be delivered",
        "message could not be delivered", "mail could not be delivered", "error sending mail",
        "non delivery report", "non delivery notification", "successful mail delivery report",
        "message delivery delayed", "warning delayed mail", "bounced mail", "bounced email",
        "email bounce", "undeliverable returned mail", "message not delivered", "mail not delivered",
        "email not delivered", "systems bounce",
    ),
    "de": (
        "unzustellbare nachricht", "unzustellbare mail", "unzustellbare e-mail", "nachricht unzustellbar",
        "mail unzustellbar", "e-mail unzustellbar", "nachricht konnte nicht zugestellt werden",
        "fehler bei der nachrichtenübermittlung", "benachrichtigung zum übermittlungsstatus",
        "fehler bei der zustellung ihrer e-mail", "zustellung der e-mail fehlgeschlagen",
        "ihre e-mail konnte nicht zugestellt werden", "ihre nachricht konnte nicht zugestellt werden",
        "zustellung der nachricht fehlgeschlagen",
    ),
    "fr": (
        "message non remis", "message non délivré", "message non distribué",
        "échec de la remise du message", "courrier non distribué", "notification d'échec de remise",
        "notification d'état de remise", "notification d'état de la distribution",
        "rapport de non remise", "message non distribuable", "avis de non remise",
        "votre message n'a pas pu être remis", "votre message n'a pas pu être distribué",
        "échec de distribution du message", "échec de l'envoi du message",
        "courrier électronique non distribué",
    ),
    "es": (
        "mensaje no entregado", "correo no entregado", "error al entregar el mensaje",
        "notificación de estado de entrega", "notificación del estado de entrega",
        "notificación de error de entrega", "no se pudo entregar el mensaje",
        "no se ha podido entregar el mensaje", "informe de no entrega", "correo devuelto",
        "su mensaje no pudo ser entregado", "no se puede entregar el mensaje",
        "fallo en la entrega del mensaje", "mensaje devuelto",
    ),
    "it": (
        "messaggio non recapitato", "messaggio non consegnato", "notifica di mancato recapito",
        "notifica dello stato del recapito", "impossibile recapitare il messaggio",
        "rapporto di mancato recapito", "mancata consegna del messaggio",
    ),
    "pt": (
        "mensagem não entregue", "e-mail não entregue", "falha na entrega da mensagem",
        "notificação de status de entrega", "notificação de falha na entrega", "mensagem devolvida",
        "notificação de estado de entrega", "não foi possível entregar a mensagem",
        "relatório de não entrega", "e-mail devolvido",
    ),
    "nl": (
        "bericht niet bezorgd", "bericht kon niet worden bezorgd", "onbestelbaar bericht",
        "onbestelbare e-mail", "onbestelbare mail", "melding over leveringsstatus",
        "e-mail niet afgeleverd", "uw bericht kon niet worden bezorgd", "niet bezorgd bericht",
        "onbezorgbaar bericht",
    ),
    "sv": (
        "meddelandet kunde inte levereras", "e-post kunde inte levereras", "olevererat meddelande",
        "ej levererat meddelande", "meddelandet kan inte levereras", "obeställbart meddelande",
    ),
    "da": (
        "meddelelsen kunne ikke leveres", "meddelelsen blev ikke leveret", "e-mail kunne ikke leveres",
        "besked om manglende levering", "din besked kunne ikke leveres", "meddelelse om leveringsstatus",
    ),
    "nb": (
        "meldingen kunne ikke leveres", "meldingen ble ikke levert", "e-post kunne ikke leveres",
        "varsel om leveringsstatus", "e-posten kunne ikke leveres",
    ),
    "fi": (
        "viestiä ei voitu toimittaa", "toimittamaton viesti", "viestin toimitus epäonnistui",
        "sähköpostin toimitus epäonnistui", "viestin toimittaminen epäonnistui", "viestiä ei toimitettu",
        "palautettu viesti",
    ),
    "pl": (
        "niedostarczona wiadomość", "wiadomość niedostarczona", "wiadomość nie została dostarczona",
        "nie można dostarczyć wiadomości", "błąd dostarczenia wiadomości",
        "niepowodzenie dostarczenia wiadomości", "powiadomienie o stanie dostarczenia",
        "nie dostarczono wiadomości", "zwrot wiadomości", "błąd dostarczania wiadomości",
    ),
    "cs": (
        "nedoručitelná zpráva", "nedoručená zpráva", "zprávu se nepodařilo doručit",
        "zpráva nebyla doručena", "oznámení o stavu doručení", "zprávu nelze doručit",
        "selhání doručení zprávy", "vrácená zpráva", "nedoručená pošta",
    ),
    "sk": (
        "nedoručiteľná správa", "nedoručená správa", "správu sa nepodarilo doručiť",
        "správa nebola doručená", "oznámenie o stave doručenia", "správu nemožno doručiť",
        "vrátená správa",
    ),
    "hu": (
        "kézbesíthetetlen üzenet", "kézbesíthetetlen levél", "az üzenet kézbesítése sikertelen",
        "az üzenet nem kézbesíthető", "kézbesítési állapotértesítés",
    ),
    "ro": (
        "mesaj nelivrat", "mesajul nu a putut fi livrat", "mesajul nu a fost livrat",
        "notificare privind starea livrării", "mesaj returnat", "livrarea mesajului a eșuat",
    ),
    "bg": (
        "недоставено съобщение", "съобщението не може да бъде доставено", "съобщението не е доставено",
    ),
    "sr": (
        "neisporučena poruka", "неиспоручена порука", "порука није испоручена", "poruka nije isporučena",
    ),
    "hr": ("neisporučena poruka", "poruka nije isporučena", "poruka se ne može isporučiti"),
    "sl": (
        "nedostavljeno sporočilo", "sporočilo ni bilo dostavljeno", "sporočila ni bilo mogoče dostaviti",
    ),
    "ru": (
        "недоставленное сообщение", "недоставленное письмо", "сообщение не доставлено",
        "письмо не доставлено", "уведомление о состоянии доставки", "отчет о недоставке",
        "ошибка доставки сообщения", "не удалось доставить сообщение", "сообщение о недоставке",
        "ваше сообщение не доставлено", "ошибка доставки почты", "уведомление о недоставке",
        "не удалось доставить письмо", "невозможно доставить сообщение", "ваше письмо не доставлено",
        "недоставленная почта",
    ),
    "uk": (
        "недоставлене повідомлення", "повідомлення не доставлено", "лист не доставлено",
        "помилка доставки повідомлення", "не вдалося доставити повідомлення",
        "сповіщення про стан доставки", "звіт про недоставлення", "помилка доставки пошти",
    ),
    "tr": (
        "teslim edilemeyen ileti", "teslim edilemeyen posta", "ileti teslim edilemedi",
        "iletiniz teslim edilemedi", "teslim durumu bildirimi", "e-posta teslim edilemedi",
        "teslimat durumu bildirimi", "e-posta iletilemedi", "mesaj iletilemedi",
    ),
    "el": ("το μήνυμα δεν παραδόθηκε", "αποτυχία παράδοσης μηνύματος", "ειδοποίηση κατάστασης παράδοσης"),
    "he": (
        "ההודעה לא נמסרה", "דואר שלא נמסר", "הודעה על סטטוס מסירה", "מסירת ההודעה נכשלה",
        "הודעה שלא נמסרה",
    ),
    "ar": (
        "فشل تسليم الرسالة", "رسالة لم يتم تسليمها", "تعذر تسليم الرسالة", "إشعار حالة التسليم",
        "فشل تسليم البريد",
    ),
    "fa": ("پیام تحویل داده نشد", "عدم تحویل پیام", "خطا در تحویل پیام"),
    "ja": (
        "配信不能通知", "配信エラー通知", "配信エラー", "配信失敗", "メール配信エラー", "メール配信不能",
        "配信不能メール", "配信状態通知", "配信状況通知", "メールが配信できませんでした",
        "メッセージを配信できませんでした", "配信失敗通知", "不達メール", "エラーメール",
    ),
    "ko": (
        "메일 전송 실패", "메일 발송 실패", "메일 전송 실패 안내", "반송 메일", "메일 반송",
        "배달 상태 알림", "메시지를 배달할 수 없음", "메시지를 전달할 수 없습니다", "발송 실패 안내",
    ),
    "zh-Hans": (
        "系统退信", "退信", "退信通知", "邮件退回", "邮件被退回", "邮件投递失败", "邮件发送失败",
        "发送失败通知", "邮件无法投递", "无法投递的邮件", "邮件未送达", "传递状态通知", "退信提醒",
        "邮件系统退信",
    ),
    "zh-Hant": (
        "系統退信", "退信", "退信通知", "郵件退回", "郵件被退回", "郵件投遞失敗", "郵件傳送失敗",
        "傳送失敗通知", "郵件無法投遞", "無法投遞的郵件", "郵件無法傳遞", "郵件未送達", "傳遞狀態通知",
        "無法傳遞的郵件",
    ),
    "th": (
        "ไม่สามารถส่งข้อความ", "ส่งอีเมลไม่สำเร็จ", "การแจ้งสถานะการส่ง", "ไม่สามารถส่งอีเมลได้",
        "การส่งข้อความล้มเหลว",
    ),
    "vi": (
        "thư không gửi được", "gửi thư thất bại", "thông báo trạng thái gửi", "không thể gửi thư",
        "lỗi gửi thư", "thư bị trả lại",
    ),
    "id": (
        "pesan tidak terkirim", "pengiriman pesan gagal", "pemberitahuan status pengiriman",
        "email tidak terkirim",
    ),
}  # fmt: skip

# The first words of mail servers' own sentences; what follows is a reason, an id or an address.
SERVER_OPENINGS = (
    # Postfix
    "undelivered mail returned to sender", "delayed mail (still being retried)",
    "postmaster copy: undelivered mail", "postmaster warning: delayed mail",
    "mail delivery status report", "successful mail delivery report",
    # Exim
    "mail delivery failed: returning message to sender", "mail failure - malformed recipient address",
    "mail failure - no recipient addresses", "mail failure - rejected by local scanning",
    # sendmail
    "returned mail: see transcript", "returned mail: user unknown", "returned mail: host unknown",
    "returned mail: unable to deliver", "returned mail: service unavailable",
    "returned mail: cannot send message", "returned mail: cannot send within",
    "returned mail: unreachable recipients", "returned mail: data format error",
    "returned mail: remote protocol error", "returned mail: too many hops",
    "returned mail: local configuration error", "returned mail: deferred",
    "returned mail: delivery problems encountered", "returned mail: response error",
    "postmaster notify: ", "warning: could not send message for past",
    "warning: cannot send message for past", "warning: returned mail",
    # RFC 3464's usual subject, in the languages of Exchange and Gmail
    "delivery status notification (", "benachrichtigung zum übermittlungsstatus (",
    "notification d'état de remise (", "notification d'état de la distribution (",
    "notificación de estado de entrega (", "notificación del estado de entrega (",
    "notifica dello stato del recapito (", "notificação de status de entrega (",
    "notificação de estado de entrega (", "melding over leveringsstatus (",
    "powiadomienie o stanie dostarczenia (", "oznámení o stavu doručení (",
    "уведомление о состоянии доставки (", "teslim durumu bildirimi (", "配信状態通知 (", "传递状态通知 (",
    "傳遞狀態通知 (", "delivery notification: delivery has", "message delivery status notification",
    # GroupWise, Lotus and Domino, X.400 gateways, Sun and Oracle messaging, MDaemon, Barracuda
    "message status - undeliverable", "mail system error - returned mail",
    "undeliverable mail, returned to sender", "permanent delivery failure", "message you sent blocked by",
    "delivery failure: user ", "delivery failure: error ", "delivery failure: recipient",
    "delivery failure: no route", "delivery failure: 4.", "delivery failure: 5.",
    "delivery failure: message could not be delivered",
)  # fmt: skip

# Local parts that ask for no answer, without their separators: `no-reply`, `no.reply2` and `noreply` are one.
NO_REPLY = {
    "en": (
        "noreply", "noreplies", "noreplay", "noresponse", "noanswer", "donotreply", "donotrespond",
        "donotanswer", "dontreply", "dontrespond", "neverreply", "notreply", "nottoreply", "cannotreply",
        "unmonitored", "doesnotreply", "noreplyto",
    ),
    "de": (
        "nichtantworten", "keineantwort", "nichtbeantworten", "keineantworten", "antwortennichtmoeglich",
    ),
    "fr": (
        "nepasrepondre", "nepasrepondez", "neparepondre", "pasdereponse", "sansreponse", "nerepondezpas",
    ),
    "es": (
        "noresponder", "noresponda", "norespondas", "nocontestar", "nocontesta", "noconteste",
        "sinrespuesta",
    ),
    "ca": ("norespongueu", "norespondre", "nocontesteu", "noresponeu"),
    "gl": ("nonresponder", "nonrespondas"),
    "eu": ("ezerantzun",),
    "it": ("nonrispondere", "norisposta", "nonrispondete", "senzarisposta"),
    "pt": ("naoresponda", "naoresponder", "naorespondas", "semresposta", "naorespondaaesteemail"),
    "nl": (
        "nietbeantwoorden", "nietantwoorden", "nietreageren", "geenantwoord", "geenreactie",
        "nietteantwoorden",
    ),
    "da": (
        "ikkesvar", "svarikke", "ikkebesvar", "ikkebesvares", "besvaresikke", "kanikkebesvares",
        "intetsvar",
    ),
    "nb": ("ikkesvar", "svarikke", "ikkesvare", "ingensvar", "ikkesvarpadenne"),
    "sv": ("svarainte", "svaraej", "ejsvar", "ingetsvar", "besvarasej", "intesvara"),
    "is": ("ekkisvara",),
    "fi": ("alavastaa", "eivastata", "eivastausta", "eivastaa", "älkäävastatko"),
    "et": ("mittevastata", "aravasta", "arvasta", "ärgevastake"),
    "lv": ("neatbildet", "neatbildiet", "neatbildi"),
    "lt": ("neatsakyti", "neatsakykite", "neatsakinet"),
    "pl": ("nieodpowiadaj", "nieodpowiadac", "prosimynieodpowiadac", "bezodpowiedzi", "brakodpowiedzi"),
    "cs": ("neodpovidat", "neodpovidejte", "neodpovidej", "bezodpovedi"),
    "sk": ("neodpovedat", "neodpovedajte", "neodpovedaj"),
    "hu": ("nevalaszolj", "nevalaszoljon", "nevalaszolja", "nincsvalasz", "valasznelkul"),
    "ro": ("nuraspunde", "nuraspundeti", "fararaspuns"),
    "bg": (
        "neotgovaryai", "neotgovaryaj", "neotgovaryay", "neotgovaryayte", "neotgovarjaj", "неотговаряй",
        "неотговаряйте",
    ),
    "sr": ("neodgovaraj", "neodgovarajte", "neodgovarati", "bezodgovora", "неодговарај", "неодговарајте"),
    "sl": ("neodgovarjaj", "neodgovarjajte", "neodgovarjati", "brezodgovora"),
    "sq": ("mosupergjigj", "mospergjigju"),
    "ru": (
        "neotvechat", "neotvechay", "neotvechai", "neotvechaj", "neotvechaite", "neotvechayte",
        "bezotveta", "неотвечать", "неотвечайте",
    ),
    "uk": (
        "nevidpovidaty", "nevidpovidai", "nevidpovidaite", "nevidpovidayte", "невідповідати",
        "невідповідайте",
    ),
    "tr": (
        "yanitlama", "yanitlamayin", "yanitlamayiniz", "cevaplama", "cevaplamayin", "cevaplamayiniz",
        "cevapvermeyin", "yanitvermeyin",
    ),
    "el": ("minapantate", "minapantas", "minapantisete", "mhnapantate", "mhnapantas", "μηναπαντάτε"),
    "he": ("altashiv", "lolehashiv", "nalolehashiv"),
    "ar": ("latarud", "laturad", "latrod", "لاترد"),
    "fa": ("pasokhnadahid", "bedunepasokh"),
    "ja": ("henshinfuka", "henshinfuyo", "soshinsenyo", "sousinsenyou", "soushinsenyou"),
    "ko": ("balsinjeonyong", "balsinjunyong", "hoesinbulga"),
    "zh": ("qingwuhuifu", "buyaohuifu", "wuxuhuifu", "wuhuifu"),
    "vi": ("khongtraloi", "khongphanhoi", "vuilongkhongtraloi"),
    "id": ("janganbalas", "jangandibalas", "janganmembalas", "tidakdibalas"),
    "cy": ("peidiwchagymateb", "dimateb"),
    "ga": ("nafreagair",),
}  # fmt: skip

# Parts of a local part that only programs have, and local parts that are wholly a program's.
MACHINE_PARTS = frozenset(
    {
        "abwesenheitsnotiz", "alertmanager", "antwortautomat", "autoconfirm", "autoemail", "automail",
        "automailer", "automatischeantwort", "automessage", "autonotify", "autoreply", "autoresponder",
        "autoresponse", "autosvar", "benachrichtigung", "benachrichtigungen", "bildirim", "bildirimler",
        "bounce", "bounced", "bounces", "crondaemon", "dmarcreport", "dmarcreports", "maildaemon",
        "maildelivery", "maildeliverysystem", "mailerdaemon", "mailsystem", "mdaemon", "notifica",
        "notificacao", "notificacion", "notificaciones", "notificacoes", "notification", "notifications",
        "notifiche", "notifier", "notify", "powiadomienia", "powiadomienie", "systemalert",
        "systemalerts", "systemmail", "systemmessage", "systemmessages", "systemnotice", "uvedomlenie",
        "uvedomleniya",
    }
)  # fmt: skip
MACHINE_LOCAL_PARTS = frozenset(
    {
        "alert", "alerts", "anacron", "automated", "cron", "daemon", "fail2ban", "icinga", "listmaster",
        "listserv", "logwatch", "mailer", "mailman", "majordomo", "nagios", "newsletter", "newsletters",
        "nobody", "outofoffice", "postmaster", "sympa", "wwwdata", "zabbix",
    }
)  # fmt: skip
