"""What the notebooks need and the library does not. Nothing outside this package imports it, save the command line when it runs.

Its names are looked up when they are first used, as in `minivit` itself: the grader needs no matplotlib.
"""
import importlib

_HOME = {
    "checks": ["check"],
    "claims": ["print_ledger"],
    "notebook": ["announce", "band", "guess", "predict", "setup", "show", "show_source"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = [*_MODULE_OF]


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"minivit.course has no {name!r}; it has {', '.join(sorted(_MODULE_OF))}.")
    return getattr(importlib.import_module(f"minivit.course.{_MODULE_OF[name]}"), name)
