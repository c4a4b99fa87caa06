"""The four MLPerf Tiny reference networks, read from the files that the submitters ran.

The files are those of github.com/mlcommons/tiny @ 1afd2c98 (benchmark/training/*/trained_models).
"""

from __future__ import annotations

from pathlib import Path

from edgesdk.graph import OpGraph
from edgesdk.model_file import read_graph

FILES = Path(__file__).parents[2] / "shared" / "data" / "mlperf_tiny"
NAMES = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8")


def reference_graphs() -> dict[str, OpGraph]:
    """Return the graph of each network under the name that the published results use."""
    return {name: read_graph(FILES / f"{name}.tflite") for name in NAMES}
