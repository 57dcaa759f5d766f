"""Killed at any moment, again and again, called again: the end is as if nothing had happened. KILLS says how often."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import psutil
import pytest
from PIL import Image

from adaptseg.base.files import read_json
from adaptseg.streets.samples import write_samples

ROOT, KILLS = Path(__file__).parents[1], int(os.environ.get("KILLS", 20))
MARK = "ADAPTSEG_TEST"  # in the environment of all processes of one start
TINY = dict(preset="tiny", source="gta5", target="cityscapes", precision="fp32", device="cpu", choice_images=0)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "samples"
    return write_samples(root, size=(64, 128), n_gta5=(6, 2), n_cityscapes=(4, 2), n_iitk=(1, 1), workers=1)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    "GTA5 as it is downloaded, of noise: a minute's work would be too much, an instant's could not be killed."
    folder, rng = tmp_path_factory.mktemp("archives"), np.random.default_rng(0)
    with ZipFile(folder / "01_images.zip", "w") as images, ZipFile(folder / "01_labels.zip", "w") as labels:
        for i in range(1, 41):
            picture, label = rng.integers(0, 255, (526, 957, 3), dtype=np.uint8), np.zeros((526, 957), np.uint8)
            Image.fromarray(picture).save(folder / "a.png", compress_level=1)
            Image.fromarray(label + 7 + i % 20).save(folder / "b.png")
            images.write(folder / "a.png", f"images/{i:05d}.png")
            labels.write(folder / "b.png", f"labels/{i:05d}.png")
    return folder


def command(verb, out, **values):
    "A command line of `adaptseg` that may be called again."
    args = [s for k, v in dict(values, out=out).items() for s in ("-p", k, str(v))]
    return [sys.executable, "-m", "adaptseg", verb, *args]


def train(method):
    def make(out, data, **_):
        more = dict(data_root=data, method=method, steps=40, val_every=4, resume=True)
        return command("train", out, **{**TINY, **more})

    return make


def sweep(out, data, **_):
    more = dict(data_root=data, method="source_only,adabn", steps=12, seed="0,1")
    return [*command("sweep", out, **{**TINY, **more}), "--results", str(out / "rows.jsonl")]


def segment(out, photographs, **_):
    return command("segment", out, images=photographs, name="all", iterations=60, preset="fast")


def prepare(out, archives, **_):
    files = sorted(map(str, archives.glob("*.zip")))
    return [sys.executable, "-m", "data_prep.gta5", *files, "--out", str(out), "--partial"]


def experiments(out, data, **_):
    return command("experiments", out, preset="tiny", data_root=data, device="cpu", precision="fp32", images=1)


JOBS = {f"train {m}": train(m) for m in ("source_only", "adaptseg_multi", "selftrain", "adaptseg_multi+selftrain")}
JOBS |= dict(sweep=sweep, segment=segment, prepare=prepare, experiments=experiments)


def start(line):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", MARK: uuid.uuid4().hex}
    process = subprocess.Popen(
        line, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    process.mark = env[MARK]
    return process


def of_mark(mark):
    "The processes of one start that live."
    found = []
    for p in psutil.process_iter():
        try:
            if p.status() != psutil.STATUS_ZOMBIE and p.environ().get(MARK) == mark:
                found.append(p)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def end(process, how):
    "SIGKILL to all of them at once, or SIGTERM to the command, which ends the others."
    if how == signal.SIGTERM:
        process.terminate()
    else:
        for p in of_mark(process.mark):
            p.kill()
    process.communicate(timeout=120)
    until = time.time() + 30
    while left := of_mark(process.mark):
        assert time.time() < until, f"{left} live on after {how.name}"
        time.sleep(0.1)


def facts(file):
    "What a file says of the result: all of it, or all but when and where it was made."
    if file.name in ("config.json", "segments.json"):
        ignored = ("started", "out", "init_started", "commit", "machine", "resume", "init")
        return {k: v for k, v in read_json(file).items() if k not in ignored}
    if file.suffix == ".jsonl":
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        return sorted((r["run"], json.dumps(r["metrics"], sort_keys=True)) for r in rows)
    if file.name == "history.csv":
        lines = [line.split(",") for line in file.read_text().splitlines()]
        keep = [i for i, name in enumerate(lines[0]) if name != "seconds"]
        return [[line[i] for i in keep] for line in lines]
    return sha256(file.read_bytes()).hexdigest()


SAME = ("*.safetensors", "metrics.json", "choices.json", "history.csv", "*.jsonl", "*.png", "*.jpg", "table.md")


def result(out):
    "What must be the same: by path, for every file that a job keeps."
    kept = {f for pattern in SAME for f in out.rglob(pattern) if "logs" not in f.parts}
    return {str(f.relative_to(out)): facts(f) for f in sorted(kept)}


def left_behind(out):
    "Halves and claims; `.claims.lock` and `.claims.clock` are no leftovers, they stay for whoever claims next."
    found = [f for f in out.rglob("*") if f.name.startswith(".") or f.suffix in (".part", ".claim", ".tmp")]
    return [str(f.relative_to(out)) for f in found if f.name not in (".claims.lock", ".claims.clock")]


@pytest.mark.parametrize("job", JOBS)
def test_killed_anywhere(job, data, photographs, archives, tmp_path):
    given, rng, kills, rounds = dict(data=data, photographs=photographs, archives=archives), random.Random(job), 0, 0
    whole, began = tmp_path / "whole", time.time()
    process = start(JOBS[job](whole, **given))
    assert process.communicate()[1] is not None and process.returncode == 0
    took, wanted = time.time() - began, result(whole)
    assert wanted
    while kills < KILLS:
        out, rounds = tmp_path / f"broken{rounds}", rounds + 1
        for _ in range(50):
            process = start(JOBS[job](out, **given))
            try:
                says = process.communicate(timeout=rng.uniform(0, 1.1 * took) if kills < KILLS else 600)[1]
            except subprocess.TimeoutExpired:
                end(process, rng.choice([signal.SIGKILL, signal.SIGTERM]))
                kills += 1
                continue
            there = "exists: --check looks at it" in says  # killed when all was done
            assert process.returncode == 0 or there, f"after {kills} kills: {says[-1500:]}"
            break
        assert result(out) == wanted
        assert not left_behind(out)
    print(f"{job}: {kills} kills in {rounds} rounds, {took:.0f} s undisturbed")


@pytest.fixture
def small_disk(tmp_path):
    "A disk whose size the test says, in KiB."
    place = tmp_path / "disk"
    place.mkdir()
    mount = lambda *options: subprocess.run(["mount", *options, place], capture_output=True).returncode == 0
    if not mount("-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        pytest.skip("needs the right to mount a small disk")
    yield place, lambda kib: mount("-o", f"remount,size={kib}k")
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("job", ["train selftrain", "sweep", "segment", "prepare"])
def test_full_disk(job, data, photographs, archives, tmp_path, small_disk):
    "It ends with words, what is there stays whole, and with room it goes on to the same result."
    given, (disk, grow), fulls = dict(data=data, photographs=photographs, archives=archives), small_disk, 0
    whole, out = tmp_path / "whole", disk / "out"
    process = start(JOBS[job](whole, **given))
    assert process.communicate()[1] is not None and process.returncode == 0
    for kib in (64, 256, 600, 1_000, 2_000, 4_000, 8_000, 16_000, 100_000):
        assert grow(kib)
        process = start(JOBS[job](out, **given))
        says = process.communicate(timeout=900)[1]
        assert not [f for f in out.rglob(".*.part") if f.is_file()], "half a file was left"
        if process.returncode == 0:
            break
        fulls += 1
        assert re.search(r"the disk .*is full.* need(s|ed)", says), f"at {kib} KiB: {says[-1500:]}"
    assert process.returncode == 0, says[-1500:]
    assert fulls > 1 and result(out) == result(whole)
