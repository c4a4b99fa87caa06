import json
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring import measurements

from edgesdk.artifact import Check, Manifest, OpCount, Parity, TensorSpec
from edgesdk.budget import Condition, Verdict
from edgesdk.document import from_builtins, read_json, to_builtins, to_json
from edgesdk.errors import ArtifactError, ProfileError, UsageError
from edgesdk.figure import STANDINGS, Figure, FigureName
from edgesdk.measurement import Measurement
from edgesdk.plan import (
    AdaRound,
    BiasCorrection,
    Distil,
    Equalize,
    Finetune,
    FrontPoint,
    Plan,
    Price,
    Prune,
    PrunedGroup,
    Qat,
    Quantize,
    Rejected,
)
from edgesdk.task import InputSpec, OutputSpec

NUMBER = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=5)
COUNT = st.integers(min_value=0, max_value=10**12)
FIGURE = st.builds(
    Figure, value=NUMBER, standing=st.sampled_from(STANDINGS), low=NUMBER, high=NUMBER, source=TEXT
)
FIGURES = st.dictionaries(st.sampled_from(get_args(FigureName)), FIGURE, max_size=2)


def tuples(items: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=2).map(tuple)


GROUP = st.builds(PrunedGroup, layer=TEXT, width_before=COUNT, removed=tuples(COUNT))
STEP = st.one_of(
    st.builds(Prune, ratio=NUMBER, groups=tuples(GROUP)),
    st.builds(Distil, learning_rate=NUMBER, temperature=NUMBER, alpha=NUMBER),
    st.just(Finetune()),
    st.builds(Equalize),
    st.builds(AdaRound, learning_rate=NUMBER),
    st.builds(BiasCorrection),
    st.builds(Qat, learning_rate=NUMBER, temperature=NUMBER, alpha=NUMBER),
    st.builds(Quantize),
)
REJECTED = st.builds(Rejected, option=TEXT, predicted=FIGURES, reason=TEXT)
FRONT = st.builds(FrontPoint, option=TEXT, expected_loss=NUMBER, predicted=FIGURES)
PRICES = st.builds(
    Price,
    limit=NUMBER,
    expected_loss=st.none() | NUMBER,
    tighter_loss=st.none() | NUMBER,
    looser_loss=st.none() | NUMBER,
)
PLANS = st.builds(
    Plan,
    steps=tuples(STEP),
    steps_sha256=st.text(max_size=64),
    predicted=FIGURES,
    baseline=FIGURES,
    reasons=tuples(TEXT),
    rejected=tuples(REJECTED),
    front=tuples(FRONT),
    prices=tuples(PRICES),
    gap=NUMBER,
)
TENSOR = st.builds(
    TensorSpec, shape=tuples(COUNT), from_torch=tuples(COUNT), scale=NUMBER, labels=tuples(TEXT)
)
PARITY = st.builds(
    Parity,
    sqnr_db=NUMBER,
    maximum_error=NUMBER,
    top1_agreement=st.none(),
    checks=tuples(st.builds(Check)),
)
CONDITION = st.builds(Condition, limit=NUMBER, relative=st.none() | NUMBER)
VERDICT = st.builds(Verdict, condition=CONDITION, figure=st.none() | FIGURE)
MEASUREMENT = measurements()
MANIFESTS = st.builds(
    Manifest,
    files=tuples(TEXT),
    sha256=st.dictionaries(TEXT, TEXT, max_size=2),
    inputs=tuples(TENSOR),
    outputs=tuples(TENSOR),
    input_specs=tuples(st.builds(InputSpec, mean=tuples(NUMBER), std=tuples(NUMBER))),
    output_specs=tuples(st.builds(OutputSpec, labels=tuples(TEXT))),
    operators=tuples(st.builds(OpCount)),
    tool_versions=st.dictionaries(TEXT, TEXT, max_size=2),
    parity=PARITY,
    **dict.fromkeys(("baseline", "predicted", "verified", "interpreted", "measured"), FIGURES),
    budget=tuples(VERDICT),
    measurement=st.none() | MEASUREMENT,
)

