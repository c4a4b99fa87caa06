"""A Hugging Face model folder: the network of ``config.json``, the weights of its safetensors."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgesdk.errors import TaskError
from edgesdk.task import InputSpec, OutputSpec, Task, Tensors

CONFIG = "config.json"
_LARGEST_CONFIG_BYTES = 2**20
_TOKENS = 64
_SAMPLES_PER_SECOND = 16000
_FRAMES = 3000  # Whisper's 30 seconds, a frame every 10 ms


class TensorsOnly(nn.Module):
    """A transformers model that takes its inputs by position and returns the tensors it gives.

    Caches and other nested values are left out; ``names`` says what the returned tensors are.
    """

    def __init__(self, model: nn.Module, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.names: tuple[str, ...] = ()

    def forward(self, *tensors: Tensor) -> Tensors:
        """Return the tensors among the model's outputs, each ``[N, ...]``."""
        found = self.model(**dict(zip(self.inputs, tensors, strict=True)), return_dict=True)
        rows = tensors[0].shape[0]
        kept = {
            name: value
            for name, value in found.items()
            if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == rows
        }
        self.names = tuple(kept)
        return tuple(kept.values())


def load_huggingface(path: Path, *, random: bool = False) -> Task:
    """Return a task with the model of a folder or ``config.json``, and nothing but the model.

    ``random``: take random weights, which show what a network costs and not how well it works;
    the task's name then says so. Otherwise the folder holds them as safetensors. Nothing is
    downloaded, no code in the folder is run, no pickle is read.

    Raises ``TaskError`` where transformers is missing, does not know the architecture, or the
    weights are not there.
    """
    config_path = path / CONFIG if path.is_dir() else path
    config = _read_config(config_path)
    model = _random_model(config) if random else _stored_model(config, config_path.parent)
    return task_of(model, name=config_path.resolve().parent.name, random=random,
                   source=_digest(config_path.parent, config_path, random=random))  # fmt: skip


def task_of(model: nn.Module, *, name: str, random: bool, source: str) -> Task:
    """Return the task of a transformers model: example inputs after its configuration."""
    named = example_inputs(model)
    wrapped = TensorsOnly(model.eval(), tuple(named))
    with torch.no_grad():
        wrapped(*named.values())
    kinds: Any = {"pixel_values": "image", "input_ids": "tokens", "attention_mask": "tokens"}
    return Task(
        name=f"{name} (random weights)" if random else name,
        model=wrapped,
        example_inputs=tuple(named.values()),
        inputs=tuple(InputSpec(name=n, kind=kinds.get(n, "tensor")) for n in named),
        outputs=tuple(
            OutputSpec(name=n, kind="logits" if n == "logits" else "tensor") for n in wrapped.names
        ),
        source=source,
    )


def example_inputs(model: Any) -> dict[str, Tensor]:
    """Return a batch of one for a model's main input, shaped by its configuration."""
    config, main = model.config, model.main_input_name
    if main == "pixel_values":
        size = _attribute(config, "image_size", 224)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return {main: torch.zeros(1, _attribute(config, "num_channels", 3), height, width)}
    if main == "input_values":
        return {main: torch.zeros(1, _SAMPLES_PER_SECOND)}
    if main == "input_features":
        return {main: torch.zeros(1, _attribute(config, "num_mel_bins", 80), _FRAMES)}
    if main == "input_ids":
        length = min(_TOKENS, _attribute(config, "max_position_embeddings", _TOKENS))
        ones = torch.ones(1, length, dtype=torch.int64)
        return {main: ones, "attention_mask": ones.clone()}
    raise TaskError(
        f"{type(model).__name__} takes {main!r}, for which no example is known",
        expected="pixel_values, input_ids, input_values or input_features",
        next_step="write a task in Python that gives example_inputs",
    )


def _attribute(config: Any, name: str, default: Any) -> Any:
    found = getattr(config, name, None)
    return default if found is None else found


def _read_config(path: Path) -> Any:
    if not path.is_file():
        raise TaskError(f"{path} does not exist", expected=f"a model folder with a {CONFIG}")
    if path.stat().st_size > _LARGEST_CONFIG_BYTES:
        raise TaskError(f"{path} is larger than a configuration is")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        kind = document["model_type"]
    except (ValueError, TypeError, KeyError) as problem:
        raise TaskError(f"{path} is no configuration of transformers: {problem!r}") from problem
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.for_model(
            kind, **{key: value for key, value in document.items() if key != "model_type"}
        )
    except Exception as problem:
        raise TaskError(
            f"transformers {transformers.__version__} cannot read {path}: "
            f"{(str(problem).splitlines() or [''])[0]}",
            expected="a model type that transformers brings itself",
        ) from problem
    config.use_cache = False
    return config


def _model_class(config: Any) -> Any:
    """Return the class that the configuration names, else the plain model of its type."""
    transformers = _transformers()
    names = config.architectures or []
    found = getattr(transformers, str(names[0]), None) if names else None
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        return found
    return transformers.AutoModel


def _random_model(config: Any) -> nn.Module:
    torch.manual_seed(0)
    cls = _model_class(config)
    model: nn.Module = cls.from_config(config) if hasattr(cls, "from_config") else cls(config)
    return model


def _stored_model(config: Any, folder: Path) -> nn.Module:
    if not any(folder.glob("*.safetensors")):
        others = sorted(file.name for file in folder.glob("*.bin"))
        raise TaskError(
            f"{folder} holds no weights as safetensors"
            + (f", only {', '.join(others)}" * bool(others)),
            expected="model.safetensors; pickled weights are not read",
            next_step=f"give random:{folder} for random weights",
        )
    try:
        model: nn.Module = _model_class(config).from_pretrained(
            folder, config=config, use_safetensors=True, local_files_only=True,
            trust_remote_code=False, torch_dtype=torch.float32,
        )  # fmt: skip
    except Exception as problem:
        lines = str(problem).splitlines() or [type(problem).__name__]
        raise TaskError(f"transformers cannot load {folder}: {lines[0]}") from problem
    return model


def _digest(folder: Path, config: Path, *, random: bool) -> str:
    digest = hashlib.sha256(f"random={random}".encode() + config.read_bytes())
    for file in [] if random else sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as problem:
        raise TaskError(
            f"transformers cannot be imported: {problem}",
            next_step="pip install 'edgesdk[transformers]'",
        ) from problem
