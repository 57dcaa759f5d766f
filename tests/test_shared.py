"""One folder of runs and data, many at it: two sweeps of one table, trainings by hand, the app in a browser, and a
reader who opens every file all the time. MINUTES says for how long rows are added.
"""

import csv
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from adaptseg.streets.samples import write_samples
from browser import needs_browser
from test_dashboards import browser, opened, serve  # noqa: F401  a fixture

ROOT, MINUTES = Path(__file__).parents[1], float(os.environ.get("MINUTES", 10))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200), needs_browser]
TINY = dict(preset="tiny", source="gta5", target="cityscapes", precision="fp32", device="cpu", choice_images=0)


def start(*args, home):
    "A command of a user, whose cache is his own."
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ADAPTSEG_CACHE": str(home)}
    line = [sys.executable, "-m", "adaptseg", *map(str, args)]
    return subprocess.Popen(line, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def given(**values):
    return [s for k, v in values.items() for s in ("-p", k, str(v))]


def read(file):
    "As whoever looks reads it: an error where half of it is there."
    if file.suffix in (".json", ".ipynb"):
        json.loads(file.read_text())
    elif file.suffix == ".jsonl":
        [json.loads(line) for line in file.read_text().splitlines()]
    elif file.suffix == ".csv":
        rows = list(csv.reader(file.open(newline="")))
        assert len({len(row) for row in rows}) == 1, f"{file}: rows of different lengths"
    elif file.suffix == ".png":
        Image.open(file).load()
    elif file.suffix == ".safetensors":
        with safe_open(file, "pt") as tensors:
            [tensors.get_tensor(k) for k in tensors.keys()]
    else:
        return 0
    return 1


def look(folder):
    "Read every file that has its name, in any order; those that are gone meanwhile are no fault."
    seen, files = 0, [f for f in folder.rglob("*") if not f.name.startswith(".") and f.is_file()]
    for file in random.sample(files, len(files)):
        try:
            seen += read(file)
        except FileNotFoundError:
            continue
    return seen


def visit(browser, address):  # noqa: F811
    "Somebody opens the app anew, looks at runs and pictures, and leaves: the text of both tabs."
    pages, text = opened(browser, address, address), []
    page = next(pages)
    for tab in ("Training", "Results"):
        page.get_by_role("tab", name=tab).click()
        time.sleep(3)
        text.append(page.inner_text("body"))
        assert "Traceback" not in text[-1] and "Error" not in text[-1], text[-1]
    page.locator("select[multiple]").first.select_option(index=[0])
    page.get_by_role("button", name="next →").locator("visible=true").click()
    time.sleep(3)
    text.append(page.inner_text("body"))
    assert "Error" not in text[-1], text[-1]
    assert next(pages, None) is None, "an error in the console fails there"
    return "\n".join(text)


@pytest.fixture
def app(tmp_path):
    "The app over the folder that the others write into."
    write_samples(tmp_path / "data", size=(64, 128), n_gta5=(6, 2), n_cityscapes=(4, 2), n_iitk=(1, 1), workers=1)
    (tmp_path / "runs").mkdir()
    process, address = serve(tmp_path)
    yield address
    process.terminate()
    process.wait(20)


def test_nothing_twice_nothing_torn(app, browser, tmp_path):  # noqa: F811
    data, runs, rows, visits = tmp_path / "data", tmp_path / "runs", tmp_path / "rows.jsonl", 0
    end, seed, seen, rounds = time.monotonic() + 60 * MINUTES, 0, 0, []
    while not rounds or time.monotonic() < end:
        seeds = ",".join(str(seed + i) for i in range(4))
        values = dict(TINY, data_root=data, out=runs, method="source_only,adabn", steps=8, seed=seeds)
        sweeps = [start("sweep", *given(**values), "--results", rows, home=tmp_path / f"user{i}") for i in range(2)]
        mine = dict(TINY, data_root=data, out=runs, method="adaptseg_single", steps=8, seed=seed)
        others = [start("train", *given(**mine), home=tmp_path / "user0") for _ in range(2)]  # one is refused
        while any(p.poll() is None for p in sweeps + others):
            seen += look(runs)
            seen += read(rows) if rows.exists() else 0
            if any(runs.glob("*/*/weights.safetensors")):
                visit(browser, app)
                visits += 1
        said = [p.communicate()[1] for p in sweeps]
        assert [p.returncode for p in sweeps] == [0, 0], said
        codes = sorted(p.returncode for p in others)
        assert codes == [0, 1] and any("writes into it" in p.communicate()[1] for p in others if p.returncode)
        rounds.append(seeds)
        seed += 4
    names = [json.loads(line)["run"] for line in rows.read_text().splitlines()]
    wanted = [f"gta52cityscapes/{m}-s{s}" for m in ("adabn", "source_only") for s in range(seed)]
    assert sorted(names) == sorted(wanted), "each once"
    for name in wanted:
        steps = [row["step"] for row in csv.DictReader((runs / name / "history.csv").open())]
        assert len(steps) == len(set(steps)), f"{name}: two wrote into it"
    listed = visit(browser, app)
    assert all(name in listed for name in wanted), "the app lists what was made"
    left = [f for f in runs.rglob(".*") if f.name.endswith((".part", ".claim", ".held"))]
    assert not left
    print(f"{len(rounds)} rounds, {len(names)} runs, {seen} files read, {visits} visits")
