"""What was tried to get out of the app what it was not given to show. `nbs/explanation/attempts.md` is the list of it:
this test makes it anew and compares.
"""

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from test_dashboards import opened, serve, shot
from test_dashboards import browser, folders  # noqa: F401  fixtures
from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1, serialize_msg_to_ws_v1
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from adaptseg.base.files import write_json
from adaptseg.dashboards.guard import PROTOCOL
from adaptseg.datasets.labels import CITYSCAPES19, ClassSet
from adaptseg.networks.deeplab import deeplab
from adaptseg.networks.saving import network_arguments, save_network
from adaptseg.reports.photographs import predict_job
from adaptseg.reports.predicting import predict_folder
from adaptseg.runs.config import make_config
from adaptseg.streets.samples import write_samples
from browser import needs_browser

pytestmark = [needs_browser, pytest.mark.slow, pytest.mark.timeout(900)]
PAGE = Path(__file__).parents[1] / "nbs" / "explanation" / "attempts.md"
SECRET, PASSWORD = "what-nobody-shall-read", "let me in"
EVIL = "<img src=x onerror=window.hit=1>"
UP = "/".join([".."] * 12)

FETCHED = [  # addresses, as they are sent
    f"/{UP}/etc/passwd",
    "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/%252e%252e/%252e%252e/etc/passwd",
    "/..;/..;/etc/passwd",
    "/..\\..\\..\\etc\\passwd",
    "//etc/passwd",
    "/etc/passwd",
    "/file:///etc/passwd",
    f"/static/{UP}/etc/passwd",
    "/static/..%2f..%2f..%2f..%2fetc/passwd",
    "/static/%00/etc/passwd",
    "/static//etc/passwd",
    f"/voila/static/{UP}/etc/passwd",
    f"/voila/templates/adaptseg/static/{UP}/etc/passwd",
    f"/voila/files/{UP}/etc/passwd",
    "/voila/files/%2e%2e/%2e%2e/etc/passwd",
    "/voila/files//etc/passwd",
    "/voila/files/dashboard.ipynb",
    "/voila/files/secret.txt",
    "/voila/files/link/secret.txt",
    "/voila/files/.",
    "/files/dashboard.ipynb",
    "/files/voila.json",
    "/voila/files/voila.json",
    "/voila/files/page/voila/templates/adaptseg/conf.json",
    "/voila/render/dashboard.ipynb",
    "/voila/render/%2fetc/passwd",
    "/voila/tree/",
    "/api/contents",
    "/api/contents/dashboard.ipynb",
    "/api/contents/%2e%2e/secret.txt",
    "/api/contents/dashboard.ipynb/checkpoints",
    "/api/kernels",
    "/api/sessions",
    "/api/terminals",
    "/terminals/websocket/1",
    "/api/config/notebook",
    "/api/nbconvert",
    "/nbconvert/html/dashboard.ipynb",
    "/edit/dashboard.ipynb",
    "/lab",
    "/tree",
    "/notebooks/dashboard.ipynb",
    "/metrics",
    "/custom/custom.css",
    "/?runs=/etc&data_root=/etc",
]
RUN = dict(store_history=False, user_expressions={}, allow_stdin=False)
CLASS = dict(_model_module="os", _model_name="system")
MESSAGES = [  # what a browser may say to its kernel: channel, kind, content
    ("shell", "execute_request", lambda code: dict(RUN, code=code, silent=False)),
    ("control", "execute_request", lambda code: dict(RUN, code=code, silent=True)),
    ("shell", "execute_request", lambda code: dict(RUN, code="0", silent=False, user_expressions=dict(a=code))),
    ("shell", "inspect_request", lambda code: dict(code="dashboard", cursor_pos=3, detail_level=1)),
    ("shell", "complete_request", lambda code: dict(code="import os; os.", cursor_pos=14)),
    ("shell", "history_request", lambda code: dict(output=True, raw=True, hist_access_type="tail", n=100)),
    ("shell", "is_complete_request", lambda code: dict(code=code)),
    (
        "control",
        "debug_request",
        lambda code: dict(type="request", seq=1, command="evaluate", arguments=evaluate(code)),
    ),
    ("control", "create_subshell_request", lambda code: {}),
    ("stdin", "input_reply", lambda code: dict(value=code)),
    ("shell", "comm_open", lambda code: dict(comm_id="1", target_name="__main__", data=dict(code=code))),
    ("shell", "comm_open", lambda code: dict(comm_id="2", target_name="jupyter.widget", data=dict(state=CLASS))),
]
evaluate = lambda code: dict(expression=code, context="repl")  # noqa: E731
UPDATES = [  # what a browser may say to any widget
    dict(value="/etc/passwd"),
    dict(value=[[["/etc/passwd"]]]),
    dict(index=10**9),
    dict(index=[-1, 10**9]),
    dict(options=["/etc/passwd"], index=0),
    dict(_options_labels=["/etc/passwd"], index=0),
    dict(children=["IPY_MODEL_nobody"]),
    dict(comm="x", keys=["y"], _esm="alert(1)"),
]
ACTS = [  # to the pictures
    dict(kind="click", x="a", y={}, shift=[]),
    dict(kind="click", x=1e308, y=-1e308, shift=False),
    dict(kind="click", x=None, y=float("nan"), shift=False),
    dict(kind="stroke", points=[[0, 0]] * 2000),
    dict(kind="stroke", points="no points"),
    dict(kind="key", key="__class__"),
    dict(kind="__init__", x=1),
    "no message at all",
]
CALLS = [  # that would change something
    *("POST /api/kernels", "DELETE /api/kernels/ID", "PUT /api/contents/x.txt", "POST /api/terminals"),
    *("POST /api/sessions", "POST /api/shutdown", "PUT /", "TRACE /"),
]


