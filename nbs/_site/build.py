"""The documentation site, with one command and without a network: `make docs` writes it to _docs/.

nbdev prepares the notebooks (`nbdev.serve.proc_nbs`: hidden cells, titles, links between names), a small converter
turns them into pages (pages.py), public names get tables from their docments (reference.py), and Sphinx with MyST-
NB and the PyData theme makes HTML; a warning is an error. nbdev's own commands (nbdev_docs) want Quarto, and fetch
it where it is not; nbs/_quarto.yml and nbs/sidebar.yml keep that way open, and sidebar.yml is the order of the
pages here too.

This folder begins with an underscore, so that nbdev and Quarto pass it by: it is about the notebooks, and not one
of them.
"""

import argparse
import os
import shutil
import sys
import tempfile
import warnings
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
# noqa: E402
from pages import NBS, ROOT, all_pages, docname, head, with_reference, write_markdown, write_notebook, write_source

CARDS = {
    f"data_prep/cards/{p.stem}": f"Data card: {p.stem}"
    for p in sorted(ROOT.glob("data_prep/cards/*.md"), key=lambda p: (p.stem == "custom", p))
}
MORE = {  # pages of files outside nbs/, which Quarto does not see
    "How-to": ["data_prep/index", *CARDS],
    "Project": ["project/model_card", "project/contributing", "project/changelog"],
}
TITLES = {"data_prep/index": "Prepare datasets", **CARDS}  # where a page's own title does not tell


def prepared(folder: Path) -> Path:
    "The notebooks, with the reference in them, through nbdev's processors."
    from nbdev.serve import proc_nbs

    copy = folder / "nbs"
    shutil.copytree(NBS, copy, ignore=shutil.ignore_patterns("_site", ".*", "__pycache__"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of packages that the library imports; Sphinx's own are errors
        for path in copy.rglob("*.ipynb"):
            with_reference(path)
    return proc_nbs(path=str(copy), force=True, n_workers=2)


def members(section: dict, pages: dict[str, str], folder: Path) -> list[str]:
    """The pages of a section, in its order; a pattern stands for all that fit and were not named, a section in it has a
    page of its own.
    """
    found = []
    for item in [section["contents"]] if isinstance(section["contents"], str) else section["contents"]:
        if isinstance(item, dict):
            found.append(write_section(item, pages, folder, "api/"))
            continue
        path = PurePosixPath("nbs") / item
        fits = [
            page
            for file, page in pages.items()
            if PurePosixPath(file).parent == path.parent and fnmatch(file, str(path)) and page not in found
        ]
        if not fits and "*" not in item:
            raise FileNotFoundError(f"nbs/sidebar.yml lists {item}, which is not there")
        found += fits
    return found + [page for page in MORE.get(section["section"], ()) if page in pages.values()]


def line(folder: Path, page: str) -> str:
    "A page in the list of its section: title and promise."
    heading, promise, ending = head(folder, page)
    return f"- [{TITLES.get(page, heading)}](/{page}{ending})" + (f": {promise}" if promise else "")


TREE = "\n```{{toctree}}\n:hidden:\n:maxdepth: 2\n\n{}\n```\n"


def write_section(section: dict, pages: dict[str, str], folder: Path, inside: str = "") -> str:
    "The page of a section, with what each of its pages promises; its name. One page alone is a section itself."
    found = members(section, pages, folder)
    if len(found) == 1 and not inside:
        return f"{section['section']} <{found[0]}>"
    name = inside + section["section"].lower().replace(" ", "-")
    listed = "\n".join(line(folder, page) for page in found)
    entries = "\n".join(f"{TITLES[page]} </{page}>" if page in TITLES else f"/{page}" for page in found)
    promise = f"{{.lead}}\n{section['text']}\n\n" if "text" in section else ""
    (folder / f"{name}.md").write_text(
        f"# {section['section']}\n\n{promise}{listed}\n{TREE.format(entries)}", encoding="utf8"
    )
    return name


def write_sections(folder: Path) -> None:
    "The tables of contents, from nbs/sidebar.yml: a page for each section, and all of them below the home page."
    pages = {k: v for k, v in all_pages().items() if v != "index"}
    sections = yaml.safe_load((NBS / "sidebar.yml").read_text(encoding="utf8"))["website"]["sidebar"]["contents"]
    names = [write_section(section, pages, folder) for section in sections]
    write_markdown("README.md", folder)
    with open(folder / "index.md", "a", encoding="utf8") as f:
        f.write(TREE.format("\n".join(names)))


def write_pages(folder: Path) -> None:
    "Everything that Sphinx reads."
    processed = prepared(folder.parent)
    for file in all_pages():
        if docname(file) == "index":
            continue
        if file.endswith(".ipynb"):
            write_notebook(processed / file.removeprefix("nbs/"), file, folder)
        else:
            write_markdown(file, folder)
    for module in (ROOT / "adaptseg").rglob("[!_]*.py"):
        write_source(module, folder)
    write_sections(folder)
    for picture in (p for p in NBS.rglob("*") if p.suffix in (".png", ".jpg", ".svg") and "_site" not in p.parts):
        copy = folder / picture.relative_to(NBS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, copy)
    for name in ("conf.py", "static"):
        (shutil.copytree if (HERE / name).is_dir() else shutil.copy)(HERE / name, folder / name)


def build(out: Path) -> int:
    "The whole site; Sphinx's exit status."
    from sphinx.cmd.build import main as sphinx

    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "site"
        folder.mkdir()
        write_pages(folder)
        html = Path(work) / "html"
        status = sphinx(
            [
                "-q",
                "-W",
                "--keep-going",
                "-j",
                "2",
                "-b",
                "html",
                "-d",
                str(Path(work) / "read"),
                str(folder),
                str(html),
            ]
        )
        if status:
            return status  # the old site stays
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(html, out, ignore=shutil.ignore_patterns("_sources", ".buildinfo"))
        return 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Build the documentation site.")
    arguments.add_argument("--out", type=Path, default=ROOT / "_docs", help="folder of the site (_docs)")
    out = arguments.parse_args().out.resolve()
    os.chdir(ROOT)  # where nbdev looks for settings.ini
    sys.exit(build(out))
