"""`python -m benchmarks.structure [PATH]`: lines by room, imports, floors, circles, long functions, retired words.

Needs the standard library alone. A room is a package or a module in tlprotocols/, or hydra_plugins/.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

CORE = ("tlprotocols", "hydra_plugins")
LONG = 25  # lines of a function
RETIRED = """asked told carry_out write_aside freeze_config mend falls_together stands_above remember hear listen weigh
spoken beside normalised moved reader scheduler whole_sweeper"""
Graph = dict[str, set[str]]  # from an importing module, or room, to what it imports
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(root: Path, packages: Iterable[str] = CORE) -> dict[str, Path]:
    """The files of a checkout by the names that they are imported by."""
    files = [file.relative_to(root) for package in packages for file in sorted((root / package).glob("**/*.py"))]
    return {".".join(file.with_suffix("").parts).removesuffix(".__init__"): root / file for file in files}


def imports(file: Path, deferred: bool = True) -> Iterator[str]:
    """What a file imports, `from a import b` as a.b. `deferred`: also inside functions."""
    todo: list[ast.AST] = [ast.parse(file.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module}.{alias.name}" for alias in node.names)
        elif deferred or not isinstance(node, Function):
            todo += ast.iter_child_nodes(node)


def graph(files: Mapping[str, Path], deferred: bool = True) -> Graph:
    """Which of the modules import which."""
    found = {name: set(imports(file, deferred)) for name, file in files.items()}
    return {a: {b if b in files else b.rpartition(".")[0] for b in found[a]} & files.keys() - {a} for a in found}


def room(module: str) -> str:
    """The room that a module lies in."""
    return ".".join(module.split(".")[: 2 if module.startswith("tlprotocols.") else 1])


def between_rooms(edges: Graph) -> Graph:
    """Which rooms import which."""
    pairs = {(room(a), room(b)) for a, targets in edges.items() for b in targets}
    return {name: {b for a, b in pairs if a == name != b} for name in map(room, edges)}


def groups(edges: Graph) -> dict[str, frozenset[str]]:
    """Of each module, all that it imports by some way and that import it by some way, itself included."""
    reached = {start: {start} for start in edges}
    for _ in edges:  # a chain is no longer than this
        for start, targets in edges.items():
            reached[start] |= targets.union(*(reached[target] for target in targets))
    return {a: frozenset(b for b in reached[a] if a in reached[b]) for a in edges}


def circles(edges: Graph) -> list[str]:
    """The groups of two and more."""
    return sorted(" = ".join(sorted(group)) for group in set(groups(edges).values()) if len(group) > 1)


def floors(edges: Graph) -> int:
    """The length of the longest chain of imports; a circle counts as one."""
    group, height = groups(edges), dict.fromkeys(edges, 1)
    for _ in edges:
        for source, targets in edges.items():
            height[source] = max([height[source], *(height[t] + (group[t] != group[source]) for t in targets)])
    return max(height.values())


def code_lines(text: str) -> int:
    """Lines that are neither blank nor a comment nor part of a docstring."""
    documented = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Module | ast.ClassDef | Function))
    docs = [node.body[0] for node in documented if ast.get_docstring(node) is not None]
    skipped = {n for doc in docs for n in range(doc.lineno, (doc.end_lineno or 0) + 1)}
    return sum(line.strip()[:1] not in ("", "#") and n not in skipped for n, line in enumerate(text.splitlines(), 1))


def retired(files: Mapping[str, Path]) -> Counter[str]:
    """How many of the names that the code gives hold a retired word; texts count too for phrases."""
    found: Counter[str] = Counter()
    for module, file in files.items():
        nodes = list(ast.walk(ast.parse(file.read_text())))
        names = [n.name for n in nodes if isinstance(n, ast.ClassDef | Function)]
        names += {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        names += [module.rpartition(".")[2], *(n.arg for n in nodes if isinstance(n, ast.arg))]
        words = [f"_{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', name).lower()}_" for name in names]
        texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        for word in RETIRED.split():
            found[word] += sum(f"_{word}_" in name for name in words)
            found[word] += sum("_" in word and word.replace("_", " ") in text for text in texts)
    return +found


def described(root: Path) -> Iterator[str]:
    """Everything, line by line."""
    files = modules(root)
    size = Counter({module: code_lines(file.read_text()) for module, file in files.items()})
    for name, count in Counter(map(room, files)).items():
        yield f"{name:28}{count:4} files {sum(size[module] for module in files if room(module) == name):5} lines"
    yield f"{'in all':28}{len(files):4} files {size.total():5} lines"
    edges = graph(files)
    rooms = between_rooms(edges)
    yield f"imports: {sum(map(len, edges.values()))} between modules, {sum(map(len, rooms.values()))} between rooms"
    yield f"floors: {floors(edges)} of modules, {floors(rooms)} of rooms"
    yield " ".join([f"circles of rooms, whose imports point up: {len(circles(rooms))}", *circles(rooms)])
    for where, found in (("at the top of files", graph(files, deferred=False)), ("anywhere", edges)):
        yield " ".join([f"circles of modules, by imports {where}: {len(circles(found))}", *circles(found)])
    nodes = [(module, n) for module, file in files.items() for n in ast.walk(ast.parse(file.read_text()))]
    defs = [((n.end_lineno or 0) - n.lineno + 1, f"{m}.{n.name}") for m, n in nodes if isinstance(n, Function)]
    long = [f"{name} {lines}" for lines, name in sorted(defs, reverse=True) if lines > LONG]
    yield f"functions over {LONG} lines: {len(long)} of {len(defs)}: {', '.join(long)}"
    words = retired(modules(root, (*CORE, "analysis", "sweeps", "benchmarks")))
    left = ", ".join(f"{word} {count}" for word, count in words.most_common())
    yield f"retired words left: {len(words)} of {len(RETIRED.split())}, in {words.total()} names: {left}"


if __name__ == "__main__":
    print(*described(Path(sys.argv[1] if len(sys.argv) > 1 else ".")), sep="\n")
