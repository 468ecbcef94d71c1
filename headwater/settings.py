"""One frozen object with every setting; the only reader of the environment and of ``headwater.toml``.

Precedence: flag > environment > ``.env`` > ``headwater.toml`` > default. ``QDRANT_URL``, ``QDRANT_API_KEY`` and
``CELERY_BROKER_URL`` keep the names that people know; every other setting ``x`` is ``HEADWATER_X``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as SourceError

from headwater.document import PIPELINE_VERSION
from headwater.errors import FolderError, SettingsError

__all__ = ["READERS", "Settings", "generation_name", "shown_url"]

#: entry points of readers for more kinds of documents (docs/plugins.md)
READERS = "headwater.readers"

#: settings whose environment names people know from elsewhere
_KNOWN_NAMES = {
    "broker_url": "CELERY_BROKER_URL",
    "qdrant_url": "QDRANT_URL",
    "qdrant_api_key": "QDRANT_API_KEY",
    "otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
}
_TOML = "headwater.toml"
#: of Tesseract, as "eng+deu"; and how many characters of them
_LANGUAGES = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\+[A-Za-z][A-Za-z0-9_]*)*")
_MOST_LANGUAGES = 200
#: the name of one folder among several
_SOURCE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
#: an empty text in the environment
_EMPTY = '""'


class Settings(BaseSettings):
    """All settings. Frozen: a process reads them once; a change needs a restart."""

    model_config = SettingsConfigDict(
        env_prefix="HEADWATER_",
        env_file=".env",
        toml_file=_TOML,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
    )

    #: folder of documents to follow
    folder: Path | None = None
    #: ledger, broker and index live here; default: one directory per folder below the user's state home
    state_dir: Path | None = None
    #: Redis or Valkey; unset: an embedded Valkey on a Unix socket in the state directory
    broker_url: str | None = Field(default=None, validation_alias=_KNOWN_NAMES["broker_url"])
    #: of a broker by rediss:// (or by sentinel://): the certificate authority to trust instead of the system's, and the
    #: certificate and key that this client shows, as PEM files
    broker_ca_file: Path | None = None
    broker_cert_file: Path | None = None
    broker_key_file: Path | None = None
    #: of a broker by sentinel://HOST:PORT;sentinel://HOST:PORT: the name of the master, and the Sentinels' own password
    broker_master: str | None = None
    broker_sentinel_password: str | None = Field(default=None, repr=False)
    #: seconds without an answer of the broker after which a command is given up (reads of events wait two)
    broker_timeout_s: float = Field(default=5.0, ge=3)
    #: Qdrant server or cluster; unset: the embedded Qdrant Edge engine
    qdrant_url: str | None = Field(default=None, validation_alias=_KNOWN_NAMES["qdrant_url"])
    qdrant_api_key: str | None = Field(default=None, validation_alias=_KNOWN_NAMES["qdrant_api_key"], repr=False)
    #: certificate authority to trust instead of the system's, as a PEM file
    qdrant_ca_file: Path | None = None
    #: seconds without an answer after which a request is given up; one that may pass is tried again, three times in all
    qdrant_timeout_s: float = Field(default=30.0, gt=0)
    #: the same for what a question asks, which is not tried again then
    qdrant_search_timeout_s: float = Field(default=5.0, gt=0)
    #: how often the producer has a worker compare the number and newest of the points on a server with its ledger
    index_check_s: float = Field(default=60.0, ge=1)
    #: of a collection that is made on a cluster: parts, copies of each, and copies that must have a write
    qdrant_shards: int | None = Field(default=None, ge=1)
    qdrant_replicas: int | None = Field(default=None, ge=1)
    qdrant_write_consistency: int | None = Field(default=None, ge=1)
    #: order of writes among the copies: with "strong" all of them go through the leader of their shard
    qdrant_write_ordering: Literal["weak", "medium", "strong"] = "strong"
    #: copies that must agree on an answer: a number, or majority, quorum, all; unset: one
    qdrant_read_consistency: int | Literal["majority", "quorum", "all"] | None = None
    #: collection on the server, and prefix of queue names
    collection: str = Field(default="headwater", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    #: name of the folder, where several share a collection: the paths of its documents begin with it
    source: str = ""
    #: folders of such a collection as this machine sees them, by name, for a worker or a query API: {"NAME": "PATH"}
    sources: dict[str, Path] = {}

    #: which index of the state directory or collection is meant (docs/reindex.md); unset: the current one
    generation: int | None = Field(default=None, ge=1)
    #: an index that a reindex or rollback has left is kept so long for the way back
    keep_generation_s: float = Field(default=7 * 24 * 3600.0, ge=0)
    #: how often processes on many hosts look which index is the current one
    alias_poll_s: float = Field(default=5.0, ge=0.1)

    #: sentence-transformers model, by name or path
    model: str = Field(default="all-MiniLM-L6-v2", min_length=1)
    #: worker with an API ('work --serve') that embeds the questions of a query server, which then needs no torch
    embed_url: str | None = Field(default=None, pattern=r"^https?://[^/]+/?$")
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    #: first dimensions of the vector to keep (Matryoshka models); unset: all
    truncate_dim: int | None = Field(default=None, ge=8, le=65536)
    #: texts put before each document chunk / query; unset: the model's own prompts
    document_prompt: str | None = None
    query_prompt: str | None = None
    #: upper bound of a chunk in tokens; the model's own window bounds it as well
    chunk_tokens: int = Field(default=250, ge=16, le=32768)
    #: whether the model reads the headings above a chunk together with its text (docs/choosing-a-model.md)
    heading_context: bool = False

    #: ISO 639-1 language of all documents, for stemmer and stop words; auto: told for each by its text
    language: str = Field(default="auto", pattern=r"^(auto|[a-z]{2})$")

    #: languages in which words in pictures and scans are read, by their names in Tesseract: "eng", "eng+deu"; off: none
    ocr: str = "off"

    #: globs (gitignore syntax): if any is given, only matching files are indexed / matching files never are
    include: Annotated[tuple[str, ...], NoDecode] = ()
    exclude: Annotated[tuple[str, ...], NoDecode] = ()
    #: larger files are refused
    max_file_bytes: int = Field(default=64 * 1024 * 1024, ge=1)

    #: a path is settled after this long without an event, and never waits longer than the maximum
    debounce_ms: int = Field(default=40, ge=0, le=60_000)
    debounce_max_ms: int = Field(default=1000, ge=0, le=600_000)
    #: full scan at least this often
    rescan_s: float = Field(default=300.0, ge=1)
    #: a file is made and removed in the folder this often, to see that its watch answers; 0: never
    heartbeat_s: float = Field(default=60.0, ge=0)
    #: deletions of more than this share of the documents at once (and of 100 at least) are held; 1: never
    deletion_share: float = Field(default=0.5, gt=0, le=1)
    #: a hint without an outcome is sent again after this long
    lease_s: float = Field(default=300.0, ge=1)
    #: tries of one content before its document is marked failed
    attempts: int = Field(default=3, ge=1, le=100)
    #: bulk hints on their way at once, below ``concurrency`` so that live edits always find a free thread
    bulk_window: int = Field(default=16, ge=1, le=100_000)

    #: whether workers tell each task to who listens, and obey Celery's remote control: for Flower
    celery_events: bool = False
    #: tasks at work at once in one worker (threads)
    concurrency: int = Field(default=20, ge=2, le=512)
    #: most tokens, padding included, in one batch of the model
    batch_tokens: int = Field(default=8192, ge=256)
    #: a pass of the model that takes longer is given up, and the worker starts anew
    embed_timeout_s: float = Field(default=120.0, gt=0)
    #: extraction processes; 0: one per core
    sandboxes: int = Field(default=0, ge=0, le=256)
    extract_timeout_s: float = Field(default=60.0, gt=0)
    sandbox_memory_bytes: int = Field(default=2 * 1024**3, ge=256 * 1024**2)
    #: files within files (archives, attachments) are read to this depth; 0: not at all
    archive_depth: int = Field(default=8, ge=0, le=16)
    #: most files that are read within one document, and most bytes that they may unpack to
    archive_members: int = Field(default=10_000, ge=1, le=100_000)
    archive_bytes: int = Field(default=1024**3, ge=1)
    #: passwords to try on encrypted documents, one in a line, in a file that nobody else may read
    password_file: Path | None = None
    #: writing stops when the state directory's file system has less free space than this
    min_free_bytes: int = Field(default=128 * 1024**2, ge=0)
    #: the embedded index is compacted when so many of its points, and a quarter of all, are dead
    compaction_points: int = Field(default=1000, ge=1)

    #: vectors of texts that have left the embedded index are kept so long, and at most 50,000 of them; 0: not at all
    keep_s: float = Field(default=7 * 24 * 3600.0, ge=0)

    #: address of the query API; port 0 takes any free one
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    #: host names that callers may use besides the loopback ones (for an API behind a proxy)
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    #: lines for people, or one JSON object per line
    log_format: Literal["text", "json"] = "text"
    #: each part tells Prometheus metrics here; 0: only the query API does (GET /metrics)
    metrics_port: int = Field(default=0, ge=0, le=65535)
    metrics_host: str = "127.0.0.1"
    #: OpenTelemetry collector that gets traces (extra ``otel``), over HTTP; unset: none are made
    otlp_endpoint: str | None = Field(default=None, validation_alias=_KNOWN_NAMES["otlp_endpoint"])

    #: how a hybrid search joins its halves (docs/search.md): by scaled scores, or by weighted rank
    fusion: Literal["rrf", "dbsf"] = "dbsf"
    #: of a fusion by rank only
    rank_constant: int = Field(default=60, ge=1, le=1000)
    dense_weight: float = Field(default=1.0, gt=0, le=100)
    sparse_weight: float = Field(default=1.0, gt=0, le=100)
    #: what a search of a large index looks through first, in memory, before the true vectors are compared: a copy of
    #: each vector in a quarter (int8) or a 32nd (binary) of its size
    quantization: Literal["none", "int8", "binary"] = "none"
    #: cross-encoder that ranks the candidates of a search, by name or path; unset: none does
    reranker: str | None = None
    #: most tokens of question and chunks together that it reads for one search
    rerank_tokens: int = Field(default=16_384, ge=128)

    #: endpoint of a language model for 'headwater ask' (OpenAI's chat completions), its model and key
    llm_url: str | None = None
    llm_model: str | None = None
    llm_api_key: str | None = Field(default=None, repr=False)
    #: seconds without a word from it after which it is given up
    llm_timeout_s: float = Field(default=60.0, gt=0)

    @field_validator("include", "exclude", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """A list may come as JSON or as comma-separated text from the environment."""
        if not isinstance(value, str):
            return value
        text = value.strip()
        return json.loads(text) if text.startswith("[") else tuple(p.strip() for p in text.split(",") if p.strip())

    @field_validator("document_prompt", "query_prompt", "source", mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        """An empty variable counts as not set, so an empty text is written as two quotes in the environment."""
        return "" if value == _EMPTY else value

    @field_validator(
        "folder", "state_dir", "password_file",
        "broker_ca_file", "broker_cert_file", "broker_key_file", "qdrant_ca_file",
        mode="after",
    )  # fmt: skip
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else Path(os.path.realpath(value.expanduser()))

    @field_validator("source", mode="after")
    @classmethod
    def _own_name(cls, value: str) -> str:
        return _folder_name(value) if value else value

    @field_validator("sources", mode="after")
    @classmethod
    def _named(cls, value: dict[str, Path]) -> dict[str, Path]:
        return {_folder_name(name): Path(os.path.realpath(path.expanduser())) for name, path in value.items()}

    @field_validator("rank_constant", "dense_weight", "sparse_weight", mode="after")
    @classmethod
    def _of_ranks(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("fusion") == "dbsf" and value != cls.model_fields[str(info.field_name)].default:
            raise ValueError("a fusion by scaled scores has none; with it belongs HEADWATER_FUSION=rrf")
        return value

    @field_validator("ocr", mode="after")
    @classmethod
    def _languages(cls, value: str) -> str:
        if _LANGUAGES.fullmatch(value) and len(value) <= _MOST_LANGUAGES:
            return value
        raise ValueError("allowed are off, and languages by Tesseract's names, such as eng or eng+deu")

    @field_validator("device", mode="after")
    @classmethod
    def _device(cls, value: str) -> str:
        if value in ("auto", "cpu", "mps") or value == "cuda" or value.startswith("cuda:"):
            return value
        raise ValueError("allowed are auto, cpu, mps, cuda and cuda:N")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls)
        return (init_settings, env_settings, dotenv_settings, toml)

    @classmethod
    def load(cls, **flags: Any) -> Settings:
        """Read all sources, and of an index that was moved to other settings those (docs/reindex.md). A flag that is
        None counts as not given.

        Raises SettingsError with one sentence that names the setting, its value and what is allowed.
        """
        from headwater.generations import as_pinned

        return as_pinned(cls.read(**flags))

    @classmethod
    def read(cls, **flags: Any) -> Settings:
        """As ``load``, as if no index were there."""
        given = {name: value for name, value in flags.items() if value is not None}
        _refuse_unknown(cls, given)
        try:
            return cls(**given)
        except ValidationError as error:
            raise SettingsError(_sentence(error)) from None
        except (SourceError, ValueError, OSError) as error:
            raise SettingsError(f"the settings in {_TOML}, .env or the environment cannot be read: {error}") from None

    def folders(self) -> dict[str, Path]:
        """The folders that this machine sees, by their names in the collection."""
        own = {} if self.folder is None else {self.source: self.folder}
        return {**self.sources, **own}

    def required_folder(self) -> Path:
        """The folder, checked to be there. Raises FolderError."""
        if self.folder is None:
            raise FolderError("no folder is given: name one, as in 'headwater up FOLDER', or set HEADWATER_FOLDER")
        if not self.folder.exists():
            raise FolderError(f"the folder {self.folder} does not exist: make it or name another")
        if not self.folder.is_dir():
            raise FolderError(f"{self.folder} is not a folder: name the folder that holds the documents")
        return self.folder

    def pipeline_fingerprint(self) -> str:
        """What, besides a document's bytes, its chunks depend on. A change makes every document due again."""
        return _digest(tuple(self._pipeline().values()))

    def pipeline_parts(self) -> dict[str, str]:
        """What ``pipeline_fingerprint`` depends on, by name: for people, without secrets."""
        parts = self._pipeline()
        parts["passwords"] = _digest((parts["passwords"],)) if self.password_file else None
        return {name: json.dumps(value) for name, value in parts.items()}

    def _pipeline(self) -> dict[str, object]:
        return {
            "version of reading": PIPELINE_VERSION,
            "model": self.model,
            "chunk_tokens": self.chunk_tokens,
            "truncate_dim": self.truncate_dim,
            "document_prompt": self.document_prompt,
            **self._reading(),
        }

    def cutting_fingerprint(self, tokenizer_json: str, window: int) -> str:
        """What, besides a document's bytes, the texts and places of its chunks depend on: with the same one, another
        model's chunks are the same."""
        parts = (
            PIPELINE_VERSION,
            min(self.chunk_tokens, window),
            hashlib.sha256(tokenizer_json.encode()).hexdigest(),
            *self._reading().values(),
        )
        return _digest(parts)

    def _reading(self) -> dict[str, object]:
        """What, besides its bytes, is read in a document depends on."""
        return {
            "language": self.language,
            "heading_context": self.heading_context,
            "max_file_bytes": self.max_file_bytes,
            "archives (depth, members, bytes)": (self.archive_depth, self.archive_members, self.archive_bytes),
            "passwords": _scrambled(self.passwords()),
            "plug-ins": _readers(),
            "ocr": self.ocr,
        }

    @property
    def prefix(self) -> str:
        """Of the names of queues and event stream: each generation has its own."""
        return generation_name(self.collection, self.generation or 1)

    def passwords(self) -> tuple[str, ...]:
        """Those of the password file, in its order. Raises SettingsError if it cannot be read, or others may."""
        if self.password_file is None:
            return ()
        where = f"the file of passwords {self.password_file}"
        try:
            if self.password_file.stat().st_mode & 0o077:
                raise SettingsError(f"{where} may be read by others: run 'chmod 600' on it")
            lines = self.password_file.read_text("utf-8").splitlines()
        except OSError as error:
            raise SettingsError(f"{where} cannot be read ({error.strerror}): mend HEADWATER_PASSWORD_FILE") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{where} is no text in UTF-8: write one password in a line") from None
        return tuple(dict.fromkeys(line for line in lines if line))

    def to_environment(self) -> dict[str, str]:
        """All settings that have a value, as environment variables for a child process."""
        given = self.model_dump(mode="json", exclude_none=True)
        return {
            _KNOWN_NAMES.get(name, f"HEADWATER_{name.upper()}"): (value or _EMPTY)
            if isinstance(value, str)
            else json.dumps(value)
            for name, value in given.items()
        }


