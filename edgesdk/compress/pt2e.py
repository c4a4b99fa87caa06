"""Static int8 by PyTorch 2 export: one calibrated graph that XNNPACK and Core ML both take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgesdk.compress.dynamic import round_dynamic_layers
from edgesdk.compress.ranges import portions
from edgesdk.compressed import CompressedModel
from edgesdk.errors import TaskError, UnsupportedModel
from edgesdk.export import export_model
from edgesdk.task import Tensors

_aten = torch.ops.aten

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d")
_LAYERS = (*_CONVOLUTIONS, "linear")
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")

# Layers that absorb the clamp behind them: their output is then calibrated after the clamp, and
# no code is spent on values that are cut off. The quantizer knows relu itself.
_CLAMPED_LAYERS = ("conv1d", "conv2d", "linear")
_CLAMPS = (_aten.hardtanh.default, _aten.hardtanh_.default)
_RELU6 = (_aten.relu6.default, _aten.relu6_.default)


def quantize_graph(model: CompressedModel) -> GraphModule:
    """Return the model's graph with every layer in its scheme, at the example inputs' batch.

    Static int8 where the network is (``quantize_static_int8``), ranges found at run time where a
    layer's scheme says so (``edgesdk.compress.dynamic``), float for the rest, batch norms folded.
    It runs as it is, and lowers to XNNPACK. Errors are those of ``quantize_static_int8``.
    """
    if model.scheme == "int8":
        graph = quantize_static_int8(model)
    else:
        graph = _converted(export_graph(model), _float_quantizer(), ())
    round_dynamic_layers(graph, model)
    return graph


def quantize_static_int8(model: CompressedModel) -> GraphModule:
    """Return the model's graph with int8 weights and activations, at the example inputs' batch.

    Layers that ``model.layer_schemes`` takes out of int8 stay in float here.

    Weights are int8, symmetric, one scale per output channel, stored as int8 constants;
    activations are int8, one scale and zero point per tensor, from a histogram over all of
    ``model.calibration``. Batch norms are folded into the layer before them; one that has none
    becomes a 1x1 depthwise convolution, which is quantized too. The graph takes and returns float
    and holds quantize/dequantize pairs around what it computes; it runs as it is, and
    ``torch.export.export(graph, model.example_inputs)`` makes of it the program that XNNPACK and
    Core ML lower. ``model.module`` is not changed.

    Needs executorch and torchao. The scheme is that of Krishnamoorthi 2018, "Quantizing deep
    convolutional networks for efficient inference", section 3.1.

    Raises ``UnsupportedModel`` naming layer and operator where the model cannot be exported or a
    layer cannot be quantized, and ``TaskError`` for calibration data that is missing or of the
    wrong shape or type.
    """
    graph = export_graph(model)
    quantized = _converted(graph, _quantizer(model), calibration_batches(model))
    _require_int8_weights(quantized, model)
    return quantized


def _converted(graph: GraphModule, quantizer: Any, batches: Iterable[Tensors]) -> GraphModule:
    """Return the graph as a quantizer has it after these batches, batch norms folded."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    with torch.no_grad():
        observed = prepare_pt2e(graph, quantizer)
        for batch in batches:
            observed(*batch)
        quantized: GraphModule = convert_pt2e(observed)
    return quantized


def export_graph(model: CompressedModel) -> GraphModule:
    """Return the model's float graph, in the operators that XNNPACK and its quantizer know.

    It computes what ``model.module`` does; batch norms behind a layer are not folded yet. Needs
    torchao. Raises ``UnsupportedModel`` naming the layer where the model cannot be exported.
    """
    # Without the guards: they are a call into Python that no later pass understands.
    graph: GraphModule = export_model(model.module, model.example_inputs).module(check_guards=False)
    for rewrite in _REWRITES:
        rewrite(graph)
    return graph


