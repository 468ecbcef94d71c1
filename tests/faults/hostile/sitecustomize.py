"""Makes marked documents do harm: Python runs a module of this name at its start, where PYTHONPATH leads to it.

Only in an extraction child. A document that begins with ``HOSTILE <verb>`` runs that verb in place of its reader; all
else in the child, its limits above all, is the real thing.
"""

import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

MARK = b"HOSTILE "
MIB = 1 << 20
TEN_GIB = 10 * 1024
#: a bomb that nothing holds back ends here
MOST_FORKS = 40
ANSWERS = os.dup(1) if "worker.sandbox" in sys.orig_argv else -1


def spin():
    while True:
        pass


def sleep_through_alarms():
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(3600)


def eat():
    kept = []
    while True:
        kept.append(bytearray(16 * MIB))


def recurse():
    sys.setrecursionlimit(1 << 30)
    return [recurse()]


def threads():
    while True:
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


def write(count, *, unlink, size=60):
    """Files of 60 MiB, each below the limit of one file."""
    kept = []
    for number in range(count):
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(f"{number}.bin", "wb"))
            for _ in range(size):
                file.write(os.urandom(16) * (MIB // 16))
            file.flush()
            if unlink:
                os.unlink(file.name)
                kept.append(stack.pop_all())
    return f"wrote {count * size} MiB"


def one_large_file():
    with open("large.bin", "wb") as file:
        while True:
            file.write(bytes(MIB))


def many_files():
    for number in range(200_000):
        with open(f"f{number}", "w"):
            pass
    return "made 200000 files"


def outside():
    """Where a file could be put besides the home."""
    written = []
    for directory in ("/tmp", "/var/tmp", "/dev/shm", "..", os.path.dirname(os.__file__)):
        name = os.path.join(directory, f"headwater-escape-{os.getpid()}")
        with contextlib.suppress(OSError), open(name, "w"):
            written.append(name)
            os.unlink(name)
    return f"written outside: {written}"


def read_secret(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        return f"not read: {error.strerror}"


def fork_bomb():
    forked = 0
    for _ in range(MOST_FORKS):
        try:
            if os.fork() == 0:
                os.setsid()
                time.sleep(600)
                os._exit(0)
            forked += 1
        except OSError:
            continue
    return f"forked {forked}"


def spawn():
    try:
        subprocess.run(["/bin/true"], check=False)
    except OSError as error:
        return f"not spawned: {error.strerror}"
    return "spawned"


def signal_parent():
    try:
        os.kill(os.getppid(), 0)
    except OSError as error:
        return f"not signalled: {error.strerror}"
    return "signalled"


def connect(port):
    with socket.socket() as client:
        client.settimeout(3)
        try:
            client.connect(("127.0.0.1", int(port)))
        except OSError:
            return "not connected"
    return "connected"


def say(data, then=lambda: time.sleep(3600)):
    """Write to the pipe of the answers, then do something else."""
    while data:
        data = data[os.write(ANSWERS, data) :]
    then()


def drip():
    say(struct.pack("!II", 1000, 0))
    while True:
        say(b" ", lambda: time.sleep(0.05))


def frame(text):
    return struct.pack("!II", len(text), 0) + text


def answer_twice():
    """The first of two answers is another document's."""
    chunk = b'{"number":0,"text":"stolen","text_hash":"0","start":0,"end":6,"headings":[]}'
    say(frame(b'{"id":0,"chunks":[%b],"kind":"text","title":null,"metadata":{},"partial":null}' % chunk), lambda: None)
    return "the second answer"


def late_answer():
    """A second answer, after the document's own."""

    def talk():
        time.sleep(0.3)
        say(frame(b'{"id":99,"refused":"a lie"}'), lambda: None)

    threading.Thread(target=talk, daemon=True).start()
    return "an honest answer"


def die_later():
    threading.Timer(0.3, os._exit, (7,)).start()
    return "an honest answer"


VERBS = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "buserror": lambda: os.kill(os.getpid(), signal.SIGBUS),
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "spin": spin,
    "sleep": lambda: time.sleep(3600),
    "deaf": sleep_through_alarms,
    "eat": eat,
    "recurse": recurse,
    "threads": threads,
    "write10g": lambda: write(TEN_GIB // 60, unlink=False),
    "unlinked10g": lambda: write(TEN_GIB // 60, unlink=True),
    "large_file": one_large_file,
    "many_files": many_files,
    "leave_files": lambda: write(2, unlink=False, size=20),
    "outside": outside,
    "read": read_secret,
    "fork": fork_bomb,
    "spawn": spawn,
    "signal": signal_parent,
    "connect": connect,
    "half_frame": lambda: say(struct.pack("!II", 1000, 0) + b'{"id": 0, '),
    "half_size": lambda: say(b"\0\0"),
    "drip": drip,
    "garbage": lambda: say(b"\xff\xfe\xfd" * 1000),
    "not_json": lambda: say(frame(b"not json")),
    "deep_json": lambda: say(frame(b"[" * 500_000)),
    "huge_claim": lambda: say(struct.pack("!II", 0xFFFFFFFF, 0xFFFFFFFF)),
    "flood": lambda: say(struct.pack("!II", 200 * MIB, 0) + b"[" * (64 * MIB)),
    "closes": lambda: (os.close(ANSWERS), os.closerange(3, 64), time.sleep(3600)),
    "bug": lambda: {}["a bug of ours"],
    "answer_twice": answer_twice,
    "late_answer": late_answer,
    "die_later": die_later,
    "chunks": lambda: "".join(f"# {n}\n\n{n}\n\n" for n in range(400_000)),
    "long_headings": lambda: "# " + "word " * 100_000 + "\n\n" + "".join(f"## {n}\n\nx\n\n" for n in range(20_000)),
}


def arm():
    import worker.extract

    real = worker.extract.read

    def read(data, name, **options):
        if not data.startswith(MARK):
            return real(data, name, **options)
        verb, *arguments = data.decode().split()[1:3]
        return worker.extract.Extracted("markdown", VERBS[verb](*arguments))

    worker.extract.read = read


if "worker.sandbox" in sys.orig_argv:
    arm()


# -- a model that misbehaves at marked texts ------------------------------------------------------------------


def spoilt(model):
    """The real model, but for texts that hold a mark."""
    import numpy as np

    real = model.encode

    def encode(texts, **options):
        if any("MODELHANGS" in text for text in texts):
            time.sleep(3600)
        vectors = real(texts, **options)
        if any("MODELGIVESFEW" in text for text in texts):
            return vectors[:-1]
        if any("MODELGIVESNAN" in text for text in texts):
            vectors = np.array(vectors)
            vectors[[number for number, text in enumerate(texts) if "MODELGIVESNAN" in text]] = np.nan
        return vectors

    model.encode = encode
    return model


def arm_model():
    import headwater.embedder

    load = headwater.embedder._load
    headwater.embedder._load = lambda settings: spoilt(load(settings))


if "headwater" in sys.orig_argv and "work" in sys.orig_argv:
    arm_model()
