"""nbs/index.ipynb, the home page that nbdev and Quarto look for, is README.md and nothing else: `make export` writes
it.
"""

import json
import re
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
SKIP = "- skip_exec: true"


def relinked(text: str) -> str:
    "Links that start at the project's root -> links that start at nbs/."

    def link(m):
        target = m[2]
        if re.match(r"\w+:|#", target):
            return m[0]
        return f"{m[1]}({target.removeprefix('nbs/') if target.startswith('nbs/') else '../' + target})"

    return re.sub(r"(\[[^\[\]]*(?:\[[^\]]*\])?[^\[\]]*\])\(([^)\s]+)\)", link, text)


def cell(text: str) -> dict:
    return dict(
        cell_type="markdown",
        id=sha256(text.encode()).hexdigest()[:8],
        metadata={},
        source=text.strip().splitlines(keepends=True),
    )


def home_notebook(readme: str) -> str:
    "The notebook's text: the title, then a cell for each section."
    heading, rest = readme.split("\n", 1)
    sections = [part for part in re.split(r"^(?=## )", relinked(rest), flags=re.M) if part.strip()]
    cells = [cell(f"{heading}\n\n{SKIP}"), *map(cell, sections)]
    kernel = dict(kernelspec=dict(display_name="python3", language="python", name="python3"))
    return (
        json.dumps(
            dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5),
            sort_keys=True,
            indent=1,
            ensure_ascii=False,
        )
        + "\n"
    )


if __name__ == "__main__":
    (ROOT / "nbs" / "index.ipynb").write_text(
        home_notebook((ROOT / "README.md").read_text(encoding="utf8")), encoding="utf8"
    )
