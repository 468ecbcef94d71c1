"""Archives: what is in them, one file after the other, and none unpacked further than it is asked for."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any, cast

from worker.extracted import Extracted, Input, Member, Refused

__all__ = ["read_7z", "read_compressed", "read_tar", "read_zip"]

#: what the standard library's unpackers raise on damaged data
_BROKEN = (
    EOFError, OSError, ValueError, IndexError, KeyError, NotImplementedError, OverflowError, UnicodeError,
    lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_DAMAGED = "damaged in the archive"
_ENCRYPTED = "protected by a password"
_TOO_MUCH = "it unpacks to more than is allowed"
#: bytes of a block of a tar archive; the first tells that it is one, and what breaks off is read block by block
_BLOCK = 512
#: most bytes that are unpacked to look for the files of a compressed archive of several
_MOST_BYTES = 1024 * 1024 * 1024
#: of a 7z archive, whose files are all in memory at once
_MOST_7Z_BYTES = 256 * 1024 * 1024
_SUFFIXES = (".gz", ".bz2", ".xz", ".lzma")
_SHORT_SUFFIXES = {".tgz": ".tar", ".tbz2": ".tar", ".txz": ".tar", ".svgz": ".svg", ".emz": ".emf", ".adz": ".adf"}


def read_zip(found: Input) -> Extracted:
    """Each file in a ZIP; encrypted ones with the passwords that are given, if their encryption is the classic one."""
    archive = zipfile.ZipFile(io.BytesIO(found.data))
    return Extracted(found.kind, "", own_lines=False, members=_zip_members(archive, found.passwords))


def _zip_members(archive: zipfile.ZipFile, passwords: Sequence[str]) -> Iterator[Member]:
    with archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield Member(_zip_name(info), _zip_reader(archive, info, passwords))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Names that are not marked as UTF-8 often are, or are those of an old DOS."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _zip_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo, passwords: Sequence[str]) -> Callable[[int], bytes]:
    def read(most: int) -> bytes:
        if not info.flag_bits & 1:
            return _guarded(lambda: archive.open(info), most)
        for password in passwords:
            try:
                return _guarded(partial(archive.open, info, pwd=password.encode()), most)
            except Refused:
                continue  # the wrong one, which may also seem to be damage
        raise Refused("encrypted", _ENCRYPTED)

    return read


def _guarded(opened: Callable[[], IO[bytes]], most: int) -> bytes:
    try:
        with opened() as file:
            return file.read(most)
    except RuntimeError as error:  # a wrong password; NotImplementedError is another method of packing
        if isinstance(error, NotImplementedError):
            raise Refused("unsupported", "packed by a method that is not read") from error
        raise Refused("encrypted", _ENCRYPTED) from error
    except _BROKEN as error:
        raise Refused("damaged", _DAMAGED) from error


def read_tar(found: Input) -> Extracted:
    """Each regular file in a tar archive; links and devices have no content of their own."""
    return Extracted(found.kind, "", own_lines=False, members=_tar_members(io.BytesIO(found.data), "r:"))


def _tar_members(file: IO[bytes], mode: str) -> Iterator[Member]:
    """What stands before damage is given; then the damage is a member that cannot be read."""
    try:
        with tarfile.open(fileobj=file, mode=cast(Any, mode), bufsize=_BLOCK) as archive:
            for info in archive:
                if info.isreg():
                    yield Member(info.name, _tar_reader(archive, info))
    except Refused as refused:
        yield Member("the rest", _refusing(refused))
    except _BROKEN:
        yield Member("the rest", _refusing(Refused("damaged", _DAMAGED)))


def _tar_reader(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[int], bytes]:
    def opened() -> IO[bytes]:
        file = archive.extractfile(info)
        assert file is not None, "a regular file has content"
        return file

    return lambda most: _guarded(opened, most)


def _refusing(refused: Refused) -> Callable[[int], bytes]:
    def read(most: int) -> bytes:
        raise refused

    return read


def read_compressed(found: Input) -> Extracted:
    """A compressed file (gzip, bzip2, xz) holds one document, or a tar archive, and then its files."""
    unpack = _unpacker(found.data)
    if _is_tar(unpack):
        members = _tar_members(cast(IO[bytes], _Bounded(unpack())), "r|")
        return Extracted("tar", "", own_lines=False, members=members)
    return Extracted(found.kind, "", own_lines=False, members=(Member(_inner_name(found.name), _reader(unpack)),))


def _unpacker(data: bytes) -> Callable[[], IO[bytes]]:
    if data.startswith(b"\x1f\x8b"):
        return lambda: cast(IO[bytes], gzip.GzipFile(fileobj=io.BytesIO(data)))
    module: Any = bz2.BZ2File if data.startswith(b"BZh") else lzma.LZMAFile
    return lambda: cast(IO[bytes], module(io.BytesIO(data)))


def _reader(unpack: Callable[[], IO[bytes]]) -> Callable[[int], bytes]:
    return lambda most: _guarded(unpack, most)


def _is_tar(unpack: Callable[[], IO[bytes]]) -> bool:
    try:
        with closing(unpack()) as file:
            return file.read(_BLOCK)[257:262] == b"ustar"
    except _BROKEN:
        return False  # what is damaged is told when it is read


def _inner_name(name: str) -> str:
    """``notes.txt.gz`` holds ``notes.txt``."""
    base = PurePosixPath(name.replace("\\", "/")).name
    stem, dot, suffix = base.rpartition(".")
    ending = f"{dot}{suffix}".lower()
    if stem and ending in _SHORT_SUFFIXES:
        return stem + _SHORT_SUFFIXES[ending]
    return stem if stem and ending in _SUFFIXES else "content"


class _Bounded(io.RawIOBase):
    """A stream that ends with a refusal when more comes out of it than may: to pass over a file takes its unpacking."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = _MOST_BYTES

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Refused("too large", _TOO_MUCH)
        return data


def read_7z(found: Input) -> Extracted:
    """Each file in a 7z archive, with the passwords that are given if it is encrypted. Needs the extra ``archives``."""
    try:
        import py7zr
    except ImportError:
        raise Refused("unsupported", "a 7z archive: the extra 'archives' (py7zr) reads it, and is not here") from None
    secrets = [None, *found.passwords]
    for secret in secrets:
        try:
            return Extracted(found.kind, "", own_lines=False, members=_unpacked_7z(found.data, secret))
        except py7zr.exceptions.UnsupportedCompressionMethodError as error:
            raise Refused("unsupported", "packed by a method that is not read") from error
        except py7zr.exceptions.DecompressionBombError as error:
            raise Refused("too large", _TOO_MUCH) from error
        except py7zr.exceptions.PasswordRequired:
            continue
        except MemoryError:
            raise
        except Exception as error:  # damage and a wrong password end in errors of all kinds
            if secret is None:  # with a wrong one, all looks damaged
                raise Refused("damaged", "a damaged 7z archive") from error
    raise Refused("encrypted", _ENCRYPTED)


def _unpacked_7z(data: bytes, secret: str | None) -> tuple[Member, ...]:
    """All files at once, for they may be packed as one."""
    import py7zr

    with py7zr.SevenZipFile(io.BytesIO(data), password=secret, max_extract_size=_MOST_7Z_BYTES) as archive:
        kept = py7zr.io.BytesIOFactory(_MOST_7Z_BYTES)
        archive.extractall(factory=kept)  # noqa: S202  into memory, within a limit
        names = [info.filename for info in archive.list() if info.filename in kept.products]
    return tuple(Member(name, kept.products[name].read) for name in names)
