"""Which libraries read which kinds of documents; all other kinds are read by Headwater itself."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["LIBRARIES", "library_of"]

#: kind -> names of distributions
LIBRARIES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("pdf", "rtf", "docx", "pptx", "xlsx", "epub", "ipynb"), ("kreuzberg",)),
    **dict.fromkeys(("doc", "ppt", "xls"), ("olefile", "kreuzberg")),  # the second for what the first cannot read
    "ole": ("olefile",),
    "7z": ("py7zr",),
}


def library_of(kind: str) -> str:
    """For people: ``kreuzberg 4.10.4``, or ``headwater``."""
    return ", ".join(map(_with_version, LIBRARIES.get(kind, ("headwater",))))


def _with_version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name
