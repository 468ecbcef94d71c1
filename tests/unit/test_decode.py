"""Bytes to characters: the right ones or none."""

# ruff: noqa: RUF001 - letters that look like others are what these tests are about

import codecs
import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.decode import Undecodable, decode

GERMAN = "Über große Straßen fährt man schöner, wenn es nicht regnet, sagte die Bäckerin.\n"
FRENCH = "L’été dernier, nous avons déjà mangé des crêpes à Besançon; ça coûtait 5 €.\n"
POLISH = "Zażółć gęślą jaźń, powiedział król, a źrebię pobiegło przez łąkę do świerków.\n"
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy, šťastně řekl děda a šel domů přes řeku.\n"
HUNGARIAN = "Árvíztűrő tükörfúrógép, mondta a nő, és időben megérkezett a hűvös erdőből.\n"
TURKISH = "Şişli'de yağmurlu bir gün, çocuklar ağaçların altında ışığı bekliyordu.\n"
RUSSIAN = "Съешь ещё этих мягких французских булок, да выпей же чаю, сказал он вчера.\n"
GREEK = "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, είπε ο γέροντας και έφυγε από το χωριό.\n"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"
CHINESE = "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。寒来暑往，秋收冬藏。\n"
KOREAN = "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "cp1252"), (GERMAN, "mac_roman"), (GERMAN, "cp850"), (FRENCH, "cp1252"),
        (FRENCH, "mac_roman"), (POLISH, "cp1250"), (POLISH, "iso8859_2"), (CZECH, "cp1250"),
        (CZECH, "iso8859_2"), (HUNGARIAN, "cp1250"), (TURKISH, "cp1254"), (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"), (RUSSIAN, "cp866"), (GREEK, "cp1253"), (JAPANESE, "cp932"), (JAPANESE, "euc_jp"),
        (JAPANESE, "iso2022_jp"), (CHINESE, "gb18030"), (KOREAN, "cp949"), (KOREAN, "iso2022_kr"),
    ],
)  # fmt: skip
def test_text_in_a_legacy_encoding_is_recognised_by_its_language(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)).text == text
    assert decode((text * 20).encode(encoding)).text == text * 20


@pytest.mark.parametrize("text", ["naïve", "caf\u00e9 au lait, d\u00e9j\u00e0 vu", "price £5 — it’s"])
def test_a_few_accents_are_enough_for_western_text(text: str) -> None:
    assert decode(text.encode("cp1252")).text == text


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Co", "Cn", "Cs"]), max_size=200))
def test_utf8_comes_back_as_it_is(text: str) -> None:
    expected = text.removeprefix("\ufeff")
    if "\ufffd" not in text and "\ufeff" not in text:
        assert decode(text.encode()).text == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_and_is_dropped(encoding: str) -> None:
    assert decode((GREEK + JAPANESE).encode(encoding)).text == GREEK + JAPANESE


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_text_without_a_mark_is_recognised(encoding: str) -> None:
    text = "A plain line of text.\nAnd a second one, déjà vu.\n"
    assert decode(text.encode(encoding)).text == text


def test_line_ends_are_kept() -> None:
    assert decode(b"a\r\nb\rc\n").text == "a\r\nb\rc\n"


@pytest.mark.parametrize(
    "head",
    [
        '<?xml version="1.0" encoding="windows-1251"?>',
        '<meta charset="windows-1251">',
        "# -*- coding: cp1251 -*-",
    ],
)
def test_a_declared_charset_decides_where_utf8_fails(head: str) -> None:
    found = decode(head.encode() + "\nДа\n".encode("cp1251"))
    assert found.text.endswith("\nДа\n")
    assert found.encoding == codecs.lookup("cp1251").name


def test_utf8_wins_over_a_false_declaration() -> None:
    assert decode('<meta charset="iso-8859-1">Grüße'.encode()).text.endswith("Grüße")


