"""The shape of the code base: who may import whom, how long a file may be, what an import costs."""

import ast
import graphlib
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

from minivae.models import MODELS

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES, MAX_ENGINE_LINES = 400, 1350
HEAVY = "cupy matplotlib numba pandas polars pooch scipy sklearn torch".split()
# One rule a folder, from below to above: it may import the folders named before it, itself, the
# standard library, and these packages, inside functions too.
FOLDERS = {
    "kernels": "numpy",
    "engine": "numpy",
    "data": "numpy pandas polars pooch pyarrow scipy sklearn",
    "evaluation": "numpy",
    "files": "numpy safetensors",
    "training": "numpy tqdm",
    "models": "numpy sklearn",
    "app": "matplotlib numpy scipy tqdm",
}
# Where native code is made, and nowhere else.
NATIVE = {"cpu.py": "numba", "tables.py": "numba", "formulas.py": "numba", "join.py": "numba",
          "gemm.py": "llvmlite numba", "native.py": "llvmlite numba",
          "device.py": "cuda cupy"}  # fmt: skip
NAMELESS = ("engine", "training", "files", "app")  # where no family may be known by name


def source_files():
    """Text of every Python file that ships, by its path from the repository's root."""
    paths = [p for folder in ("kernels", "minivae") for p in (ROOT / folder).rglob("*.py")]
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in paths}


def module(path):
    """Full name of a file's module: "kernels/dense/cpu.py" is minivae.kernels.dense.cpu."""
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.startswith("minivae") else f"minivae.{name}"


def folder(path):
    """The folder of FOLDERS that a file is in; "" for what stands above all."""
    parts = path.split("/")
    name = parts[0] if parts[0] == "kernels" else parts[1]
    return name if name in FOLDERS else ""


def imports(path, source):
    """Modules that a file imports; of other packages only the first part of the name."""
    modules = {module(file) for file in source_files()}
    here = module(path)
    package = here if path.endswith("__init__.py") else here.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                base = resolve_name("." * node.level + (node.module or ""), package)
                full = [f"{base}.{name}" for name in names]
                names = [name if name in modules else base for name in full]
            yield from (n if n.split(".")[0] == "minivae" else n.split(".")[0] for n in names)


def forbidden(path, source):
    """The imports of a file that the rule of its folder does not allow."""
    own = folder(path)
    if not own:
        return []
    below = list(FOLDERS)[: list(FOLDERS).index(own) + 1]
    packages = set(FOLDERS[own].split()) | set(sys.stdlib_module_names)
    if own == "kernels":
        packages |= set(NATIVE.get(path.rsplit("/", 1)[-1], "").split())
    above = {"minivae"} if own == "app" else set()  # the command uses what users use
    return sorted(
        name
        for name in set(imports(path, source))
        if name not in packages | above
        and not (name.startswith("minivae.") and name.split(".")[1] in below)
    )


def test_every_file_imports_only_what_the_rule_of_its_folder_allows():
    files = source_files()
    assert {folder(path) for path in files} == {*FOLDERS, ""}
    broken = {path: forbidden(path, text) for path, text in files.items()}
    assert {path: names for path, names in broken.items() if names} == {}


def test_no_two_files_import_each_other():
    files = source_files()
    graph = {
        module(p): set(imports(p, text)) - {module(p)} for p, text in files.items() if folder(p)
    }
    order = graphlib.TopologicalSorter({m: found & graph.keys() for m, found in graph.items()})
    order.prepare()  # or CycleError


def test_the_checker_sees_every_spelling_of_an_import():
    for path, source, name in [
        (
            "kernels/dense/reference.py",
            "from ...engine.layout import Layout",
            "minivae.engine.layout",
        ),
        ("kernels/dense/reference.py", "from ... import data", "minivae.data"),
        ("kernels/dense/reference.py", "import numba", "numba"),
        ("kernels/dense/reference.py", "import minivae", "minivae"),
        ("kernels/tables.py", "from ..engine import step", "minivae.engine.step"),
        ("minivae/engine/step.py", "import minivae.models.nade", "minivae.models.nade"),
        ("minivae/engine/step.py", "from minivae import training", "minivae.training"),
        ("minivae/engine/step.py", "def f():\n    import cupy.cuda", "cupy"),
        ("minivae/training/loop.py", "from ..models import base", "minivae.models.base"),
        ("minivae/models/base.py", "from minivae.app.cli import main", "minivae.app.cli"),
    ]:
        assert forbidden(path, source) == [name], source
    allowed = "import os, numpy as np\nfrom ..kernels import tables\nfrom minivae.engine import net"
    assert forbidden("minivae/engine/graph.py", allowed) == []


def known_families(source):
    """Names of families and of their classes in the code of a file, but for its docstrings."""
    words = {*MODELS, *(place.rpartition(":")[2] for place in MODELS.values())}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            yield from words & {name}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""  # a docstring, which comes before its text
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from words & set(node.value.replace(".", " ").split())


def test_no_family_is_known_by_name_where_all_are_served():
    files = {p: text for p, text in source_files().items() if folder(p) in NAMELESS}
    found = {path: sorted(known_families(text)) for path, text in files.items()}
    assert {path: names for path, names in found.items() if names} == {}
    assert list(known_families("x = minivae.VAE()")) == ["VAE"]
    assert list(known_families("if name == 'nade': pass")) == ["nade"]


def test_no_file_is_too_long():
    lengths = {path: len(text.splitlines()) for path, text in source_files().items()}
    assert {path: n for path, n in lengths.items() if n > MAX_LINES} == {}
    assert sum(n for path, n in lengths.items() if folder(path) == "engine") <= MAX_ENGINE_LINES


def test_every_package_is_listed_for_the_wheel():
    listed = (ROOT / "setup.cfg").read_text().split("packages =")[1].split("#")[0].split()
    folders = {module(path) for path in source_files() if path.endswith("__init__.py")}
    assert sorted(listed) == sorted(folders)


def test_import_minivae_is_light(tmp_path):
    code = f"import sys, minivae; print(*sorted(set(sys.modules) & set({HEAVY})))"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stdout.split(), run.stderr) == (0, [], "")
