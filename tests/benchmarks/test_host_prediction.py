import sys
from pathlib import Path

import pytest

from edgesdk.figure import predicted

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
pytest.importorskip("transformers")
from host_prediction import Comparison, Summary


def comparison(predicted_ms: float, measured_ms: float) -> Comparison:
    return Comparison(
        network="n",
        target="t",
        scheme="fp32",
        predicted=predicted(predicted_ms, error_factor=1.2, source="a test"),
        measured_ms=measured_ms,
    )


def test_a_summary_counts_errors_as_shares_of_what_was_measured() -> None:
    found = Summary.of([comparison(1.1, 1.0), comparison(0.7, 1.0), comparison(2.6, 2.0)])
    assert found.count == 3
    assert found.median_error == pytest.approx(0.3)
    assert found.near == pytest.approx(1 / 3)
    assert found.inside == pytest.approx(1 / 3)