PLAN = Plan(
    task="digits",
    task_key="0" * 64,
    device="host",
    target="executorch",
    option="int8, pruned 30 %",
    scheme="int8",
    steps_sha256="0" * 64,
    steps=(
        Prune(
            ratio=0.3,
            channel_multiple=8,
            importance="taylor",
            groups=(PrunedGroup(layer="conv1", width_before=16, removed=(1, 5)),),
        ),
        Distil(epochs=3, learning_rate=0.05, temperature=4.0, alpha=0.5, patience=2),
        Finetune(),
        Quantize(scheme="int8"),
    ),
    predicted={"latency_ms": Figure(value=1.0, standing="predicted", low=0.5, high=2.0)},
    baseline={"size_bytes": Figure(value=1e5, standing="verified", source="bytes")},
    reasons=("it fits",),
    rejected=(Rejected(option="fp32", predicted={}, reason="too slow"),),
    front=(FrontPoint(option="fp32", expected_loss=0.0, predicted={}, fits=True, chosen=False),),
    prices=(
        Price(
            figure="size_bytes", limit=1e6, expected_loss=0.5, tighter_loss=None, looser_loss=0.25
        ),
    ),
    gap=0.0,
    seed=0,
)


@given(PLANS)
@settings(max_examples=40)
def test_a_plan_survives_being_written(plan: Plan) -> None:
    assert from_builtins(Plan, json.loads(to_json(plan)), what="plan.json") == plan


@given(MANIFESTS)
@settings(max_examples=25)
def test_a_manifest_survives_being_written(manifest: Manifest) -> None:
    assert from_builtins(Manifest, json.loads(to_json(manifest)), what="m") == manifest


@given(MEASUREMENT)
@settings(max_examples=40)
def test_a_measurement_survives_being_written(measurement: Measurement) -> None:
    assert from_builtins(Measurement, json.loads(to_json(measurement)), what="m") == measurement


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(to_json(replace(PLAN, task="Größe ⚡")), encoding="utf-8")
    assert read_json(Plan, path) == replace(PLAN, task="Größe ⚡")
    assert path.read_text(encoding="utf-8").endswith("}\n")


def test_each_step_comes_back_as_its_own_kind() -> None:
    again = from_builtins(Plan, to_builtins(PLAN), what="plan.json")
    assert [type(step) for step in again.steps] == [Prune, Distil, Finetune, Quantize]


def objects(document: Any) -> Iterator[dict[str, Any]]:
    """Yield every JSON object in a document, the outermost first."""
    if isinstance(document, dict):
        yield document
        for value in document.values():
            yield from objects(value)
    elif isinstance(document, list):
        for value in document:
            yield from objects(value)


@pytest.mark.parametrize("place", range(len(list(objects(to_builtins(PLAN))))))
def test_an_unknown_key_anywhere_is_refused(place: int) -> None:
    document = to_builtins(PLAN)
    list(objects(document))[place]["zzz"] = 1
    with pytest.raises(ArtifactError, match="zzz"):
        from_builtins(Plan, document, what="plan.json")


@pytest.mark.parametrize(
    "key",
    [f.name for f in fields(Plan) if f.default is MISSING and f.default_factory is MISSING],
)
def test_a_missing_key_is_refused_by_name(key: str) -> None:
    document = to_builtins(PLAN)
    del document[key]
    with pytest.raises(ArtifactError, match=f"{key}: Field required"):
        from_builtins(Plan, document, what="plan.json")


def test_a_misspelt_key_is_answered_with_the_near_one() -> None:
    document = {**to_builtins(PLAN), "shceme": "int8"}
    with pytest.raises(ArtifactError, match=r"shceme: unknown key \(did you mean scheme"):
        from_builtins(Plan, document, what="plan.json")


