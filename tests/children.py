"""Child processes that need not wait for torch.

A server loads torch once, and nothing of ours; each child is a fork of it, a process of its own that is born within milliseconds
and imports minivit afresh. The server begins to load when this module is imported, while pytest is still collecting. Elsewhere
than on Linux, where a fork is not safe with every library, children start from nothing: slower, the same otherwise.
"""
import os
import subprocess
import sys
import tempfile
from multiprocessing import current_process, forkserver, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

WAY = "forkserver" if sys.platform == "linux" else "spawn"
CONTEXT = get_context(WAY)
if WAY == "forkserver" and current_process().name == "MainProcess":  # not again in the children
    CONTEXT.set_forkserver_preload(["torch", "torchvision", "einops", "jaxtyping", "beartype", "tqdm", "pytest"])
    forkserver.ensure_running()


def start(code: str, *, folder: Path | None = None, **environment: str) -> BaseProcess:
    """Begin ``python -c CODE`` on one thread. With a ``folder``, what it prints goes to the files out and err there."""
    process = CONTEXT.Process(target=_work, args=(code, {**os.environ, **environment}, folder), daemon=True)
    process.start()
    return process


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """``python -c CODE`` to its end, what it printed captured."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(code, folder=Path(folder), **environment)
        process.join()
        out, err = ((Path(folder) / name).read_text() for name in ("out", "err"))
    return subprocess.CompletedProcess(code, process.exitcode, out, err)


def module(name: str, *words: str) -> subprocess.CompletedProcess:
    """``python -m NAME WORDS``."""
    return python(f"import runpy, sys\nsys.argv = {['', *words]!r}\nrunpy.run_module({name!r}, run_name='__main__', alter_sys=True)")


def _work(code: str, environment: dict[str, str], folder: Path | None) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for name, stream in (("out", 1), ("err", 2)) if folder else ():
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), stream)
    import torch

    torch.set_num_threads(1)
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
