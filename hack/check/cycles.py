"""Report import cycles between modules, and between the direct children of each package.

Every import statement counts, also one inside a function or under `TYPE_CHECKING`: a cycle that Python tolerates at run
time still means that neither side can be understood, tested or moved without the other.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp

PACKAGES = ("kaito", "kaito_presets", "kaito_config", "kaito_oci")
DEFERRED = ("kaito.runtime.kinds.structs",)
"""Packages that the rest of the code names and loads only when an object needs them: imports of them do not count.

The structs of Kubernetes' API refer to each other; those that few objects have are generated into a package of their
own, and that package needs the models that refer to it.
"""
SOURCES = (".", "presets/src", "presets/config/src", "presets/oci/src")


def strongly_connected(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Returns every group of two or more nodes that reach each other (Tarjan's algorithm), sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(groups)


def cycle(graph: Mapping[str, Iterable[str]], group: list[str]) -> list[str]:
    """Returns one shortest cycle through the first node of a strongly connected group, its first node repeated."""
    start = group[0]
    paths = [[start]]
    seen = {start}
    while paths:
        path = paths.pop(0)
        for target in sorted(graph[path[-1]]):
            if target == start:
                return [*path, start]
            if target in group and target not in seen:
                seen.add(target)
                paths.append([*path, target])
    raise AssertionError(f"{group} is not strongly connected")


def siblings(imports: Mapping[str, Iterable[str]], package: str) -> dict[str, set[str]]:
    """Returns the imports between the direct children of a package, each standing for everything below it."""
    graph: dict[str, set[str]] = {}
    depth = package.count(".") + 2

    def child(module: str) -> str | None:
        return ".".join(module.split(".")[:depth]) if module.startswith(f"{package}.") else None

    for module, targets in imports.items():
        source = child(module)
        if source is None:
            continue
        edges = graph.setdefault(source, set())
        edges.update(to for target in targets if (to := child(target)) is not None and to != source)
    return graph


def module_imports(packages: Iterable[str]) -> dict[str, set[str]]:
    """Returns every module of the packages with the modules of the packages that it imports."""
    graph = grimp.build_graph(*packages, cache_dir=None)
    return without_deferred(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}, DEFERRED
    )


def without_deferred(imports: Mapping[str, Iterable[str]], packages: Iterable[str]) -> dict[str, set[str]]:
    """Returns the imports without those of the packages by modules outside of them, and by their own `__init__`."""

    def counts(module: str, target: str) -> bool:
        for package in packages:
            below = f"{package}."
            if (target == package or target.startswith(below)) and not module.startswith(below):
                return False
        return True

    return {module: {target for target in targets if counts(module, target)} for module, targets in imports.items()}


def report(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """Returns one line for each cycle, the cycles between modules first."""
    found = [" -> ".join(cycle(imports, group)) for group in strongly_connected(imports)]
    packages = {module.rpartition(".")[0] for module in imports} - {""}
    for package in sorted(packages):
        graph = siblings(imports, package)
        for group in strongly_connected(graph):
            line = " -> ".join(cycle(graph, group))
            if line not in found:
                found.append(f"{line} (below {package})")
    return found


def main() -> int:
    """Checks the source packages; returns the exit code."""
    root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(root / source) for source in SOURCES]
    imports = module_imports(PACKAGES)
    found = report(imports)
    print("\n".join(f"import cycle: {line}" for line in found) or f"cycles: none between {len(imports)} modules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
