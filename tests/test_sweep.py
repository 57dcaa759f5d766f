"""Many runs on workers that die, and two sweeps over one folder: every run is made once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import distributed
import pandas as pd
import pytest

from adaptseg.base.claims import holder
from adaptseg.cluster.sweep import connect
from adaptseg.streets.samples import write_samples
import inside

ROOT = Path(__file__).parents[1]


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


def sweep(data, out, *args, **more):
    values = {
        **dict(
            preset="tiny",
            source="gta5",
            target="cityscapes",
            data_root=data,
            out=out,
            precision="fp32",
            device="cpu",
            choice_images=0,
        ),
        **more,
    }
    args = [*args, *(s for k, v in values.items() for s in ("-p", k, str(v)))]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "adaptseg", "sweep", *args],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:] + out[-3000:]
    return out


def log(out):
    "What was begun or resumed: pid, verb, run."
    file = out / "sweep.log"
    return [
        (int(pid), verb, run)
        for line in (file.read_text().splitlines() if file.is_file() else [])
        for *_, pid, verb, run in [line.split()]
    ]


def wait_for(what, process, seconds=150):
    end = time.time() + seconds
    while not (found := what()):
        assert time.time() < end and process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.05)
    return found


def test_a_killed_worker_loses_only_its_run(data, tmp_path):
    out, grid = tmp_path / "runs", dict(method="source_only,adaptseg_multi", steps=60)
    process = sweep(data, out, "--workers", "2", **grid)
    broken = wait_for(lambda: next(out.glob("*/*/checkpoint.pt"), None), process).parent
    assert not (broken / "metrics.json").exists()
    # long before its last step: the process that trains notices within a second that the one that began it is gone
    os.kill(holder(broken)["pid"], signal.SIGKILL)
    said = finished(process)
    runs = {f"gta52cityscapes/{m}-s0" for m in ("source_only", "adaptseg_multi")}
    assert {f"{p.parent.parent.name}/{p.parent.name}" for p in out.glob("*/*/metrics.json")} == runs
    name = f"{broken.parent.name}/{broken.name}"
    assert sorted(run for _, verb, run in log(out) if verb == "began") == sorted(runs)
    assert [run for _, verb, run in log(out) if verb == "resumed"] == [name]
    table = pd.read_csv(out / "sweep.csv").set_index("run")
    assert (
        (table["step"] == "60/60").all()
        and table["state"].drop(name).eq("made").all()
        and table["state"][name] == "resumed"
    )
    assert (out / "table.md").read_text() in said and "adaptseg_multi" in said and (broken / "train.ipynb").is_file()
    assert not list(out.glob("*/.*.claim"))
    before, begin = log(out), time.time()
    assert "was done" in finished(sweep(data, out, "--workers", "2", **grid))
    assert log(out) == before and time.time() - begin < 60


@pytest.mark.slow
def test_one_worker_that_is_killed_again_and_again(data, tmp_path):
    "It comes back every time; there is no other to take over."
    out, killed = tmp_path / "runs", set()
    process = sweep(data, out, "--workers", "1", method="source_only", steps=40)
    run = out / "gta52cityscapes/source_only-s0"
    for _ in range(2):
        wait_for(
            lambda: (run / "checkpoint.pt").is_file() and holder(run) and holder(run)["pid"] not in killed, process
        )
        killed.add(holder(run)["pid"])
        os.kill(holder(run)["pid"], signal.SIGKILL)
    assert "resumed" in finished(process) and (run / "metrics.json").is_file()
    assert [verb for _, verb, _ in log(out)] == ["began", "resumed", "resumed"]


def test_a_busy_machine_does_not_fail_what_is_done(monkeypatch):
    "Workers that take too long to end end with this process."
    close = distributed.SpecCluster.close

    def late(cluster, *args, **kwargs):
        close(cluster, *args, **kwargs)
        raise TimeoutError

    monkeypatch.setattr(distributed.SpecCluster, "close", late)
    with connect(1) as client:
        assert client.submit(abs, -1).result() == 1
    with pytest.raises(KeyError), connect(1):
        raise KeyError("what went wrong inside is still told")


@pytest.mark.slow
def test_two_sweeps_share_the_runs(data, tmp_path):
    out = tmp_path / "runs"
    both = [sweep(data, out, method="source_only", seed="0,1") for _ in range(2)]
    for process in both:
        finished(process)
    began = log(out)
    assert sorted(run for *_, run in began) == [f"gta52cityscapes/source_only-s{s}" for s in range(2)]
    assert {verb for _, verb, _ in began} == {"began"} and len({pid for pid, *_ in began}) == 2, "both worked"


@pytest.fixture
def scheduler(tmp_path):
    "A scheduler and a worker that were there before."
    dask = lambda *args: subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + args[0], *args[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    file = tmp_path / "scheduler.json"
    processes = [dask("dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))]
    wait_for(file.is_file, processes[0])
    processes.append(dask("dask_worker", "--scheduler-file", str(file), "--nthreads", "4", "--no-dashboard"))
    yield json.loads(file.read_text())["address"]
    for p in reversed(processes):
        p.terminate()
    for p in processes:
        p.wait(30)


def test_a_cluster_and_a_run_that_fails(data, tmp_path, scheduler):
    out = tmp_path / "runs"
    (out / "gta52cityscapes/source_only-s0/notes").mkdir(parents=True)
    process = sweep(data, out, "--scheduler", scheduler, method="source_only", seed="0,1")
    said, err = process.communicate(timeout=300)
    assert process.returncode == 1 and "source_only-s0 failed: " in err and "is no run" in err, err[-3000:]
    assert (out / "gta52cityscapes/source_only-s1/metrics.json").is_file() and "made" in said


def leaderboard(table, data, out, **more):
    values = dict(table=table, data_root=data, out=out, seeds="0,1", **more)
    args = [s for k, v in values.items() for s in (f"--{k}", str(v))]
    return inside.adaptseg("leaderboard", *args)


def test_leaderboard(data, tmp_path):
    "Two methods and the oracle, two seeds: standings and figures in an executed notebook; again, nothing is made."
    common = "precision,device,preset,source,target,method\n"
    row = "fp32,cpu,tiny,{},cityscapes,{}\n".format
    table, out = tmp_path / "table.csv", tmp_path / "out"
    table.write_text(common + row("gta5", "source_only") + row("gta5", "adabn") + row("cityscapes", "source_only"))
    done = leaderboard(table, data, out)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (out / "leaderboard.ipynb").read_text()
    for words in ("gta5 -> cityscapes", "| oracle", "above source_only", "regret", "times MiB", "image/png"):
        assert words in text, words
    lines = (out / "results.jsonl").read_text()
    assert len(lines.splitlines()) == 6
    shutil.rmtree(out / "gta52cityscapes")
    assert leaderboard(table, data, out).returncode == 0
    assert not (out / "gta52cityscapes").exists() and (out / "results.jsonl").read_text() == lines
    table.write_text(common + row("gta5", "no_such_method"))
    wrong = inside.adaptseg("leaderboard", "--table", table, "--data_root", data, "--out", out)
    assert wrong.returncode == 1 and "row 1" in wrong.stderr and "no_such_method" in wrong.stderr
