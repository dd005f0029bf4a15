"""The zoo's networks: how each is named, built with random weights, and fed.

torchvision, timm (one small member of every family), transformers, ultralytics and segmentation-models-pytorch. The last three are for
trying prunedge alone; ultralytics is AGPL, and the package never imports it.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

MEMBERS = Path(__file__).parent / "results" / "timm_members.json"
SETS = ("torchvision", "segmentation", "detection", "video", "timm", "transformers", "ultralytics", "smp")
# A forward pass of these does not fit the memory or the time at their own depth or image size; said so in the table.
SMALLER = {
    "vit_h_14": "depth 4", "vit_l_16": "depth 6", "vit_l_32": "depth 6", "regnet_y_128gf": "64 px", "convnext_large": "64 px",
    "efficientnet_v2_l": "96 px", "efficientnet_b7": "96 px",
}  # fmt: skip

# The same for timm: the image's size, and what `create_model` is told.
SMALLER_TIMM: dict[str, tuple[int, dict[str, Any]]] = {
    "deepseek_vit_412m": (224, {"img_size": 224, "depth": 4}),
    "gemma4_vit_167m": (192, {"img_size": 192, "depth": 4}),
    "qwen3_vit_88m": (192, {"img_size": 192, "depth": 4}),
    "sam2_hiera_tiny": (224, {}),
}

# The class, and what makes its usual configuration small enough; "size" is that of the image where the configuration has none.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "beit": ("BeitForImageClassification", {"num_hidden_layers": 3}),
    "bit": ("BitForImageClassification", {"size": 96}),
    "clip-vision": ("CLIPVisionModel", {"num_hidden_layers": 3}),
    "clip": ("CLIPModel", {"text_config": {"num_hidden_layers": 2}, "vision_config": {"num_hidden_layers": 2}}),
    "convnext": ("ConvNextForImageClassification", {"size": 96}),
    "convnextv2": ("ConvNextV2ForImageClassification", {"size": 96}),
    "cvt": ("CvtForImageClassification", {"size": 96}),
    "data2vec-vision": ("Data2VecVisionForImageClassification", {"num_hidden_layers": 3}),
    "deit": ("DeiTForImageClassification", {"num_hidden_layers": 3}),
    "depth_anything": ("DepthAnythingForDepthEstimation", {"size": 112}),
    "detr": ("DetrForObjectDetection", {"encoder_layers": 2, "decoder_layers": 2, "size": 128, "resnet": True}),
    "dinov2": ("Dinov2ForImageClassification", {"num_hidden_layers": 3}),
    "dinov2_with_registers": ("Dinov2WithRegistersForImageClassification", {"num_hidden_layers": 3}),
    "dinov3_vit": ("DINOv3ViTModel", {"num_hidden_layers": 3}),
    "dpt": (
        "DPTForDepthEstimation",
        {"image_size": 128, "is_hybrid": False, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]},
    ),
    "efficientnet": ("EfficientNetForImageClassification", {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "size": 96}),
    "focalnet": ("FocalNetForImageClassification", {"depths": [1, 1, 2, 1]}),
    "glpn": ("GLPNForDepthEstimation", {"size": 96}),
    "hgnet_v2": ("HGNetV2ForImageClassification", {"size": 96}),
    "hiera": ("HieraForImageClassification", {}),
    "ijepa": ("IJepaForImageClassification", {"num_hidden_layers": 3}),
    "levit": ("LevitForImageClassification", {}),
    "maskformer-swin": ("MaskFormerSwinBackbone", {"depths": [1, 1, 2, 1], "size": 224}),
    "mobilenet_v1": ("MobileNetV1ForImageClassification", {"size": 96}),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", {"size": 96}),
    "mobilevit": ("MobileViTForImageClassification", {}),
    "mobilevit-segmentation": ("MobileViTForSemanticSegmentation", {}),
    "mobilevitv2": ("MobileViTV2ForImageClassification", {}),
    "poolformer": ("PoolFormerForImageClassification", {"size": 96}),
    "pp_lcnet": ("PPLCNetForImageClassification", {"size": 96}),
    "pvt": ("PvtForImageClassification", {}),
    "pvt_v2": ("PvtV2ForImageClassification", {"size": 96}),
    "regnet": ("RegNetForImageClassification", {"size": 96}),
    "resnet": ("ResNetForImageClassification", {"size": 96}),
    "rt_detr": ("RTDetrForObjectDetection", {"size": 128}),
    "segformer": ("SegformerForSemanticSegmentation", {"size": 128}),
    "siglip-vision": ("SiglipVisionModel", {"num_hidden_layers": 3}),
    "siglip": ("SiglipModel", {"text_config": {"num_hidden_layers": 2}, "vision_config": {"num_hidden_layers": 2}}),
    "superpoint": ("SuperPointForKeypointDetection", {"size": 96}),
    "swiftformer": ("SwiftFormerForImageClassification", {}),
    "swin": ("SwinForImageClassification", {"depths": [2, 2]}),
    "swinv2": ("Swinv2ForImageClassification", {"depths": [2, 2]}),
    "swin2sr": ("Swin2SRForImageSuperResolution", {"size": 64, "depths": [2, 2], "num_heads": [6, 6]}),
    "textnet": ("TextNetForImageClassification", {"size": 96}),
    "upernet": ("UperNetForSemanticSegmentation", {"size": 96, "resnet": True}),
    "vit": ("ViTForImageClassification", {"num_hidden_layers": 3}),
    "vit_msn": ("ViTMSNForImageClassification", {"num_hidden_layers": 3}),
    "vitdet": ("VitDetBackbone", {"num_hidden_layers": 3}),
    "yolos": ("YolosForObjectDetection", {"num_hidden_layers": 3}),
}  # fmt: skip
ULTRALYTICS = (
    "yolov5n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n", "yolov8n-seg", "yolo11n-seg", "yolo26n-seg",
    "yolov8n-cls", "yolo11n-cls", "yolo26n-cls", "yolov8n-pose", "yolo11n-pose", "yolo26n-pose", "yolov8n-obb", "yolo11n-obb",
    "yolo26n-obb",
)  # fmt: skip
SMP = (
    "Unet resnet18", "Unet mobilenet_v2", "Unet timm-efficientnet-b0", "Unet mit_b0", "UnetPlusPlus resnet18", "MAnet resnet18",
    "Linknet resnet18", "FPN resnet18", "FPN densenet121", "PSPNet resnet18", "PAN resnet18", "DeepLabV3 resnet18",
    "DeepLabV3Plus resnet18", "UPerNet resnet18", "Segformer mit_b0", "Segformer resnet18", "DPT tu-vit_tiny_patch16_224",
)  # fmt: skip


def names_of(kind: str) -> list[str]:
    """The networks of a set."""
    if kind == "transformers":
        return list(TRANSFORMERS)
    if kind == "ultralytics":
        return list(ULTRALYTICS)
    if kind == "smp":
        return list(SMP)
    import torchvision.models as tv

    if kind == "torchvision":
        return tv.list_models(module=tv)
    if kind in ("segmentation", "detection", "video"):
        return tv.list_models(module=getattr(tv, kind))
    import timm

    found = json.loads(MEMBERS.read_text()) if MEMBERS.exists() else {}
    if found.get("timm") != timm.__version__:
        names = [name for module in timm.list_modules() if (name := _smallest(module)) is not None]
        found = {"timm": timm.__version__, "members": names}
        MEMBERS.parent.mkdir(parents=True, exist_ok=True)
        MEMBERS.write_text(json.dumps(found, indent=1))
    return found["members"]


def _smallest(module: str) -> str | None:
    """The member of a timm family with the fewest parameters, among the three whose names promise to be small."""
    import timm

    hints = ("test_", "femto", "atto", "pico", "nano", "xxs", "xxt", "xx", "tiny", "xs", "mini", "_t", "small", "_s", "18", "26", "base")
    found = timm.list_models(module=module)
    ranked = sorted(found, key=lambda name: next((i for i, hint in enumerate(hints) if hint in name), len(hints)))[:3]
    if ranked and ranked[0].startswith("test_"):
        return ranked[0]
    sizes = {}
    for name in ranked:
        try:
            with torch.device("meta"):
                sizes[name] = sum(p.numel() for p in timm.create_model(name).parameters())
        except Exception:  # some networks compute with their weights while they are made
            sizes[name] = sum(p.numel() for p in timm.create_model(name).parameters())
    return min(sizes, key=sizes.__getitem__) if sizes else None


def build(kind: str, name: str) -> tuple[nn.Module, Any]:
    """A network with random weights, and an example for it: a tensor (1, 3, h, w), or a dict of named inputs."""
    torch.manual_seed(0)
    if kind == "transformers":
        return _transformers(name)
    if kind == "ultralytics":
        return _ultralytics(name), torch.rand(1, 3, 128, 128)
    if kind == "smp":
        return _smp(name)
    if kind == "timm":
        return _timm(name)
    return _torchvision(kind, name)


def _transformers(name: str) -> tuple[nn.Module, Any]:
    import transformers

    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module="transformers")
    kind, changes = TRANSFORMERS[name]
    changes = dict(changes)
    size = changes.pop("size", None)
    if changes.pop("resnet", False):
        stages = ["stage1", "stage2", "stage3", "stage4"] if name == "upernet" else ["stage4"]
        layers = transformers.ResNetConfig(out_features=stages, depths=[1, 1, 1, 1])
        own = {"auxiliary_in_channels": 1024} if name == "upernet" else {"use_timm_backbone": False, "use_pretrained_backbone": False}
        changes |= {"backbone_config": layers, **own}
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**changes)
    model = model_class(config)
    vision = getattr(config, "vision_config", config)
    if size is None:
        size = getattr(vision, "image_size", 224)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    images = torch.randn(1, getattr(vision, "num_channels", 3), height, width)
    if name in ("clip", "siglip"):
        return model, {"input_ids": torch.arange(5, 21)[None], "pixel_values": images}
    return model, {"pixel_values": images}


def _ultralytics(name: str) -> nn.Module:
    from ultralytics.nn import tasks
    from ultralytics.utils import LOGGER

    LOGGER.setLevel(logging.ERROR)
    kinds = {"seg": "SegmentationModel", "cls": "ClassificationModel", "pose": "PoseModel", "obb": "OBBModel"}
    kind = kinds.get(name.partition("-")[2], "DetectionModel")
    return getattr(tasks, kind)(f"{name}.yaml", verbose=False)


def _smp(name: str) -> tuple[nn.Module, torch.Tensor]:
    import segmentation_models_pytorch as smp

    decoder, encoder = name.split()
    size = {"DPT": 224, "PAN": 128}.get(decoder, 64)
    return getattr(smp, decoder)(encoder, encoder_weights=None, classes=3), torch.randn(1, 3, size, size)


def note_of(kind: str, name: str) -> str:
    """In what a network is smaller here than it usually is; empty where it is as usual."""
    if kind == "timm":
        size, made_so = SMALLER_TIMM.get(name, (0, {}))
        depth = [f"depth {made_so['depth']}"] if "depth" in made_so else []
        return ", ".join([f"{size} px", *depth]) if size else ""
    if kind == "transformers":
        return ", ".join(dict.fromkeys(_smaller(TRANSFORMERS[name][1])))
    return SMALLER.get(name, "")


def _smaller(settings: dict[str, Any]) -> Iterator[str]:
    """The sizes and depths among a configuration's settings."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _smaller(value)
        elif key in ("size", "image_size"):
            yield f"{value} px"
        elif "layers" in key or key in ("depths", "depth"):
            yield f"{key.replace('_', ' ')} {value}"


