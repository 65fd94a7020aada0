"""A student's file as text: its labels, and the piece of it that one part needs, searched for what is not allowed. Nothing is run here."""
import ast
from pathlib import Path


class Refused(ValueError):
    """One sentence that says why a part is not run."""


def read(path: Path) -> str:
    """The text of a submission; ValueError in one sentence if there is none that Python can read."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is a folder; to grade everybody in it, add --all." if path.is_dir() else f"there is no file {path}.")
    if path.stat().st_size > 1_000_000:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes; a homework has a few thousand.")
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"{path.name}, line {error.lineno}: Python cannot read this: {error.msg}.") from None
    except (UnicodeDecodeError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path.name} is not Python text: {error}.") from None
    return text


def label(text: str, name: str) -> str | None:
    """The text in a line such as ``STUDENT = "ada"`` of the file."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and any(getattr(t, "id", "") == name for t in node.targets):
            return str(node.value.value)
    return None


def piece(text: str, functions: list[str]) -> tuple[str, list[ast.stmt]]:
    """The imports, constants, classes and functions that ``functions`` need, on their old lines, and nothing else of the file.

    So one part cannot cost another its points, and experiments left at the bottom of the file are not run.
    """
    defined = [(node, _binds(node)) for node in ast.parse(text).body]
    wanted, kept, before = set(functions), [], -1
    while len(kept) > before:
        before = len(kept)
        kept = [node for node, names in defined if names & wanted or "*" in names or getattr(node, "module", "") == "__future__"]
        wanted |= {inner.id for node in kept for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    if missing := [name for name in functions if not any(name in names for _, names in defined)]:
        raise Refused(f"there is no function {missing[0]} in the file.")
    lines = text.split("\n")
    stays = {number for node in kept for number in range(_first(node) - 1, node.end_lineno)}
    return "\n".join(line if number in stays else "" for number, line in enumerate(lines)), kept


def _binds(node: ast.stmt) -> set[str]:
    """The names that a statement of the file's top level gives a meaning to."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []
    return {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}


def _first(node: ast.stmt) -> int:
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def search(nodes: list[ast.stmt], imports: list[str], forbidden: list[str]) -> None:
    """Refused, with the line, if a piece imports or names something that this part does not allow."""
    for node in (inner for statement in nodes for inner in ast.walk(statement)):
        line = f"line {getattr(node, 'lineno', 0)}: "
        if isinstance(node, ast.Import | ast.ImportFrom):
            inside = [node.module or "."] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in inside:
                if module.split(".")[0] == "minivit":
                    raise Refused(f"{line}it imports {module}: this homework asks you to write the function yourself.")
                if module.split(".")[0] not in [*imports, "__future__"]:
                    raise Refused(f"{line}it imports {module}; allowed are {', '.join(imports)}.")
            named = {part for alias in node.names for part in [*alias.name.split("."), *inside[0].split(".")]}
        else:
            named = {getattr(node, "id", "")} if isinstance(node, ast.Name) else {getattr(node, "attr", "")}
        for name in sorted(named):
            if name in forbidden or "*" in name:
                raise Refused(f"{line}it uses {name}, which this part does not allow.")
            if name.startswith("__") and name != "__future__":
                raise Refused(f"{line}it uses {name}: reach for no hidden parts of Python here.")
