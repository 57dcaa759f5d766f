"""A published network, sent to a hub that runs here and fetched from it, by the commands that a person types."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adaptseg.streets.samples import write_samples
from adaptseg.training.trainer import train

ROOT = Path(__file__).parents[1]


class Hub(BaseHTTPRequestHandler):
    "As much of the Hub as its client asks for: one place for repositories, files by commit."

    repos, asked = {}, []

    def log_message(self, *args): ...

    def answer(self, values, status=200):
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).asked.append((self.path, self.headers.get("Authorization")))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repos[name] = dict(private=asked.get("private") or asked.get("visibility") == "private", files={})
            return self.answer(dict(url=f"http://{self.headers['Host']}/{name}", name=name))
        if "/preupload/" in self.path:
            files = [dict(path=f["path"], uploadMode="regular", shouldIgnore=False) for f in json.loads(body)["files"]]
            return self.answer(dict(files=files))
        if "/commit/" in self.path:
            name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.repos[name]["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = "1" * 40
            address = f"http://{self.headers['Host']}/{name}/commit/{commit}"
            return self.answer(dict(commitOid=commit, commitUrl=address))
        return self.answer(dict(errors=[], warnings=[]))

    def do_GET(self, body=True):
        name, _, rest = self.path[1:].partition("/resolve/")
        content = self.repos.get(name, {}).get("files", {}).get(rest.partition("/")[2])
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def do_HEAD(self):
        self.do_GET(body=False)


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def call(hub, home, *args):
    there = dict(HF_ENDPOINT=hub, HF_TOKEN="hf_of_nobody", HF_HOME=str(home), HF_HUB_DISABLE_XET="1")
    command = [sys.executable, "-m", "adaptseg", *map(str, args)]
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | there
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("published")
    sizes = dict(size=(64, 128), n_gta5=(2, 1), n_cityscapes=(2, 2), n_iitk=(1, 1))
    root = write_samples(place / "data/samples", workers=1, **sizes)
    return train("tiny", source="gta5", target="cityscapes", method="adabn", data_root=root, out=place / "runs")


@pytest.mark.slow
def test_published_pushed_fetched_and_used(hub, run, tmp_path):
    done = call(hub, tmp_path / "home", "publish", run.path, "--out", tmp_path / "given", "--push", "owner/campus")
    assert done.returncode == 0, done.stderr
    assert "on the Hub as owner/campus" in done.stdout
    sent = Hub.repos["owner/campus"]
    assert sent["private"] and set(sent["files"]) == {p.name for p in (tmp_path / "given").iterdir()}
    assert sent["files"]["README.md"].startswith(b"---\nlibrary_name: adaptseg\n")
    photographs = Path(run.config["data_root"]) / "Cityscapes/leftImg8bit/val"
    for weights, out in (("hf://owner/campus", "theirs"), (run.path, "ours")):
        done = call(hub, tmp_path / "other", "predict", photographs, "--weights", weights, "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
    ours, theirs = (sorted((tmp_path / out / "labels").rglob("*.png")) for out in ("ours", "theirs"))
    assert len(ours) == 2 and [p.read_bytes() for p in ours] == [p.read_bytes() for p in theirs]
    gone = ("--weights", "hf://owner/gone")
    lost = call(hub, tmp_path / "other", "predict", photographs, *gone, "--out", tmp_path / "x")
    assert lost.returncode == 1 and "hf://owner/gone could not be fetched" in lost.stderr
    assert "Traceback" not in lost.stderr


@pytest.mark.slow
def test_nothing_is_sent_unless_asked(hub, run, tmp_path):
    before = len(Hub.asked)
    done = call(hub, tmp_path / "home", "publish", run.path, "--out", tmp_path / "given")
    assert done.returncode == 0 and "nothing was sent anywhere" in done.stdout and len(Hub.asked) == before
