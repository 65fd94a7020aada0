"""Weights of other libraries: a function of renames per source, and a strict check before anything is copied."""
import re
from collections.abc import Callable, Mapping

from torch import Tensor, nn

Weights = dict[str, Tensor]
CLASSIFIERS = ("head", "fc")  # ViT's and ResNet's; an Identity where num_classes=0


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor], source: str = "torchvision") -> list[str]:
    """Copy a state dict of ``source`` into ``model``, all of it or nothing; returns the names of what was left out.

    "torchvision" and "timm" take the ViTs that share our layout (class token first, learned positions, pre-norm blocks,
    patchify stem) and ResNets, whose names are ours already. Shapes are those of the libraries, but that the positions
    ``(1, 1+N, D)`` become ``(1+N, D)``; dtype and device stay the model's.

    Only the classifier may be left out: a model with ``num_classes=0`` has none, so ``head.*`` (ViT) or ``fc.*`` (ResNet)
    of the checkpoint is dropped and returned. Only BatchNorm's step counter ``num_batches_tracked`` may be missing, as
    in torchvision's old files: our function does not depend on it.

    Raises ValueError for an unknown source, and where any key is missing, unexpected or of the wrong shape (positions of
    another image size, say): the message lists all of them, and the model is as before. What shapes cannot show is not
    checked: the number of heads, or the pooling.
    Source: the names in torchvision 0.29 (whose files say ``mlp.linear_1``) and timm 1.0, class `VisionTransformer` of both.
    """
    if source not in SOURCES:
        raise ValueError(f"source={source!r}: weights come from {', '.join(SOURCES)}.")
    odd = [name for name, value in state_dict.items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(f"a state_dict maps names to tensors, but {', '.join(odd)} are something else: pass the inner dict.")
    weights = SOURCES[source](dict(state_dict))
    no_classifier = tuple(f"{part}." for part in CLASSIFIERS if isinstance(getattr(model, part, None), nn.Identity))
    dropped = [name for name in weights if name.startswith(no_classifier)]
    for name in dropped:
        del weights[name]
    _check(model.state_dict(), weights, what=f"the {source} checkpoint does not fit this {type(model).__name__}")
    model.load_state_dict(weights, strict=False)
    return dropped


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


def _rename(weights: Weights, rules: dict[str, str]) -> Weights:
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
    return _rename(weights, {
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
    })  # fmt: skip


def _from_timm(weights: Weights) -> Weights:
    return _rename(weights, {
        r"^pos_embed$": "positions.table",
        r"^patch_embed\.proj\.": "stem.proj.",
        r"^(blocks\.\d+)\.attn\.qkv\.": r"\1.attn.to_qkv.",
        r"^(blocks\.\d+)\.attn\.proj\.": r"\1.attn.to_out.",
        r"^(blocks\.\d+)\.mlp\.fc1\.": r"\1.mlp.0.",
        r"^(blocks\.\d+)\.mlp\.fc2\.": r"\1.mlp.2.",
    })  # fmt: skip


SOURCES: dict[str, Callable[[Weights], Weights]] = {"torchvision": _from_torchvision, "timm": _from_timm}