@pytest.mark.parametrize("label", ["zlib", "rot13", "utf-7", "unicode_escape", "nonsense", "utf-16"])
def test_a_declared_codec_that_no_document_uses_is_ignored(label: str) -> None:
    data = f'<meta charset="{label}">'.encode() + GERMAN.encode("cp1252")
    assert decode(data).text.endswith(GERMAN)


def test_utf8_with_a_few_broken_bytes_stays_utf8_and_says_so() -> None:
    found = decode((JAPANESE * 5).encode() + b"\xff end")
    assert (found.text, found.replaced) == (JAPANESE * 5 + "\ufffd end", 1)


def test_utf8_cut_inside_its_last_character_stays_utf8() -> None:
    assert decode("汉字测试".encode()[:-1]).text == "汉字测\ufffd"


@pytest.mark.parametrize(
    "data", [bytes(range(256)) * 4, b"\x00" * 100, b"\x7fELF\x02\x01\x01\x00\x00", b"\x01\x02\x03\x04" * 50]
)
def test_binary_data_is_refused(data: bytes) -> None:
    with pytest.raises(Undecodable):
        decode(data)


@given(st.binary(max_size=400))
def test_any_bytes_give_text_or_undecodable(data: bytes) -> None:
    try:
        found = decode(data)
    except Undecodable:
        return
    assert "\x00" not in found.text
    assert found == decode(data)


def test_a_single_late_accent_in_a_long_line_is_found() -> None:
    text = "word " * 50_000 + "café"
    assert decode(text.encode("cp1252")).text == text


