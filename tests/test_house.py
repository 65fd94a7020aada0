"""The house keeps its shape: who imports whom, how large things are, what is loaded when."""
import ast
import subprocess
import sys
from pathlib import Path

import children
import pytest

import minivit

ROOT = Path(minivit.__file__).parents[1]
FLOORS = ["layers", "models", "losses", "augment", "downloads", "folders", "datasets", "methods", "optim", "distributed", "evaluate",
          "costs", "series", "runs", "callbacks", "monitor", "engine", "weights", "transfer", "protocols", "presets", "studies",
          "replay", "doctor", "course", "__main__"]  # fmt: skip
FILES = sorted((ROOT / "minivit").rglob("*.py"))


def floor(path: Path) -> int:
    return FLOORS.index(path.relative_to(ROOT / "minivit").parts[0].removesuffix(".py"))


def imported(tree: ast.AST, *, everywhere: bool) -> set[str]:
    """Names of our modules that a file imports: at import time, or anywhere. Imports for type checkers do not count."""
    names: set[str] = set()
    for node in ast.walk(tree) if everywhere else ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "minivit":
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("minivit.")}
    return names


def test_imports_go_one_way():
    for path in FILES:
        if path == ROOT / "minivit" / "__init__.py":
            continue
        tree = ast.parse(path.read_text())
        for name in imported(tree, everywhere=False):
            if name in FLOORS:
                assert FLOORS.index(name) <= floor(path), f"{path.name} imports {name}, which stands above it"
        if "course" not in path.parts and path.name != "__main__.py":
            assert "course" not in imported(tree, everywhere=True), f"{path.name} imports the course"


def test_layers_import_nothing_of_ours():
    for path in (ROOT / "minivit" / "layers").glob("*.py"):
        assert imported(ast.parse(path.read_text()), everywhere=True) <= {"layers"}


def test_files_and_functions_are_short():
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 400, f"{path.name} has {text.count(chr(10))} lines"
        assert path.name != "utils.py"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                docstring = ast.get_docstring(node, clean=False)
                length = node.end_lineno - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)
                limit = 25 if node.name == "forward" else 75 if (path.name, node.name) == ("engine.py", "fit") else 55
                assert length <= limit, f"{path.name}: {node.name} has {length} lines"


def test_every_public_name_exists_and_is_documented():
    for name in minivit.__all__:
        thing = getattr(minivit, name)
        if callable(thing):
            assert thing.__doc__, f"{name} has no docstring"
    assert set(minivit.__all__) <= set(dir(minivit))


def test_public_functions_of_the_library_are_documented():
    for path in FILES:
        if "course" in path.parts or path.name == "__main__.py":
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def test_the_library_loads_neither_matplotlib_nor_scikit_learn():
    modules = [f"minivit.{name}" for name in FLOORS if name not in ("course", "__main__") and _exists(name)]
    unwanted = ("matplotlib", "sklearn", "tyro", "IPython")
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nprint([m for m in {unwanted!r} if m in sys.modules])"
    result = children.python(code)
    assert result.stdout.strip() == "[]", result.stderr


def _exists(name: str) -> bool:
    return (ROOT / "minivit" / f"{name}.py").is_file() or (ROOT / "minivit" / name).is_dir()


@pytest.mark.parametrize("name", ["minivit", "minivit.course.grader"])
def test_what_should_start_quickly_does_not_load_torch(name):
    code = f"import sys, {name}; print([m for m in ('torch', 'matplotlib', 'sklearn') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "README.md", ".ci/run"])
def test_the_papers_of_the_house_are_there(name):
    assert (ROOT / name).read_text().strip()


def test_version_is_the_same_everywhere():
    assert f"version: {minivit.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {minivit.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_actions_are_pinned_and_read_only():
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    uses = [line.split("uses:")[1].split("#")[0].strip() for line in text.splitlines() if "uses:" in line]
    assert uses and all(len(use.split("@")[1]) == 40 for use in uses)
    assert "permissions:\n  contents: read" in text and "write" not in text


def test_pins_and_bounds_agree():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {line.split(">=")[0] for group in (project["dependencies"], *project["optional-dependencies"].values()) for line in group}
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line}
    assert wanted == pinned
