"""Narrow weights: layers of a converted program whose weights become int8 or int4 constants."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgesdk.compressed import CompressedModel
from edgesdk.layer_format import Weighted, layer_format
from edgesdk.scheme import GROUP_SIZE, Scheme
from edgesdk_coreml.seal import HANDLES, layers_of_outputs

TARGET_NAME = "coreml"
_SETTINGS: Mapping[Scheme, Mapping[str, Any]] = {
    "w8": {"dtype": "int8", "granularity": "per_channel"},
    "w4": {"dtype": "int4", "granularity": "per_block", "block_size": GROUP_SIZE},
}


def shrink_weights(
    converted: Any, package: Path, layer_of_handle: Mapping[str, str], model: CompressedModel
) -> None:
    """Save a converted model again, with the weights of its ``w8`` and ``w4`` layers narrow.

    ``package`` is where it was saved as it was converted, and is replaced where a layer is narrow.
    Weights are symmetric, with one scale per output channel or (int4) per 32 input channels.
    """
    import coremltools.optimize.coreml as optimize

    layers = layers_of_outputs(package / HANDLES, layer_of_handle)
    configs = {}
    for op in converted._mil_program.functions["main"].operations:
        layer = weighted_operation(op.op_type, _weight_shape(op))
        if layer is None:
            continue
        asked = model.scheme_of(layers.get(op.outputs[0].name, ""))
        settings = _SETTINGS.get(layer_format(TARGET_NAME, layer, asked).scheme)
        if settings is not None:
            configs[op.name] = optimize.OpLinearQuantizerConfig(
                mode="linear_symmetric", weight_threshold=0, **settings
            )
    if not configs:
        return
    # coremltools would drop what says which layer an operation came from.
    handles = (package / HANDLES).read_bytes()
    shrunk = optimize.linear_quantize_weights(
        converted, optimize.OptimizationConfig(global_config=None, op_name_configs=configs)
    )
    shutil.rmtree(package)
    shrunk.save(str(package))
    (package / HANDLES).write_bytes(handles)
    shutil.rmtree(shrunk.package_path, ignore_errors=True)


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
