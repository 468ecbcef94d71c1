"""What the elements of document vocabularies are in the terms of HTML.

JATS, DocBook, TEI, DITA, FictionBook, feeds, patents, OPML, translation memories, KML, XBRL, OpenDocument in one file
and the XML of Office 2003. Names are in lower case and without prefixes.
"""

from __future__ import annotations

__all__ = [
    "CAPTIONED",
    "DATA",
    "DOCUMENTS",
    "OFFICE",
    "PROPERTIES",
    "TIGHT",
    "TITLES",
    "WITH_HTML",
    "is_structure",
    "role",
    "skipped",
]


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


#: Root elements that only documents have.
DOCUMENTS = _names(
    "fictionbook rss rdf feed opml tei tei.2 teicorpus worddocument workbook package xliff tmx xbrl "
    "document document-content patdoc patent-application-publication us-patent-application us-patent-grant "
    "kml bookmap concept glossentry refentry nitf newsml usx osis html"
)
#: Root elements that only data has, prose or not.
DATA = _names(
    "schema stylesheet transform definitions project plist beans configuration manifest resources grammar "
    "types mock assembly component svg"
)
#: Roots below which text that is itself HTML, in references or CDATA, is read as such.
WITH_HTML = _names("rss rdf feed kml xbrl opml")
#: Roots whose text stands only in elements made for it.
OFFICE = _names("worddocument package")
#: Document titles: the heading above all others.
TITLES = _names("article-title book-title invention-title title-of-invention b540 booktitle maintitle doctitle")
#: Titles of these are captions, lines of their own.
CAPTIONED = _names("caption fig figure table-wrap table informaltable note legend mediaobject formalpara")
#: Blocks of document properties.
PROPERTIES = _names("documentproperties customdocumentproperties coreproperties meta")
#: Parts of a line that need no space around them.
TIGHT = _names(
    "b i u em strong italic bold emphasis sub sup subscript superscript sc hi a xref ext-link link ulink span t r "
    "pdat hil sb sp stext fgref clref figref highlight cross-reference claim-ref dependent-claim-reference "
    "inlinegraphic hlink fldsimple styled-content named-content underline monospace ph code s ins del hyperlink "
    "deltext mi mn mo mtext mrow msub msup mstyle data"
)

_ROLES = {
    name: role
    for role, names in {
        "p": "p para simpara ptext contrib aff corresp ref bibl biblioentry bibliomixed kwd-group keywords publisher "
        "pub-date date person author editor translator inventor applicant us-applicant assignee agent name persname "
        "citation mixed-citation element-citation nlm-citation glossterm lg stanza seg source target subj-group "
        "claim-text claim clm clmstep text-author attribution document-id",
        "h": "title heading head h bridgehead titleabbrev",
        "tr": "tr row strow table-row",
        "td": "td th entry entrytbl stentry cell tc table-cell covered-table-cell",
        "table": "table tbl informaltable simpletable",
        "ul": "list itemizedlist orderedlist ul ol sl steps steps-unordered procedure simplelist",
        "li": "li listitem list-item sli step member",
        "pre": "programlisting screen codeblock literallayout pre preformat eg source-code",
        "note": "fn footnote endnote note annotation comment",
        "br": "br break lb linebreak line-break empty-line",
    }.items()
    for name in names.split()
}
#: Where a root gives a name another meaning.
_ROLES_BELOW = {("kml", "name"): "h", ("feed", "entry"): "", ("rss", "source"): "", ("opml", "outline"): "li"}

#: Elements without words for readers, below any root and below one.
_SKIPPED = _names(
    "binary bindata binary-data binarydata stylesheet styles automatic-styles font-face-decls settings tex-math "
    "annotation-xml instrtext object-id article-id journal-id contrib-id pub-id institution-id counts math-us "
    "emi sequence-decls event-listeners binobjs"
)
_SKIPPED_BELOW = {
    "xbrl": _names("context unit schemaref linkbaseref"),
    "kml": _names("coordinates style stylemap lookat camera region styleurl"),
    "package": _names("del movefrom pict"),
    "worddocument": _names("fonts lists docsuppdata docoletext shapedefaults docpr docpr wordfieldcodes"),
    "workbook": _names("officedocumentsettings excelworkbook worksheetoptions names conditionalformatting"),
    "article": _names("role"),
    "rss": _names("skipdays skiphours"),
}


def role(root: str, name: str) -> str:
    """The element of HTML that it is, "h" for a heading, "note" for one at its reference; "" for any other."""
    below = _ROLES_BELOW.get((root, name))
    if below is not None:
        return below
    return "h" if name in TITLES else _ROLES.get(name, "")


def is_structure(root: str, name: str) -> bool:
    """Whether it makes more than one line of the element that it stands in."""
    return name in ("p", "para") or role(root, name) not in ("", "p", "br", "note")


def skipped(root: str, name: str) -> bool:
    return name in _SKIPPED or name in _SKIPPED_BELOW.get(root, ())
