"""Every error that Headwater raises on purpose.

    HeadwaterError
    ├── RetryableError            the same call may succeed later
    │   ├── BrokerUnavailable     no answer from Redis / Valkey
    │   ├── IndexUnavailable      no answer from Qdrant, or the embedded shard is held by another process
    │   ├── DiskFull              too little free space to write safely
    │   ├── SandboxUnavailable    no extraction child can be started
    │   ├── ModelStalled          the embedding model gave no answer in time: the worker starts anew
    │   ├── ModelEndpointError    the language model that answers questions did not
    │   └── ServiceUnavailable    the running service did not answer
    └── PermanentError            the same call will fail again until a person changes something
        ├── SettingsError         a setting has a value that is not allowed
        ├── FolderError           the document folder is missing or not a folder
        ├── FileUnreadable        a file that a command names is not there or cannot be read
        ├── AlreadyRunning        another process holds this state directory
        ├── ModelError            the embedding model cannot be loaded or gave unusable vectors
        ├── IndexMismatch         the index was made with another model or schema
        ├── MessageError          a message on the wire does not have the agreed form
        └── QueryError            a search asks for something that does not exist

The message of each is one sentence for a person: what, where, and what to do.
"""

__all__ = [
    "AlreadyRunning",
    "BrokerUnavailable",
    "DiskFull",
    "FileUnreadable",
    "FolderError",
    "HeadwaterError",
    "IndexMismatch",
    "IndexUnavailable",
    "MessageError",
    "ModelEndpointError",
    "ModelError",
    "ModelStalled",
    "PermanentError",
    "QueryError",
    "RetryableError",
    "SandboxUnavailable",
    "ServiceUnavailable",
    "SettingsError",
]


class HeadwaterError(Exception):
    """Base of all errors raised on purpose."""

    #: exit status of a command that ends with this error (EX_SOFTWARE of sysexits.h)
    exit_code = 70


class RetryableError(HeadwaterError):
    """The same call may succeed later."""

    exit_code = 75  # EX_TEMPFAIL


class PermanentError(HeadwaterError):
    """The same call will fail again until a person changes something."""

    exit_code = 78  # EX_CONFIG


class BrokerUnavailable(RetryableError):
    """No answer from Redis / Valkey."""


class IndexUnavailable(RetryableError):
    """No answer from Qdrant, or another process holds the embedded shard."""


class DiskFull(RetryableError):
    """Too little free space to write safely."""

    exit_code = 74  # EX_IOERR


class SandboxUnavailable(RetryableError):
    """No extraction child can be started."""


class ModelStalled(RetryableError):
    """The embedding model gave no answer in time: the worker starts anew. ``texts`` are those that it had at the time;
    one of them may be the cause."""

    def __init__(self, message: str, texts: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.texts = texts


class ModelEndpointError(RetryableError):
    """The language model that answers questions did not answer as it should."""


class ServiceUnavailable(RetryableError):
    """The running service did not answer."""


class SettingsError(PermanentError):
    """A setting has a value that is not allowed."""


class FolderError(PermanentError):
    """The document folder is missing or not a folder."""


class FileUnreadable(PermanentError):
    """A file that a command names is not there or cannot be read."""


class AlreadyRunning(PermanentError):
    """Another process holds this state directory."""


class ModelError(PermanentError):
    """The embedding model cannot be loaded or gave unusable vectors."""


class IndexMismatch(PermanentError):
    """The index was made with another model or schema."""


class MessageError(PermanentError):
    """A message on the wire does not have the agreed form."""


class QueryError(PermanentError):
    """A search asks for something that does not exist."""

    exit_code = 64  # EX_USAGE
