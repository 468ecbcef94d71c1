"""Office documents behind a password ([MS-OFFCRYPTO]), opened by msoffcrypto-tool with the passwords that are given."""

from __future__ import annotations

import io
from dataclasses import replace

from worker.extracted import Extracted, Input, Refused
from worker.ole import is_oversized

__all__ = ["read_protected"]

#: of the programs' own, with which they encrypt what is only protected from changes
_OWN_PASSWORDS = ("VelvetSweatshop", "/01Hannes Ruescher/01")
#: turns of the hash that make each try slow on purpose; programs use 100,000
_MOST_TURNS = 1_000_000
#: passwords that are tried on one document: each try is slow on purpose
_MOST_TRIES = 100
_ZIP, _OLE = b"PK", b"\xd0\xcf\x11\xe0"


def read_protected(found: Input) -> Extracted:
    """The document as it is without its password."""
    from worker.extract import read  # it names this module, by which it gets here

    tries = () if is_oversized(found.data) else (*_OWN_PASSWORDS, *found.passwords[:_MOST_TRIES])
    plain = _opened(found.data, tries)
    if plain is None:
        raise Refused("encrypted", "protected by a password")
    inner = read(plain, found.name, passwords=found.passwords, ocr=found.ocr, on_part=found.on_part)
    return replace(inner, metadata={**inner.metadata, "protected": True})


def _opened(data: bytes, passwords: tuple[str, ...]) -> bytes | None:
    """The document's bytes by the first password that opens it."""
    import msoffcrypto

    for password in passwords:
        out = io.BytesIO()
        try:
            file = msoffcrypto.OfficeFile(io.BytesIO(data))
            newer = file.format == "ooxml"
            if newer and file.info.get("spinValue", 0) > _MOST_TURNS:
                return None
            file.load_key(password=password, **({"verify_password": True} if newer else {}))  # the older always do
            file.decrypt(out)
        except MemoryError:
            raise
        except Exception:  # noqa: S112  a wrong password ends in errors of all kinds, and so does damage
            continue
        plain = out.getvalue()
        if plain.startswith(_ZIP if newer else _OLE) and plain != data:
            return plain
    return None
