"""What an extraction child may not do once a document has come: take more than its share, start a process, reach a
network, signal anyone, open a file outside of its libraries and its home.

Limits are setrlimit(2). Files are Landlock, processes and networks are a seccomp filter and a network namespace: each
needs no privilege and stays away where the kernel lacks it, so none is the only wall. Call it in a process of one
thread: later threads inherit it, others would not have it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["confine", "may_restrict_files", "may_restrict_processes"]

_MOST_FILES = 64
_MOST_FILE_BYTES = 64 * 1024 * 1024


def confine(memory_bytes: int, home: Path, readable: Sequence[str] = ()) -> None:
    """Confine this process for the rest of its life. ``home`` is all that it may write to, ``readable`` are places
    that it may read besides its libraries."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FILES, _MOST_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_FILE_BYTES, _MOST_FILE_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which drains
    if sys.platform != "linux":
        return
    _leave_network()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _restrict_files(home, readable)
    _restrict_calls()


# -- network ----------------------------------------------------------------------------------------------------

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def _leave_network() -> None:
    """A network namespace of its own, where unprivileged namespaces are allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


# -- files: Landlock (landlock(7)) ------------------------------------------------------------------------------

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on all architectures
_PATH_BENEATH = 1
_EXECUTE, _READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 0, 1 << 2, 1 << 3, 1 << 1
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_TRUNCATE = 1 << 14
#: rights that a rule for a single file may name
_OF_A_FILE = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE
#: rights known to each version: the first 13, then moving files between directories, then truncating them
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}

#: besides the directories that Python imports from: the system's libraries, and what runtimes ask of the machine
_READABLE = (
    "/usr", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store", "/etc/ld.so.cache", "/etc/localtime", "/dev/null",
    "/dev/urandom", "/dev/random", "/dev/zero", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat",
    "/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu", "/sys/fs/cgroup",
)  # fmt: skip


def may_restrict_files() -> bool:
    """Whether this kernel has Landlock."""
    return sys.platform == "linux" and _landlock_version() > 0


def _landlock_version() -> int:
    return int(_syscall(_LANDLOCK_CREATE, None, 0, 1))


def _restrict_files(home: Path, readable: Sequence[str]) -> None:
    version = _landlock_version()
    if version < 1:
        return
    rights = _RIGHTS[min(version, max(_RIGHTS))]
    attributes = struct.pack("=Q", rights)
    ruleset = _syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if ruleset < 0:
        return
    _allow(ruleset, [home], rights)
    _allow(ruleset, [*_import_paths(), *readable], _READ & rights)
    _syscall(_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _import_paths() -> Iterable[str | Path]:
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return [*filter(None, [*sys.path, *libraries]), sys.prefix, sys.base_prefix, *_READABLE]


def _allow(ruleset: int, paths: Iterable[str | Path], rights: int) -> None:
    for path in paths:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not on this machine
        granted = rights if os.path.isdir(path) else rights & _OF_A_FILE
        _syscall(_LANDLOCK_ADD, ruleset, _PATH_BENEATH, struct.pack("=Qi", granted, opened), 0)
        os.close(opened)


# -- system calls: seccomp (seccomp(2)) -------------------------------------------------------------------------

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_CLONE_THREAD = 0x00010000
_EPERM, _ENOSYS = 1, 38
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
#: where struct seccomp_data keeps the call's number, the architecture and the low half of the first argument
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
#: BPF: load a word, jump if equal, jump if a bit is set, jump if not lower, return
_LOAD, _EQUAL, _SET, _NOT_LOWER, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06


@dataclass(frozen=True, slots=True)
class _Calls:
    """Numbers of system calls on one architecture."""

    architecture: int
    clone: int
    #: kill, tkill and tgkill: of this process itself only
    signals: tuple[int, ...]
    #: fork, exec, connect, bind, listen, sendto, sendmsg, ptrace, mount, unshare, memfd_create and their like
    denied: tuple[int, ...]
    #: numbers from here on belong to another calling convention
    end: int = 0x40000000


#: clone3 hides its flags from a filter: without it, the C library makes threads by clone
_CLONE3 = 435
#: pidfd_send_signal, io_uring_setup, pidfd_open, pidfd_getfd, memfd_secret
_DENIED_EVERYWHERE = (424, 425, 434, 438, 447)
_CALLS = {
    "x86_64": _Calls(
        0xC000003E,
        clone=56,
        signals=(62, 200, 234),
        denied=(57, 58, 59, 322, 42, 49, 50, 44, 46, 307, 101, 165, 272, 308, 319, 310, 311, 321, 323, 298),
    ),
    "aarch64": _Calls(
        0xC00000B7,
        clone=220,
        signals=(129, 130, 131),
        denied=(221, 281, 203, 200, 201, 206, 211, 269, 117, 40, 97, 268, 279, 270, 271, 280, 282, 241),
    ),
}


def may_restrict_processes() -> bool:
    """Whether a child's system calls are filtered on this machine."""
    return sys.platform == "linux" and platform.machine() in _CALLS and Path("/proc/sys/kernel/seccomp").is_dir()


def _restrict_calls() -> None:
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return
    program = b"".join(_program(calls, os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    filters = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _prctl(_PR_SET_SECCOMP, _MODE_FILTER, filters)


def _program(calls: _Calls, own_pid: int) -> Sequence[bytes]:
    """Berkeley packet filter: foreign conventions are death, what is denied is EPERM, all else passes."""
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, calls.architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_NOT_LOWER, calls.end, 0, 1),
        _step(_RETURN, _ERRNO | _EPERM),
        _step(_EQUAL, _CLONE3, 0, 1),
        _step(_RETURN, _ERRNO | _ENOSYS),
    ]
    for number in (*calls.denied, *_DENIED_EVERYWHERE):
        code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ERRNO | _EPERM)]
    code += [_step(_EQUAL, calls.clone, 0, 4), _step(_LOAD, _FIRST_ARGUMENT)]
    code += [_step(_SET, _CLONE_THREAD, 0, 1), _step(_RETURN, _ALLOW), _step(_RETURN, _ERRNO | _EPERM)]
    for number in calls.signals:
        code += [_step(_EQUAL, number, 0, 4), _step(_LOAD, _FIRST_ARGUMENT)]
        code += [_step(_EQUAL, own_pid, 0, 1), _step(_RETURN, _ALLOW), _step(_RETURN, _ERRNO | _EPERM)]
    return [*code, _step(_RETURN, _ALLOW)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _prctl(option: int, *arguments: object) -> int:
    padded = [*arguments, 0, 0, 0, 0][:4]
    return int(ctypes.CDLL(None, use_errno=True).prctl(option, *map(_long, padded)))


def _syscall(number: int, *arguments: object) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(_long(number), *map(_long, arguments)))


def _long(value: object) -> object:
    """Numbers fill a whole register: these functions take any kind of argument."""
    return ctypes.c_long(value) if isinstance(value, int) else value
