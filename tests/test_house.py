"""The shape of the code base: who may import whom, how long a file may be, what an import costs."""

import ast
import graphlib
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 400
HEAVY = "cupy matplotlib numba pandas pooch scipy sklearn torch".split()
# What each file may import, inside functions too. ".name" is minivae.name, "." minivae itself,
# "stdlib" the whole standard library.
ALLOWED = {
    "kernels/__init__.py": "",
    "kernels/reference.py": "math numpy .kernels",
    "kernels/native.py": "contextlib hashlib pathlib llvmlite numba",
    "kernels/formulas.py": "math numba numpy .kernels .kernels.native",
    "kernels/gemm.py": "platform llvmlite numba .kernels.native",
    "kernels/join.py": "platform numba .kernels.native",
    "kernels/cpu.py": "math numpy .kernels .kernels.formulas .kernels.gemm .kernels.join"
    " .kernels.native",
    "kernels/launches.py": "stdlib numpy .kernels",
    "kernels/cuda.py": "stdlib cuda cupy numpy .kernels .kernels.launches",
    "minivae/parameters.py": "stdlib numpy .kernels .kernels.reference",
    "minivae/objective.py": "stdlib .kernels .kernels.reference",
    "minivae/replay.py": "stdlib numpy .kernels.launches .interrupts .objective .parameters",
    "minivae/backend.py": "stdlib cupy numpy .kernels.cpu .kernels.cuda .kernels.native .objective"
    " .parameters .replay",
    "minivae/rows.py": "stdlib numpy scipy",
    "minivae/gradcheck.py": "stdlib numpy",
    "minivae/interrupts.py": "stdlib",
    "minivae/divergence.py": "numpy .objective .parameters",
    "minivae/evaluation.py": "stdlib numpy .kernels .kernels.reference .backend .gradcheck"
    " .objective .parameters .rows",
    "minivae/training.py": "stdlib numpy tqdm .kernels .kernels.reference .backend .divergence"
    " .evaluation .interrupts .objective .parameters .rows",
    "minivae/datasets.py": "stdlib numpy pandas pooch sklearn",
    "minivae/storage.py": "stdlib numpy safetensors",
    "minivae/checkpoints.py": "stdlib numpy .storage .training .validation",
    "minivae/plots.py": "stdlib matplotlib numpy scipy",
    "minivae/validation.py": "stdlib numpy scipy sklearn .kernels .backend .rows",
    "minivae/estimator.py": "stdlib numpy sklearn .kernels .backend .evaluation .parameters .rows"
    " .training .validation",
    "minivae/vae.py": "numpy sklearn .kernels .kernels.reference .checkpoints .estimator"
    " .evaluation .parameters .rows .storage .training .validation",
    "minivae/__init__.py": "stdlib .datasets .gradcheck .kernels .plots .storage .vae",
    "minivae/runs.py": "stdlib . .checkpoints .datasets .storage",
    "minivae/commands.py": "stdlib numpy . .datasets .plots .runs .storage",
    "minivae/cli.py": "stdlib . .commands .datasets",
    "minivae/__main__.py": "stdlib .cli",
}


def module(path):
    """Full name of a file's module: "kernels/cpu.py" is minivae.kernels.cpu."""
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.startswith("minivae") else f"minivae.{name}"


def words(path):
    """A file's line of the table, with minivae's own modules written out."""
    return {f"minivae{w}".rstrip(".") if w[0] == "." else w for w in ALLOWED[path].split()}


def imports(path, source):
    """Modules that a file imports; of other packages only the first part of the name."""
    modules = {module(file) for file in ALLOWED}
    package = "minivae.kernels" if path.startswith("kernels/") else "minivae"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                base = resolve_name("." * node.level + (node.module or ""), package)
                full = [f"{base}.{name}" for name in names]
                names = [name if name in modules else base for name in full]
            yield from (n if n.split(".")[0] == "minivae" else n.split(".")[0] for n in names)


def forbidden(path, source):
    """The imports of a file that the table does not allow."""
    allowed = {"__future__"} | words(path)
    standard = sys.stdlib_module_names if "stdlib" in allowed else set()
    return sorted(set(imports(path, source)) - allowed - standard)


def source_files():
    """Text of every Python file that ships, by its path from the repository's root."""
    paths = [p for folder in ("kernels", "minivae") for p in (ROOT / folder).rglob("*.py")]
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in paths}


def test_every_file_imports_only_what_the_table_allows():
    files = source_files()
    assert files
    assert sorted(files.keys() - ALLOWED.keys()) == [], "new files need a line in ALLOWED"
    broken = {path: forbidden(path, text) for path, text in files.items()}
    assert {path: names for path, names in broken.items() if names} == {}


def test_the_table_runs_downwards_only():
    graphlib.TopologicalSorter({module(p): words(p) for p in ALLOWED}).prepare()  # or CycleError


def test_the_checker_sees_every_spelling_of_an_import():
    for path, source, name in [
        ("kernels/reference.py", "from ..parameters import Layout", "minivae.parameters"),
        ("kernels/reference.py", "from .. import parameters", "minivae.parameters"),
        ("kernels/reference.py", "from . import cpu", "minivae.kernels.cpu"),
        ("kernels/reference.py", "import minivae", "minivae"),
        ("kernels/reference.py", "import os.path as p", "os"),
        ("minivae/training.py", "from .vae import VAE", "minivae.vae"),
        ("minivae/training.py", "from minivae import vae", "minivae.vae"),
        ("minivae/training.py", "from . import VAE", "minivae"),
        ("minivae/objective.py", "from minivae.kernels.cpu import f", "minivae.kernels.cpu"),
        ("minivae/backend.py", "import kernels", "kernels"),
        ("minivae/vae.py", "def f():\n    import cupy.cuda", "cupy"),
    ]:
        assert forbidden(path, source) == [name], source
    allowed = "import os, cupy, numpy as np\nfrom .kernels import cpu\nfrom .kernels.cuda import f"
    assert forbidden("minivae/backend.py", allowed) == []


def test_no_file_is_too_long():
    lengths = {path: len(text.splitlines()) for path, text in source_files().items()}
    assert {path: n for path, n in lengths.items() if n > MAX_LINES} == {}


def test_import_minivae_is_light(tmp_path):
    code = f"import sys, minivae; print(*sorted(set(sys.modules) & set({HEAVY})))"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stdout.split(), run.stderr) == (0, [], "")