def shown_url(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@", 1)


def generation_name(name: str, generation: int) -> str:
    """What belongs to the first generation has the bare name."""
    return name if generation == 1 else f"{name}.g{generation}"


def _folder_name(text: str) -> str:
    if _SOURCE.fullmatch(text):
        return text
    raise ValueError(f"{text!r} is no name of a folder: use up to 64 letters, digits, dashes, underscores and dots")


def _digest(parts: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _readers() -> list[tuple[str, str, str]]:
    """The readers that other packages register: media type, function, version of the package."""
    points = entry_points(group=READERS)
    return sorted((point.name, point.value, point.dist.version if point.dist else "") for point in points)


def _scrambled(passwords: tuple[str, ...]) -> str:
    """What changes when they do, and is too slow to try passwords on: it gets into the index."""
    if not passwords:
        return ""
    return hashlib.scrypt("\n".join(passwords).encode(), salt=b"headwater passwords", n=2**14, r=8, p=1).hex()


def _refuse_unknown(cls: type[Settings], flags: dict[str, Any]) -> None:
    """``headwater.toml`` and flags may hold known names only: a typing error must not pass for a default."""
    path = Path(_TOML)
    names = set(flags)
    if path.exists():
        import tomllib

        try:
            names |= set(tomllib.loads(path.read_text("utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"{path.resolve()} cannot be read: {error}") from None
    unknown = sorted(names - set(cls.model_fields))
    if unknown:
        raise SettingsError(
            f"{', '.join(unknown)} in {path} is no setting of Headwater: 'headwater config show' lists them all"
        )


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "a setting"
    field = next((f for f, known in _KNOWN_NAMES.items() if known == name), name)
    shown = _KNOWN_NAMES.get(field, f"HEADWATER_{field.upper()}")
    value = "***" if "key" in field else repr(first.get("input"))
    allowed = first["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
    return f"the setting {shown} (flag, environment, .env or {_TOML}) has the value {value}: {allowed}"
