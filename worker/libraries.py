"""Which libraries read which kinds of documents; all other kinds are read by Headwater itself (docs/formats.md)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["LIBRARIES", "library_of"]

#: kind -> names of distributions, the one that reads the text first
LIBRARIES: dict[str, tuple[str, ...]] = {
    "pdf": ("kreuzberg", "pypdf"),
    **dict.fromkeys(("docx", "pptx", "xlsx", "ipynb", "image"), ("kreuzberg",)),
    **dict.fromkeys(("doc", "hwp", "msg", "ole", "ppt", "xls"), ("olefile",)),
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
