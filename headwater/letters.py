"""How well characters read like a language: what tells the encodings of one byte apart. Pure: no I/O.

Each language has its letters in the order of their frequency; the chance of one is taken to fall with its place in that
order (Zipf). A wrong encoding gives letters that no language has together, capitals within words, signs within words.
"""

# ruff: noqa: RUF001 - letters that look like others are what this module is about

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from math import log

__all__ = ["fit"]

#: Languages of Latin script: the letters beyond ASCII, commonest first, and some words that have none of them.
_LATIN = {
    "English": ("éïèöüêçàñ", "the of and to in is that it for was on with as not from this but have"),
    "French": ("éèàêçùâîôûëïœüÿæ", "le la les des et en un une du que qui dans pour est pas sur nous ne ce il au avec"),
    "German": ("üäößé", "der die und das den von zu mit sich des auf ist im dem nicht ein eine als auch es wir wo"),
    "Spanish": ("óíáéñúüçàò", "de la que el en y los del se las por un para con no una su al es lo como"),
    "Portuguese": ("ãçáéíõóêúâàôü", "de que o do da em um para com uma os no se na por mais as dos ao ontem nos"),
    "Catalan": ("óéàèíúòçïü", "de la que el en les per un una els amb del no es pot ha al si com"),
    "Albanian": ("ëç", "e dhe i nuk me se një në për si ka jo do"),
    "Italian": ("èàùìòéíú", "di il che la per un del non una della con in sono si da le nel ha gli dei poi"),
    "Dutch": ("ëéïèöüç", "de het een van en in is dat op te zijn met voor niet aan er om ook als naar"),
    "Swedish": ("äöåé", "och att det som en av den med till inte om ett har de jag var vi i"),
    "Finnish": ("äöå", "ja on ei se oli ovat mutta joka kun niin sen jos tai kuin missä"),
    "Danish, Norwegian": ("øåæéüöä", "og at det er som en den til af av med ikke for har jeg de vi han i"),
    "Icelandic": ("íáðéöúóþýæ", "og er sem en til um var fyrir ekki hann eru með ber"),
    "Czech": ("íáéěřýžčšůúťňóď", "se na je to v ze do jsem ale jako jsou by tak po jak nebo kde pro s si"),
    "Slovak": ("íáéčýžšúľťňôäďóĺŕ", "sa na je to v zo do som ale ako by tak po alebo kde pre sme s si"),
    "Polish": ("łąęóżśćńź", "w i na z do nie to jest o jak ale za po od przez czy tak gdzie oraz co"),
    "Hungarian": ("áéöőóüíúű", "a az hogy nem egy is meg csak ha van de ez volt mint el hol minden"),
    "Romanian": ("ăîşţâșț", "de la nu cu care este pe din mai un o se unde sunt am pentru dar cum"),
    "Croatian": ("čšžćđ", "je i u na se da su za od s kao sam ne bi koji to gdje iz smo ali"),
    "Slovene": ("čšž", "je in na se da so za od pa ne bi ki pri kot tudi kje iz smo ali po"),
    "Turkish": ("ıüşçğöİâîû", "bir ve bu de da ile ne olarak daha var o gibi sonra en kadar her nerede"),
    "Lithuanian": ("ėųšįūąžčę", "ir kad yra su tai iš o bet kaip nuo jis jie kur po ar buvo už"),
    "Latvian": ("āīēšņžūļčķģ", "un ir ar no uz par kas ka tas bet kur vai pie to viss lai pēc"),
    "Estonian": ("äõüöšž", "ja on ei et see oli ka kui oma mis ta ning kuid siis ega"),
}
#: What one of these words adds to its language, and how many of them count.
_WORD, _WORDS = 1.2, 5
#: Other scripts: all letters, commonest first.
_WHOLE = {
    "Russian": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё",
    "Ukrainian": "оаинтвірескдлмупзьябгйчхжцюїшєщфґ",
    "Belarusian": "аінрсеыкотлдўвмяуьпцзбгчшхжйёюэф",
    "Bulgarian": "аоеитнрсвлдпкмзъбуягчщшцжхфйюь",
    "Serbian": "аоиеунрсјтквдмлпгзбшчцжњћљђхџф",
    "Macedonian": "аоиетнрсвдкјлпмузбгчшцжќхњфѓџљѕ",
    "Kazakh": "аеынтрлдісқмоиұғпбкшзйүжгуөңәяхвчфцюэщьһ",
    "Greek": "αοιετσνηυρπκμςλάόίωδγέήχθύφώβξζψϊϋΐΰ",
    "Hebrew": "יוהלאמתרבשנדכחפקעגםצטזןסךףץ",
    "Arabic": "االيمنورتبةدعسكفهلحقأجصشطخذىضثئغزظءإؤآ",
    "Persian": "ایرندوهمتسبشزگکخپفقآعجحطچصلضغثذژيك",
    "Thai": "านรกอเงวมยล่้ตดัทีสปบ์คะิ็แุพชขหไใูโจืถผณซำึฟธศญภษฐฉๆฝฎฬฮฤ",
}

