"""Seeded damage to valid documents: the same seed and document give the same bytes."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable, Mapping

__all__ = ["KINDS", "mutate"]

_BLOCK = 512
_MOST_FLIPS = 40


def mutate(data: bytes, kind: str, other: bytes, chance: random.Random) -> bytes:
    """Damage of one kind; ``other`` is another valid document, to splice in."""
    return KINDS[kind](data, other, chance)


def _flip(data: bytes, other: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, _MOST_FLIPS)):
        out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def _truncate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(1, len(data))]


def _splice(data: bytes, other: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]


def _double(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Blocks again, in places where they do not belong."""
    out = data
    for _ in range(chance.randint(1, 8)):
        start, at = chance.randrange(len(data)), chance.randrange(len(out))
        out = out[:at] + data[start : start + _BLOCK] + out[at:]
    return out


def _zero(data: bytes, other: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes(min(_BLOCK, len(data) - at)) + data[at + _BLOCK :]


def _lengths(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Numbers of the form that says how long something is, made wrong: in ZIP headers, or as digits."""
    out = bytearray(data)
    headers = [at for mark in (b"PK\1\2", b"PK\3\4", b"PK\5\6") for at in _found(data, mark)]
    if headers:
        at = chance.choice(headers) + chance.choice((14, 18, 20, 22, 24, 26, 28, 42))
        out[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)))
        return bytes(out)
    digits = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    for at in chance.sample(digits, min(len(digits), chance.randint(1, 12))):
        out[at] = chance.choice(b"0123456789")
    return bytes(out)


def _found(data: bytes, mark: bytes) -> list[int]:
    places, at = [], data.find(mark)
    while at >= 0:
        places.append(at)
        at = data.find(mark, at + 1)
    return places


def _members(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """The members of a ZIP swapped, doubled, lost or damaged inside, in a sound ZIP; another format is flipped."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, ValueError):
        return _flip(data, other, chance)
    if not members:
        return _flip(data, other, chance)
    first, second = chance.randrange(len(members)), chance.randrange(len(members))
    names, bodies = [name for name, _ in members], [body for _, body in members]
    change = chance.choice(("swap", "lose", "damage", "cut"))
    if change == "swap":
        bodies[first], bodies[second] = bodies[second], bodies[first]
    elif change == "lose":
        bodies[first] = b""
    elif bodies[first]:
        bodies[first] = (_flip if change == "damage" else _truncate)(bodies[first] + b" ", other, chance)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in zip(names, bodies, strict=True):
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), body, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _names(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Words of the markup exchanged for one another, lengths kept."""
    words = (b"<w:", b"<a:", b"</", b"/>", b"obj", b"endobj", b"stream", b"<p", b"<div", b"/Length", b"/Filter", b"&")
    present = [word for word in words if word in data] or [data[:1]]
    old, new = chance.choice(present), chance.choice(words)
    return data.replace(old, new[: len(old)].ljust(len(old), b" "), chance.randint(1, 50))


_Mutation = Callable[[bytes, bytes, random.Random], bytes]
#: name of the damage -> what does it
KINDS: Mapping[str, _Mutation] = {
    "flip": _flip,
    "truncate": _truncate,
    "splice": _splice,
    "double": _double,
    "zero": _zero,
    "lengths": _lengths,
    "members": _members,
    "names": _names,
}
