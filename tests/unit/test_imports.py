"""Who may import whom."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import headwater

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
    for package in ("headwater", "producer", "worker")
    for path in sorted((ROOT / package).rglob("*.py"))
}
#: what the pure core may take from outside of it
PURE = {
    "headwater.document": set(),
    "headwater.messages": {"headwater.document", "headwater.errors"},
    "producer.diff": {"headwater.document"},
    "worker.headings": set(),
    "worker.outline": {"worker.headings"},
    "worker.chunk": {"headwater.document", "headwater.index", "worker.outline"},
}
#: modules that may use producer and worker, but only inside of functions
LAZY = {"headwater.cli"} | {name for name in MODULES if name.startswith("headwater.verbs.")}
#: parts of the standard library that do no input or output
CALM = {
    "__future__", "bisect", "collections", "dataclasses", "datetime", "enum", "functools", "hashlib", "itertools",
    "math", "re", "string", "typing", "urllib.parse", "uuid", "zlib",
}  # fmt: skip


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def at_the_top(tree: ast.AST) -> Iterator[str]:
    """Modules that are imported when the module is; not those for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(node)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not for_type_checkers(node):
            yield from at_the_top(node)


def for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def packages(names: Iterator[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_the_modules_are_found() -> None:
    assert {"headwater.cli", "headwater.verbs.why", "producer.service", "worker.pipeline"} < set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    package = module.partition(".")[0]
    forbidden = {"producer": {"worker"}, "worker": {"producer"}, "headwater": {"producer", "worker"}}[package]
    names = at_the_top(MODULES[module]) if module in LAZY else imports(MODULES[module])
    assert packages(names).isdisjoint(forbidden)


@pytest.mark.parametrize("module", PURE)
def test_the_pure_core_imports_nothing_that_reads_or_writes(module: str) -> None:
    taken = {name.partition(".")[0] if name.startswith("collections") else name for name in imports(MODULES[module])}
    assert taken <= CALM | PURE[module]


@pytest.mark.parametrize("module", MODULES)
def test_what_a_module_exports_is_there(module: str) -> None:
    lists = [
        node.value
        for node in MODULES[module].body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    for exported in lists:
        assert set(ast.literal_eval(exported)) <= set(defined(MODULES[module]))


def defined(tree: ast.Module | ast.If) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.If():
                yield from defined(node)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign():
                yield from (target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.ImportFrom() | ast.Import():
                yield from (alias.asname or alias.name for alias in node.names)


def test_the_public_names_are_sorted_and_importable() -> None:
    names = headwater.__all__
    assert names == sorted(names)
    module = importlib.import_module("headwater")
    assert all(getattr(module, name) is not None for name in names)


def test_every_error_is_exported_and_drawn_in_the_tree() -> None:
    errors = importlib.import_module("headwater.errors")
    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert classes == set(errors.__all__)
    assert all(name in (errors.__doc__ or "") for name in classes)
    assert all(issubclass(getattr(errors, name), errors.HeadwaterError) for name in classes)


@pytest.mark.parametrize("module", ["producer.service", "headwater", *sorted(LAZY - {"headwater.verbs.reader"})])
def test_no_model_is_loaded_where_none_is_needed(module: str) -> None:
    heavy = (
        "torch",
        "sentence_transformers",
        "transformers",
        "tokenizers",
        "qdrant_client",
        "qdrant_edge",
        "kreuzberg",
    )
    program = f"import sys, {module}; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == ""
