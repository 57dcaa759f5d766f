"""The report's experiments as one command, on tiny domains: once, again, with a run removed, with data missing."""

import shutil

import pandas as pd
import pytest
from PIL import Image

from adaptseg.reports.experiments import FIRST, experiment_config, experiments_job, waits
from adaptseg.runs.config import EXPERIMENTS
from adaptseg.runs.folder import Run, run_path
from adaptseg.streets.samples import write_samples
import inside


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_samples(
        tmp_path_factory.mktemp("data") / "samples",
        size=(64, 128),
        n_gta5=(6, 2),
        n_cityscapes=(4, 2),
        n_iitk=(1, 1),
        workers=1,
    )


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("chain") / "experiments"
    return out, adaptseg("experiments", data, out)


def adaptseg(command, data, out, **more):
    values = (
        dict(preset="tiny", data_root=data, device="cpu", precision="fp32", images=2)
        if command == "experiments"
        else {}
    )
    return inside.adaptseg(command, *(s for k, v in {**values, "out": out, **more}.items() for s in ("-p", k, v)))


def paths(data, out):
    job = experiments_job(preset="tiny", data_root=str(data), out=str(out))
    return {name: run_path(experiment_config(job, name)) for name in EXPERIMENTS}


def made(data, out):
    return {name: Run(path).config["started"] for name, path in paths(data, out).items()}


def test_one_command_makes_all(data, finished):
    out, done = finished
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(Run(p).finished and (p / "train.ipynb").is_file() for p in paths(data, out).values())
    expected = {"experiments.ipynb", "table.md", "iitk.csv", "figure3.png", "figure4.png", "cameras.png"}
    assert expected <= {p.name for p in out.iterdir()}
    table = (out / "table.md").read_text()
    assert all(name in table for name in EXPERIMENTS) and table in done.stdout
    scores = pd.read_csv(out / "iitk.csv").set_index("experiment")
    assert list(scores.index) == list(EXPERIMENTS) and set(scores["method"]) == {"adaptseg_multi"}
    assert all(f"{scores.loc[name, 'mIoU']:.1f}" in table.split("on iitk/val")[1] for name in EXPERIMENTS)
    for which in ("figure3", "figure4", "cameras"):
        assert len(Image.open(out / f"{which}.png").convert("RGB").getcolors(10**6)) > 50
    assert Run(paths(data, out)["gta5_iitk_adapted"]).config["init_started"] == made(data, out)[FIRST]


def test_a_second_call_does_nothing(data, finished):
    out, _ = finished
    before, figure = made(data, out), (out / "figure3.png").stat().st_mtime_ns
    again = adaptseg("experiments", data, out)
    assert again.returncode == 0 and "step" not in again.stdout, again.stderr[-2000:]
    assert (made(data, out), (out / "figure3.png").stat().st_mtime_ns) == (before, figure)


@pytest.mark.parametrize("removed", ["gta5_iitk_scratch", pytest.param(FIRST, marks=pytest.mark.slow)])
def test_only_what_depends_on_a_removed_run_runs_again(data, finished, removed):
    out, _ = finished
    before = made(data, out)
    shutil.rmtree(paths(data, out)[removed])
    assert adaptseg("experiments", data, out).returncode == 0
    after = made(data, out)
    changed = {name for name in EXPERIMENTS if after[name] != before[name]}
    assert changed == {removed} | ({n for n in EXPERIMENTS if waits(n)} if removed == FIRST else set())


def test_what_fails_stops_only_what_waits_for_it(data, tmp_path):
    torn, out = tmp_path / "torn", tmp_path / "out"
    shutil.copytree(data, torn)
    shutil.rmtree(torn / "Cityscapes")
    done = adaptseg("experiments", torn, out)
    assert (
        done.returncode == 1
        and "gta5_cityscapes failed: " in done.stderr
        and "waits for gta5_cityscapes" in done.stderr
    ), done.stderr[-3000:]
    assert {name for name, p in paths(torn, out).items() if (p / "metrics.json").is_file()} == {"gta5_iitk_scratch"}
    assert "gta5_iitk_scratch" in (out / "table.md").read_text() and (out / "figure3.png").is_file()


def test_compare_command(data, finished, tmp_path):
    out, _ = finished
    done = adaptseg("compare", data, tmp_path / "compared", runs=out, domain="iitk", n=2, kanezaki=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {"compare.ipynb", "comparison.png"} <= {p.name for p in (tmp_path / "compared").iterdir()}
    text = (tmp_path / "compared/compare.ipynb").read_text()
    assert (
        "protocol differs in" in text
        and "regret" in text
        and "no run of Figure" not in text.split("## The report's figures")[1].split('"outputs"', 2)[2][:3000]
    )
