"""Sealing a package: equal models give equal bytes, and operations are named after their layers.

coremltools names values by counters that run on through a process, stamps the date and draws
random identifiers. Hashes and caches rest on the bytes, so all three are replaced: names by the
layer and the operation (``b1_conv1_conv``, what Xcode and an on-device profile then show),
identifiers by ones derived from the file's place, and the date is dropped.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgesdk_coreml.package import SPECIFICATION, read_specification

_MANIFEST = "Manifest.json"
_DATE = "com.github.apple.coremltools.conversion_date"
# coremltools leaves this beside the program where nodes carry debug handles; Core ML ignores it.
HANDLES = "executorch_debug_handle_mapping.json"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://developer.apple.com/documentation/coreml")


def seal(
    package: Path, layer_of_handle: Mapping[str, str], metadata: Mapping[str, str]
) -> dict[str, str]:
    """Rewrite a saved package deterministically and return the layer of each named operation.

    ``layer_of_handle`` gives the layer behind a debug handle; ``metadata`` is added to what an
    app can read from the model.
    """
    layers = layers_of_outputs(package / HANDLES, layer_of_handle)
    (package / HANDLES).unlink(missing_ok=True)
    specification = read_specification(package)
    function = specification.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    fixed = {named.name for named in function.inputs} | set(block.outputs)
    names = _canonical_names(list(block.operations), layers, fixed)
    _rename(block, names)
    user_defined = specification.description.metadata.userDefined
    user_defined.pop(_DATE, None)
    user_defined.update(metadata)
    path = package / SPECIFICATION
    path.write_bytes(specification.SerializeToString(deterministic=True))
    path.chmod(0o644)
    _seal_manifest(package / _MANIFEST)
    return {names.get(old, old): layer for old, layer in layers.items()}


def layers_of_outputs(path: Path, layer_of_handle: Mapping[str, str]) -> dict[str, str]:
    """Return the layer of each operation by its output's name, from the file that says it."""
    if not path.exists():
        return {}
    mapping = json.loads(path.read_text(encoding="utf-8"))["mapping"]
    return {
        place[-1]["Output"]: layer_of_handle[handle]
        for handle, places in mapping.items()
        if handle in layer_of_handle
        for place in places
        if place[-1]["Operator"] != "const"
    }


def _canonical_names(
    operations: list[Any], layers: Mapping[str, str], fixed: set[str]
) -> dict[str, str]:
    names = {name: name for name in fixed}
    taken = set(fixed)

    def claim(old: str, stem: str) -> None:
        if old not in names:
            names[old] = _free(re.sub(r"\W", "_", stem), taken)

    computed = [op for op in operations if not _is_constant(op)]
    consumer: dict[str, tuple[str, str]] = {}
    for op in operations:
        for parameter, argument in sorted(op.inputs.items()):
            for binding in argument.arguments:
                consumer.setdefault(binding.name, (op.outputs[0].name, parameter))
    for op in computed:
        layer = layers.get(op.outputs[0].name, "")
        for output in op.outputs:
            claim(output.name, f"{layer}_{op.type}" if layer else op.type)
    # Backwards, so that a constant's consumer has its name before the constant takes it over.
    for op in reversed(operations):
        for output in op.outputs:
            by, parameter = consumer.get(output.name, ("", ""))
            claim(output.name, f"{names[by]}_{parameter}" if by else op.type)
    return names


def _is_constant(op: Any) -> bool:
    return str(op.type) == "const" or str(op.type).startswith("constexpr_")


def _free(stem: str, taken: set[str]) -> str:
    stem = stem if stem[:1].isalpha() or stem[:1] == "_" else f"_{stem}"
    name, number = stem, 1
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    taken.add(name)
    return name


def _rename(block: Any, names: Mapping[str, str]) -> None:
    for op in block.operations:
        for argument in op.inputs.values():
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "name":
                    binding.name = names.get(binding.name, binding.name)
        for output in op.outputs:
            output.name = names[output.name]
        if "name" in op.attributes:
            strings = op.attributes["name"].immediateValue.tensor.strings
            del strings.values[:]
            strings.values.append(op.outputs[0].name)


def _seal_manifest(path: Path) -> None:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    entries = manifest["itemInfoEntries"]
    sealed = {
        old: str(uuid.uuid5(_NAMESPACE, entry["path"])).upper() for old, entry in entries.items()
    }
    manifest["itemInfoEntries"] = {sealed[old]: entry for old, entry in entries.items()}
    manifest["rootModelIdentifier"] = sealed[manifest["rootModelIdentifier"]]
    path.write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", encoding="utf-8")
