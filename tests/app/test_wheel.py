"""The wheel holds the right files and works in an environment of its own."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the wheel is made from, and the tests, which must stay out of it.
TREE = ["LICENSE", "README.md", "kernels", "minivae", "pyproject.toml", "setup.cfg", "tests"]
CODE = ("*.py", "*.cu", "*.cuh")


def run(*command, cwd):
    """Run a command without Python's variables and return what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tree, so that nothing is written into the tree itself."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in TREE:
        if (ROOT / name).is_dir():
            leave_out = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, ignore=leave_out)
        else:
            shutil.copy(ROOT / name, tree / name)
    options = ["--wheel", "--no-isolation", "--outdir", folder]
    run(sys.executable, "-m", "build", *options, tree, cwd=folder)
    return next(folder.glob("minivae-*.whl"))


def shipped(source, target):
    """Where the files of a source folder lie in the wheel."""
    files = [path for pattern in CODE for path in (ROOT / source).rglob(pattern)]
    return {f"{target}/{path.relative_to(ROOT / source).as_posix()}" for path in files}


def test_wheel_holds_the_two_packages_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert any(name.endswith("LICENSE") for name in metadata)
    assert names - metadata == shipped("minivae", "minivae") | shipped("kernels", "minivae/kernels")
    for suffix in (".cu", "/models/vae/program.py", "/kernels/sequence/reference.py"):
        assert any(name.endswith(suffix) for name in names), suffix


def test_wheel_works_in_an_empty_environment(wheel, tmp_path):
    environment, empty = tmp_path / "environment", tmp_path / "empty"
    empty.mkdir()
    venv.create(environment)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]  # a pip of its own takes seconds
    run(*pip, "install", "--no-index", "--no-deps", wheel, cwd=empty)

    # Asked while nothing but the wheel is installed: no other package can own the name.
    code = "from importlib.util import find_spec; print(find_spec('kernels'), find_spec('numpy'))"
    assert run(python, "-c", code, cwd=empty).split() == ["None", "None"]

    # The dependencies come from the running environment instead of a download. Paths named in a
    # .pth file follow the environment's own, and editable installs over there stay inactive.
    site_packages = next(environment.glob("lib/python*/site-packages"))
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    (site_packages / "dependencies.pth").write_text("\n".join(borrowed) + "\n")

    code = "import minivae, minivae.kernels as k; print(minivae.__file__, k.__file__, sep='\\n')"
    for path in run(python, "-c", code, cwd=empty).splitlines():
        assert Path(path).is_relative_to(site_packages)
    assert "train" in run(environment / "bin" / "minivae", "--help", cwd=empty)
