"""Opens the parts of an encrypted OpenDocument package with a password (ODF 1.2 part 3, section 3.4). Pure: no I/O."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence

from worker.extracted import Refused
from worker.odfbody import prefixed
from worker.xmlevents import read_xml

__all__ = ["Manifest"]

#: A key that takes more rounds than this is nobody's: LibreOffice takes 100,000.
_MAX_ROUNDS = 2_000_000
_PIECE_BYTES = 1 << 16


class Manifest:
    """Which parts of a package are encrypted, and how."""

    def __init__(self, source: bytes) -> None:
        #: By path the attributes of all elements below its file-entry.
        self._parts: dict[str, dict[str, str]] = {}
        self._path = ""
        read_xml(source, self, prefixed)

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "manifest:file-entry":
            self._path = attributes.get("manifest:full-path", "")
        elif name == "manifest:encryption-data":
            self._parts[self._path] = dict(attributes)
        elif self._path in self._parts:
            self._parts[self._path] |= attributes

    def end(self, name: str) -> None:
        pass

    def words(self, text: str) -> None:
        pass

    def is_encrypted(self, path: str) -> bool:
        return path in self._parts

    def any_encrypted(self) -> bool:
        return bool(self._parts)

    def decrypted(self, path: str, data: bytes, passwords: Sequence[str]) -> Iterator[bytes]:
        """The bytes of a part, in pieces. Raises `Refused` unless one of the passwords opens it."""
        for password in passwords:
            try:
                plain = _decrypted(data, self._parts[path], password)
            except (ValueError, KeyError) as error:  # a method or a field that the specification does not have
                raise Refused("encrypted", "protected in a way that is not supported") from error
            if plain is not None:
                return _inflated(plain)
        raise Refused("encrypted", "protected by a password")


def _decrypted(data: bytes, how: Mapping[str, str], password: str) -> bytes | None:
    """The compressed bytes, None when the password is wrong."""
    strong = "sha256" in how.get("manifest:start-key-generation-name", "")
    start_key = (hashlib.sha256 if strong else hashlib.sha1)(password.encode()).digest()
    rounds, size = int(how["manifest:iteration-count"]), int(how.get("manifest:key-size", "16"))
    if not 0 < rounds <= _MAX_ROUNDS or size not in (16, 24, 32) or how["manifest:key-derivation-name"] != "PBKDF2":
        raise ValueError("a key that cannot be made")
    key = hashlib.pbkdf2_hmac("sha1", start_key, base64.b64decode(how["manifest:salt"]), rounds, size)
    plain = _decipher(
        data, how["manifest:algorithm-name"], key, base64.b64decode(how["manifest:initialisation-vector"])
    )
    digest = hashlib.sha256 if "sha256" in how["manifest:checksum-type"].lower() else hashlib.sha1
    return plain if digest(plain[:1024]).digest() == base64.b64decode(how["manifest:checksum"]) else None


def _decipher(data: bytes, algorithm: str, key: bytes, vector: bytes) -> bytes:
    from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CBC

    if algorithm.lower().endswith("blowfish cfb"):
        blowfish = Cipher(Blowfish(key), CFB(vector)).decryptor()
        return blowfish.update(data) + blowfish.finalize()
    if not algorithm.endswith("-cbc"):
        raise ValueError("an unknown algorithm")
    aes = Cipher(AES(key), CBC(vector)).decryptor()
    plain = aes.update(data) + aes.finalize()
    return plain[: -plain[-1]] if plain else plain


def _inflated(packed: bytes) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-15)
    while not inflater.eof:
        piece = inflater.decompress(packed, _PIECE_BYTES)
        packed = inflater.unconsumed_tail
        if not piece and not packed:
            return
        yield piece