def test_a_misspelt_key_deep_inside_is_answered_too() -> None:
    document = to_builtins(PLAN)
    document["steps"][0]["groups"][0]["remvoed"] = []
    with pytest.raises(ArtifactError, match="did you mean removed"):
        from_builtins(Plan, document, what="plan.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "7"),
        ("seed", 7.5),
        ("seed", True),
        ("seed", None),
        ("task", 7),
        ("scheme", "int7"),
        ("reasons", "one"),
        ("reasons", [1]),
        ("steps", [{"kind": "shrink"}]),
        ("steps", [{}]),
        ("steps", {"kind": "finetune"}),
        ("predicted", {"latency": {"value": 1.0, "standing": "measured"}}),
        ("predicted", {"latency_ms": {"value": "1.0", "standing": "measured"}}),
        ("predicted", {"latency_ms": {"value": 1.0, "standing": "guessed"}}),
        ("predicted", {"latency_ms": {"value": 1.0, "standing": "predicted"}}),
        ("predicted", {"latency_ms": {"value": 10**400, "standing": "measured"}}),
    ],
)
def test_a_value_of_another_type_is_refused_and_located(key: str, value: object) -> None:
    with pytest.raises(ArtifactError, match=f"plan.json is malformed: {key}"):
        from_builtins(Plan, {**to_builtins(PLAN), key: value}, what="plan.json")


@pytest.mark.parametrize("document", [None, [], [{}], "plan", 1, True])
def test_what_is_no_object_is_refused(document: object) -> None:
    with pytest.raises(ArtifactError, match="malformed"):
        from_builtins(Plan, document, what="plan.json")


@pytest.mark.parametrize("version", [2, 99])
def test_a_newer_version_says_to_upgrade(version: int) -> None:
    document = {**to_builtins(PLAN), "schema_version": version, "new_field": 1}
    with pytest.raises(ArtifactError, match=f"schema_version {version}, newer") as caught:
        from_builtins(Plan, document, what="plan.json")
    assert caught.value.next_step == "upgrade edgesdk"


@pytest.mark.parametrize("version", [0, -1, "1", "2", None, 2.0])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(ArtifactError, match="schema_version"):
        from_builtins(Plan, {**to_builtins(PLAN), "schema_version": version}, what="plan.json")


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    text = to_json(PLAN)
    for end in [0, 1, *range(2, len(text) - 2, 97), len(text) - 2]:
        path.write_text(text[:end], encoding="utf-8")
        with pytest.raises(ArtifactError, match="cannot be read as JSON"):
            read_json(Plan, path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, number: str) -> None:
    path = tmp_path / "figure.json"
    path.write_text(f'{{"value": {number}, "standing": "measured"}}')
    with pytest.raises(ArtifactError, match="cannot be read as JSON"):
        read_json(Figure, path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_never_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json(Figure(value=number, standing="measured"))


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"\x00" * 64,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"value": ' + b"9" * 5000 + b"}",
        b'\xef\xbb\xbf{"value": 1}',
    ],
    ids=["binary", "zeros", "deep list", "deep object", "huge integer", "byte order mark"],
)
def test_hostile_bytes_are_an_error_not_a_crash(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="plan.json"):
        read_json(Plan, path)


@given(st.binary(max_size=60))
@settings(max_examples=60)
def test_any_bytes_are_a_document_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        read_json(Plan, path)


def test_no_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        read_json(Plan, tmp_path / "plan.json")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_json(Plan, tmp_path)


def test_the_caller_says_which_error_it_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_json(Plan, tmp_path / "plan.json", error=UsageError)
    with pytest.raises(ProfileError):
        from_builtins(Plan, {}, what="x", error=ProfileError)
    with pytest.raises(ProfileError):
        from_builtins(Plan, {"schema_version": 2}, what="x", error=ProfileError)


def test_equal_values_give_equal_text() -> None:
    assert to_json(PLAN) == to_json(replace(PLAN))
    assert to_json(PLAN) != to_json(replace(PLAN, seed=1))
