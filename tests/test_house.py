"""Laws of the house, read from the source: imports go down, names stand once, functions are short. Nothing here imports the program.

A table of exceptions may only shrink: one that no longer occurs fails its test and is deleted.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs import ROOT
from tests.mutants import MUTANTS

README = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
PACKAGES = ("mflamingo_cli", "quant")
PROGRAM = "mflamingo_cli"
FLOORS = (  # from the ground up; modules of one floor may import each other, without circles
    ("quant",),
    ("errors", "files", "text", "codec", "schema", "core"),
    ("styles", "tasks", "parsers", "claims", "checks", "thinking", "grounding", "measure", "backends", "store"),
    ("requests", "pipeline", "assemble", "conversation", "api"),
    ("library", "train", "render", "models", "config", "trust", ""),
    ("commands",),
    ("cli", "__main__"),
)
TORCH = {"torch", "transformers", "torchaudio"}
TORCH_MAY = re.compile(  # modules whose top may import it
    rf"{PROGRAM}\.(core\.(model|kv_cache|quantized)|backends\.(pytorch\w*|torch_encoder|batch_decoder)|train(\.\w+)*)"
)
MAX_LINES = 50
MAX_FIRST_LINE = 140
MINI_MEL_MAY = re.compile(rf"{PROGRAM}\.train\.mini(\.\w+)*")

UPWARD: set[tuple[str, str]] = set()
CIRCLES: set[frozenset[str]] = set()
TWICE: set[str] = set()
UNREASONED: set[str] = set()
CATCH_ALL = {  # who catches every exception: the border of a song, and probes of what others wrote; nobody else on the way of a song
    f"{PROGRAM}.errors": 1,
    f"{PROGRAM}.commands.doctor": 1,
    f"{PROGRAM}.core.model": 1,
    f"{PROGRAM}.backends.pytorch_loading": 1,
    f"{PROGRAM}.core.remote": 3,
    f"{PROGRAM}.core.tags": 1,
    f"{PROGRAM}.library.ray": 1,
}
WEAK: set[str] = set()
WRITE_FILES = {  # who makes files without quant.files, and why: all others appear whole or not at all
    f"{PROGRAM}.commands.terminal": 2,  # /dev/null, and -o to what is no regular file
    f"{PROGRAM}.core.audio": 1,  # in a temporary folder
    f"{PROGRAM}.files": 1,  # lines, added to what grows: manifests, logs, replies
    f"{PROGRAM}.library.ray": 1,  # /dev/null
    f"{PROGRAM}.store.faults": 1,  # a log, which grows
    f"{PROGRAM}.train.data.labelled": 2,  # rows and notes, which grow, and are cut back to the last song that is done
    f"{PROGRAM}.train.mini.synth.arrange": 1,  # in a temporary folder
}
WRITING_MODE = re.compile(r"[rwxabt+]*[wxa+][rwxabt+]*")
MINI_MEL: set[str] = set()


@dataclass(frozen=True)
class Module:
    """A file of the program: its dotted name, its text, its tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Import:
    """One module that another imports; `lazy` inside a function, `typing` for annotations only."""

    importer: str
    imported: str
    lazy: bool
    typing: bool


