"""Rebuild networks that were measured but whose graphs are not published, and save the graphs.

    pip install timm ultralytics transformers torchvision
    python benchmarks/rebuild_graphs.py benchmarks/graphs [MODEL ...]

Each is the architecture at the input size that AI Hub Models 0.46 compiles, with random weights,
without downloads. A network whose number of parameters is
not the published one (the ``technical_details`` of its ``info.yaml``) is refused. What one can
only guess is not here. ``devices fit --graphs`` and ``prediction.py`` read the folder; the saved
graphs need none of these libraries.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rebuilt_convnets import Midas, ffnet_ns_lowres, ffnet_s, ffnet_s_lowres
from rebuilt_upscalers import Clamped, Esrgan, QuickSRNet, RealEsrganCompact, Sesr, UNet, Xlsr
from torch import Tensor, nn

from edgesdk.export import export_model
from edgesdk.trace import graph_to_json

_PARAMETER_TOLERANCE = 0.005  # the published figures have three digits


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A network to build: its inputs' shapes and how many parameters it is known to have.

    On the meta device nothing is computed; networks that look at values need ``cpu``.
    ``constants`` counts elements that the published number takes for parameters.
    """

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    parameters: float
    device: str = "meta"
    constants: int = 0


class TensorsOnly(nn.Module):
    """A network of transformers that returns the named outputs as tensors."""

    def __init__(self, network: nn.Module, *names: str, **arguments: Any) -> None:
        """Wrap the network, which gets the arguments besides its inputs."""
        super().__init__()
        self.network = network
        self.names = names
        self.arguments = arguments

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs."""
        found = self.network(*inputs, **self.arguments)
        return tuple(getattr(found, name) for name in self.names)


class Normalised(nn.Module):
    """A network of images that subtracts the mean and divides by the deviation of ImageNet's."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap the network."""
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("deviation", torch.ones(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Any:
        """Return what the network returns."""
        return self.network((image - self.mean) / self.deviation)


def _yolo(name: str, classes: int = 80) -> nn.Module:
    from ultralytics.nn.tasks import DetectionModel, SegmentationModel

    kind = SegmentationModel if name.endswith("-seg") else DetectionModel
    model: nn.Module = kind(f"{name}.yaml", nc=classes, verbose=False)
    head: Any = model.model[-1]
    head.export, head.end2end = True, False
    return Detector(model.eval())


class Detector(nn.Module):
    """A YOLO whose boxes are corners and whose scores are those of the likeliest class."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a detector or an instance segmenter of ultralytics."""
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return boxes, scores, classes, and for a segmenter coefficients and prototypes."""
        found = self.network(image)
        detections, *rest = found if isinstance(found, tuple) else (found,)
        head: Any = self.network.model[-1]
        detections = detections.permute(0, 2, 1)
        centre, size = detections[..., :2], detections[..., 2:4] / 2
        boxes = torch.cat([centre - size, centre + size], dim=-1)
        scores, classes = detections[..., 4 : 4 + head.nc].max(-1)
        masks = (detections[..., 4 + head.nc :],) if rest else ()
        return (boxes, scores, classes, *masks, *rest)


class Boxes(nn.Module):
    """A DETR with its postprocessing: the likeliest class of each query, corners in pixels."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a DETR of transformers."""
        super().__init__()
        self.network = network
        self.register_buffer("size", torch.ones(4))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return boxes, scores and labels."""
        found = self.network(image)
        scores, labels = found.logits.softmax(-1)[..., :-1].max(-1)
        centre, size = found.pred_boxes[..., :2], found.pred_boxes[..., 2:] / 2
        boxes = torch.cat([centre - size, centre + size], dim=-1) * self.size
        return boxes, scores, labels


def _depth_anything() -> nn.Module:
    import transformers

    backbone = transformers.Dinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        num_hidden_layers=12,
        image_size=518,
        patch_size=14,
        out_indices=[9, 10, 11, 12],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
    )
    network = transformers.DepthAnythingForDepthEstimation(config)
    return Normalised(TensorsOnly(network, "predicted_depth"))


def _detr(layers: int, *, dilation: bool = False) -> nn.Module:
    import transformers

    config = transformers.DetrConfig(
        use_timm_backbone=True,
        use_pretrained_backbone=False,
        backbone=f"resnet{layers}",
        dilation=dilation,
        num_labels=91,
    )
    return Normalised(Boxes(transformers.DetrForObjectDetection(config)))


def _conditional_detr() -> nn.Module:
    import transformers

    config = transformers.ConditionalDetrConfig(
        use_timm_backbone=True,
        use_pretrained_backbone=False,
        backbone="resnet50",
        num_queries=300,
        num_labels=91,
    )
    return Normalised(Boxes(transformers.ConditionalDetrForObjectDetection(config)))


class Clip(nn.Module):
    """CLIP ViT-B/16: the similarity of an image and a text."""

    def __init__(self) -> None:
        """Build it from transformers."""
        super().__init__()
        import transformers

        config = transformers.CLIPConfig(
            text_config={"projection_dim": 512},
            vision_config={"patch_size": 16, "projection_dim": 512},
            projection_dim=512,
        )
        self.network = transformers.CLIPModel(config)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Return the similarity."""
        logits: Tensor = self.network(input_ids=text.long(), pixel_values=image).logits_per_image
        return logits


def _video_mae() -> nn.Module:
    import transformers

    config = transformers.VideoMAEConfig(num_labels=400)
    return TensorsOnly(transformers.VideoMAEForVideoClassification(config), "logits")


def _midas() -> nn.Module:
    import timm

    backbone = timm.create_model(
        "tf_efficientnet_lite3", features_only=True, out_indices=(1, 2, 3, 4)
    )
    # MiDaS cuts EfficientNet into groups of stages, with the last stage of 384 channels.
    return Normalised(Midas(backbone, (32, 48, 136, 384)))


_UPSCALED = ((1, 3, 128, 128),)
_STREET = ((1, 3, 1024, 2048),)
_LOW_STREET = ((1, 3, 512, 1024),)
_DETECTED = ((1, 3, 640, 640),)
_ANCHORS = 3 * (80**2 + 40**2 + 20**2)  # x, y and stride of each cell of YOLO's three grids


def _detector(build: Callable[[], nn.Module], *, parameters: float) -> Rebuilt:
    """Return a YOLO, which looks at values and counts its grids' cells among its parameters."""
    return Rebuilt(
        build=build, shapes=_DETECTED, parameters=parameters, device="cpu", constants=_ANCHORS
    )


NETWORKS: Mapping[str, Rebuilt] = {
    "quicksrnetsmall": Rebuilt(
        build=lambda: QuickSRNet(32, 2, anchored=False), shapes=_UPSCALED, parameters=33.3e3
    ),
    "quicksrnetmedium": Rebuilt(
        build=lambda: QuickSRNet(32, 5, anchored=False), shapes=_UPSCALED, parameters=61.0e3
    ),
    "quicksrnetlarge": Rebuilt(
        build=lambda: QuickSRNet(64, 11, anchored=True), shapes=_UPSCALED, parameters=436e3
    ),
    "sesr_m5": Rebuilt(build=Sesr, shapes=_UPSCALED, parameters=343e3),
    "xlsr": Rebuilt(build=Xlsr, shapes=_UPSCALED, parameters=28.0e3),
    "real_esrgan_general_x4v3": Rebuilt(
        build=RealEsrganCompact, shapes=_UPSCALED, parameters=1.21e6
    ),
    "real_esrgan_x4plus": Rebuilt(
        build=lambda: Clamped(Esrgan()), shapes=_UPSCALED, parameters=16.7e6
    ),
    "esrgan": Rebuilt(build=Esrgan, shapes=_UPSCALED, parameters=16.7e6),
    "unet_segmentation": Rebuilt(build=UNet, shapes=((1, 3, 640, 1280),), parameters=31.0e6),
    "ffnet_40s": Rebuilt(
        build=lambda: Normalised(ffnet_s((4, 5, 6, 4))), shapes=_STREET, parameters=13.9e6
    ),
    "ffnet_54s": Rebuilt(
        build=lambda: Normalised(ffnet_s((5, 8, 8, 5))), shapes=_STREET, parameters=18.0e6
    ),
    "ffnet_78s": Rebuilt(
        build=lambda: Normalised(ffnet_s((6, 12, 12, 8))), shapes=_STREET, parameters=27.5e6
    ),
    "ffnet_78s_lowres": Rebuilt(
        build=lambda: Normalised(ffnet_s_lowres((6, 12, 12, 8))),
        shapes=_LOW_STREET,
        parameters=26.8e6,
    ),
    "ffnet_122ns_lowres": Rebuilt(
        build=lambda: Normalised(ffnet_ns_lowres((16, 24, 20))),
        shapes=_LOW_STREET,
        parameters=32.1e6,
    ),
    "yolov8_det": _detector(lambda: _yolo("yolov8n"), parameters=3.18e6),
    "yolov8_seg": _detector(lambda: _yolo("yolov8n-seg"), parameters=3.43e6),
    "yolov11_det": _detector(lambda: _yolo("yolo11n"), parameters=2.64e6),
    "yolov11_seg": _detector(lambda: _yolo("yolo11n-seg"), parameters=2.89e6),
    "fastsam_s": _detector(lambda: _yolo("yolov8s-seg", classes=1), parameters=11.8e6),
    "depth_anything": Rebuilt(build=_depth_anything, shapes=((1, 3, 518, 518),), parameters=24.7e6),
    "depth_anything_v2": Rebuilt(
        build=_depth_anything, shapes=((1, 3, 518, 518),), parameters=24.7e6
    ),
    "detr_resnet50": Rebuilt(
        build=lambda: _detr(50), shapes=_DETECTED, parameters=41.4e6, device="cpu"
    ),
    "detr_resnet101": Rebuilt(
        build=lambda: _detr(101), shapes=_DETECTED, parameters=60.3e6, device="cpu"
    ),
    "conditional_detr_resnet50": Rebuilt(
        build=_conditional_detr, shapes=_DETECTED, parameters=43.6e6, device="cpu"
    ),
    "openai_clip": Rebuilt(build=Clip, shapes=((1, 3, 224, 224), (1, 77)), parameters=150e6),
    # 87.7 million as published, which counts the fixed table of positions.
    "video_mae": Rebuilt(build=_video_mae, shapes=((1, 16, 3, 224, 224),), parameters=86.5e6),
    "midas": Rebuilt(build=_midas, shapes=((1, 3, 256, 256),), parameters=16.6e6),
}


def rebuild(name: str) -> Mapping[str, Any]:
    """Return a network's saved graph; ``ValueError`` where its parameters are not as published."""
    wanted = NETWORKS[name]
    network = wanted.build().eval()
    parameters = sum(weights.numel() for weights in network.parameters()) + wanted.constants
    if abs(parameters / wanted.parameters - 1) > _PARAMETER_TOLERANCE:
        raise ValueError(f"{parameters} parameters, not {wanted.parameters:.4g}")
    inputs = tuple(
        torch.zeros(
            shape,
            dtype=torch.int32 if len(shape) == 2 else torch.float32,
            device=wanted.device,
        )
        for shape in wanted.shapes
    )
    return graph_to_json(export_model(network.to(wanted.device), inputs), name=name)


def main() -> None:
    """Save the graphs."""
    parser = argparse.ArgumentParser(description="Save the graphs of measured networks.")
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.models or NETWORKS:
        try:
            graph = rebuild(name)
        except ValueError as problem:
            print(f"{name}: refused: {problem}")
            continue
        saved = json.dumps(graph, separators=(",", ":")).encode()
        path = arguments.out / f"{name}.json.gz"
        path.write_bytes(gzip.compress(saved, compresslevel=9, mtime=0))
        print(f"{name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
