"""Narrow weights: those of a program's layers become integers or places, masked where sparse."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgesdk.compressed import CompressedModel
from edgesdk.layer_format import LayerFormat, Weighted, layer_format
from edgesdk.scheme import GROUP_SIZE, KEPT_AS, PALETTE_BITS, WEIGHT_ONLY_SCHEMES, Scheme
from edgesdk_coreml.palettes import TARGET_NAME, narrow_layers, table_functions
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
    formats = OperationFormats(model)
    schemes: dict[str, Scheme] = {}
    for op in converted._mil_program.functions["main"].operations:
        layer = layers.get(op.outputs[0].name, "")
        found = formats.find(op.op_type, _weight_shape(op), layer)
        if found is not None and found.scheme in WEIGHT_ONLY_SCHEMES:
            schemes[op.name] = found.scheme
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


class OperationFormats:
    """What the operations of a model's program are to be stored in."""

    def __init__(self, model: CompressedModel) -> None:
        self._model = model
        self._layers = {path for path, _, _ in narrow_layers(model)}

    def find(self, kind: str, shape: tuple[int, ...] | None, layer: str) -> LayerFormat | None:
        """Return the format of a layer's operation by its weight, None where it has none.

        Zeros are those of convolutions and linear layers: what else multiplies by weights, such as
        the steps of an LSTM, is stored without a mask.
        """
        if shape is None or kind not in ("conv", "conv_transpose", "linear"):
            return None
        dimensions = f"{len(shape) - 2}d" if kind != "linear" else ""
        weighted = Weighted(kind=f"{kind}{dimensions}", shape=shape)
        asked = self._model.scheme_of(layer)
        if asked in KEPT_AS and layer not in self._layers:
            found = layer_format(TARGET_NAME, weighted, KEPT_AS[asked])
            reason = found.reason or "zeros are chosen in convolutions and linear layers alone"
            return LayerFormat(scheme=found.scheme, reason=reason)
        return layer_format(TARGET_NAME, weighted, asked)


def _weight_shape(op: Any) -> tuple[int, ...] | None:
    weight = op.inputs.get("weight")
    held = None if weight is None else weight.val
    return None if held is None else tuple(int(size) for size in held.shape)
