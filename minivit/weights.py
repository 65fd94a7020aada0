"""Weights of other libraries: a function of renames per source, and a strict check before anything is copied."""
import math
import re
from collections.abc import Callable, Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from minivit.layers.position import ContinuousPositionBias, RelativePositionBias, resize_table

Weights = dict[str, Tensor]
CLASSIFIERS = ("head", "fc")  # ViT's and ResNet's; an Identity where num_classes=0


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor], source: str = "torchvision", *, resize: str = "bicubic") -> list[str]:
    """Copy a state dict of ``source`` into ``model``, all of it or nothing; returns the names of what was left out.

    "torchvision" and "timm" take the ViTs that share our layout (class token first, learned positions, pre-norm blocks,
    patchify stem), Swin V1 and V2, and ResNets, whose names are ours already. Shapes are those of the libraries, but that the positions
    ``(1, 1+N, D)`` become ``(1+N, D)``; dtype and device stay the model's. "minivit" takes a state dict of our own.

    Only the classifier may be left out: a model with ``num_classes=0`` has none, so ``head.*`` (ViT) or ``fc.*`` (ResNet)
    of the checkpoint is dropped and returned. Only BatchNorm's step counter ``num_batches_tracked`` may be missing, as
    in torchvision's old files: our function does not depend on it.

    "moco_v3" takes the official checkpoints of MoCo v3, ViT or ResNet-50 (the value of their key "state_dict"), with or without the prefix
    ``module.base_encoder.``. Momentum encoder and heads are dropped and returned, and so is the fixed position code, after a
    comparison with the model's own. ViTs must have twelve heads, as its small one has, unlike everybody else's.

    "swin" takes Microsoft's checkpoints of Swin V1 and V2 (the value of their key "model"). A Swin of another window or image size gets
    V1's position biases resized, "bicubic" or "geometric" (`resize_table`). V2's biases are computed anew: build the model with
    ``pretrained_window=`` that of the checkpoint. Where this holds its coordinates of offsets, they must be those of the model. Such
    constants, and torchvision's bias of K, which nothing reads, are dropped; the former are returned.

    Raises ValueError for an unknown source, and where any key is missing, unexpected or of the wrong shape (positions of
    another image size, say): the message lists all of them, and the model is as before. What shapes cannot show is not
    checked: the number of heads, or the pooling.
    Source: the names in torchvision 0.29 (whose files say ``mlp.linear_1``), timm 1.0 and microsoft/Swin-Transformer.
    """
    if source not in SOURCES:
        raise ValueError(f"source={source!r}: weights come from {', '.join(SOURCES)}.")
    odd = [name for name, value in state_dict.items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(f"a state_dict maps names to tensors, but {', '.join(odd)} are something else: pass the inner dict.")
    weights = SOURCES[source](dict(state_dict))
    no_classifier = tuple(f"{part}." for part in CLASSIFIERS if isinstance(getattr(model, part, None), nn.Identity))
    left_out = [name for name in weights if name.startswith((*no_classifier, *LEFT_OUT.get(source, ()))) or name.endswith(CONSTANTS)]
    if source == "moco_v3":
        left_out += _fixed_positions(model, weights)
    _same_coordinates(model, weights)
    for name in left_out:
        del weights[name]
    weights = _fitting_tables(model, weights, resize)
    _check(model.state_dict(), weights, what=f"the {source} checkpoint does not fit this {type(model).__name__}")
    model.load_state_dict(weights, strict=False)
    return left_out


def _check(own: Weights, given: Weights, *, what: str) -> None:
    """ValueError with everything that is wrong, unless the names and shapes of the two are the same."""
    problems = {
        "missing": [name for name in own if name not in given and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in given if name not in own],
        "of wrong shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in given and given[name].shape != own[name].shape
        ],
    }
    told = [f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names]
    if told:
        raise ValueError(f"{what}; {'; '.join(told)}. Nothing was changed.")


# ---------------------------------------------------------------------------------------------------- renames by source


def _rename(weights: Weights, rules: dict[str, str | Callable[[re.Match], str]]) -> Weights:
    """Each name with every rule (a regular expression and its replacement) applied in turn; positions lose their leading axis."""
    renamed = {}
    for name, value in weights.items():
        for pattern, replacement in rules.items():
            name = re.sub(pattern, replacement, name)
        if name in renamed:
            raise ValueError(f"two keys of the checkpoint are both our {name}.")
        renamed[name] = value.flatten(0, 1) if name == "positions.table" and value.dim() == 3 else value
    return renamed


def _from_torchvision(weights: Weights) -> Weights:
    return _in_our_layout(_rename(weights, {
        r"^features\.0\.0\.": "stem.proj.",  # Swin: stem, then blocks and merging of each stage in turn
        r"^features\.0\.2\.": "stem_norm.",
        r"^features\.(\d+)\.(?=\d)": lambda m: f"stages.{int(m[1]) // 2}.blocks.",
        r"^features\.(\d+)\.": lambda m: f"stages.{int(m[1]) // 2 - 1}.merge.",
        r"^(stages.*\.mlp)\.3\.": r"\1.2.",
        **SWIN_BLOCK,
        r"^class_token$": "cls_token",
        r"^conv_proj\.": "stem.proj.",
        r"^encoder\.pos_embedding$": "positions.table",
        r"^encoder\.ln\.": "norm.",
        r"^encoder\.layers\.encoder_layer_(\d+)\.": r"blocks.\1.",
        r"^(blocks\.\d+)\.ln_([12])\.": r"\1.norm\2.",
        r"^(blocks\.\d+)\.self_attention\.in_proj_": r"\1.attn.to_qkv.",
        r"^(blocks\.\d+)\.self_attention\.out_proj\.": r"\1.attn.to_out.",
        r"^(blocks\.\d+)\.mlp\.linear_1\.": r"\1.mlp.0.",
        r"^(blocks\.\d+)\.mlp\.(linear_2|3)\.": r"\1.mlp.2.",
        r"^heads\.head\.": "head.",
    }))  # fmt: skip