def calibration_batches(model: CompressedModel) -> Iterator[Tensors]:
    """Yield all calibration samples as batches of exactly the example inputs' shapes.

    Samples that do not fill the last batch are joined by samples from the beginning, so nothing
    foreign enters the ranges. Raises ``TaskError`` where there is no sample, or where a sample is
    not shaped and typed like the example inputs.
    """
    size = model.example_inputs[0].shape[0]
    batches = [_checked(batch, model.example_inputs) for batch in model.calibration]
    if not batches:
        raise TaskError(
            "int8 needs calibration data and there is none",
            next_step="give the Task a calibration function that yields input tuples",
        )
    yield from portions(batches, size)


def _checked(batch: Tensors, examples: Tensors) -> Tensors:
    expected = ", ".join(f"{list(e.shape[1:])} {e.dtype}" for e in examples)
    found = ", ".join(f"{list(b.shape[1:])} {b.dtype}" for b in batch)
    rows = {tensor.shape[0] for tensor in batch}
    if found != expected or len(rows) != 1 or 0 in rows:
        raise TaskError(
            f"a calibration batch holds inputs of {found or 'nothing'} in {sorted(rows)} rows",
            expected=f"inputs of {expected} behind the batch dimension, as many rows in each",
        )
    return tuple(batch)


