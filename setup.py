"""Installs adaptseg; every value comes from settings.ini."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
config = ConfigParser(delimiters=["="], interpolation=None)
config.read(HERE / "settings.ini", encoding="utf8")
cfg = config["DEFAULT"]
EXTRAS = ("docs", "cluster", "lite", "export", "heic", "labelling", "tracking", "remote")
extras = {name: cfg[f"{name}_requirements"].split() for name in EXTRAS}
extras["dev"] = [*cfg["dev_requirements"].split(), *(package for extra in extras.values() for package in extra)]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    keywords=cfg["keywords"].split(),
    packages=[*find_packages(include=["adaptseg", "adaptseg.*", "data_prep", "data_prep.*"]), "adaptseg.notebooks"],
    package_dir={"adaptseg.notebooks": "nbs"},  # commands run them: a wheel works without the clone
    package_data={"adaptseg.notebooks": ["*.ipynb", "protocols/*"]},
    include_package_data=True,
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    python_requires=">=" + cfg["min_python"],
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": ["adaptseg=adaptseg._modidx:d"],
    },
    zip_safe=False,
    options={
        "editable_wheel": {"mode": "compat"}
    },  # or Python, started in the folder that holds the clone, takes the clone for the package
)