#: Encodings, and two sentences of a language that is written in them.
SENTENCES = [
    (
        "cp1250 iso8859_2 cp852",
        "Včera večer jsme šli do kina a potom jsme ještě dlouho seděli u řeky.|"
        "Kde je ten klíč? Nevím, možná ho má táta ve svém pokoji.",
    ),
    (
        "cp1250 iso8859_2",
        "Včera večer sme išli do kina a potom sme ešte dlho sedeli pri rieke.|"
        "Kde je ten kľúč? Neviem, možno ho má otec vo svojej izbe.",
    ),
    (
        "cp1250 iso8859_2",
        "Wczoraj wieczorem poszliśmy do kina, a potem długo siedzieliśmy nad rzeką.|"
        "Gdzie jest klucz? Nie wiem, może ojciec ma go w swoim pokoju.",
    ),
    (
        "cp1250 iso8859_2 cp852",
        "Tegnap este moziba mentünk, utána még sokáig ültünk a folyóparton.|"
        "Hol van a kulcs? Nem tudom, talán apánál van a szobájában.",
    ),
    (
        "cp1250 iso8859_2",
        "Aseară am fost la cinema, apoi am stat mult timp pe malul râului.|"
        "Unde este cheia? Nu ştiu, poate o are tata în camera lui.",
    ),
    (
        "cp1250 iso8859_2",
        "Sinoć smo išli u kino, a poslije smo još dugo sjedili pokraj rijeke.|"
        "Gdje je ključ? Ne znam, možda ga ima otac u svojoj sobi.",
    ),
    (
        "cp1250 iso8859_2",
        "Sinoči smo šli v kino, nato pa smo še dolgo sedeli ob reki.|"
        "Kje je ključ? Ne vem, morda ga ima oče v svoji sobi.",
    ),
    (
        "cp1251 iso8859_5 cp866 mac_cyrillic",
        "Снощи ходихме на кино, а после дълго седяхме край реката.|"
        "Къде е ключът? Не знам, може би е у баща ми в неговата стая.",
    ),
    (
        "cp1251 koi8_r iso8859_5 cp866 cp855 mac_cyrillic",
        "Вчера вечером мы ходили в кино, а потом ещё долго сидели у реки.|"
        "Где ключ? Не знаю, может быть, он у отца в комнате.",
    ),
    (
        "cp1251 koi8_u iso8859_5",
        "Учора ввечері ми ходили в кіно, а потім ще довго сиділи біля річки.|"
        "Де ключ? Не знаю, можливо, він у батька в його кімнаті.",
    ),
    (
        "cp1251",
        "Учора ўвечары мы хадзілі ў кіно, а потым яшчэ доўга сядзелі каля ракі.|"
        "Усе людзі нараджаюцца свабоднымі і роўнымі ў сваёй годнасці і правах.",
    ),
    (
        "cp1251 iso8859_5",
        "Синоћ смо ишли у биоскоп, а после смо дуго седели поред реке.|"
        "Сва људска бића рађају се слободна и једнака у достојанству и правима.",
    ),
    (
        "cp1251",
        "Синоќа бевме на кино, а потоа долго седевме крај реката.|"
        "Сите човечки суштества се раѓаат слободни и еднакви по достоинство и права.",
    ),
    (
        "cp1253 iso8859_7 mac_greek cp737",
        "Χθες το βράδυ πήγαμε στον κινηματογράφο και μετά καθίσαμε πολλή ώρα δίπλα στο ποτάμι.|"
        "Πού είναι το κλειδί; Δεν ξέρω, ίσως το έχει ο πατέρας στο δωμάτιό του.",
    ),
    (
        "cp1255 iso8859_8 cp862",
        "אתמול בערב הלכנו לקולנוע ואחר כך ישבנו זמן רב ליד הנהר.|איפה המפתח? אני לא יודע, אולי הוא אצל אבא בחדר שלו.",
    ),
    (
        "cp1256 iso8859_6",
        "ذهبنا مساء أمس إلى السينما ثم جلسنا طويلا قرب النهر.|أين المفتاح؟ لا أعرف، ربما هو مع أبي في غرفته.",
    ),
    (
        "cp1254 iso8859_9",
        "Dün akşam sinemaya gittik, sonra uzun süre nehrin kıyısında oturduk.|"
        "Anahtar nerede? Bilmiyorum, belki babamın odasındadır.",
    ),
    (
        "cp1252 cp850 mac_roman",
        "Eilen illalla menimme elokuviin ja istuimme sitten pitkään joen rannalla.|"
        "Missä avain on? En tiedä, ehkä se on isällä hänen huoneessaan.",
    ),
    (
        "cp1252 mac_roman",
        "I går kväll gick vi på bio och sedan satt vi länge vid ån.|"
        "Var är nyckeln? Jag vet inte, kanske har pappa den på sitt rum.",
    ),
    (
        "cp1252 cp865",
        "I går aftes gik vi i biografen, og bagefter sad vi længe ved åen.|"
        "Hvor er nøglen? Jeg ved det ikke, måske har far den på sit værelse.",
    ),
    (
        "cp1252",
        "Í gærkvöldi fórum við í bíó og sátum síðan lengi við ána.|"
        "Hver maður er borinn frjáls og jafn öðrum að virðingu og réttindum.",
    ),
    (
        "cp1252 cp437 mac_roman",
        "Gestern Abend gingen wir ins Kino und saßen danach noch lange am Fluss.|"
        "Wo ist der Schlüssel? Ich weiß es nicht, vielleicht hat ihn Vater in seinem Zimmer.",
    ),
    (
        "cp1252 iso8859_15 cp850 mac_roman",
        "Hier soir, nous sommes allés au cinéma, puis nous sommes restés longtemps au bord de la rivière.|"
        "Où est la clé ? Je ne sais pas, peut-être que mon père l'a dans sa chambre.",
    ),
    (
        "cp1252 mac_roman",
        "Anoche fuimos al cine y después nos sentamos mucho rato junto al río.|"
        "¿Dónde está la llave? No sé, quizá la tenga mi padre en su habitación.",
    ),
    (
        "cp1252 cp860 mac_roman",
        "Ontem à noite fomos ao cinema e depois ficamos muito tempo à beira do rio.|"
        "Onde está a chave? Não sei, talvez esteja com o pai no quarto dele.",
    ),
    (
        "cp1252 mac_roman",
        "Ieri sera siamo andati al cinema e poi siamo rimasti a lungo vicino al fiume. Perché no?|"
        "Dov'è la chiave? Non lo so, forse ce l'ha papà nella sua stanza.",
    ),
    (
        "cp1257 iso8859_13",
        "Vakar vakarā mēs gājām uz kino, un pēc tam ilgi sēdējām pie upes.|"
        "Kur ir atslēga? Nezinu, varbūt tā ir tēvam viņa istabā.",
    ),
    (
        "cp1257 iso8859_13 cp775",
        "Vakar vakare nuėjome į kiną, o paskui dar ilgai sėdėjome prie upės.|"
        "Kur raktas? Nežinau, gal jį turi tėvas savo kambaryje.",
    ),
    (
        "cp1257 iso8859_15",
        "Eile õhtul käisime kinos ja istusime pärast veel kaua jõe ääres.|"
        "Kõik inimesed sünnivad vabadena ja võrdsetena oma väärikuselt ja õigustelt.",
    ),
    (
        "cp874",
        "เมื่อคืนนี้เราไปดูหนังแล้วนั่งอยู่ริมแม่น้ำนานมาก|กุญแจอยู่ที่ไหน ไม่รู้ อาจจะอยู่ที่พ่อในห้อง",
    ),
    (
        "cp932 euc_jp iso2022_jp",
        "昨日の夜は映画を見に行って、そのあと長い間川のほとりに座っていました。|"
        "鍵はどこですか。分かりません、父が部屋に持っているかもしれません。",
    ),
    (
        "cp949 johab iso2022_kr",
        "어제 저녁에 우리는 영화를 보러 갔다가 오랫동안 강가에 앉아 있었다.|"
        "열쇠는 어디에 있습니까? 모르겠어요, 아마 아버지 방에 있을 거예요.",
    ),
    (
        "gb18030 hz",
        "昨天晚上我们去看电影，后来在河边坐了很久。|钥匙在哪里？我不知道，可能在爸爸的房间里。",
    ),
    (
        "big5",
        "昨天晚上我們去看電影，後來在河邊坐了很久。|鑰匙在哪裡？我不知道，可能在爸爸的房間裡。",
    ),
]
IN_USE = [(encoding, text) for encodings, text in SENTENCES for encoding in encodings.split()]
FORMS = ["{0}\n{1}\n", "1\r\n00:00:10,500 --> 00:00:14,000\r\n{0}\r\n{1}\r\n", "<a><b>{0}</b><c>{1}</c></a>"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("encoding", "text"), IN_USE)
def test_two_sentences_tell_their_encoding(encoding: str, text: str, form: str) -> None:
    whole = form.format(*text.split("|"))
    assert decode(whole.encode(encoding)).text == whole


