"""A Hugging Face model folder: the network of ``config.json``, the weights of its safetensors."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgesdk.errors import EdgeSDKError, TaskError, first_line
from edgesdk.task import InputSpec, OutputSpec, Task, Tensors

CONFIG = "config.json"
# What a configuration may say of kernels and classes to be fetched or imported.
_NAMING_CODE = (
    "attn_implementation", "_attn_implementation", "experts_implementation",
    "_experts_implementation", "auto_map", "quantization_config",
)  # fmt: skip
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


def load_huggingface(path: Path, *, random: bool = False, allow_pickle: bool = False) -> Task:
    """Return a task with the model of a folder or ``config.json``, and nothing but the model.

    ``random``: take random weights, which show what a network costs and not how well it works;
    the task's name then says so. Otherwise the folder holds them as safetensors, or, where
    ``allow_pickle`` says that its maker is trusted, as pickles. Nothing is downloaded and no code
    in the folder is run.

    Raises ``TaskError`` where transformers is missing, does not know the architecture, or the
    weights are not there.
    """
    config_path = path / CONFIG if path.is_dir() else path
    config = _read_config(config_path)
    folder = config_path.parent
    files = [] if random else _weight_files(folder, allow_pickle=allow_pickle)
    # Cache keys hold the weights themselves.
    source = hashlib.sha256(config_path.read_bytes()).hexdigest()
    try:
        model = _random_model(config) if random else _stored_model(config, folder, files)
        return task_of(model, name=config_path.resolve().parent.name, random=random, source=source)
    except EdgeSDKError:
        raise
    except Exception as problem:  # transformers raises whatever its model's code does
        raise TaskError(
            f"the model of {config_path} does not run with its main input alone: "
            f"{first_line(problem)}",
            next_step="write a task in Python that wraps the part to deploy and gives its inputs",
        ) from problem


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
    """Return a batch of one for a model's main input, shaped by its configuration.

    The values are drawn at random, always the same ones: a file is compared with PyTorch on them,
    and zeros would hide most mistakes.
    """
    config, main = model.config, model.main_input_name
    draw = torch.Generator().manual_seed(0)
    if main == "input_ids":
        # RoBERTa and its kin count positions from behind the padding token's number.
        padding = _attribute(config, "pad_token_id", 0)
        positions = _attribute(config, "max_position_embeddings", _TOKENS)
        behind = padding + 1 if 0 < padding < positions // 2 else 0
        length = max(1, min(_TOKENS, positions - behind))
        ids = torch.randint(0, config.vocab_size, (1, length), generator=draw)
        ids[ids == padding] = (padding + 1) % config.vocab_size
        return {main: ids, "attention_mask": torch.ones_like(ids)}
    if main == "pixel_values":
        size = _attribute(config, "image_size", 224)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        shape: tuple[int, ...] = (1, _attribute(config, "num_channels", 3), height, width)
    elif main == "input_values":
        shape = (1, _SAMPLES_PER_SECOND)
    elif main == "input_features":
        shape = (1, _attribute(config, "num_mel_bins", 80), _FRAMES)
    else:
        raise TaskError(
            f"{type(model).__name__} takes {main!r}, for which no example is known",
            expected="pixel_values, input_ids, input_values or input_features",
            next_step="write a task in Python that gives example_inputs",
        )
    return {main: torch.randn(shape, generator=draw)}


def _attribute(config: Any, name: str, default: Any) -> Any:
    found = getattr(config, name, None)
    return default if found is None else found


def _read_config(path: Path) -> Any:
    if not path.is_file():
        raise TaskError(
            f"{path} does not exist",
            expected=f"a Hugging Face model folder with a {CONFIG}, or a SavedModel of TensorFlow "
            "with a saved_model.pb",
        )
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
            kind, **{key: value for key, value in _plain(document).items() if key != "model_type"}
        )
    except Exception as problem:
        raise TaskError(
            f"transformers {transformers.__version__} cannot read {path}: {first_line(problem)}",
            expected="a model type that transformers brings itself",
        ) from problem
    config.use_cache = False
    return config


def _plain(document: Any) -> Any:
    """Return the configuration, its sub-configurations too, without what names code to be used."""
    if not isinstance(document, dict):
        return document
    return {key: _plain(value) for key, value in document.items() if key not in _NAMING_CODE}


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


def _weight_files(folder: Path, *, allow_pickle: bool) -> list[Path]:
    """Return the files with the weights: safetensors, else pickles where they are allowed."""
    if found := sorted(folder.glob("*.safetensors")):
        return found
    pickles = sorted(folder.glob("*.bin"))
    if pickles and allow_pickle:
        return pickles
    names = f", only {', '.join(file.name for file in pickles)}" if pickles else ""
    raise TaskError(
        f"{folder} holds no weights as safetensors{names}",
        expected="model.safetensors" + ("; pickles can run code when they are read" * bool(names)),
        next_step=("give --allow-pickle if you trust its maker, or " if pickles else "")
        + f"name it random:{folder} for random weights",
    )


def _stored_model(config: Any, folder: Path, files: list[Path]) -> nn.Module:
    try:
        model, report = _model_class(config).from_pretrained(
            folder, config=config, use_safetensors=files[0].suffix == ".safetensors",
            local_files_only=True, trust_remote_code=False, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as problem:
        raise TaskError(
            f"transformers cannot load {folder}: {first_line(problem)}",
            next_step="copy the folder again, all of its files",
        ) from problem
    # transformers draws what is missing at random and only warns; such a model knows nothing.
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise TaskError(
            f"{folder} lacks {len(lacking)} of the model's weights, {lacking[0]} among them",
            expected=f"all weights of a {type(model).__name__}",
            next_step="check 'architectures' in config.json against what the weights were saved of",
        )
    loaded: nn.Module = model
    return loaded


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as problem:
        raise TaskError(
            f"transformers cannot be imported: {problem}",
            next_step="pip install 'edgesdk[transformers]'",
        ) from problem