@functools.cache
def modules() -> dict[str, Module]:
    """Return every file of the program by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            found[name] = Module(name, path, text, ast.parse(text))
    return found


def targets(module: Module, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield what a statement imports: our modules by their full name, others by their first."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        base = ".".join(module.package.split(".")[: len(module.package.split(".")) - node.level + 1]) if node.level else ""
        stem = ".".join(part for part in (base, node.module or "") if part)
        names = [f"{stem}.{alias.name}" for alias in node.names]
    for name in names:
        if name == f"{PROGRAM}.__version__":  # a constant, not the public API around it
            continue
        if name.split(".")[0] not in PACKAGES:
            yield name.split(".")[0]
        elif (known := next((n for n in (name, name.rpartition(".")[0]) if n in modules()), None)) is not None:
            yield known


def statements(module: Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    """Yield every import with whether it stands in a function and whether it is for annotations only."""

    def walk(node: ast.AST, lazy: bool, typing: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child, lazy, typing
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from walk(child, lazy or inside, typing or guarded)

    yield from walk(module.tree, False, False)


@functools.cache
def imports() -> tuple[Import, ...]:
    return tuple(
        Import(module.name, target, lazy, typing)
        for module in modules().values()
        for node, lazy, typing in statements(module)
        for target in targets(module, node)
        if target != module.name
    )


def floor(name: str) -> int:
    """Return how high a module stands. Raises AssertionError for one that has no floor."""
    room = "quant" if name.split(".")[0] == "quant" else name.removeprefix(PROGRAM).strip(".").split(".")[0]
    found = [height for height, rooms in enumerate(FLOORS) if room in rooms]
    assert found, f"{name} stands on no floor: give it one in FLOORS"
    return found[0]


def circles(edges: set[tuple[str, str]]) -> set[frozenset[str]]:
    """Return the strongly connected components of more than one module (Tarjan 1972)."""
    graph = defaultdict(list)
    for a, b in sorted(edges):
        graph[a].append(b)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = set()

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = frozenset(stack[stack.index(node) :])
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.add(component)

    for node in sorted({n for edge in edges for n in edge}):
        if node not in index:
            visit(node)
    return found


def functions(module: Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{module.name}.{node.name}", node


def only(found: set, allowed: set) -> None:
    """Assert that what was found is what the table of exceptions allows, no more and no less."""
    assert sorted(map(str, found - allowed)) == [], "new"
    assert sorted(map(str, allowed - found)) == [], "exceptions that no longer occur: delete them"


# --- imports -----------------------------------------------------------------------------------------------------------------


def ours() -> set[tuple[str, str]]:
    return {(i.importer, i.imported) for i in imports() if i.imported.split(".")[0] in PACKAGES}


def test_every_module_stands_on_a_floor():
    assert len(modules()) > 100
    assert {floor(name) for name in modules()} == set(range(len(FLOORS)))


def test_imports_go_down():
    only({(a, b) for a, b in ours() if floor(b) > floor(a)}, UPWARD)


def test_quant_imports_nothing_of_the_program():
    assert [edge for edge in ours() if edge[0].startswith("quant") and edge[1].startswith(PROGRAM)] == []


def test_no_circle_when_modules_are_imported():
    assert circles({(i.importer, i.imported) for i in imports() if not i.lazy and not i.typing and i.imported in modules()}) == set()


def test_no_circle_through_imports_inside_functions_and_annotations():
    only(circles(ours()), CIRCLES)


def test_circles_are_found():
    assert circles({("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")}) == {frozenset("abc")}
    assert circles({("a", "b"), ("b", "c"), ("a", "c")}) == set()


def test_torch_is_imported_where_it_may_be():
    above = {(i.importer, i.imported) for i in imports() if i.imported in TORCH and not i.lazy and not i.typing}
    assert above
    assert sorted((a, b) for a, b in above if not TORCH_MAY.fullmatch(a)) == []


# --- names and shapes --------------------------------------------------------------------------------------------------------


def test_no_public_class_stands_in_two_modules():
    where = defaultdict(set)
    for module in modules().values():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].add(module.name)
    assert len(where) > 50
    only({name for name, found in where.items() if len(found) > 1}, TWICE)


def test_no_function_is_longer_than_a_screen():
    lengths = [(name, (node.end_lineno or 0) - node.lineno + 1) for m in modules().values() for name, node in functions(m)]
    assert len(lengths) > 1000
    assert [(name, length) for name, length in lengths if length > MAX_LINES] == []


def test_every_signature_is_annotated():
    bare = []
    for module in modules().values():
        for name, node in functions(module):
            a = node.args
            named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
            bare += [f"{name}({arg.arg})" for arg in named if arg.annotation is None and arg.arg not in {"self", "cls"}]
            bare += [f"{name} -> ?"] if node.returns is None else []
    assert bare == []


def test_every_file_opens_with_its_line():
    lines = {name: (ast.get_docstring(module.tree) or "").split("\n")[0] for name, module in modules().items()}
    assert [name for name, line in lines.items() if not line or len(line) > MAX_FIRST_LINE] == []
    seen = defaultdict(list)
    for name, line in lines.items():
        seen[line].append(name)
    assert {line: names for line, names in seen.items() if len(names) > 1} == {}


def test_who_catches_everything_says_why():
    found = set()
    for module in modules().values():
        lines = module.text.splitlines()
        for node in ast.walk(module.tree):
            wide = isinstance(node, ast.ExceptHandler) and (node.type is None or ast.unparse(node.type) == "Exception")
            if wide and "#" not in lines[node.lineno - 1]:
                found.add(module.name)
    only(found, UNREASONED)


def test_the_border_of_a_song_is_in_one_place():
    caught = Counter(
        module.name
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and (node.type is None or ast.unparse(node.type) == "Exception")
    )
    assert caught == CATCH_ALL


def test_nothing_below_the_commands_prints():
    """stdout belongs to results, which writers put on the stream they are given."""
    found = []
    for module in modules().values():
        if floor(module.name) >= floor(f"{PROGRAM}.commands"):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.append(f"{module.name}:{node.lineno}")
    assert found == []


def makes_a_file(node: ast.AST) -> bool:
    """Whether a call gives a file its name: write_text and its like, open with such a mode, what NumPy and soundfile write to a path."""
    if not isinstance(node, ast.Call):
        return False
    call = ast.unparse(node.func)
    modes = [*node.args[:2], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
    to_stream = node.args and isinstance(node.args[0], ast.Name) and node.args[0].id in ("file", "stream", "content")
    return (
        call.endswith((".write_text", ".write_bytes", ".save_file", "save_file"))
        or ((call == "open" or call.endswith(".open")) and any(WRITING_MODE.fullmatch(str(getattr(mode, "value", ""))) for mode in modes))
        or (call in ("np.save", "np.savez", "np.savez_compressed", "soundfile.write") and not to_stream)
    )


def test_files_appear_whole_or_not_at_all():
    found = Counter(module.name for module in modules().values() for node in ast.walk(module.tree) if makes_a_file(node))
    assert found == WRITE_FILES


def test_the_front_end_of_mini_is_named_where_mini_is_made():
    """Everything else reads the front end from its checkpoint."""
    wanted = [m for m in modules().values() if "MINI_MEL" in m.text]
    named = [(m.name, {getattr(n, "id", None), getattr(n, "name", None)}) for m in wanted for n in ast.walk(m.tree)]
    found = {name for name, names in named if "MINI_MEL" in names}
    assert found
    only({name for name in found if not MINI_MEL_MAY.fullmatch(name)}, MINI_MEL)


# --- tests that can fail -----------------------------------------------------------------------------------------------------


def test_every_mutant_still_breaks_something():
    """What `python -m tests.mutants` changes stands once in its file; the tests that it asks are there."""
    assert len(MUTANTS) > 20
    assert [(m.function, m.occurs(ROOT)) for m in MUTANTS if m.occurs(ROOT) != 1] == []
    listed = [(f"| `{m.function}`", m.what) for m in MUTANTS]
    table = [tuple(line.split(" | ")[:2]) for line in README.splitlines() if line.startswith("| `")]
    assert [row for row in table if row in listed] == listed
    assert [m.function for m in MUTANTS if not any((ROOT / name).exists() for name in m.tests.split())] == []


def test_a_mutant_of_the_table_is_killed_by_a_test_that_there_is():
    killers = re.findall(r"^\| `.+ \| `(.+)::(.+)` \|$", README, re.MULTILINE)
    assert len(killers) == len(MUTANTS)
    assert [f"{path}::{name}" for path, name in killers if f"def {name}(" not in (ROOT / "tests" / path).read_text(encoding="utf-8")] == []


def test_every_test_asserts_something_whatever_happens():
    """No assertion only under an `if`, no `or True`; `pytest.raises` says which error."""
    found = set()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                conditional = [is_conditional for is_conditional in checks(node.body, False)]
                if conditional and all(conditional):
                    found.add(f"{path.stem}.{node.name}: only under a condition")
            if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) and any(getattr(v, "value", None) is True for v in node.values):
                found.add(f"{path.stem}:{node.lineno}: always true")
    only(found, WEAK)


def checks(body: list[ast.stmt], conditional: bool) -> Iterator[bool]:
    """Yield for every assertion of a test whether it stands under a condition that may be false all the time."""
    for node in body:
        if isinstance(node, ast.Assert) or (isinstance(node, ast.With) and any("raises" in ast.dump(item) for item in node.items)):
            yield conditional
        if isinstance(node, ast.If):
            yield from checks(node.body, conditional or not node.orelse)
            yield from checks(node.orelse, conditional)
        elif isinstance(node, ast.For | ast.While | ast.With):
            yield from checks(node.body, conditional)
