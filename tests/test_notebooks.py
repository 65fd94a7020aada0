"""Guards for the committed notebooks: what nbval itself lets pass."""
import ast
import re
from pathlib import Path

import nbformat
import pytest

import minivit

ROOT = Path(minivit.__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PATH_OF_SOMEBODY = re.compile(r"(/home/|/root/|/Users/|/tmp/|/work/|[A-Z]:\\\\)")


def read(path: Path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_outputs(cell) -> str:
    return "\n".join(o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)


def problems(notebook, size: int = 0) -> list[str]:
    """Everything that is wrong with an executed notebook, as sentences."""
    found, cells = [], code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("cells were not run once each, in order, from a clean kernel")
    if notebook.metadata.get("widgets"):
        found.append("widget state is saved")
    if size > 500_000:
        found.append(f"the file has {size} bytes")
    if sum("nbval-ignore-output" in cell.metadata.get("tags", []) for cell in cells) > 2:
        found.append("more than two volatile cells")
    for number, cell in enumerate(cells, 1):
        if len(cell.source.splitlines()) > 40:
            found.append(f"cell {number} has more than 40 lines")
        for output in cell.outputs:
            data = output.get("data", {})
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"cell {number} has an error or text on stderr")
            if "image/svg+xml" in data or "text/html" in data:
                found.append(f"cell {number} has an SVG or HTML output, which nbval compares as text")
            if "image/png" in data and len(output.metadata.get("image/png", {}).get("alt", "")) < 20:
                found.append(f"cell {number} has a picture without alt text")
        if PATH_OF_SOMEBODY.search(text_outputs(cell)):
            found.append(f"cell {number} prints a path of somebody's machine")
        if re.search(r": no$", text_outputs(cell), re.M):
            found.append(f"cell {number} has a band that says no")
        if ("print(" in cell.source or "band(" in cell.source or "show(" in cell.source) and "def " not in cell.source and not cell.outputs:
            found.append(f"cell {number} should print something and has no output")
    return found + prose_problems(notebook)


def prose_problems(notebook) -> list[str]:
    found, level = [], 0
    prose = re.sub(r"```.*?```", "", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), flags=re.S)
    headings = re.findall(r"^(#+) ", prose, re.M)
    if headings.count("#") != 1:
        found.append("there is not exactly one title")
    for heading in map(len, headings):
        if heading > level + 1:
            found.append("a heading skips a level")
        level = heading
    if re.search(r"!\[[^\]]*\]\(https?:", prose):
        found.append("a picture is remote")
    if re.search(r"!\[\]\(", prose):
        found.append("a picture has no alt text")
    for name in re.findall(r"`minivit\.(\w+)", prose):
        if not hasattr(minivit, name):
            found.append(f"`minivit.{name}` does not exist")
    for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", prose):
        if not (ROOT / "notebooks" / link).exists():
            found.append(f"the link {link} leads nowhere")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path):
    assert problems(read(path), path.stat().st_size) == []


def break_notebook(kind: str):
    notebook = read(NOTEBOOKS[0])
    cells = code_cells(notebook)
    if kind == "cells were not run":
        cells[3].execution_count, cells[3].outputs = None, []
    elif kind == "text on stderr":
        cells[2].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="a warning"))
    elif kind == "picture without alt text":
        next(o for c in cells for o in c.outputs if "image/png" in o.get("data", {})).metadata = nbformat.NotebookNode()
    elif kind == "does not exist":
        notebook.cells[0].source += "\nSee `minivit.nt_xnet`."
    elif kind == "more than two volatile":
        for cell in cells[:3]:
            cell.metadata["tags"] = ["nbval-ignore-output"]
    elif kind == "exactly one title":
        notebook.cells[0].source += "\n\n# Another title"
    elif kind == "says no":
        next(c for c in cells if "band(" in c.source).outputs[0].text = "kNN lies between 0 and 1: no\n"
    return notebook


@pytest.mark.parametrize(
    "kind",
    ["cells were not run", "text on stderr", "picture without alt text", "does not exist", "more than two volatile", "exactly one title", "says no"],
)
def test_the_guard_finds(kind):
    assert any(kind in problem for problem in problems(break_notebook(kind)))


def test_nbval_fails_on_an_altered_digit(tmp_path):
    """Strictness is real: of two cells with exact outputs, the one with an altered digit fails."""
    import subprocess
    import sys

    notebook = nbformat.v4.new_notebook(metadata=read(NOTEBOOKS[0]).metadata)
    for count, text in enumerate(("42\n", "43\n"), 1):
        cell = nbformat.v4.new_code_cell("print(6 * 7)", execution_count=count)
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
        notebook.cells.append(cell)
    nbformat.write(notebook, tmp_path / "strict.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--nbval", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    result = subprocess.run([*command, str(tmp_path / "strict.ipynb")], capture_output=True, text=True, cwd=ROOT)
    assert re.findall(r"^(PASSED|FAILED) .*::(Cell \d)", result.stdout, re.M) == [("PASSED", "Cell 0"), ("FAILED", "Cell 1")]
    assert result.returncode == 1


def bands(path: Path) -> list[tuple[str, float, float]]:
    """(name, low, high) of every band of a notebook."""
    calls = (node for cell in code_cells(read(path)) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call))
    found = [call for call in calls if getattr(call.func, "id", "") == "band"]
    return [(call.args[0].value, ast.literal_eval(call.args[2]), ast.literal_eval(call.args[3])) for call in found]
