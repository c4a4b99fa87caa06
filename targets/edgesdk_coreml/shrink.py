"""Narrow weights: those of a converted program's layers become integers or places in tables."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgesdk.compressed import CompressedModel
from edgesdk.layer_format import Weighted, layer_format
from edgesdk.scheme import GROUP_SIZE, PALETTE_BITS, Scheme
from edgesdk_coreml.palettes import TARGET_NAME, table_functions
from edgesdk_coreml.seal import HANDLES, layers_of_outputs

_SETTINGS: Mapping[Scheme, Mapping[str, Any]] = {
    "w8": {"dtype": "int8", "granularity": "per_channel"},
    "w4": {"dtype": "int4", "granularity": "per_block", "block_size": GROUP_SIZE},
}


def shrink_weights(
    converted: Any, package: Path, layer_of_handle: Mapping[str, str], model: CompressedModel
) -> None:
    """Save a converted model again, with the weights of its layers of weight-only schemes narrow.

    ``package`` is where it was saved as it was converted, and is replaced where a layer is narrow.
    Integers are symmetric, with one scale per output channel or (int4) per 32 input channels;
    a layer's places have one table.
    """
    schemes = _narrow_operations(converted, package, layer_of_handle, model)
    if not schemes:
        return
    # coremltools would drop what says which layer an operation came from.
    handles = (package / HANDLES).read_bytes()
    shrunk = converted
    for narrow in (_with_integers, _with_tables):
        before, shrunk = shrunk, narrow(shrunk, schemes, model)
        if before is not shrunk and before is not converted:
            shutil.rmtree(before.package_path, ignore_errors=True)
    shutil.rmtree(package)
    shrunk.save(str(package))
    (package / HANDLES).write_bytes(handles)
    shutil.rmtree(shrunk.package_path, ignore_errors=True)


def _narrow_operations(
    converted: Any, package: Path, layer_of_handle: Mapping[str, str], model: CompressedModel
) -> dict[str, Scheme]:
    """Return the schemes of the operations whose weights are to be narrow, by their names."""
    layers = layers_of_outputs(package / HANDLES, layer_of_handle)
    schemes: dict[str, Scheme] = {}
    for op in converted._mil_program.functions["main"].operations:
        layer = weighted_operation(op.op_type, _weight_shape(op))
        if layer is None:
            continue
        asked = model.scheme_of(layers.get(op.outputs[0].name, ""))
        scheme = layer_format(TARGET_NAME, layer, asked).scheme
        if scheme in _SETTINGS or scheme in PALETTE_BITS:
            schemes[op.name] = scheme
    return schemes


def _with_integers(converted: Any, schemes: Mapping[str, Scheme], model: CompressedModel) -> Any:
    """Return the model with the weights of ``w8`` and ``w4`` as integers; itself without any."""
    import coremltools.optimize.coreml as optimize

    configs = {
        name: optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric", weight_threshold=0, **_SETTINGS[scheme]
        )
        for name, scheme in schemes.items()
        if scheme in _SETTINGS
    }
    if not configs:
        return converted
    return optimize.linear_quantize_weights(
        converted, optimize.OptimizationConfig(global_config=None, op_name_configs=configs)
    )


def _with_tables(converted: Any, schemes: Mapping[str, Scheme], model: CompressedModel) -> Any:
    """Return the model with palettised weights as places in tables; itself without any."""
    import coremltools.optimize.coreml as optimize

    functions = table_functions(model) if set(schemes.values()) & set(PALETTE_BITS) else {}
    configs = {
        name: optimize.OpPalettizerConfig(
            mode="custom", lut_function=functions[scheme], weight_threshold=0
        )
        for name, scheme in schemes.items()
        if scheme in functions
    }
    if not configs:
        return converted
    return optimize.palettize_weights(
        converted, optimize.OptimizationConfig(global_config=None, op_name_configs=configs)
    )


def weighted_operation(kind: str, shape: tuple[int, ...] | None) -> Weighted | None:
    """Return an operation's weight as the rules of formats see it, None where it has none."""
    if shape is None or kind not in ("conv", "conv_transpose", "linear"):
        return None
    dimensions = f"{len(shape) - 2}d" if kind != "linear" else ""
    return Weighted(kind=f"{kind}{dimensions}", shape=shape)


def _weight_shape(op: Any) -> tuple[int, ...] | None:
    weight = op.inputs.get("weight")
    held = None if weight is None else weight.val
    return None if held is None else tuple(int(size) for size in held.shape)
