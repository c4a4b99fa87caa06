import pytest
import torch

from edgesdk.calibrating.fitting import LEAST_NETWORKS
from edgesdk.calibrating.microbenchmark import Microbenchmark
from edgesdk.calibrating.microbenchmarks import microbenchmarks
from edgesdk.cost.features import kernel_table
from edgesdk.cost.kernel_class import KERNEL_CLASSES
from edgesdk.graph import OpGraph
from edgesdk.trace import trace

ALL = microbenchmarks()


@pytest.fixture(scope="module")
def graphs() -> dict[str, OpGraph]:
    return {item.name: trace(item.module(), item.example_inputs(), name=item.name) for item in ALL}


def test_names_are_unique_since_files_and_measurements_go_by_them() -> None:
    names = [item.name for item in ALL]
    assert len(set(names)) == len(names) > LEAST_NETWORKS
    assert not any("|" in name for name in names)


def test_enough_whole_networks_judge_the_fit() -> None:
    assert len({item.family for item in ALL if item.family}) >= 10


def test_every_class_that_networks_of_images_and_tokens_have_is_there(
    graphs: dict[str, OpGraph],
) -> None:
    tables = [kernel_table(graph, "fp32") for graph in graphs.values()]
    seen = {KERNEL_CLASSES[index] for table in tables for index in table.classes if index >= 0}
    assert seen == set(KERNEL_CLASSES) - {"conv3d", "recurrent"}
    variants = {name for table in tables for name in table.variants if name}
    assert variants >= {"add", "mul", "gelu", "hardswish", "wide_depthwise", "pad", "group_norm"}


def test_the_cost_model_knows_every_operator(graphs: dict[str, OpGraph]) -> None:
    for name, graph in graphs.items():
        assert kernel_table(graph, "fp32").unpriced == (), name


@pytest.mark.parametrize("item", ALL[:3], ids=lambda item: item.name)
def test_a_network_is_the_same_each_time(item: Microbenchmark) -> None:
    once, again = item.module(), item.module()
    [x], [y] = item.example_inputs(), item.example_inputs()
    assert torch.equal(x, y)
    with torch.no_grad():
        assert torch.equal(once(x), again(y))
    assert not once.training


def test_building_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    ALL[0].module()
    ALL[0].example_inputs()
    assert torch.equal(torch.rand(2), expected)
