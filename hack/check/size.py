"""The size budget: no module above 600 lines, no function above 80. Prints what breaks it and exits 1."""

import ast
import sys
from pathlib import Path

MODULE_LINES = 600
FUNCTION_LINES = 80
ROOTS = ("kaito", "cmd", "examples", "hack", "test", "presets")


def oversized(path: Path) -> list[str]:
    """One line for each budget the file breaks."""
    text = path.read_text()
    lines = text.count("\n")
    found = [f"{path}: {lines} lines (budget {MODULE_LINES})"] if lines > MODULE_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{path}:{node.lineno}: {node.name} has {length} lines (budget {FUNCTION_LINES})")
    return found


def main() -> int:
    """Checks every Python file of the project's own folders."""
    files = [path for root in ROOTS for path in Path(root).rglob("*.py") if ".venv" not in path.parts]
    found = [line for path in sorted(files) for line in oversized(path)]
    print("\n".join(found) if found else f"size: {len(files)} files within budget")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
