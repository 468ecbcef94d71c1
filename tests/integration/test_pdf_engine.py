"""The PDF engine in the extraction child, when a document breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.embedder import Embedder
from worker.sandboxes import ExtractionRefused, SandboxPool

PAGE = b"""%PDF-1.4
1 0 obj << /Type /Catalog /Pages 2 0 R >> endobj
2 0 obj << /Type /Pages /Count 1 /Kids [3 0 R] >> endobj
3 0 obj << /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R
/Resources << /Font << /F1 4 0 R >> >> >> endobj
4 0 obj << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> endobj
5 0 obj << /Length 43 >> stream
BT /F1 12 Tf 50 700 Td (some words) Tj ET  
endstream endobj
6 0 obj << /CreationDate (3'!\x94\x80T6V) >> endobj
"""
FINE = PAGE + b"trailer << /Root 1 0 R /Size 7 >>\n"
#: its date makes kreuzberg 4.10 panic, and pypdf, which would take the date out of the way, misses the table
BREAKING = PAGE + b"trailer << /Root 1 0 R /Size 7 /Info 6 0 R >>\n"


def test_after_a_document_that_broke_the_engine_the_next_one_is_read(embedder: Embedder, tmp_path: Path) -> None:
    pool = SandboxPool(
        embedder.tokenizer_json, homes=tmp_path / "s", max_tokens=64, timeout_s=60, memory_bytes=2 << 30, size=1
    )
    try:
        with pytest.raises(ExtractionRefused, match="a damaged pdf document"):
            pool.extract("a.pdf", BREAKING)
        assert [chunk.text for chunk in pool.extract("b.pdf", FINE).chunks] == ["some words"]
    finally:
        pool.close()
