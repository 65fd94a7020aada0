"""What a bug report needs, and what is wrong with this machine."""
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile

NEEDED = ("torch", "torchvision", "einops", "jaxtyping", "numpy", "pillow", "tqdm", "tyro")
COURSE = ("jupyterlab", "matplotlib", "scikit-learn", "nbval", "pytest", "pytest-xdist")
LOWEST = {"torch": (2, 6), "torchvision": (0, 21)}


def doctor() -> tuple[list[str], list[str]]:
    """Two lists of lines: the facts, and the problems found (empty on a healthy machine)."""
    facts = [f"minivit {_version('minivit') or 'not installed (run from the folder)'}", f"python {platform.python_version()}"]
    facts.append(f"interpreter {sys.executable}")
    facts.append(f"system {platform.platform()}, {os.cpu_count()} cores, {_memory()}")
    problems = []
    if sys.version_info < (3, 11):  # noqa: UP036 (this is the place that says so)
        problems.append(f"Python {platform.python_version()} is too old: minivit needs 3.11 or newer.")
    for name in (*NEEDED, *COURSE):
        version = _version(name)
        facts.append(f"{name} {version or 'missing'}")
        if version is None:
            extra = "" if name in NEEDED else " (only the chapters and tests need it)"
            problems.append(f"{name} is not installed{extra}: pip install -r requirements.txt")
        elif name in LOWEST and tuple(int(part) for part in version.split("+")[0].split(".")[:2]) < LOWEST[name]:
            problems.append(f"{name} {version} is older than {'.'.join(map(str, LOWEST[name]))}: pip install -U {name}")
    problems += _torch(facts)
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    facts.append(f"free disk {free:.1f} GB in {tempfile.gettempdir()}")
    if free < 1:
        problems.append(f"only {free:.1f} GB are free in {tempfile.gettempdir()}: checkpoints and caches may not fit.")
    for name in ("MINIVIT_SCALE", "MINIVIT_DATA", "MINIVIT_LIMIT", "MINIVIT_CHECK_SHAPES", "OMP_NUM_THREADS"):
        if name in os.environ:
            facts.append(f"{name}={os.environ[name]}")
    return facts, problems


def _torch(facts: list[str]) -> list[str]:
    try:
        import torch
        import torchvision  # noqa: F401
    except Exception as error:
        return [f"torch and torchvision do not import ({type(error).__name__}: {error}): install a matching pair, pip install -r requirements.txt"]
    if torch.cuda.is_available():
        facts.append(f"GPU {torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB")
    else:
        facts.append(f"no CUDA GPU: chapters run at pocket scale on the CPU, {torch.get_num_threads()} thread(s)")
    problems = []
    x = torch.linspace(0, 1, 12).reshape(3, 4)
    if not torch.allclose(x @ x.T, torch.einsum("ij,kj->ik", x, x)):
        problems.append("this build of torch multiplies matrices wrongly: reinstall it.")
    if torch.backends.mps.is_available():
        facts.append("Apple GPU found and not used: wrong losses on MPS are on record")
    return problems


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB memory"
    except (AttributeError, ValueError, OSError):
        return "memory unknown"
