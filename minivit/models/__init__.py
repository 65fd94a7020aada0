"""Backbones by name."""
import difflib
from dataclasses import fields, replace
from fnmatch import fnmatch

from torch import nn

from minivit.models import early_convs, regnet, resnet, swin, vit

FAMILIES = (vit, early_convs, swin, resnet, regnet)  # each has CONFIGS, name -> frozen dataclass, and build(config, num_classes)


def create_model(name: str, *, num_classes: int = 0, **overrides) -> nn.Module:
    """A freshly initialised backbone: features ``(B, D)`` from ``forward``, or logits if ``num_classes`` is given.

    ``overrides`` replace fields of the family's config: ``create_model("vit_tiny_patch16_224", image_size=32, patch=4)``.
    Every model has ``.dim``, ``.image_size``, ``.prefix_tokens`` and ``.forward_tokens(x, mask=None) -> (B, P+N, D)``.
    Raises ValueError for an unknown name or override, with the nearest ones.
    """
    for family in FAMILIES:
        if name in family.CONFIGS:
            config = family.CONFIGS[name]
            known = [field.name for field in fields(config)]
            for override in overrides:
                if override not in known:
                    raise ValueError(f"{name} has no setting {override!r}; {_nearest(override, known)}")
            return family.build(replace(config, **overrides), num_classes)
    raise ValueError(f"no model is called {name!r}; {_nearest(name, list_models())}")


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models, or of those that match a shell pattern such as ``"vit_*"``."""
    return sorted(name for family in FAMILIES for name in family.CONFIGS if fnmatch(name, pattern))


def _nearest(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}."