class Visitor:
    "Somebody with plain requests."

    def __init__(self, address, cookie=""):
        self.host, self.cookie = urlsplit(address).netloc, cookie

    def ask(self, path, method="GET", body=None, **headers):
        "Status, headers and text; the path is sent as it is."
        connection = http.client.HTTPConnection(self.host, timeout=60)
        headers = {k.replace("_", "-"): v for k, v in headers.items()} | (
            {"Cookie": self.cookie} if self.cookie else {}
        )
        with contextlib.suppress(http.client.InvalidURL):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode("utf8", "replace")
        return 400, {}, ""  # not even sent

    def kernel(self):
        "The page, opened: the kernel that is this visitor's."
        return re.search(r'"kernelId": ?"([0-9a-f-]+)"', self.ask("/")[2]).group(1)

    def talk(self, kernel, messages, seconds=4, protocol=PROTOCOL, frames=(), **headers):
        "Over a websocket: what came back (None at the end: it was closed), or the status with which it was refused."

        async def go():
            url = f"ws://{self.host}/api/kernels/{kernel}/channels?session_id=s"
            headers_ = {**headers, **({"Cookie": self.cookie} if self.cookie else {})}
            request = HTTPRequest(url, headers=headers_, connect_timeout=60)
            try:
                socket = await websocket_connect(request, subprotocols=protocol and [protocol])
            except HTTPClientError as e:
                return e.code
            for channel, kind, content, metadata in messages:
                head = dict(msg_id=uuid.uuid4().hex, msg_type=kind, username="", session="s", version="5.3")
                text = dict(header=head | {"date": "2026-01-01T00:00:00Z"}, parent_header={})
                text |= dict(metadata=metadata, content=content)
                frame = serialize_msg_to_ws_v1(text, channel, lambda part: json.dumps(part).encode())
                await socket.write_message(frame, binary=True)
            for frame in frames:
                await socket.write_message(frame, binary=isinstance(frame, bytes))
            found, end = [], time.time() + seconds
            while (left := end - time.time()) > 0:
                try:
                    said = await asyncio.wait_for(socket.read_message(), left)
                except asyncio.TimeoutError:
                    break
                if said is None:
                    found.append(None)
                    break
                header, _, _, content = deserialize_msg_from_ws_v1(said)[1][:4]
                kind = json.loads(header)["msg_type"]
                found.append(dict(msg_type=kind, content=json.loads(content)))
            socket.close()
            return found

        return asyncio.run(go())


@pytest.fixture(scope="module")
def open_app(folders):
    (folders / "secret.txt").write_text(SECRET)
    (folders / "runs" / "link").symlink_to(folders)
    process, address = serve(folders)
    yield address
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def closed_app(folders):
    process, address = serve(folders, password=PASSWORD)
    yield process, address
    process.terminate()
    process.wait(20)


