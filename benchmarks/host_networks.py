"""Networks that calibration never measures: transformers' architectures made small, and our own.

Random weights throughout: latency does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from footprint_networks import separable
from torch import Tensor, nn

from edgesdk.demo.resnet import ResNet
from edgesdk.task import Tensors


@dataclass(frozen=True, kw_only=True)
class Network:
    """A module and one example input."""

    module: nn.Module
    inputs: Tensors


class Only(nn.Module):
    """A transformers model that returns one tensor of its answer."""

    def __init__(self, model: nn.Module, field: str) -> None:
        super().__init__()
        self.model, self.field = model, field

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = getattr(self.model(x), self.field)
        return answer


def host_networks() -> dict[str, Callable[[], Network]]:
    """Return a builder for each network, by name."""
    return {
        "digits": lambda: image(_small_resnet(channels=1, blocks=1), 1, 8),
        "resnet20": lambda: image(_small_resnet(channels=3, blocks=3), 3, 32),
        "ds_cnn": lambda: Network(
            module=separable(64, 4, image_channels=1).eval(), inputs=(torch.randn(1, 1, 49, 10),)
        ),
        "resnet": lambda: vision(
            "ResNet", 96, embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[2, 2, 2, 2],
            layer_type="basic",
        ),
        "resnet_bottleneck": lambda: vision(
            "ResNet", 128, embedding_size=32, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2],
        ),
        "mobilenet_v1": lambda: vision("MobileNetV1", 128, depth_multiplier=0.5),
        "mobilenet_v2": lambda: vision("MobileNetV2", 128, depth_multiplier=0.75),
        "regnet": lambda: vision(
            "RegNet", 112, embedding_size=16, hidden_sizes=[24, 56, 152, 368],
            depths=[1, 1, 4, 7], groups_width=8, layer_type="x",
        ),
        "convnext": lambda: vision(
            "ConvNext", 96, hidden_sizes=[40, 80, 160, 320], depths=[2, 2, 6, 2]
        ),
        "poolformer": lambda: vision(
            "PoolFormer", 96, hidden_sizes=[32, 64, 160, 256], depths=[2, 2, 4, 2]
        ),
        "vit": lambda: vision(
            "ViT", 96, image_size=96, hidden_size=192, num_hidden_layers=6, num_attention_heads=3,
            intermediate_size=768,
        ),
        "deit": lambda: vision(
            "DeiT", 64, image_size=64, patch_size=8, hidden_size=128, num_hidden_layers=4,
            num_attention_heads=4, intermediate_size=512,
        ),
        "segformer": lambda: vision(
            "Segformer", 96, hidden_sizes=[16, 32, 80, 128], depths=[1, 1, 1, 1]
        ),
        "bert": lambda: _text(
            "Bert", 64, hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=512,
        ),
        "distilbert": lambda: _text(
            "DistilBert", 32, dim=256, n_layers=4, n_heads=4, hidden_dim=1024
        ),
    }  # fmt: skip


def _small_resnet(*, channels: int, blocks: int) -> ResNet:
    return ResNet(channels=channels, widths=(16, 32, 64), blocks=(blocks,) * 3, classes=10)


def image(module: nn.Module, channels: int, side: int) -> Network:
    """Return a network of a square image."""
    return Network(module=module.eval(), inputs=(torch.randn(1, channels, side, side),))


def vision(family: str, side: int, **sizes: Any) -> Network:
    """Return one of transformers' classifiers of images, made as its configuration says."""
    config = getattr(transformers, f"{family}Config")(num_labels=100, **sizes)
    model = getattr(transformers, f"{family}ForImageClassification")(config)
    return image(Only(model, "logits"), 3, side)


def _text(family: str, tokens: int, **sizes: Any) -> Network:
    config = getattr(transformers, f"{family}Config")(
        vocab_size=2000, max_position_embeddings=128, attn_implementation="eager", **sizes
    )
    model = getattr(transformers, f"{family}ForSequenceClassification")(config)
    return Network(
        module=Only(model, "logits").eval(), inputs=(torch.randint(0, 2000, (1, tokens)),)
    )
