"""The words of all parts of an Office document, each part read once, by slide or sheet. Pure: no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from worker import biff12
from worker.drawnwords import Paragraph, PartWords, header_words
from worker.package import MAX_PART_BYTES, Broken, Package, Relation, TooLarge, items
from worker.readings import readings

__all__ = ["Group", "Survey"]

#: Types of relations whose target holds words, and the heading above those words.
_HEADINGS = {
    "officeDocument": "Other text",
    "slide": "",
    "worksheet": "Headers and footers",
    "chartsheet": "Headers and footers",
    "dialogsheet": "Headers and footers",
    "header": "Headers and footers",
    "footer": "Headers and footers",
    "notesSlide": "Notes",
    "footnotes": "Footnotes",
    "endnotes": "Endnotes",
    "drawing": "Text boxes",
    "vmlDrawing": "Text boxes",
    "diagramData": "Diagrams",
    "chart": "Charts",
    "chartEx": "Charts",
    "chartUserShapes": "Charts",
    "comments": "Comments",
    "threadedComment": "Comments",
    "slideLayout": "Slide master",
    "slideMaster": "Slide master",
}
#: Those that name the authors of comments.
_PEOPLE = frozenset(("person", "commentAuthors", "authors"))
#: Those that are only followed to what they refer to.
_FOLLOWED = frozenset(("settings", "webSettings", "externalLink", "externalLinkPath"))
_LISTED = frozenset(("slide", "worksheet", "chartsheet", "dialogsheet", "macrosheet", "xlMacrosheet"))
_MASTERS = frozenset(("slideLayout", "slideMaster"))
_EMBEDDED = frozenset(("oleObject", "package", "aFChunk"))
#: Those whose target the library reads, so that one beyond our limits loses little.
_BODIES = frozenset(("officeDocument", "slide", "worksheet"))
#: Parts that are read of one document.
MAX_PARTS = 20_000
#: Where the main part is when the package does not say.
_MAIN_PARTS = ("word/document.xml", "word/document2.xml", "ppt/presentation.xml", "xl/workbook.xml", "xl/workbook.bin")


@dataclass(slots=True)
class Group:
    """A slide or sheet, or the document as a whole, with the words found in it by heading."""

    name: str = ""
    part: str = ""
    type: str = ""
    sections: dict[str, list[Paragraph]] = field(default_factory=dict)

    def add(self, heading: str, paragraphs: Iterable[Paragraph]) -> None:
        if found := list(paragraphs):
            self.sections.setdefault(heading, []).extend(found)


class Survey:
    """Goes through the package along its relations: what belongs to a slide or sheet comes to its group."""

    def __init__(self, package: Package) -> None:
        self.whole = Group()
        self.groups: list[Group] = []
        #: Parts that are files of their own, in the order in which they are found.
        self.embedded: list[str] = []
        #: Parts that could not be read, or not to their end.
        self.broken = 0
        #: How shared strings of a workbook are pronounced, where it says so.
        self.readings: dict[str, str] = {}
        self._package = package
        self._names = frozenset(package.names())
        self._people: dict[str, str] = {}
        self._seen: set[str] = set()
        self._read()

    def has_words(self) -> bool:
        """Whether there is more than addresses."""
        return any(set(group.sections) - {"Links"} for group in (self.whole, *self.groups))

    def read_strings(self) -> None:
        """The words of the cells, which otherwise are left to the library, without their order."""
        for part in sorted(name for name in self._names if name.endswith("/sharedstrings.xml")):
            with suppress(Broken):
                found = items(b"".join(self._package.steps(part)))
                lines = (" ".join("".join(words for _, words in item.words).split()) for item in found)
                self.whole.add("Other text", (Paragraph(line) for line in lines if line))

    def _read(self) -> None:
        main = self._main()
        relations = self._package.relations(main)
        for relation in relations:
            if relation.type in _PEOPLE and relation.target in self._names:
                self._words(relation.target, relation.type)
            elif relation.type == "sharedStrings" and relation.target.endswith(".xml"):
                self._readings(relation.target)
        listed = self._part(main, "officeDocument", self.whole)
        self._list(listed, relations)
        self._seen.update((main, *(group.part for group in self.groups)))
        for group in self.groups:
            self._part(group.part, group.type, group)
            self._follow(group.part, group.type, group)
        self._follow(main, "officeDocument", self.whole)

    def _main(self) -> str:
        said = (relation.target for relation in self._package.relations() if relation.type == "officeDocument")
        return next((name for name in (*said, *_MAIN_PARTS) if name in self._names), "")

    def _list(self, listed: list[tuple[str, str]], relations: list[Relation]) -> None:
        """The slides or sheets in their order."""
        targets = {relation.id: relation for relation in relations if relation.type in _LISTED}
        for name, relation_id in listed[:MAX_PARTS]:
            if relation := targets.get(relation_id):
                self.groups.append(Group(name, relation.target, relation.type))
        known = {group.part for group in self.groups}
        for relation in relations:
            if relation.type == "slide" and relation.target not in known:  # the library shows such a slide, too
                self.groups.append(Group("", relation.target, relation.type))

    def _follow(self, part: str, kind: str, group: Group) -> None:
        """All that a part refers to, near before far."""
        waiting = deque([(part, kind)])
        while waiting:
            part, kind = waiting.popleft()
            for relation in self._package.relations(part):
                if relation.external:
                    group.add("Links", [Paragraph(relation.target)])
                elif self._is_new(relation, kind):
                    self._seen.add(relation.target)
                    if relation.type in _EMBEDDED:
                        self.embedded.append(relation.target)
                    else:
                        self._part(relation.target, relation.type, group)
                        waiting.append((relation.target, relation.type))

    def _is_new(self, relation: Relation, source: str) -> bool:
        """Whether to read the target. A master refers to all its layouts, also to those that no slide has."""
        if relation.target in self._seen or relation.target not in self._names or len(self._seen) > MAX_PARTS:
            return False
        if relation.type in _LISTED or (source == "slideMaster" and relation.type == "slideLayout"):
            return False
        return relation.type in _HEADINGS or relation.type in _FOLLOWED or relation.type in _EMBEDDED

    def _part(self, part: str, kind: str, group: Group) -> list[tuple[str, str]]:
        """Read one part into a group; what it lists."""
        heading = _HEADINGS.get(kind)
        if heading is None or part not in self._names:
            return []
        if part.endswith(".bin"):
            return self._binary_part(part, kind, group)
        words = self._words(part, kind)
        for paragraph in words.paragraphs:
            boxed = paragraph.boxed and kind == "officeDocument"
            group.add("Text boxes" if boxed else heading, [paragraph])
        group.add("Pictures", map(Paragraph, words.spoken))
        group.add("Links", map(Paragraph, words.links))
        return words.listed

    def _words(self, part: str, kind: str) -> PartWords:
        words = PartWords(self._people, prompts=kind not in _MASTERS)
        try:
            steps = self._package.steps(part)
            whole = words.read(_without_cells(steps) if kind == "worksheet" else steps)
            self.broken += not whole and kind != "vmlDrawing"  # which often is no XML
        except TooLarge:
            self.broken += kind not in _BODIES
        except Broken:
            self.broken += 1
        return words

    def _readings(self, part: str) -> None:
        with suppress(Broken):  # the library says so where it cannot read them
            self.readings = readings(self._package.steps(part))

    def _binary_part(self, part: str, kind: str, group: Group) -> list[tuple[str, str]]:
        try:
            data = self._package.read(part, MAX_PART_BYTES)
        except Broken:
            self.broken += 1
            return []
        if kind == "comments":
            group.add("Comments", (Paragraph(text, author=author) for author, text in biff12.comments(data)))
        elif kind in _LISTED:
            group.add("Headers and footers", (Paragraph(header_words(line)) for line in biff12.header_lines(data)))
        return biff12.sheets(data) if kind == "officeDocument" else []


def _without_cells(steps: Iterable[bytes]) -> Iterable[bytes]:
    """A sheet without its cells, which the library reads: they would take by far the most time."""
    sheet = b"".join(steps)
    start, end = sheet.find(b"<sheetData>"), sheet.rfind(b"</sheetData>")
    return (sheet[:start], sheet[end + 12 :]) if 0 <= start < end else (sheet,)
