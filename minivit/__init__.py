"""minivit: self-supervised vision transformers, built from scratch.

``import minivit`` is quick: the names below are looked up in their modules when they are first used.
"""
import importlib
import os

__version__ = "0.1.0"

_HOME = {
    "layers.attention": ["Attention"],
    "layers.position": ["ContinuousPositionBias", "LogCPB", "RelativePositionBias", "sincos_2d"],
    "layers.window": ["WindowAttention"],
    "layers.stems": ["ConvLayer", "ConvStem", "PatchifyStem"],
    "layers.heads": ["HEADS", "mlp_head", "predictor", "projector"],
    "layers.norm": ["BatchNorm", "set_batch_norm"],
    "models": ["create_model", "list_models"],
    "losses": ["info_nce", "margin_triplet", "nt_logistic", "nt_xent", "queue_nce"],
    "augment": ["Batch", "Recipe", "View"],
    "datasets": ["ImageData", "load_data"],
    "methods": ["LinearProbe", "Method", "MoCo", "MoCoV3", "SimCLR", "Supervised"],
    "optim": ["ADAMW", "LAMB", "LARS", "StableAdamW", "param_groups", "scale_lr", "warmup_constant", "warmup_cosine"],
    "transfer": ["at_window", "fine_tune", "sgd_probe"],
    "costs": ["Complexity", "complexity"],
    "evaluate": ["evaluating", "extract_features", "knn_accuracy", "linear_probe"],
    "monitor": ["ActivationMonitor", "GradientMonitor", "collapse_report", "stability_report"],
    "callbacks": ["Callback", "Checkpoints", "DenseKNN", "Progress"],
    "runs": ["Run"],
    "engine": ["fit"],
    "presets": ["Preset", "preset"],
    "studies": ["edf", "edf_band", "sweep"],
    "weights": ["load_weights"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
_MODULES = ("augment", "callbacks", "costs", "datasets", "distributed", "engine", "evaluate", "layers", "losses", "methods", "models",
            "monitor", "optim", "presets", "protocols", "runs", "series", "studies", "transfer", "weights", "course")  # fmt: skip
__all__ = ["__version__", *_MODULE_OF]

if os.environ.get("MINIVIT_CHECK_SHAPES") == "1":  # every annotated shape is then checked at every call
    from jaxtyping import install_import_hook

    install_import_hook("minivit", "beartype.beartype")


def __getattr__(name: str):
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"minivit.{_MODULE_OF[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"minivit.{name}")
    else:
        raise AttributeError(f"minivit has no {name!r}; it has {', '.join(sorted(_MODULE_OF))}.")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
