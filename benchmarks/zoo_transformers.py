"""Architectures of transformers, by their configurations, made tiny. Weights are random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TEXT = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 32,
}  # fmt: skip
_VIT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
_STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A configuration's class, the settings that make it tiny, and the model's class.

    ``image``: height and width of the input where the configuration has none. ``part``: the
    attribute of the model that is compiled, where it is not all of it.
    """

    config: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    image: int | None = None
    part: str = ""


def _image(name: str, settings: Mapping[str, Any], image: int | None = None) -> Architecture:
    return Architecture(
        config=f"{name}Config",
        model=f"{name}ForImageClassification",
        settings=settings,
        image=image,
    )


def _text(name: str, head: str = "ForSequenceClassification", **settings: Any) -> Architecture:
    return Architecture(config=f"{name}Config", model=f"{name}{head}", settings=_TEXT | settings)


_SPEECH = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "conv_dim": [16, 16, 16], "conv_kernel": [10, 3, 3], "conv_stride": [5, 4, 4],
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
_CAUSAL = {"num_key_value_heads": 2, "pad_token_id": 0}

ARCHITECTURES: Mapping[str, Architecture] = {
    "resnet": _image("ResNet", {"embedding_size": 8, **_STAGES, "layer_type": "basic"}, 64),
    "resnet_bottleneck": _image("ResNet", {"embedding_size": 8, **_STAGES}, 64),
    "regnet": _image("RegNet", {"embedding_size": 8, **_STAGES, "groups_width": 8}, 64),
    "mobilenet_v1": _image("MobileNetV1", {"depth_multiplier": 0.25, "image_size": 64}),
    "mobilenet_v2": _image("MobileNetV2", {"depth_multiplier": 0.25, "image_size": 64}),
    "efficientnet": _image("EfficientNet", {
        "image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320,
    }),
    "convnext": _image("ConvNext", {**_STAGES, "image_size": 64}),
    "convnext_v2": _image("ConvNextV2", {**_STAGES, "image_size": 64}),
    "bit": _image("Bit", {"embedding_size": 8, **_STAGES, "num_groups": 1}, 64),
    "focalnet": _image("FocalNet", {
        "image_size": 32, "embed_dim": 16, "depths": [1, 1], "focal_levels": [2, 2],
        "focal_windows": [3, 3], "hidden_sizes": [16, 32],
    }),
    "poolformer": _image("PoolFormer", _STAGES, 64),
    "pvt_v2": _image("PvtV2", {**_STAGES, "image_size": 64, "num_attention_heads": [1, 2, 2, 4]}),
    "cvt": _image("Cvt", {
        "embed_dim": [16, 32, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3],
    }, 64),
    "vit": _image("ViT", _VIT),
    "deit": _image("DeiT", _VIT),
    "beit": _image("Beit", _VIT),
    "dinov2": _image("Dinov2", _VIT),
    "swin": _image("Swin", {
        "image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2],
        "window_size": 4,
    }),
    "mobilevit": _image("MobileViT", {
        "image_size": 64, "hidden_sizes": [32, 32, 32],
        "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32],
    }),
    "mobilevit_v2": _image("MobileViTV2", {"image_size": 64, "width_multiplier": 0.25}),
    "levit": _image("Levit", {
        "image_size": 64, "hidden_sizes": [16, 32, 48], "num_attention_heads": [2, 4, 4],
        "depths": [1, 1, 1], "key_dim": [8, 8, 8],
    }),
    "segformer": Architecture(
        config="SegformerConfig",
        model="SegformerForSemanticSegmentation",
        settings={**_STAGES, "num_attention_heads": [1, 2, 2, 4], "decoder_hidden_size": 16},
        image=64,
    ),
    "dpt": Architecture(
        config="DPTConfig",
        model="DPTForDepthEstimation",
        settings=_VIT | {
            "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 16,
        },
    ),
    "yolos": Architecture(
        config="YolosConfig",
        model="YolosForObjectDetection",
        settings=_VIT | {"image_size": [32, 32], "num_detection_tokens": 5},
    ),
    "detr": Architecture(
        config="DetrConfig",
        model="DetrForObjectDetection",
        settings={
            "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
            "backbone_config": {"model_type": "resnet", "embedding_size": 8, **_STAGES,
                                "out_features": ["stage4"]},
            "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
            "num_queries": 5,
        },
        image=64,
    ),
    "clip_vision": Architecture(config="CLIPVisionConfig", model="CLIPVisionModel", settings=_VIT),
    "siglip_vision": Architecture(
        config="SiglipVisionConfig", model="SiglipVisionModel", settings=_VIT
    ),
    "bert": _text("Bert"),
    "minilm": _text("Bert", "Model"),
    "roberta": _text("Roberta", max_position_embeddings=40, pad_token_id=1),
    "electra": _text("Electra", embedding_size=32),
    "mpnet": _text("MPNet", max_position_embeddings=40, pad_token_id=1),
    "albert": _text("Albert", embedding_size=16),
    "mobilebert": _text("MobileBert", embedding_size=16, intra_bottleneck_size=16,
                        true_hidden_size=16),
    "distilbert": Architecture(
        config="DistilBertConfig",
        model="DistilBertForSequenceClassification",
        settings={"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64,
                  "max_position_embeddings": 32},
    ),
    "gpt2": Architecture(
        config="GPT2Config",
        model="GPT2LMHeadModel",
        settings={"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32},
    ),
    "opt": _text("OPT", "ForCausalLM", ffn_dim=64, word_embed_proj_dim=32, pad_token_id=1),
    "llama": _text("Llama", "ForCausalLM", **_CAUSAL),
    "qwen2": _text("Qwen2", "ForCausalLM", **_CAUSAL),
    "t5_encoder": Architecture(
        config="T5Config",
        model="T5EncoderModel",
        settings={"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
                  "num_heads": 4},
    ),
    "whisper_encoder": Architecture(
        config="WhisperConfig",
        model="WhisperModel",
        settings={
            "vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1,
            "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64, "max_source_positions": 50, "num_mel_bins": 16,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
        },
        part="encoder",
    ),
    "wav2vec2": Architecture(config="Wav2Vec2Config", model="Wav2Vec2Model", settings=_SPEECH),
    "hubert": Architecture(config="HubertConfig", model="HubertModel", settings=_SPEECH),
}  # fmt: skip