def _from_timm(weights: Weights) -> Weights:
    return _in_our_layout(_rename(weights, {
        r"^(absolute_)?pos_embed$": "positions.table",
        r"^patch_embed\.proj\.": "stem.proj.",
        r"^patch_embed\.norm\.": "stem_norm.",
        r"^layers\.(\d+)\.downsample\.": lambda m: f"stages.{int(m[1]) - 1}.merge.",  # a Swin stage begins with merging
        r"^layers\.": "stages.",
        r"^head\.fc\.": "head.",
        **SWIN_BLOCK,
        r"(blocks\.\d+)\.mlp\.fc1\.": r"\1.mlp.0.",
        r"(blocks\.\d+)\.mlp\.fc2\.": r"\1.mlp.2.",
    }))  # fmt: skip


def _from_swin(weights: Weights) -> Weights:
    """Names are timm's, but that a stage ends with merging."""
    return _from_timm(_rename(weights, {r"^layers\.(\d+)\.downsample\.": r"stages.\1.merge."}))


SWIN_BLOCK = {
    r"(blocks\.\d+)\.attn\.qkv\.": r"\1.attn.to_qkv.",
    r"(blocks\.\d+)\.attn\.proj\.": r"\1.attn.to_out.",
    r"\.relative_position_bias_table$": ".position_bias.table",
    r"\.(cpb|rpe)_mlp\.": ".position_bias.mlp.",
    r"\.relative_coords_table$": ".position_bias.coordinates",
}
CONSTANTS = (".relative_position_index", ".position_bias.coordinates", ".attn_mask")  # what a Swin computes from its sizes


def _in_our_layout(weights: Weights) -> Weights:
    """Scales of Swin V2 ``(heads, 1, 1) -> (heads,)``, and its biases of q and v out of torchvision's of q, k and v."""
    for name, value in list(weights.items()):
        if name.endswith("logit_scale"):
            weights[name] = value.flatten()
            block = name.removesuffix("logit_scale")
            if f"{block}to_qkv.bias" in weights:
                weights[f"{block}q_bias"], _, weights[f"{block}v_bias"] = weights.pop(f"{block}to_qkv.bias").chunk(3)
    return weights


def _from_moco_v3(weights: Weights) -> Weights:
    weights = {name.removeprefix("module.").removeprefix("base_encoder."): value for name, value in weights.items()}
    return _from_timm(_rename(weights, {r"^patch_embed\.proj\.(\d+)\.": r"stem.layers.\1."}))


def _fixed_positions(model: nn.Module, weights: Weights) -> list[str]:
    """["positions.table"] where the model computes that code itself; ValueError if the checkpoint's is another, or the heads differ."""
    if getattr(getattr(model, "config", None), "heads", 12) != 12:
        raise ValueError(f"MoCo v3's ViTs have 12 heads, this model {model.config.heads}: it would give wrong features. Nothing was changed.")
    code, given = getattr(getattr(model, "positions", None), "code", None), weights.get("positions.table")
    if code is None or given is None or given.shape != code.shape:
        return []
    if not torch.allclose(given.to(code), code, atol=1e-5):
        raise ValueError("the checkpoint's positions are not the sin-cos code of this model. Nothing was changed.")
    return ["positions.table"]


def _same_coordinates(model: nn.Module, weights: Weights) -> None:
    """ValueError where the checkpoint gave an offset another coordinate than this model does."""
    biases = {name: module for name, module in model.named_modules() if isinstance(module, ContinuousPositionBias)}
    for name, module in biases.items():
        given = weights.get(f"{name}.coordinates")
        if given is not None and module.coords == "log":
            own = module.coordinates(tuple((size + 1) // 2 for size in given.shape[1:3]))
            if not own.is_meta and not torch.allclose(own, given[0].to(own), atol=1e-4):
                raise ValueError(
                    f"{name}: the checkpoint was trained with another window than {module.reference}: "
                    "say which by pretrained_window=…. Nothing was changed."
                )


def _fitting_tables(model: nn.Module, weights: Weights, rule: str) -> Weights:
    """The weights with Swin V1's position biases ``(heads, 2Mh−1, 2Mw−1)`` of the model's window, out of ``((2Mh−1)(2Mw−1), heads)``, too."""
    for name, module in model.named_modules():
        table = weights.get(f"{name}.table") if isinstance(module, RelativePositionBias) else None
        if table is None:
            continue
        rows, cols = module.table.shape[1:]
        if table.dim() == 2 and len(table) != rows * cols:  # of another window, then, and that is square
            rows = cols = math.isqrt(len(table))
        if table.dim() == 2 and len(table) == rows * cols:
            table = rearrange(table, "(y x) heads -> heads y x", y=rows)
        if table.dim() == 3 and table.shape[1:] != module.table.shape[1:]:
            table = resize_table(table, module.window, rule)
        weights[f"{name}.table"] = table
    return weights


LEFT_OUT = {"moco_v3": ("momentum_encoder.", "predictor.", "head.", "fc.")}  # there head and fc are the projector
SOURCES: dict[str, Callable[[Weights], Weights]] = {
    "torchvision": _from_torchvision,
    "timm": _from_timm,
    "moco_v3": _from_moco_v3,
    "swin": _from_swin,
    "minivit": dict,
}