#: Logarithms of chances. A letter that the language lacks, a capital at the start of a word, after another, after a
#: small letter; a sign that is typed often, one that texts have, any other, one within a word, a
#: control character; a letter beside one of another script.
_FOREIGN, _CAPITAL, _CAPITALS, _CAPITAL_WITHIN = -9.5, -2.0, -0.7, -8.0
_TYPED, _MARK, _SIGN, _WITHIN, _CONTROL, _BESIDE = -2.0, -3.5, -8.0, -9.0, -12.0, -5.0
#: Letters that end a word.
_FINAL = frozenset("ςךםןףץةى")
#: A text of another script that has mostly letters of ASCII.
_OTHER_SCRIPT = -5.0
#: Letters that are words.
_ALONE = frozenset("àáéèìíòóúùôåäöøæőî")
#: What may stand beside a character and is no letter.
_NO_LETTER = ("", "sign", "digit", "line")
#: Letters that names bring into any text, and the chance of one.
_WESTERN = frozenset("áàâäãåçéèêëíîïñóôöõøúüß")
_WESTERN_NAME = -6.5
#: An opening mark that closes, or the other way round.
_TURNED = -7.0

_MARKS = frozenset("\xa0«»‹›“”„‘’‚–—…•·°§©®™€£¿¡¨´²³½¼×±µªº№‰†‡\u200c،؛؟־׳״฿\u0640")
_OPENING, _CLOSING = frozenset("“„‘¿¡"), frozenset("’”ªº")
_HIGH = re.compile("[^\x00-\x7f]")
_WORD_OF_ASCII = re.compile(r"(?<!\w)[a-z]+(?!\w)")


def fit(text: str) -> float:
    """The logarithm of the chance of the characters beyond ASCII, in the language that explains them best."""
    common, letters = _counted(text)
    words = set(_WORD_OF_ASCII.findall(text.lower()))
    mixed = len(re.findall("[A-Za-z]", text)) > 3 * sum(letters.values())
    return common + max(
        (_OTHER_SCRIPT if mixed and language in _WHOLE else 0)
        + sum(n * _chance(language, c) for c, n in letters.items())
        + _WORD * min(len(words & _words(language)), _WORDS)
        for language in (*_LATIN, *_WHOLE)
    )


@cache
def _words(language: str) -> frozenset[str]:
    return frozenset(_LATIN[language][1].split()) if language in _LATIN else frozenset()


def _counted(text: str) -> tuple[float, Counter[str]]:
    """What holds for any language, and the small letters of the text."""
    letters: Counter[str] = Counter()
    places: Counter[tuple[str, str, str]] = Counter()
    for match in _HIGH.finditer(text):
        at, char = match.start(), match[0]
        around = text[max(at - 1, 0) : at + 2]
        before = _kind(text[max(at - 1, 0) : at])
        if around == 3 * char and char.isalpha():
            before = "same"
        elif char in "£€¥" and text[max(at - 2, 0) : at].strip().isdigit():
            before = "digit"
        places[before, char, _kind(text[at + 1 : at + 2])] += 1
    common = 0.0
    for (before, char, after), n in places.items():
        if before == "same" or not (char.isalpha() or unicodedata.category(char) == "Mn") or char in "ªºµ":
            common += n * _sign(before, char, after)
            continue
        letters[char if char == "İ" else char.lower()[0]] += n
        if before in _NO_LETTER and after in _NO_LETTER and _is_latin(char) and char.lower() not in _ALONE:
            common += n * _BESIDE
        elif char.isupper():
            capital = _CAPITAL_WITHIN if before in ("small", "ascii small") else _CAPITALS
            common += n * (capital if before not in _NO_LETTER else _CAPITAL)
        if (char.islower() and after == "ascii large") or after == "digit":
            common += n * _BESIDE
        if char in _FINAL and after not in _NO_LETTER:
            common += n * _BESIDE
        if "ascii" in before + after and not _is_latin(char):
            common += n * _BESIDE
    return common, letters


@cache
def _kind(char: str) -> str:
    if not char or not char.isalpha() or char in "ªºµ":
        return "digit" if char.isdigit() else "line" if _is_line(char) else "sign" if char else ""
    return ("ascii " if char.isascii() else "") + ("small" if char.islower() else "large")


def _is_line(char: str) -> bool:
    """Lines and blocks, as DOS drew them."""
    return "\u2500" <= char <= "\u259f"


@cache
def _is_latin(char: str) -> bool:
    return "LATIN" in unicodedata.name(char, "")


def _sign(before: str, char: str, after: str) -> float:
    if before == "same":
        return _WITHIN
    is_after, is_before = before not in _NO_LETTER, after not in _NO_LETTER
    if "line" in (before, after) and _is_line(char):
        return _MARK if char in "─═│║█▓▒░" else _TURNED
    if char in "£€¥$":
        return _MARK if "digit" in (before, after) else _SIGN
    if char == "…" and not (is_after or is_before):
        return _TURNED
    if char == "\u200c" and (not (is_after and is_before) or "ascii" in before + after):
        return _SIGN
    if unicodedata.category(char) == "Cc":
        return _CONTROL
    if char not in _MARKS:
        return _WITHIN if is_after or is_before else _SIGN
    if is_after and is_before:
        return _MARK if char in "’·\u200c\u0640־״׳–—" else _WITHIN
    if (
        (char in "¡¿" and after == "sign")
        or (char in _OPENING and is_after)
        or (char in _CLOSING and is_before)
        or char == "‚"
    ):
        return _TURNED
    return _TYPED if char in "’“”–—…•\xa0" else _MARK


@cache
def _chances(language: str) -> dict[str, float]:
    letters = list(dict.fromkeys(_LATIN[language][0] if language in _LATIN else _WHOLE[language]))
    weights = [1 / (place + 3) for place in range(len(letters))]
    return {letter: log(weight / sum(weights)) for letter, weight in zip(letters, weights, strict=True)}


def _chance(language: str, letter: str) -> float:
    return _chances(language).get(letter, _WESTERN_NAME if letter in _WESTERN and language in _LATIN else _FOREIGN)