@pytest.mark.parametrize(("encoding", "text"), IN_USE)
def test_one_sentence_is_read_rightly_or_not_at_all(encoding: str, text: str) -> None:
    for sentence in text.split("|"):
        with contextlib.suppress(Undecodable):
            assert decode(sentence.encode(encoding)).text == sentence


@pytest.mark.parametrize("encoding", ["koi8_r", "cp1251", "iso8859_5", "cp866"])
def test_a_declaration_that_the_text_contradicts_is_not_believed(encoding: str) -> None:
    text = '<?xml version="1.0" encoding="iso-8859-1"?>\n<a>' + RUSSIAN + "</a>"
    assert decode(text.encode(encoding)).text == text


@pytest.mark.parametrize(
    "text", ["• one\n• two", "São Paulo", "À la carte", "5 µm ± 2°", "Price: 5 €", "┌────────┐\n│ A menu │\n└────────┘"]
)
def test_signs_and_single_letters_are_enough_where_one_reading_is_likelier(text: str) -> None:
    encoding = "cp437" if "─" in text else "cp1252"
    assert decode(text.encode(encoding)).text == text


def test_bytes_at_random_are_no_text() -> None:
    for seed in range(20):
        with pytest.raises(Undecodable):
            decode(bytes(random.Random(seed).choices(range(32, 256), k=600)))
