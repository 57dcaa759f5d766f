"""The commands that the how-to pages show are ones that the command line takes."""

import re
import shlex
from pathlib import Path

import pytest

from adaptseg.cli import parse
from adaptseg.reports.leaderboard import leaderboard_job
from adaptseg.runs.config import make_config
from adaptseg.unsupervised.folder import segment_job
from adaptseg.cluster.sweep import sweep_rows

PAGES = Path(__file__).parents[1] / "nbs" / "howto"
COMMANDS = [
    (page, line)
    for page in ("several_gpus.md", "sweeps.md")
    for line in (PAGES / page).read_text().splitlines()
    if re.match(r"(adaptseg|accelerate|torchrun) ", line)
]


def test_pages_show_commands():
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("page, line", COMMANDS, ids=[f"{page}-{i}" for i, (page, _) in enumerate(COMMANDS)])
def test_command_is_understood(page, line, tmp_path):
    args = parse(shlex.split(re.sub(r".*?\badaptseg ", "", line, count=1)))
    rows = [dict(getattr(args, "parameters", []))]  # `table` has none
    if args.command == "leaderboard":
        assert leaderboard_job(**rows[0])
        return
    if args.command == "sweep":
        table = tmp_path / "pairs.csv"
        table.write_text(re.search(r"```\n(source,.*?)```", (PAGES / page).read_text(), re.DOTALL)[1])
        rows = sweep_rows(table if args.table else None, dict(args.parameters))
        assert len(rows) == 6
    for row in rows:
        (segment_job if args.command == "segment" else make_config)(**row)
