"""What is installed from a wheel works without the clone, and every dependency's licence is named."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def declared():
    "Names of all packages that settings.ini asks for, with the extra."
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(ROOT / "settings.ini", encoding="utf8")
    lists = {k: v for k, v in settings["DEFAULT"].items() if k.endswith("requirements")}
    return {Requirement(r).name.lower().replace("_", "-") for text in lists.values() for r in text.split()}


def test_licence_of_every_dependency_is_listed():
    page = (ROOT / "nbs" / "licences.md").read_text(encoding="utf8")
    listed = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")} - {"package", "---"}
    assert listed == declared(), "python nbs/_site/licences.py writes the page anew"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "Built from the source distribution, as an index would."
    out = tmp_path_factory.mktemp("dist")
    build = f"from setuptools import build_meta; print(build_meta.build_sdist({str(out)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        archive.extractall(out / "source", filter="data")
    source = next((out / "source").iterdir())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), source]
    subprocess.run(command, check=True)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_wheel_brings_what_commands_need(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    notebooks = {p.name for p in (ROOT / "nbs").glob("*.ipynb")}
    assert {Path(n).name for n in names if n.startswith("adaptseg/notebooks/")} >= notebooks | {"one_training.csv"}
    assert {n for n in names if n.startswith("data_prep/cards/")}
    assert not [n for n in names if n.startswith(("tests/", "nbs/"))]


@pytest.mark.slow
def test_demo_of_a_wheel_outside_any_clone(wheel, tmp_path):
    "In an environment of its own that has the dependencies of this one, and nothing of the clone."
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    packages = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ADAPTSEG_ROOT")}
    here = tmp_path / "empty"
    here.mkdir()
    command = [tmp_path / "env" / "bin" / "adaptseg", "demo", "--preset", "tiny"]
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (here / "runs/demo/gta52cityscapes/comparison.png").stat().st_size > 10_000
    assert (here / "runs/demo/gta52cityscapes/adaptseg_multi-s0/train.ipynb").is_file()
