"""A ``.pt2`` becomes a task, and what would run code while loading is refused."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgesdk.errors import TaskError
from edgesdk.sources.pt2 import load_pt2
from edgesdk.task_check import check_task
from edgesdk.task_source import load_task

MODEL = "models/model.json"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(torch.relu(self.norm(self.conv(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    torch.manual_seed(0)
    net = Net().eval()
    torch.export.save(torch.export.export(net, (torch.randn(1, 3, 8, 8),)), path)
    return path, net


Edit = Callable[[dict[str, bytes]], None]


def changed(path: Path, folder: Path, edit: Edit) -> Path:
    """A copy of an archive with its members, named without their folder, edited."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        members = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
    edit(members)
    copy = folder / "changed.pt2"
    with zipfile.ZipFile(copy, "w") as archive:
        for name, data in members.items():
            archive.writestr(name if name.startswith("!") else f"{root}/{name}", data)
    return copy


def test_the_model_computes_what_was_exported(saved: tuple[Path, nn.Module]) -> None:
    path, net = saved
    task = load_task(str(path))

    check_task(task)
    assert task.name == "net"
    assert task.calibration is None
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(task.model.eval()(x), net(x))
    assert len(task.source) == 64


def set_key(key: str, value: object) -> Edit:
    """Put a value wherever a weight's description has that key."""

    def edit(members: dict[str, bytes]) -> None:
        name = next(n for n in members if n.endswith("weights_config.json"))
        document = json.loads(members[name])
        for payload in document["config"].values():
            payload[key] = value
        members[name] = json.dumps(document).encode()

    return edit


def call(target: str) -> Edit:
    def edit(members: dict[str, bytes]) -> None:
        document = json.loads(members[MODEL])
        document["graph_module"]["graph"]["nodes"][0]["target"] = target
        members[MODEL] = json.dumps(document).encode()

    return edit


def add(name: str, data: bytes = b"") -> Edit:
    return lambda members: members.update({name: data})


def pickled_inputs(members: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    torch.save({"x": Path("anything")}, buffer)
    members["data/sample_inputs/model.pt"] = buffer.getvalue()


def shouting(members: dict[str, bytes]) -> None:
    """Pickled inputs in a member that torch finds all the same: it ignores case."""
    pickled_inputs(members)
    members["DATA/SAMPLE_INPUTS/MODEL.PT"] = members.pop("data/sample_inputs/model.pt")


def deflated_inputs(members: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"0" * 10_000)
    members["data/sample_inputs/model.pt"] = buffer.getvalue()


def imported_container(members: dict[str, bytes]) -> None:
    document = json.loads(members[MODEL])
    context = {"default_factory_module": "antigravity", "default_factory_name": "x"}
    spec = [1, {"type": "collections.defaultdict", "context": context, "children_spec": []}]
    document["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(spec)
    members[MODEL] = json.dumps(document).encode()


def other_inputs(members: dict[str, bytes]) -> None:
    """Put a larger image where the example input was."""
    net = Net().eval()
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(net, (torch.randn(1, 3, 9, 9),)), buffer)
    with zipfile.ZipFile(buffer) as archive:
        name = next(n for n in archive.namelist() if "sample_inputs" in n)
        members["data/sample_inputs/model.pt"] = archive.read(name)


def symbolic(members: dict[str, bytes]) -> None:
    document = json.loads(members[MODEL])
    document["range_constraints"] = {"s0": {"min_val": 1, "max_val": 4}}
    members[MODEL] = json.dumps(document).encode()


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (set_key("use_pickle", True), "pickled objects"),
        (set_key("path_name", "custom_obj_0"), "no plain tensor"),
        (call("torch.hub.load"), "torch.hub.load"),
        (call("torch.ops.aten.relu.default.__class__"), "no tensor operator"),
        (call("_operator.attrgetter"), "attrgetter"),
        (call("math.sqrt"), "math.sqrt"),
        (call("#namespace:object"), "#namespace"),
        (add("data/aotinductor/model/wrapper.so"), "compiled code"),
        (add("data/weights/model.pt"), "pickled weights"),
        (add("data/constants/model.pt"), "pickled weights"),
        (add("!version", b"1.0"), "laid out"),
        (add("models/other.json", b"{}"), "not one program"),
        (pickled_inputs, "more than tensors"),
        (shouting, "more than tensors"),
        (deflated_inputs, "compressed inputs"),
        (imported_container, "defaultdict"),
        (call("torch.ops.aten.from_file.default"), "from_file"),
        (symbolic, "dynamic shapes"),
    ],
)
def test_what_would_run_code_is_refused_before_torch_loads_it(
    edit: Edit, found: str, saved: tuple[Path, nn.Module], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = changed(saved[0], tmp_path, edit)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(torch.export, "load", never)
    with pytest.raises(TaskError, match=found):
        load_pt2(path)


def test_example_inputs_of_another_model_are_refused(
    saved: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    path = changed(saved[0], tmp_path, other_inputs)
    with pytest.raises(TaskError, match=r"inputs of \[1, 3, 9, 9\].*takes \[1, 3, 8, 8\]"):
        load_pt2(path)


def test_files_that_could_grow_are_refused(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "small.pt2"
    with zipfile.ZipFile(saved[0]) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(TaskError, match="compressed"):
        load_pt2(path)


def test_half_a_file_is_refused(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    data = saved[0].read_bytes()
    (tmp_path / "half.pt2").write_bytes(data[: len(data) // 2])
    with pytest.raises(TaskError, match="not an archive"):
        load_pt2(tmp_path / "half.pt2")


def test_a_flipped_bit_ends_in_an_error_of_ours_or_in_a_model(
    saved: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    data = saved[0].read_bytes()
    for place in range(0, len(data), len(data) // 50):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        (tmp_path / "flipped.pt2").write_bytes(flipped)
        with contextlib.suppress(TaskError):
            load_pt2(tmp_path / "flipped.pt2")


def test_dynamic_shapes_name_the_input_and_the_static_shape(tmp_path: Path) -> None:
    height = torch.export.Dim("height", min=8, max=64)
    program = torch.export.export(
        Net().eval(), (torch.randn(1, 3, 16, 8),), dynamic_shapes=({2: height},)
    )
    torch.export.save(program, tmp_path / "open.pt2")
    with pytest.raises(TaskError, match=r"input 'x' is \[1, 3, s\d+, 8\], \[1, 3, 16, 8\] in"):
        load_pt2(tmp_path / "open.pt2")


def test_an_untouched_copy_still_loads(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    assert load_pt2(changed(saved[0], tmp_path, lambda _: None)).name == "changed"


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="does not exist"):
        load_task(str(tmp_path / "missing.pt2"))
    (tmp_path / "text.pt2").write_text("not a zip", encoding="utf-8")
    with pytest.raises(TaskError, match="not an archive"):
        load_task(str(tmp_path / "text.pt2"))


def test_a_model_in_training_mode_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3),)), tmp_path / "train.pt2")
    with pytest.raises(TaskError, match="training mode.*dropout"):
        load_pt2(tmp_path / "train.pt2")