def _quantizer(model: CompressedModel) -> Any:
    """Return the XNNPACK quantizer, taught about ReLU6 and about layers that are not int8."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    config = get_symmetric_quantization_config(is_per_channel=True)

    class StaticInt8Quantizer(XNNPACKQuantizer):  # type: ignore[misc]
        # No layer is followed by its batch norm any more, and looking for that takes seconds.
        SUPPORTED_PATTERNS = [p for p in XNNPACKQuantizer.SUPPORTED_PATTERNS if not p.is_qat]  # noqa: RUF012

        def annotate(self, model: GraphModule) -> GraphModule:
            _annotate_clamped(model, config, is_static)
            return super().annotate(model)  # type: ignore[no-any-return]

    def is_static(node: Node) -> bool:
        return model.scheme_of(layer_path(node)) == "int8"

    return StaticInt8Quantizer().set_global(config).set_filter_function(is_static)


def _float_quantizer() -> Any:
    """Return a quantizer that marks nothing: preparing and converting then only fold batch norms.

    The XNNPACK quantizer would turn every scalar into a float tensor, indices among them.
    """
    from torchao.quantization.pt2e.quantizer import Quantizer

    class FloatQuantizer(Quantizer):  # type: ignore[misc]
        def annotate(self, model: GraphModule) -> GraphModule:
            return model

        def validate(self, model: GraphModule) -> None:
            return None

    return FloatQuantizer()


def fold_constants(model: GraphModule) -> None:
    """Compute once what depends on no input, in place: XNNPACK takes only constant weights.

    Needs torchao.

    Given:   w = g * v / norm(v)      y = conv(x, w)         as after ``weight_norm``
    Result:  y = conv(x, w)           w a parameter
    """
    from torchao.quantization.pt2e.constant_fold import constant_fold

    with torch.no_grad():
        constant_fold(model)
    for name in [name for name in model._buffers if name.startswith("_frozen_param")]:
        # As a parameter, for torchao cannot fold a batch norm into anything else.
        tensor = model.get_buffer(name)
        delattr(model, name)
        model.register_parameter(name, nn.Parameter(tensor, requires_grad=False))


def _give_each_user_its_own_constant(model: GraphModule) -> None:
    """Copy a weight or bias that several operators read for each further one, in place.

    With a shared weight, XNNPACK folds the batch norms of both layers into it, and the quantizer
    leaves the second layer in float; a shared bias is scaled for the input of the first layer
    only. The numbers would be wrong, silently. Equal bytes are stored once in the file anyway.
    """
    for node in list(model.graph.find_nodes(op="get_attr")):
        for index, user in enumerate(list(node.users)[1:], start=1):
            tensor = _constant(model, node)
            with model.graph.inserting_before(user):
                own = _add_constant(model, f"_own_{node.name}_{index}", tensor.clone())
            own.meta = dict(node.meta)
            user.replace_input_with(node, own)


def _keep_integers(model: GraphModule) -> None:
    """Make constants of the numbers that integer tensors are added to or multiplied by, in place.

    Given:   y = add(i, 1)       i integer
    Result:  y = add(i, c)       c an integer constant

    The quantizer turns such numbers into float constants, and positions computed with them are no
    indices any more.
    """
    for node in list(model.graph.nodes):
        if node.target not in (_aten.add.Tensor, _aten.mul.Tensor) or "val" not in node.meta:
            continue
        dtype = node.meta["val"].dtype
        for place, number in enumerate(node.args):
            if isinstance(number, int) and not dtype.is_floating_point:
                with model.graph.inserting_before(node):
                    name = f"_{node.name}_number_{place}"
                    node.update_arg(place, _add_constant(model, name, torch.tensor(number)))
    model.recompile()


def _keep_mean_dimensions(model: GraphModule) -> None:
    """Turn a spatial mean into one that keeps its dimensions and a flatten, in place.

    Given:   y = mean(x, (2, 3))                         x [N, C, H, W]   y [N, C]
    Result:  y = flatten(mean(x, (-1, -2), keepdim=True), 1)

    The same numbers, but XNNPACK knows only the second form (its global average pooling).
    """
    for node in list(model.graph.nodes):
        if node.target != _aten.mean.dim or len(node.args) > 2 or node.kwargs:
            continue
        source, dimensions = node.args
        if _rank(source) != 4 or {int(d) % 4 for d in dimensions} != {2, 3}:
            continue
        with model.graph.inserting_before(node):
            mean = model.graph.call_function(node.target, (source, [-1, -2], True))
            flat = model.graph.call_function(_aten.flatten.using_ints, (mean, 1))
        mean.meta = {**node.meta, "val": node.meta["val"][..., None, None]}
        flat.meta = dict(node.meta)
        node.replace_all_uses_with(flat)
        model.graph.erase_node(node)
    model.recompile()


def _replace_clamps(model: GraphModule) -> None:
    """Turn relu6(x) and clamp(x, low, high) into the hardtanh they are, in place.

    The quantizer passes an int8 tensor through hardtanh and would leave float around the others.
    With an upper bound of 1, hardtanh's default, it goes the other way: the bound gets lost on
    the way to XNNPACK's serializer, which then fails. Bounds become floats where the tensor is
    float: Core ML takes no others.
    """
    for node in model.graph.nodes:
        if node.target in _RELU6:
            node.args = (node.args[0], 0.0, 6.0)
        elif node.target not in (*_CLAMPS, _aten.clamp.default):
            continue
        if len(node.args) == 3 and None not in node.args:
            source, low, high = _arguments(node)
            if node.meta["val"].is_floating_point():
                node.args = (source, float(low), float(high))
            is_lost = high == 1 and low != -1
            node.target = _aten.clamp.default if is_lost else _aten.hardtanh.default
    model.recompile()


def _arguments(node: Node) -> tuple[Any, ...]:
    return node.args


def _replace_batch_norms(model: GraphModule) -> None:
    """Turn every batch norm that cannot be folded into a 1x1 depthwise convolution, in place.

    Given:   y = batch_norm(x, gamma, beta, mean, var, eps=e)     x [N, C], [N, C, L], [N, C, H, W]
    Result:  y = conv(x, w, b, groups=C)      w = gamma / sqrt(var + e)   b = beta - mean * w

    Left alone it would be computed in float between two int8 layers. One that follows a layer
    stays and is folded into it; but torchao folds also where others read that layer's result, and
    they would get the normalised one.
    """
    for node in list(model.graph.nodes):
        if node.target != _aten.batch_norm.default or _is_foldable(node):
            continue
        source, *tensors, _training, _momentum, eps, _cudnn = node.args
        if tensors[2] is None or _rank(source) > 4:
            continue  # normalises by the batch's own statistics, or is 3-D
        gamma, beta, mean, variance = (t and _constant(model, t) for t in tensors)
        weight = torch.rsqrt(variance + eps) * (1.0 if gamma is None else gamma)
        bias = (0.0 if beta is None else beta) - mean * weight
        with model.graph.inserting_before(node):
            replacement = _depthwise(model, node, weight, bias)
        node.replace_all_uses_with(replacement)
        model.graph.erase_node(node)
    model.graph.eliminate_dead_code()
    model.recompile()


def _is_foldable(norm: Node) -> bool:
    """Return whether a batch norm scales the output channels of a layer that nobody else reads."""
    layer: Any = norm.args[0]
    is_linear = _name(layer) == "linear" and _rank(layer) == 2
    return len(layer.users) == 1 and (is_linear or _name(layer) in _CONVOLUTIONS)


def _depthwise(model: GraphModule, norm: Node, weight: Tensor, bias: Tensor) -> Node:
    """Return ``norm.args[0] * weight + bias`` per channel as a convolution, inserted here."""
    source: Any = norm.args[0]
    shape = source.meta["val"].shape
    spatial = max(len(shape) - 2, 1)
    name = f"_{norm.name}"
    kernel = _add_constant(model, f"{name}_weight", weight.reshape(-1, *[1] * (spatial + 1)))
    offset = _add_constant(model, f"{name}_bias", bias)
    convolution = _aten.conv1d.default if spatial == 1 else _aten.conv2d.default
    ones, zeros = [1] * spatial, [0] * spatial
    steps: list[tuple[Any, tuple[Any, ...]]] = [
        (convolution, (kernel, offset, ones, zeros, ones, weight.numel()))
    ]
    if len(shape) == 2:
        steps = [(_aten.reshape.default, ([*shape, 1],)), *steps, (_aten.flatten.using_ints, (1,))]
    node = source
    for target, arguments in steps:
        node = model.graph.call_function(target, (node, *arguments))
        node.meta = dict(norm.meta)
    result: Node = node
    return result


def _annotate_clamped(model: GraphModule, config: Any, is_static: Callable[[Node], bool]) -> None:
    """Mark every convolution or linear layer that only a ReLU6 reads as one quantized unit."""
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    for clamp in model.graph.nodes:
        if clamp.target not in _CLAMPS:
            continue
        layer = clamp.args[0]
        if _name(layer) not in _CLAMPED_LAYERS or len(layer.users) > 1 or not is_static(layer):
            continue
        layer.meta["quantization_annotation"] = QuantizationAnnotation(
            input_qspec_map={
                layer.args[0]: config.input_activation,
                layer.args[1]: config.weight,
            },
            _annotated=True,
        )
        clamp.meta["quantization_annotation"] = QuantizationAnnotation(
            output_qspec=config.output_activation, _annotated=True
        )


_REWRITES = (
    fold_constants,  # before they are shared out
    _give_each_user_its_own_constant,  # before batch norms are folded into them
    _keep_integers,
    _keep_mean_dimensions,
    _replace_batch_norms,
    _replace_clamps,
)


def layer_path(node: Node) -> str:
    """Return the path of the innermost module that a node came from, empty for the model."""
    stack = node.meta.get("nn_module_stack", {})
    return next((str(path) for path, _ in reversed(stack.values())), "")


def _require_int8_weights(graph: GraphModule, model: CompressedModel) -> None:
    """Raise ``UnsupportedModel`` for a layer whose weights are still float after conversion."""
    for node in graph.graph.nodes:
        name, layer = _name(node), layer_path(node)
        if layer in model.layer_schemes and name not in _RECURRENT:
            continue
        if name in _RECURRENT or (name in _LAYERS and "dequantize" not in str(node.args[1])):
            raise UnsupportedModel(
                f"layer {layer or '(the model)'} cannot be quantized to int8: "
                f"XNNPACK's quantizer leaves this {name} in float",
                expected="convolutions (transposed ones without groups) and linear layers",
                next_step="compile it in a float precision",
            )


def _name(node: Node) -> str:
    """Return "conv2d" for a call of ``aten.conv2d.default`` or ``aten.conv2d.padding``.

    Only calls have such a name: a constant may be called "linear.weight".
    """
    if node.op != "call_function":
        return ""
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _rank(node: Any) -> int:
    return node.meta["val"].dim() if isinstance(node, Node) else 0


def _constant(model: GraphModule, node: Node) -> Tensor:
    """Return the tensor that a ``get_attr`` node reads."""
    owner, _, name = str(node.target).rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(owner), name)
    return tensor.detach()


def _add_constant(model: GraphModule, name: str, tensor: Tensor) -> Node:
    model.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    node = model.graph.get_attr(name)
    node.meta["val"] = tensor
    return node