def _timm(name: str) -> tuple[nn.Module, torch.Tensor]:
    import timm

    if (less := SMALLER_TIMM.get(name)) is not None:
        size, made_so = less
        return timm.create_model(name, **made_so), torch.randn(1, 3, size, size)
    net = timm.create_model(name)
    size = net.default_cfg.get("test_input_size") or net.default_cfg["input_size"]
    return net, torch.randn(1, *net.default_cfg["input_size"] if net.default_cfg.get("fixed_input_size") else size)


def _torchvision(kind: str, name: str) -> tuple[nn.Module, torch.Tensor]:
    import torchvision.models as tv

    if kind == "detection":
        size = 300 if "ssd300" in name else 320
        return _Heads(tv.get_model(name, weights=None, weights_backbone=None)), torch.randn(1, 3, size, size)
    if kind == "segmentation":
        auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
        return tv.get_model(name, weights=None, weights_backbone=None, **auxiliary), torch.randn(1, 3, 96, 96)
    if kind == "video":
        frames, size = (16, 224) if name.startswith(("mvit", "s3d")) else (8, 112)
        return tv.get_model(name, weights=None), torch.randn(1, 3, frames, size, size)
    return _classifier(name)


def _classifier(name: str) -> tuple[nn.Module, torch.Tensor]:
    import torchvision.models as tv

    note, size = SMALLER.get(name, ""), 224
    if note.startswith("depth"):
        from torchvision.models.vision_transformer import _vision_transformer

        shapes = {"vit_h_14": (14, 1280, 16, 5120), "vit_l_16": (16, 1024, 16, 4096), "vit_l_32": (32, 1024, 16, 4096)}
        patch, width, heads, mlp = shapes[name]
        return _vision_transformer(patch, int(note.split()[1]), heads, width, mlp, None, False), torch.randn(1, 3, 224, 224)
    if note:
        size = int(note.split()[0])
    elif name == "inception_v3":
        size = 299
    elif not name.startswith(("vit", "swin", "maxvit")):
        size = 128
    return tv.get_model(name, weights=None), torch.randn(1, 3, size, size)


