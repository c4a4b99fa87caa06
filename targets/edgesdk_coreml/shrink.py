"""Narrow weights: those of a program's layers become integers or places, masked where sparse."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgesdk.compressed import CompressedModel
from edgesdk.layer_format import Weighted, layer_format
from edgesdk.scheme import GROUP_SIZE, KEPT_AS, PALETTE_BITS, WEIGHT_ONLY_SCHEMES, Scheme
from edgesdk_coreml.palettes import TARGET_NAME, table_functions
from edgesdk_coreml.seal import HANDLES, layers_of_outputs

_SETTINGS: Mapping[Scheme, Mapping[str, Any]] = {
    "w8": {"dtype": "int8", "granularity": "per_channel"},
    "w4": {"dtype": "int4", "granularity": "per_block", "block_size": GROUP_SIZE},
}


Pass = Callable[[Any], Any]


def shrink_weights(
    converted: Any, package: Path, layer_of_handle: Mapping[str, str], model: CompressedModel
) -> None:
    """Save a converted model again, with the weights of its layers of weight-only schemes narrow.

    ``package`` is where it was saved as it was converted, and is replaced where a layer is narrow.
    Integers are symmetric, with one scale per output channel or (int4) per 32 input channels;
    a layer's places have one table. Sparse layers have their zeros already (``with_zeros``).
    """
    schemes = _narrow_operations(converted, package, layer_of_handle, model)
    if not schemes:
        return
    # coremltools would drop what says which layer an operation came from.
    handles = (package / HANDLES).read_bytes()
    shrunk = converted
    for narrow in _passes(schemes, model):
        before, shrunk = shrunk, narrow(shrunk)
        if before is not converted:
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
        if scheme in WEIGHT_ONLY_SCHEMES:
            schemes[op.name] = scheme
    return schemes


def _passes(schemes: Mapping[str, Scheme], model: CompressedModel) -> Iterator[Pass]:
    """Yield what makes the weights of those operations narrow, each step after the one before.

    Masks come first, for coremltools masks what is zero: a weight that rounding makes zero would be
    masked too. Its own threshold for a mask leaves layers dense without a word that have fewer
    zeros than half (of an odd number), so it is zero here.
    """
    import coremltools.optimize.coreml as optimize

    functions = table_functions(model) if set(schemes.values()) & set(PALETTE_BITS) else {}
    zeros = optimize.OpThresholdPrunerConfig(
        threshold=0.0, minimum_sparsity_percentile=0.0, weight_threshold=0
    )
    sparse = {name: zeros for name, scheme in schemes.items() if scheme in KEPT_AS}
    if sparse:
        yield partial(optimize.prune_weights, config=_only(sparse))
    for joint in (False, True):
        integers, tables = {}, {}
        for name, scheme in schemes.items():
            if (scheme in KEPT_AS) != joint:
                continue
            if scheme in functions:
                tables[name] = optimize.OpPalettizerConfig(
                    mode="custom", lut_function=functions[scheme], weight_threshold=0
                )
            else:
                integers[name] = optimize.OpLinearQuantizerConfig(
                    mode="linear_symmetric",
                    weight_threshold=0,
                    **_SETTINGS[KEPT_AS.get(scheme, scheme)],
                )
        for narrow, configs in (
            (optimize.linear_quantize_weights, integers),
            (optimize.palettize_weights, tables),
        ):
            if configs:
                yield partial(narrow, config=_only(configs), joint_compression=joint)


def _only(configs: Mapping[str, Any]) -> Any:
    """Return a configuration of those operations and no others."""
    import coremltools.optimize.coreml as optimize

    return optimize.OptimizationConfig(global_config=None, op_name_configs=dict(configs))


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
