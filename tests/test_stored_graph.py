import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgesdk.errors import ArtifactError
from edgesdk.graph import OpGraph
from edgesdk.stored_graph import read_graph, write_graph
from edgesdk.trace import trace


class Masked(nn.Module):
    """Convolutions and, in an attribute, an infinity, which JSON does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=(2, 1), padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.relu(self.conv(x)).masked_fill(x.mean() > 0, -torch.inf).mean((2, 3))
        answer: Tensor = self.head(features).softmax(-1)
        return answer


@pytest.fixture(scope="module")
def graph() -> OpGraph:
    return trace(Masked(), (torch.zeros(1, 3, 8, 8),), name="masked")


def test_a_graph_comes_back_as_it_was(tmp_path: Path, graph: OpGraph) -> None:
    write_graph(graph, tmp_path / "graph.json")
    assert read_graph(tmp_path / "graph.json") == graph


def _edit(graph: OpGraph, path: Path, edit: Callable[[Any], object]) -> Path:
    write_graph(graph, path)
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    return path


def _of(document: Any, kind: str) -> Any:
    return next(op for op in document["graph"]["ops"] if op["kind"] == kind)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d.update(schema_version=2), "newer than this edgesdk"),
        (lambda d: d.pop("schema_version"), "no schema_version"),
        (lambda d: d["graph"].update(weights=1), "unknown key"),
        (lambda d: _of(d, "conv2d").update(macs=-1), "has -1 MACs"),
        (lambda d: _of(d, "conv2d").update(inputs=["elsewhere"]), "reads 'elsewhere'"),
        (lambda d: _of(d, "conv2d").update(outputs=["nowhere"]), "'nowhere', which is no tensor"),
        (lambda d: _of(d, "linear").update(outputs=[]), "computes nothing"),
        (lambda d: d["graph"]["ops"].reverse(), "before it is computed"),
        (lambda d: d["graph"]["tensors"]["x"].update(shape=[1, -3]), r"the shape \[1, -3\]"),
        (lambda d: d["graph"]["tensors"]["x"].update(name="y"), "is filed under 'x'"),
    ],
)
def test_what_cannot_be_a_graph_is_refused(
    tmp_path: Path, graph: OpGraph, edit: Callable[[Any], object], said: str
) -> None:
    with pytest.raises(ArtifactError, match=said):
        read_graph(_edit(graph, tmp_path / "graph.json", edit))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"graph": NaN, "schema_version": 1}'])
def test_what_is_no_document_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "graph.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"graph\.json"):
        read_graph(tmp_path / "graph.json")


def test_a_missing_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        read_graph(tmp_path / "graph.json")
    with (tmp_path / "graph.json").open("wb") as stream:
        stream.truncate(10**9)
    with pytest.raises(ArtifactError, match="is larger than"):
        read_graph(tmp_path / "graph.json")