class _Heads(nn.Module):
    """A detector's backbone, neck and heads, without the proposal logic between them."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone = detector.backbone
        for part in ("head", "rpn", "roi_heads"):
            if hasattr(detector, part):
                setattr(self, part, getattr(detector, part))

    def forward(self, x: torch.Tensor) -> Any:
        """Every tensor that the heads make from the maps of the backbone."""
        features = self.backbone(x)
        maps = list(features.values()) if isinstance(features, dict) else [features]
        out: list[Any] = []
        if hasattr(self, "rpn"):
            out.append(self.rpn.head(maps))
            pooled = nn.functional.adaptive_avg_pool2d(maps[0], 7)
            out.append(self.roi_heads.box_predictor(self.roi_heads.box_head(pooled)))
            for name in ("mask", "keypoint"):
                head = getattr(self.roi_heads, f"{name}_head", None)
                if head is not None:
                    wide = nn.functional.adaptive_avg_pool2d(maps[0], 14)
                    out.append(getattr(self.roi_heads, f"{name}_predictor")(head(wide)))
            return out
        return self.head(maps)


def randomise(net: nn.Module) -> None:
    """Give every scale, shift and running statistic a value of its own, so that no channel is zero by chance of initialisation."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.copy_(torch.rand(module.running_mean.shape, generator=generator) * 0.4 - 0.2)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
        for name, parameter in net.named_parameters():
            flat = parameter.numel() == max(parameter.shape, default=1)
            zero = not bool(parameter.any())
            if flat:
                low = -0.3 if name.endswith("bias") or zero else 0.6
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * (0.6 if low < 0 else 0.8) + low)
            elif zero:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
