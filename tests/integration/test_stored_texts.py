"""A new index from the texts of another one: its points are those of an index that was made from the folder."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from word_embedder import WordEmbedder
from workshop import opened_pipeline

from headwater.document import content_hash, document_id
from headwater.index import Point
from headwater.index_edge import EdgeIndex
from headwater.messages import Hint, Item
from worker.stored import StoredTexts

_FILES = {
    "guide.md": "---\ntags: [a, b]\nversion: 1.0\ncount: 3\n---\n# Guide\n\nHow to begin.\n\n## Deeper\n\n"
    + "One paragraph of many words about the same thing again. " * 80,
    "plain.txt": "First line.\n\nSecond paragraph, with ünïcödé and 漢字.\n",
    "page.html": "<html lang=de><title>Seite</title><h1>Kopf</h1><p>Ein Satz auf Deutsch, lang genug.</p></html>",
    "table.csv": "name,age\nada,36\ngrace,85\n",
    "code.py": "def main() -> int:\n    return 0\n",
    "nothing.md": "",
    "latin%E9.txt": "A name that is not UTF-8.",
}


class _Held:
    """``DocumentPoints`` of an index in this process, that notes who was found there."""

    def __init__(self, index: EdgeIndex) -> None:
        self._index = index

    def of(self, document_id: str) -> list[Point] | None:
        return [p for p in self._index.scan(with_vectors=False) if p.payload["document_id"] == document_id]

    def close(self) -> None: ...


def _folder(place: Path) -> tuple[Path, Hint]:
    folder = place / "folder"
    folder.mkdir()
    for name, text in _FILES.items():
        (folder / name).write_text(text)
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr("within.txt", "A file within another one.")
    paths = sorted(path.name.encode() for path in folder.iterdir())
    return folder, Hint(tuple(Item(path, 100 + number) for number, path in enumerate(paths)), "bulk")


def _points(index: EdgeIndex) -> dict[str, Any]:
    return {
        point.id: (
            dict(point.payload),
            None if point.dense is None else point.dense.tolist(),
            None if point.sparse is None else (list(point.sparse.indices), list(point.sparse.values)),
        )
        for point in index.scan(with_vectors=True)
    }


def test_an_index_from_stored_texts_is_that_of_the_folder_itself(tmp_path: Path) -> None:
    # Given an index with one model, and a file that has changed since
    folder, hint = _folder(tmp_path)
    with opened_pipeline(folder, tmp_path / "old", WordEmbedder(32), 60) as (pipeline, old):
        pipeline.apply(hint)
        (folder / "plain.txt").write_text("Something else.")
        # When another model's is made from its texts, and one from the files
        stored = StoredTexts(_Held(old), "p")
        with opened_pipeline(folder, tmp_path / "new", WordEmbedder(16), 60, stored) as (pipeline, new):
            said = list(pipeline.apply(hint))
            made = _points(new)
        # (one that was cut in another way than the old index says is of no use)
        assert StoredTexts(_Held(old), "q").find(document_id(b"code.py"), _hash(folder / "code.py")) is None
        assert stored.find(document_id(b"code.py"), _hash(folder / "code.py")) is not None
    with opened_pipeline(folder, tmp_path / "anew", WordEmbedder(16), 60) as (pipeline, anew):
        assert list(pipeline.apply(hint)) == said
        expected = _points(anew)
    # Then they are the same, to the last bit; only what has changed, holds files, or is refused was read
    assert made == expected and len(made) > 15
    assert stored.found == len(_FILES) - 2 + 1


def _hash(file: Path) -> str:
    return content_hash(file.read_bytes())
