"""The numbers that README and the how-tos show are those of the files in nbs/results, and these are whole."""

import json
from pathlib import Path

import pytest

from adaptseg.cluster.sweep import sweep_rows
from adaptseg.reports.leaderboard import standings_table
from adaptseg.reports.standings import standings
from adaptseg.reports.tables import summary_table
from adaptseg.runs.config import make_config
from adaptseg.runs.record import read_results, recorded

ROOT = Path(__file__).parents[1]
# a measurement of many hours grows in NAME.unfinished.jsonl, and is shown when it is whole
FILES = sorted(f for f in (ROOT / "nbs" / "results").glob("*.jsonl") if not f.name.endswith(".unfinished.jsonl"))
SEEDS = (0, 1, 2)


def named(file):
    return file.stem


def shown(page):
    "The text of a page, or the tables that an executed notebook shows."
    text = page.read_text(encoding="utf8")
    if page.suffix == ".md":
        return text
    outputs = [o for cell in json.loads(text)["cells"] for o in cell.get("outputs", [])]
    return "\n".join("".join(o.get("data", {}).get("text/markdown", "")) for o in outputs)


@pytest.mark.parametrize("file", FILES, ids=named)
def test_the_docs_show_what_the_file_says(file):
    pages = (ROOT / "README.md", *(ROOT / "nbs").glob("howto/*.md"), *(ROOT / "nbs").glob("explanation/*.ipynb"))
    text, runs = "\n".join(map(shown, pages)), read_results(file)
    ranked = standings_table(standings(runs)).split("\n\n", 1)[1] if "images_overlap" in file.read_text() else None
    assert summary_table(runs) in text or ranked and ranked in text, (
        f"paste what `adaptseg table {file.relative_to(ROOT)}` prints, or the leaderboard's table"
    )


@pytest.mark.parametrize("file", FILES, ids=named)
def test_every_row_has_been_measured_with_every_seed(file):
    "Also: with today's values. A preset that changes makes its results old. A table may say its seeds itself."
    runs, table = read_results(file), file.with_suffix(".csv")
    seeds = {} if "seed" in table.read_text().splitlines()[0].split(",") else {"seed": ",".join(map(str, SEEDS))}
    wanted = [make_config(**row) for row in sweep_rows(table, seeds)]
    missing = [f"{c.source} -> {c.target}, {c.method}, seed {c.seed}" for c in wanted if not recorded(runs, c)]
    assert not missing, "not measured: " + "; ".join(missing)
    assert len(runs) == len(wanted)


@pytest.mark.parametrize("file", FILES, ids=named)
def test_results_were_made_by_code_that_anyone_can_have(file):
    for line in file.read_text(encoding="utf8").splitlines():
        commit = json.loads(line)["config"]["commit"]
        assert commit and not commit.endswith("+changes"), "measure from a clean checkout"
