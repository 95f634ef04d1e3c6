"""The rules of the house that imports can show: layers, no cycles, one door for each foreign package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").rglob("*.py")])

#: packages of the engine, each may import those of a lower rank and itself
RANKS = {"core": 0, "calls": 1, "durability": 2, "observe": 2, "config": 3, "cli": 4}

#: parts of a package, each may import those of a lower rank and itself; "" is what lies in the package itself
PARTS = {
    "pipeline.durability": {
        "disk": 0,
        "fingerprint": 0,
        "outputs": 1,
        "resume": 2,
        "": 3,
        "inspection": 4,
        "merging": 5,
    }
}

#: foreign packages, and the only modules that may import them
DOORS: Mapping[str, frozenset[str]] = {
    "openai": frozenset({"stages.models.client", "stages.models.chat"}),
    "aiostream": frozenset({"stages.shape"}),
    "orjson": frozenset({"pipeline.core.codec"}),
    "jinja2": frozenset({"pipeline.core.templates", "pipeline.core.sandbox"}),
    "yaml": frozenset({"pipeline.config.document"}),
    "jsonschema": frozenset({"pipeline.calls.schema"}),
    "aiohttp": frozenset({"stages.models.aiohttp_transport"}),
    "yarl": frozenset({"stages.models.aiohttp_transport"}),
    "httpcore2": frozenset({"stages.models.pools"}),
    "sqlite3": frozenset({"pipeline.calls.cache", "pipeline.durability.disk.store"}),
    "platformdirs": frozenset({"pipeline.calls.cache", "pipeline.cli.store"}),
    "starlette": frozenset({"stages.models.simulated_app"}),
    "uvicorn": frozenset({"stages.models.simulated_http"}),
    "asyncio": frozenset({"pipeline.core.virtual"}),
    "trio": frozenset({"pipeline.core.virtual"}),
}

#: foreign packages that only these layers may import
LAYER_DOORS = {"typer": ("pipeline.cli",), "rich": ("pipeline.cli", "pipeline.observe.progress")}


class Import(NamedTuple):
    """One import statement's target. `eager`: it runs when the module is imported."""

    target: str
    eager: bool
    for_types: bool
    line: int


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = frozenset(module_of(file) for file in FILES)


@cache
def imports_of(file: Path) -> tuple[Import, ...]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return tuple(_imports(tree.body, eager=True, for_types=False))


def _imports(body: list[ast.stmt], *, eager: bool, for_types: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, eager, for_types, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield Import(full if full in MODULES else str(node.module), eager, for_types, node.lineno)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(node.body, eager=False, for_types=True)
            yield from _imports(node.orelse, eager=eager, for_types=for_types)
        else:
            inside = eager and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for _, value in ast.iter_fields(node):
                if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                    yield from _imports(value, eager=inside, for_types=for_types)
                for handler in value if isinstance(value, list) else ():
                    if isinstance(handler, ast.ExceptHandler | ast.match_case):
                        yield from _imports(handler.body, eager=inside, for_types=for_types)


def every_import() -> Iterator[tuple[str, Import]]:
    for file in FILES:
        for found in imports_of(file):
            yield module_of(file), found


def rank(module: str) -> int | None:
    parts = module.split(".")
    return RANKS.get(parts[1]) if parts[0] == "pipeline" and len(parts) > 1 else None


def test_the_engine_never_imports_stages() -> None:
    assert [(module, found.line) for module, found in every_import()
            if module.startswith("pipeline") and found.target.split(".")[0] == "stages"] == []  # fmt: skip


def test_packages_of_the_engine_import_only_those_below_them() -> None:
    wrong: list[str] = []
    for module, found in every_import():
        here, there = rank(module), rank(found.target)
        if here is None or there is None or module.split(".")[1] == found.target.split(".")[1]:
            continue
        if there >= here and not found.for_types:
            wrong.append(f"{module}:{found.line} imports {found.target}")
    assert wrong == []


def part(package: str, module: str) -> str | None:
    """The part of `package` that `module` is in; None if it is not in the package, or is the package."""
    if not module.startswith(f"{package}."):
        return None
    below = module.removeprefix(f"{package}.").split(".")
    return below[0] if below[0] in PARTS[package] else ""


def test_parts_of_a_package_import_only_those_below_them() -> None:
    wrong: list[str] = []
    for package, ranks in PARTS.items():
        for module, found in every_import():
            here, there = part(package, module), part(package, found.target)
            if here is None or there is None or here == there or found.for_types:
                continue
            if ranks[there] >= ranks[here]:
                wrong.append(f"{module}:{found.line} imports {found.target}")
    assert wrong == []


def test_stages_import_only_core_calls_and_events() -> None:
    allowed = ("pipeline.core", "pipeline.calls", "pipeline.observe.events")
    assert [f"{module}:{found.line} imports {found.target}" for module, found in every_import()
            if module.startswith("stages") and found.target.startswith("pipeline")
            and not found.target.startswith(allowed)] == []  # fmt: skip


def test_no_module_imports_itself_in_a_circle() -> None:
    """A package stands for its `__init__`, so importing a module of it counts as importing the package too."""
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, found in every_import():
        if found.eager and found.target in MODULES and found.target != module:
            graph[module].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_each_foreign_package_has_one_door() -> None:
    wrong: list[str] = []
    for module, found in every_import():
        package = found.target.split(".")[0]
        layers = LAYER_DOORS.get(package)
        if (package in DOORS and module not in DOORS[package]) or (layers and not module.startswith(layers)):
            wrong.append(f"{module}:{found.line} imports {found.target}")
    assert wrong == []


def test_virtual_time_imports_an_event_loop_only_when_it_is_asked_for() -> None:
    eager = {found.target for found in imports_of(ROOT / "pipeline/core/virtual.py") if found.eager}
    assert eager.isdisjoint({"asyncio", "trio", "trio.testing"})


def test_importing_the_packages_loads_nothing_heavy() -> None:
    heavy = ["openai", "typer", "rich", "jinja2", "yaml", "jsonschema", "aiostream", "httpx2"]
    heavy += ["aiohttp", "uvloop", "starlette", "uvicorn", "platformdirs", "sqlite3", "genai_prices"]
    code = f"import pipeline, stages, sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_can_be_the_first_that_is_imported() -> None:
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    ours = [module for module in sys.modules if module.split('.')[0] in ('pipeline', 'stages')]\n"
        "    for module in ours: del sys.modules[module]\n"
        "    importlib.import_module(name)\n"
    )
    core = sorted(module for module in MODULES if module.startswith(("pipeline.core", "stages.")) and "." in module)
    light = [module for module in core if not module.startswith(("stages.models", "stages.sinks"))]
    done = subprocess.run([sys.executable, "-c", code, *light], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""


def test_streams_are_opened_in_one_place() -> None:
    assert [module_of(file) for file in FILES if "create_memory_object_stream" in file.read_text(encoding="utf-8")] == [
        "pipeline.core.streams"
    ]


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_no_file_is_longer_than_400_lines(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_no_module_keeps_state_that_changes(file: Path) -> None:
    """Module-level names are bound once, and those in lower case to nothing that can grow."""
    growing: list[str] = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        named = [name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]
        if isinstance(value, ast.List | ast.Dict | ast.Set) and not any(n.isupper() or n == "__all__" for n in named):
            growing += named
    globals_written = [
        node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Global)
    ]
    assert growing == []
    assert globals_written == []