def gives_away(text, others=()):
    "What a text holds that its reader was not given."
    forbidden = ("root:x", SECRET, "from adaptseg", "hashed_password", *others)
    return [word for word in forbidden if word in text]


def lines(title, rows):
    "A part of the page."
    return [f"## {title}", "", "| tried | outcome |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), ""]


def addresses(app):
    "Other people's files and kernels, by address."
    other, rows = Visitor(app).kernel(), []
    for path in FETCHED:
        status, headers, text = Visitor(app).ask(path)
        way = [str(status)]
        while status == 302:
            status, headers, more = Visitor(app).ask(headers["Location"])
            way, text = [*way, str(status)], text + more
        assert not gives_away(text, [other]), path
        assert status >= 400 or path.startswith("/?"), path
        outcome = ", then ".join(way) + (" (the same page as for `/`)" if status == 200 else "")
        rows.append((f"`{path.replace(UP, '../..')}`", outcome))
    return rows


def from_elsewhere(app):
    "Pages of other hosts, and methods that change something."
    visitor, rows = Visitor(app), []
    kernel = visitor.kernel()
    for call in CALLS:
        method, path = call.replace("ID", str(uuid.uuid4())).split()
        status, _, text = visitor.ask(path, method, "{}", Origin="http://evil.example")
        assert status >= 400, (path, method)
        rows.append((f"`{call}` from another host's page", str(status)))
    status, headers, text = visitor.ask("/", Origin="http://evil.example")
    assert "Access-Control-Allow-Origin" not in headers
    rows.append(("`GET /` from another host's page", f"{status}, without the header that would let it read"))
    status, _, text = visitor.ask("/", Host="evil.example")
    rows.append(("`GET /` with another `Host` (DNS rebinding)", str(status)))
    assert status == 403
    refused = visitor.talk(kernel, [], Origin="http://evil.example")
    assert refused == 403
    rows.append(("a kernel's websocket from another host's page", str(refused)))
    for name, wanted in (("a kernel that is not there", str(uuid.uuid4())), ("`..` as a kernel", "../../x")):
        refused = visitor.talk(wanted, [], Origin=f"http://{visitor.host}")
        assert isinstance(refused, int)
        rows.append((f"the websocket of {name}", str(refused)))
    return rows


def messages(app, folders):
    "Code, over the kernel's own channel."
    visitor, rows = Visitor(app), []
    kernel = visitor.kernel()
    for channel, kind, content in MESSAGES:
        mark = folders / f"executed-{uuid.uuid4().hex}"
        code = f"open({str(mark)!r}, 'w').close()"
        found = visitor.talk(kernel, [(channel, kind, content(code), {})], Origin=f"http://{visitor.host}")
        said = [m["msg_type"] for m in found if m and m["msg_type"] != "status"]
        assert not mark.exists() and kind.replace("request", "reply") not in said, (kind, said)
        assert not gives_away(json.dumps(found))
        rows.append((f"`{kind}` on the channel `{channel}`", "nothing is run, nothing answers"))
    return rows


def frames(app):
    "Frames that are not what they say; the server must answer another visitor at once, and the kernel afterwards."
    visitor, rows = Visitor(app), []
    kernel, origin = visitor.kernel(), f"http://{visitor.host}"
    refused = visitor.talk(kernel, [], protocol=None, Origin=origin)
    assert refused == 400
    rows.append(("a page that does not ask for the protocol of frames", str(refused)))
    many = (2**60).to_bytes(8, "little")
    lies = {
        "2^60 parts": many + bytes(64),
        "2^60 parts, and nothing else": many,
        "no parts": bytes(8),
        "nothing": b"",
        "text": json.dumps(dict(header=dict(msg_type="execute_request"), channel="shell")),
        "parts that end behind the frame": (6).to_bytes(8, "little") + many * 6,
        "a million bytes of noise": os.urandom(10**6),
    }
    for name, frame in lies.items():
        found = visitor.talk(kernel, [], 10, frames=[frame], Origin=origin)
        assert found[-1] is None, name
        began = time.monotonic()
        assert Visitor(app).ask("/static/")[0] and time.monotonic() - began < 5, name
        rows.append((f"a frame of {name}", "the connection is closed, others are served"))
    assert alive(visitor, kernel)
    return rows


def alive(visitor, kernel):
    "Does the kernel answer, after all that came before? One that still draws lets nobody in until it has done."
    for _ in range(5):
        found = visitor.talk(kernel, [("shell", "kernel_info_request", {}, {})], 20, Origin=f"http://{visitor.host}")
        if not isinstance(found, int) and any(m and m["msg_type"] == "kernel_info_reply" for m in found):
            return True
    return False


def widgets(app, folders):
    "Values that no box offers, and messages that no picture sends."
    visitor, rows = Visitor(app), []
    kernel, origin = visitor.kernel(), f"http://{visitor.host}"
    found = visitor.talk(
        kernel, [("shell", "comm_info_request", dict(target_name="jupyter.widget"), {})], 6, Origin=origin
    )
    comms = [list(m["content"]["comms"]) for m in found if m and m["msg_type"] == "comm_info_reply"][0]
    assert len(comms) > 50
    for i, state in enumerate(UPDATES):
        some = comms[i::7]  # all of them at once would keep the kernel drawing for minutes
        said = [
            ("shell", "comm_msg", dict(comm_id=c, data=dict(method="update", state=state, buffer_paths=[])), {})
            for c in some
        ]
        found = visitor.talk(kernel, said, 8, Origin=origin)
        assert not gives_away(json.dumps(found))
        shown = json.dumps(state).replace("|", "\\|")
        rows.append((f"`{shown}` to widgets of all kinds", "nothing of the machine comes back"))
    for i, act in enumerate(ACTS):
        shown = json.dumps(act)
        said = [("shell", "comm_msg", dict(comm_id=c, data=dict(method="custom", content=act)), {}) for c in comms]
        found = visitor.talk(kernel, said, 8, Origin=origin)
        assert not gives_away(json.dumps(found))
        rows.append(
            (
                f"`{shown if len(shown) < 80 else shown[:60] + ' ...'}` to every picture",
                "nothing of the machine comes back",
            )
        )
    assert alive(visitor, kernel)
    rows.append(("the kernel after all that", "answers"))
    return rows


def passwords(closed):
    "Without the password, and around it."
    process, app = closed
    visitor, rows = Visitor(app), []
    for path in (
        "/",
        "/voila/files/dashboard.ipynb",
        "/api/kernels",
        "/api/contents",
        "/?token=",
        f"/?token={PASSWORD}",
        "/static/../",
    ):
        status, headers, text = visitor.ask(path)
        assert "adaptseg-picture" not in text and "kernelId" not in text and not gives_away(text), path
        rows.append(
            (f"`GET {path.replace(PASSWORD, 'PASSWORD')}`", f"{status}" + (", to the login" if status == 302 else ""))
        )
    status, *_ = visitor.ask("/", Authorization=f"token {PASSWORD}")
    assert status in (302, 403)
    rows.append(("`Authorization: token PASSWORD`", str(status)))
    status, *_ = Visitor(app, 'username-x="2|1:0|10:1|1:x|4:abcd|0"; _xsrf=a').ask("/")
    assert status in (302, 403)
    rows.append(("a cookie of one's own", str(status)))
    refused = visitor.talk(str(uuid.uuid4()), [], Origin=f"http://{visitor.host}")
    assert refused == 403
    rows.append(("a kernel's websocket", str(refused)))

    def login(password, token, **extra):
        body = urlencode(dict(password=password, _xsrf=token))
        named = dict(Content_Type="application/x-www-form-urlencoded")
        return Visitor(app, f"_xsrf={token}" if token else "").ask(f"/login?{urlencode(extra)}", "POST", body, **named)

    token = re.search(r"_xsrf=([^;]+)", visitor.ask("/login")[1]["Set-Cookie"]).group(1)
    for name, password in (
        ("a wrong one", "let me out"),
        ("none", ""),
        ("its beginning", PASSWORD[:-1]),
        ("a long one", "x" * 100_000),
    ):
        status, headers, text = login(password, token)
        assert status != 302 and "username-" not in str(headers)
        rows.append((f"the password: {name}", str(status)))
    status, headers, _ = login(PASSWORD, "")
    assert status == 403
    rows.append(("the right one, posted from another page (no token against forgery)", str(status)))
    status, headers, _ = login(PASSWORD, token, next="//evil.example/")
    assert status == 302 and "evil" not in headers["Location"]
    rows.append(("the right one, with `next=//evil.example/`", "let in, and not sent there"))
    listed = subprocess.run(["ps", "-ef"], capture_output=True, text=True).stdout
    environments = Path(f"/proc/{process.pid}/environ").read_bytes().decode()
    assert PASSWORD not in listed and PASSWORD not in environments
    rows.append(("`ps`, and the environment of the server", "it is not there"))
    return rows


HEAD = """# What was tried against the app

> {n} attempts to get more than was given, each made again by `tests/test_attempts.py`.

`adaptseg app` serves dashboards of one folder of runs and one of data, to one machine or with a password. What was
sent, and what came of it:
"""
NAMES = """## By name

Runs, classes, images and folders whose names are HTML (`<img src=x onerror=...>`) are shown as text in all tabs, tried
in Chromium.

What is not walled off: a visitor who may look may keep the machine busy, with a network on many images for instance.
"""


@pytest.mark.skipif(not shutil.which("ps"), reason="no ps")
def test_attempts_by_request(open_app, closed_app, folders):
    parts = {
        "By address": addresses(open_app),
        "From another page": from_elsewhere(open_app),
        "By message to the kernel": messages(open_app, folders),
        "By frames that lie": frames(open_app),
        "By message to the widgets": widgets(open_app, folders),
        "Around the password": passwords(closed_app),
    }
    n = sum(map(len, parts.values()))
    text = "\n".join([HEAD.format(n=n), *(line for title, rows in parts.items() for line in lines(title, rows)), NAMES])
    assert n >= 60
    if os.environ.get("WRITE"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text, "make it anew: WRITE=1 python -m pytest tests/test_attempts.py -m slow"


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    "Everything that has a name has one that is HTML."
    root = tmp_path_factory.mktemp("named")
    n = dict(n_gta5=(1, 1), n_cityscapes=(1, 2), n_iitk=(1, 1))
    data = write_samples(root / "data", size=(96, 192), workers=1, **n)
    cfg = make_config("tiny", source="gta5", target="cityscapes", method="source_only", steps=100)
    evil = ClassSet("evil", tuple(f"{EVIL}{i}" for i in range(19)), CITYSCAPES19.colours)
    for classes, name in ((CITYSCAPES19, f"{EVIL}-s0"), (evil, f"{EVIL}-s1")):
        folder = root / "runs" / f"gta5{EVIL}2cityscapes" / name
        folder.mkdir(parents=True)
        model = deeplab(n_classes=19, **network_arguments(cfg))
        save_network(folder / "weights.safetensors", model, cfg, classes)
        write_json(folder / "config.json", {**cfg.model_dump(), "method": EVIL, "classes_used": classes.name})
        (folder / "history.csv").write_text(f"step,seconds,lr,loss_{EVIL}2\n1,1,0.01,2.5\n2,2,0.01,2.4\n")
    photographs = root / "photographs" / EVIL
    photographs.mkdir(parents=True)
    for file in sorted(data.rglob("*_leftImg8bit.png"))[:2]:
        shutil.copy(file, photographs / f"{EVIL}{file.name}")
    values = dict(images=str(root / "photographs"), weights=str(folder), confidence=True, data_root=str(data))
    predict_folder(predict_job(**values, out=str(root / "runs" / f"{EVIL}predictions")))
    return root


def test_names_are_shown_as_text(named, browser):  # noqa: F811
    process, address = serve(named)
    try:
        pages = opened(browser, address, address)
        page = next(pages)
        runs = page.locator("select[multiple]").first
        runs.select_option(index=[0, 1])
        shown = {}
        for tab in ("Results", "Training", "Segments", "Predictions", "Datasets", "Video"):
            page.get_by_role("tab", name=tab).click()
            page.wait_for_load_state("networkidle")
            time.sleep(5)
            if tab == "Predictions":
                picture = page.locator(".adaptseg-picture >> visible=true").first
                picture.locator("canvas").click(position={"x": 30, "y": 30})
                page.get_by_role("button", name="wrong here").click()
                picture.locator("canvas").click(position={"x": 30, "y": 30})
                time.sleep(3)
            shown[tab] = page.inner_text("body")
            shot(page, f"names-{tab.lower()}")
            assert page.evaluate("window.hit") is None, tab
            assert page.locator("img[src='x']").count() == 0, tab
        assert all(EVIL in shown[tab] for tab in ("Results", "Predictions")), "names are shown as they are"
        page.close()
    finally:
        process.terminate()
        process.wait(20)
