"""Endings of file names by media type. Python's `mimetypes` reads the machine's own tables: names would differ from one
to the next. Pure: no I/O."""

from __future__ import annotations

__all__ = ["ending_of"]

#: of what is attached and saved most
_ENDINGS = {
    "application/gzip": ".gz", "application/json": ".json", "application/msword": ".doc", "application/pdf": ".pdf",
    "application/rtf": ".rtf", "application/vnd.ms-excel": ".xls", "application/vnd.ms-powerpoint": ".ppt",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods", "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/xhtml+xml": ".xhtml", "application/xml": ".xml", "application/zip": ".zip", "audio/basic": ".au",
    "audio/mpeg": ".mp3", "audio/x-wav": ".wav", "image/bmp": ".bmp", "image/gif": ".gif", "image/jpeg": ".jpg",
    "image/png": ".png", "image/svg+xml": ".svg", "image/tiff": ".tiff", "message/rfc822": ".eml", "text/css": ".css",
    "text/csv": ".csv", "text/calendar": ".ics", "text/html": ".html", "text/javascript": ".js", "text/markdown": ".md",
    "text/plain": ".txt", "text/richtext": ".rtx", "text/rtf": ".rtf", "text/tab-separated-values": ".tsv",
    "text/vcard": ".vcf", "text/x-vcard": ".vcf", "text/xml": ".xml", "video/mp4": ".mp4", "video/mpeg": ".mpeg",
}  # fmt: skip


def ending_of(mime: str) -> str | None:
    """With its dot; None for a media type that is not here."""
    return _ENDINGS.get(mime.lower())
