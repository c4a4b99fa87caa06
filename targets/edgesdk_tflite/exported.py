"""The model as ``torch.export`` sees it: what the file is named after and checked against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch.export import ExportedProgram
from torch.fx import Node

# Core ATen operators that multiply by a kernel, and at which arguments one can be.
_KERNEL_ARGUMENTS: Mapping[str, tuple[int, ...]] = {
    "aten.convolution.default": (1,),
    "aten.mm.default": (0, 1),
    "aten.bmm.default": (0, 1),
    "aten.addmm.default": (1, 2),
    "aten.baddbmm.default": (1, 2),
}


@dataclass(frozen=True, kw_only=True)
class KernelElements:
    """How many kernel elements a model multiplies by.

    ``least`` counts a kernel that is used twice once, ``most`` once a use: a converter may store
    it either way. For most models the two are equal. Biases and batch norms do not count.
    """

    least: int
    most: int


def layers_by_hierarchy(program: ExportedProgram) -> Mapping[str, str]:
    """Return the module path for each "package.Class_child" chain below the model.

    The converter names a tensor after the classes and last names of the modules around the
    operator. Two layers that it gives one name are left out: nothing tells them apart.
    """
    found: dict[str, set[str]] = {}
    for node in program.graph.nodes:
        hierarchy: list[str] = []
        for path, kind in node.meta.get("nn_module_stack", {}).values():
            name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            if path:
                hierarchy.append(f"{name}_{path.rsplit('.', 1)[-1]}")
                found.setdefault("/".join(hierarchy), set()).add(path)
    return {hierarchy: paths.pop() for hierarchy, paths in found.items() if len(paths) == 1}


def kernel_elements(program: ExportedProgram) -> KernelElements:
    """Return how many kernel elements the convolutions and matrix products multiply by."""
    program = program.run_decompositions()
    origins = _constant_origins(program)
    uses: list[tuple[frozenset[str], int]] = []
    for node in program.graph.nodes:
        if node in origins:
            continue  # a product of constants is one itself, and converters fold it
        for position in _KERNEL_ARGUMENTS.get(str(node.target), ()):
            kernel = node.args[position]
            origin = origins.get(kernel)
            if origin is not None:
                uses.append(
                    (origin or frozenset({kernel.name}), math.prod(kernel.meta["val"].shape))
                )
    return KernelElements(
        least=sum(elements for _, elements in set(uses)),
        most=sum(elements for _, elements in uses),
    )


def outputs_follow_inputs(program: ExportedProgram) -> tuple[bool, ...]:
    """Return for each output whether the model computes it from an input at all."""
    origins = _constant_origins(program)
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    return tuple(isinstance(value, Node) and value not in origins for value in output.args[0])


def _constant_origins(program: ExportedProgram) -> Mapping[Node, frozenset[str]]:
    """Return the nodes that depend on no input, each with the parameters it is computed from."""
    inputs = set(program.graph_signature.user_inputs)
    origins: dict[Node, frozenset[str]] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name not in inputs:
            origins[node] = frozenset({node.name})
        elif node.op != "placeholder" and all(n in origins for n in node.all_input_nodes):
            origins[node] = frozenset().union(*(origins[n] for n in node.all_input_nodes))
    return origins
