"""The documentation: the site builds without a warning and is whole, what it tells people to type is run, and every
public name says what it takes and gives.
"""

import ast
import functools
import importlib
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlparse

import pytest
import yaml
from docutils.nodes import make_id
from papermill import inspect_notebook

from adaptseg.cli import parse
from adaptseg.datasets.checking import dataset, found_datasets
from adaptseg.reports.compare import compare_job
from adaptseg.training.trainer import train
from adaptseg.reports.dataset import dataset_job
from adaptseg.reports.evaluation import evaluate_job
from adaptseg.reports.experiments import experiments_job
from adaptseg.base.notebooks import given, run_notebook
from adaptseg.dashboards.monitor import Monitor, monitor_figure
from adaptseg.evaluation.charts import learning_curves
from adaptseg.reports.tables import results_table
from adaptseg.runs.config import make_config
from adaptseg.training.planner import step_bytes
from adaptseg.streets.samples import write_samples
from adaptseg.unsupervised.folder import segment_job

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "nbs" / "_site"))
from browser import CHROMIUM, SHOTS, needs_browser  # noqa: E402
from home import home_notebook  # noqa: E402
from reference import annotation, label, meaning, own_types, parameters  # noqa: E402

LIBRARY = sorted(
    p.relative_to(ROOT / "adaptseg").with_suffix("").as_posix().replace("/", ".")
    for p in (ROOT / "adaptseg").rglob("[!_]*.py")
)
PAGES = sorted(
    p.relative_to(ROOT).as_posix()
    for p in [*ROOT.glob("*.md"), *ROOT.glob("data_prep/**/*.md"), *ROOT.glob("nbs/**/*.md")]
    if "_site" not in p.parts
)


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "Built as `make docs` does, into a folder of its own."
    out = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "nbs/_site/build.py", "--out", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-4000:]
    return out


class Links(HTMLParser):
    "Ids, links and loaded files of a page."

    LOADS = {
        "script": "src",
        "img": "src",
        "source": "src",
        "iframe": "src",
        "video": "src",
        "audio": "src",
        "embed": "src",
        "object": "data",
    }

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, pairs):
        attrs = dict(pairs)
        self.ids |= {attrs[k] for k in ("id", "name") if attrs.get(k)}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag == "link" and attrs.get("href"):
            (
                self.loads if attrs.get("rel") in ("stylesheet", "icon", "preload", "shortcut icon") else self.links
            ).append(attrs["href"])
        if attrs.get(self.LOADS.get(tag)):
            self.loads.append(attrs[self.LOADS[tag]])


@pytest.fixture(scope="module")
def html(site):
    "Path below the site -> what is on that page."
    return {
        p.relative_to(site).as_posix(): Links(p.read_text(encoding="utf8"))
        for p in site.rglob("*.html")
        if p.name != "webpack-macros.html"
    }


def elsewhere(address):
    return bool(re.match(r"(\w+:)?//|mailto:|data:", address))


def test_site_is_built_and_has_every_page(html):
    listed = yaml.safe_load((ROOT / "nbs/sidebar.yml").read_text())["website"]["sidebar"]["contents"]
    named = [
        re.sub(r"\.\w+$", ".html", item)
        for s in listed
        if isinstance(s["contents"], list)
        for item in s["contents"]
        if isinstance(item, str) and "*" not in item
    ]
    assert len(named) > 15 and not [n for n in named if n not in html]
    assert {
        "index.html",
        "search.html",
        "project/model_card.html",
        "data_prep/index.html",
        *(f"api/{m.replace('.', '/')}.html" for m in LIBRARY),
    } <= html.keys()


def test_every_link_anchor_and_picture_is_there(site, html):
    broken = []
    for page, found in html.items():
        for address in found.links + found.loads:
            if elsewhere(address):
                continue
            target = urlparse(urljoin(page, address))
            path = unquote(target.path) or page
            if not (site / path).is_file():
                broken.append(f"{page}: {address}")
            elif target.fragment and path in html and unquote(target.fragment) not in html[path].ids:
                broken.append(f"{page}: {address} (no such anchor)")
    assert not broken, broken[:20]


def test_nothing_is_loaded_from_another_host(site, html):
    assert not {
        f"{page}: {a}"
        for page, found in html.items()
        for a in found.loads
        if elsewhere(a) and not a.startswith("data:")
    }
    styles = {
        p: re.findall(r"(?:url\(|@import )['\"]?((?:https?:)?//[^'\")]+)", p.read_text(encoding="utf8"))
        for p in site.rglob("*.css")
    }
    assert styles and not {str(p): found for p, found in styles.items() if found}


def own_names(module):
    "The public names that a module makes itself."
    tree = ast.parse((ROOT / f"adaptseg/{module.replace('.', '/')}.py").read_text(encoding="utf8"))
    made = {
        n.id
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for n in ast.walk(node)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    made |= {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return [name for name in importlib.import_module(f"adaptseg.{module}").__all__ if name in made]


def test_tables_that_cells_show_are_tables(site):
    page = (site / "explanation" / "adversarial.html").read_text(encoding="utf8")
    assert re.search(r"<table.*?above adabn.*?multi_1e-2.*?</table>", page, re.S)
    assert not [p for p in site.rglob("*.html") if "<p>|" in p.read_text(encoding="utf8")]


def test_every_public_name_is_on_its_page(html):
    names = [(module, name) for module in LIBRARY for name in own_names(module)]
    assert len(names) > 400 and not [
        f"{m}.{n}" for m, n in names if make_id(label(m, n)) not in html[f"api/{m.replace('.', '/')}.html"].ids
    ]


def test_home_is_the_readme():
    found = (ROOT / "nbs/index.ipynb").read_text(encoding="utf8")
    assert found == home_notebook((ROOT / "README.md").read_text(encoding="utf8")), (
        "README.md has changed: run make export"
    )


def test_quarto_finds_its_files(tmp_path):
    "What nbdev_docs does before it calls Quarto leaves the order of pages and the project's settings as they are."
    (tmp_path / "nbs").mkdir()
    for name in ("settings.ini", "nbs/_quarto.yml", "nbs/sidebar.yml"):
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(
        [sys.executable, "-c", "from nbdev.quarto import *; refresh_quarto_yml(); nbdev_sidebar.__wrapped__()"],
        cwd=tmp_path,
        check=True,
    )
    for name in ("nbs/_quarto.yml", "nbs/sidebar.yml"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
    assert all(
        (tmp_path / "nbs" / name).is_file()
        for name in yaml.safe_load((ROOT / "nbs/_quarto.yml").read_text())["metadata-files"]
    )


# In a browser


@pytest.fixture(scope="module")
def address(site):
    "The site as a web server gives it."

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with pytest.importorskip("playwright.sync_api").sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=[(1400, 1000), (390, 844)], ids=["desktop", "phone"])
def page(request, browser, address):
    "A page of that size; errors of its scripts, and requests to anywhere else, fail the test."
    page, wrong = browser.new_page(viewport=dict(zip(("width", "height"), request.param))), []
    page.on("request", lambda r: r.url.startswith((address, "data:")) or wrong.append(r.url))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("requestfailed", lambda r: wrong.append(f"{r.url}: {r.failure}"))
    yield page
    page.close()
    assert not wrong, wrong


def look(page, address, name, wait="h1"):
    "Open, check that nothing is wider than the window, keep a picture."
    page.goto(address)
    page.wait_for_selector(wait)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        f"{name} is wider than the window"
    )
    assert page.locator("article img").evaluate_all(
        "all => all.every(i => { i.loading = 'eager'; return i.decode().then(() => i.naturalWidth > 0, () => false) })"
    ), "a picture is not shown"
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"site-{name}-{page.viewport_size['width']}.png")


@needs_browser
@pytest.mark.parametrize(
    "name",
    [
        "index",
        "start",
        "tutorials/kanezaki",
        "explanation/idea",
        "howto/method",
        "api/methods/adversarial",
        "api/runs/config",
        "train",
        "project/model_card",
    ],
)
def test_pages_fit_the_window(page, address, name):
    look(page, f"{address}{name}.html", name.replace("/", "-"))


@needs_browser
def test_formulas_are_drawn(page, address):
    look(page, f"{address}api/evaluation/metrics.html", "formulas", "math")
    boxes = page.locator("math").evaluate_all(
        "all => all.map(m => m.getBoundingClientRect()).map(b => [b.width, b.height])"
    )
    assert len(boxes) >= 5 and all(w > 4 and h > 8 for w, h in boxes) and max(h for _, h in boxes) > 25, (
        "a fraction is higher than a line"
    )


@needs_browser
def test_search_finds_a_name(page, address):
    look(page, f"{address}search.html?q=make_learner", "search", "#search-results li a")
    found = page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any("api/training/trainer.html#" in href and href.endswith("make-learner") for href in found), found
    page.wait_for_load_state(
        "networkidle"
    )  # it reads the found pages for their first lines; leaving would break that off
    page.goto(f"{address}search.html?q=pseudo+batch+norm+xyzzy")
    page.wait_for_function("document.querySelector('#search-results p')?.innerText.includes('did not match')")


# What people are told to type

START = r"(?:make|adaptseg|papermill|python|pip|jupyter|source|git|accelerate|torchrun|dask|nbdev_\w+)(?= |$)"
QUOTED = r"`((?:make|adaptseg|papermill|python) [^`]+)`"


def commands(page):
    "The shell commands of a page: lines of blocks, and those quoted in a sentence."
    text = (ROOT / page).read_text(encoding="utf8")
    blocks = [
        body for language, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if language in ("", "sh")
    ]
    lines = [
        c.strip()
        for block in blocks
        for line in block.splitlines()
        for c in re.findall(rf"(?:^|; |do |&& |^[A-Z_]+=\S* )\s*({START}[^;]*)", line.split(" #")[0])
    ]
    return lines + re.findall(QUOTED, re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


TRAIN, DATA, SEGMENT = "test_train.py", "test_data_prep.py", "test_segment.py"
RUN = [  # a command, the test that runs it, and what in that test does
    (r"adaptseg( train)? --help", TRAIN, "test_help_loads_nothing_heavy", '"--help"'),
    (r"make demo|adaptseg demo", TRAIN, "test_table_and_demo", 'adaptseg("demo"'),
    (
        r"make experiments|adaptseg experiments.*",
        "test_experiments.py",
        "test_a_second_call_does_nothing",
        'adaptseg("experiments"',
    ),
    (r"make app|adaptseg app.*", "test_dashboards.py", "test_app_serves_only_what_it_is_given", "app"),
    (r"make docs", "test_docs.py", "site", "nbs/_site/build.py"),
    (r"adaptseg train .*--log .*", "test_trackers.py", "start", '"adaptseg", "train"'),
    (r"adaptseg publish.*", "test_publish.py", "test_published_pushed_fetched_and_used", '"publish"'),
    (r"adaptseg train .*--resume", "test_resume.py", "test_killed_run_resumes_exactly", "resume=True"),
    (r"adaptseg train .*folder:.*", TRAIN, "test_unlabelled_folder_is_predicted_without_scores", "folder:"),
    (r"adaptseg train --preset tiny", "test_processes.py", "test_a_preempted_run_goes_on_with_one_process", "TINY"),
    (r"adaptseg train --init runs/.*", TRAIN, "test_nothing_labelled_to_validate_on", "init=str(run.path)"),
    (
        r"adaptseg train --init \S+\.pth .*",
        "test_weights.py",
        "test_training_takes_what_the_file_needs",
        "init=str(path)",
    ),
    (
        r"adaptseg train .*--accumulate.*",
        TRAIN,
        "test_command_keeps_the_notebook_and_does_not_overwrite",
        "accumulate=2",
    ),
    (
        r"adaptseg train --source .*",
        TRAIN,
        "test_command_keeps_the_notebook_and_does_not_overwrite",
        'adaptseg("train"',
    ),
    (r"adaptseg sweep.*", "test_sweep.py", "sweep", '"sweep"'),
    (r"dask .*", "test_sweep.py", "scheduler", "dask_worker"),
    (r"(torchrun|accelerate launch) .*", "test_processes.py", "both", "TWO"),
    (r"adaptseg train", TRAIN, "test_command_keeps_the_notebook_and_does_not_overwrite", 'adaptseg("train"'),
    (r"adaptseg table.*", TRAIN, "test_table_and_demo", 'adaptseg("table"'),
    (r"adaptseg choose.*", "test_methods.py", "test_choose_says_what_each_score_would_take", '"choose"'),
    (r"adaptseg pick .*", "test_methods.py", "test_picked_frames_are_labelled_and_join", '"pick"'),
    (r"adaptseg leaderboard.*", "test_sweep.py", "test_leaderboard", "leaderboard(table, data, out)"),
    (r"adaptseg compare.*", "test_experiments.py", "test_compare_command", 'adaptseg("compare"'),
    (r"adaptseg evaluate.*", "test_docs.py", "test_evaluate_command", '"evaluate"'),
    (r"adaptseg video .*", DATA, "test_adaptseg_video", '"video"'),
    (
        r"adaptseg predict (s3|zip)://.*",
        "test_stores.py",
        "test_an_archive_in_a_store_and_another_network",
        '"zip://::s3://',
    ),
    (r"adaptseg predict.*", "test_predict.py", "test_predict_a_folder", '"predict"'),
    (r"adaptseg annotations.*", "test_annotations.py", "test_command", '"annotations"'),
    (
        r"python -m data_prep.annotations.*",
        "test_annotations.py",
        "test_label_maps_go_to_a_tool_and_come_back_as_they_were",
        "prepare(",
    ),
    (r"adaptseg segment.*", SEGMENT, "test_command_and_going_on", '"segment"'),
    (r"adaptseg doctor", DATA, "test_check_finds_what_went_wrong_later", '"doctor"'),
    (r"adaptseg dataset .*", DATA, "test_dataset_notebook", '"dataset"'),
    (r"papermill nbs/train.ipynb .*", TRAIN, "test_papermill_runs_the_notebook", "nbs/train.ipynb"),
    (r"(papermill nbs/benchmark.ipynb|adaptseg benchmark).*", SEGMENT, "test_benchmark_notebook", "benchmark.ipynb"),
    (r"papermill nbs/explanation/costs.ipynb .*", "test_docs.py", "test_costs_of_other_gpus", "costs.ipynb"),
    (r"python tests/golden.py .*", "test_golden.py", "test_library_replays_the_reference", "main"),
    (r"python -m data_prep.gta5", DATA, "test_without_a_source_it_says_where", "prepare("),
    (
        r"python -m data_prep.(gta5|cityscapes) --resize .*",
        DATA,
        "test_training_from_copies_gives_the_same_weights",
        "--resize",
    ),
    (r"python -m data_prep.(gta5|custom) .*--check .*", DATA, "test_check_finds_what_went_wrong_later", "--check"),
    (r"python -m data_prep.gta5 .*zip --out data", DATA, "test_gta5", 'prepare("gta5"'),
    (r"python -m data_prep.cityscapes .*zip --out data", DATA, "test_cityscapes", 'prepare("cityscapes"'),
    (r"python -m data_prep.acdc .*", DATA, "test_acdc", 'prepare("acdc"'),
    (r"python -m data_prep.dark_zurich .*", DATA, "test_dark_zurich", 'prepare("dark_zurich"'),
    (r"python -m data_prep.synthia .*", DATA, "test_synthia", 'prepare("synthia"'),
    (
        r"python -m data_prep.camvid (.*zip --out data|CAMVID --out data/samples)",
        DATA,
        "test_camvid_of_segnet",
        'prepare("camvid"',
    ),
    (r"python -m data_prep.camvid .*tgz --out data", DATA, "test_camvid_of_fastai", 'prepare("camvid"'),
    (r"python -m data_prep.bsds500 .*", DATA, "test_bsds500_is_for_segments", 'prepare("bsds500"'),
    (r"python -m data_prep.iitk .*", DATA, "test_iitk_from_videos_and_frames", 'prepare("iitk"'),
    (
        r"python -m data_prep.custom IMAGES --name .*",
        DATA,
        "test_custom_says_what_does_not_fit",
        'prepare("custom", images, "--name"',
    ),
    (r"python -m data_prep.custom IMAGES LABELS .*", DATA, "test_custom_in_another_alphabet", "--dry-run"),
    (r"python -m data_prep.video .*", DATA, "test_video_command", "data_prep.video"),
    (r"adaptseg export .*", "test_export.py", "test_command_takes_another_size", '"export"'),
    (
        r"adaptseg train --backbone efficientnet_lite0 .*",
        "test_networks.py",
        "test_weights_of_a_package_start_a_run",
        'backbone="efficientnet_lite0"',
    ),
]
NOT_RUN = [  # a command, and why no test runs it; its names and values are checked all the same
    (r"make install|pip install .*(cluster|export|tracking|remote).*", "CI begins with it, all extras"),
    (r"make test|(KILLS=20 )?\.venv/bin/python -m pytest .*", "it is what runs these tests"),
    (r"make slow", "minutes a test; run by hand before a release"),
    (r"make gpu", "needs a card; its report and its commands are tested in test_gpu.py"),
    (r"make export", "tests/run does the same on a copy, and test_home_is_the_readme the rest"),
    (r"make lab", "opens JupyterLab for a person"),
    (r"python -m adaptseg", "the map names the module; every test that calls a command does it so"),
    (r"source .venv/bin/activate", "changes the shell of whoever types it"),
    (r"adaptseg train --backbone (resnet50|timm:).*", "fetches weights; test_networks trains these families from none"),
    (r"adaptseg train --preset (camvid|tsai2018|chen2019) .*", "needs data that may not be passed on, and hours"),
    (r"adaptseg leaderboard --table nbs/protocols/.*", "needs those data, and GPUs; test_protocols reads the tables"),
    (r"sbatch .*leaderboard.sh .*", "needs a cluster; test_protocols runs the script with an srun of its own"),
]
TYPED = sorted({(page, command) for page in PAGES for command in commands(page)})


def fits(pattern, command):
    return re.fullmatch(pattern, command, re.S)


@pytest.mark.parametrize("page, command", TYPED, ids=lambda v: v[:60])
def test_every_command_is_run_by_a_test_or_says_why_not(page, command):
    assert any(fits(row[0], command) for row in RUN + NOT_RUN), (
        f"{page}: add `{command}` to the table in tests/test_docs.py, with the test that runs it or "
        f"the reason why none does"
    )


@pytest.mark.parametrize("pattern, file, test, does", RUN, ids=lambda v: v[:40])
def test_the_table_tells_the_truth(pattern, file, test, does):
    text = (ROOT / "tests" / file).read_text(encoding="utf8")
    found = [
        ast.get_source_segment(text, n)
        for n in ast.walk(ast.parse(text))
        if isinstance(n, ast.FunctionDef) and n.name == test
    ]
    assert found and does in found[0], f"tests/{file} has no {test} with {does}"
    assert any(fits(pattern, c) for _, c in TYPED), f"nobody is told to type {pattern}"


KINDS = dict(
    train=make_config,
    demo=make_config,
    segment=segment_job,
    evaluate=evaluate_job,
    experiments=experiments_job,
    compare=compare_job,
    dataset=dataset_job,
)
NOTEBOOKS = {p.name: p for p in (ROOT / "nbs").glob("**/*.ipynb")}


@pytest.mark.parametrize(
    "command", sorted({c for _, c in TYPED if " -" in c or c.count(" ") > 1}), ids=lambda v: v[:60]
)
def test_names_and_values_of_commands_are_valid(command):
    program, *words = shlex.split(command.replace("$method", "adabn").replace("$seed", "0"))
    if program == "adaptseg" and "--help" not in words:
        args = parse(words)
        values = given(dict(getattr(args, "parameters", ())))
        if "weights" in values:
            values["weights"] = "adaptsegnet-gta5-multi"  # the file itself is not here
        if args.command in KINDS:
            KINDS[args.command](**values)
    if program == "papermill":
        names = inspect_notebook(str(NOTEBOOKS[Path(words[0]).name])).keys()
        assert names and {name for flag, name in zip(words, words[1:]) if flag == "-p"} <= names
    if words[:1] == ["-m"] and words[1].startswith("data_prep.") and words[1] != "data_prep.video":
        recipe = importlib.import_module(words[1]).RECIPE
        importlib.import_module("data_prep.prepare").parser(recipe).parse_args(words[2:])
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    "A project's root with tiny sample domains in `data`."
    root = tmp_path_factory.mktemp("root")
    write_samples(root / "data", size=(64, 128), n_gta5=(6, 2), n_cityscapes=(4, 2), n_iitk=(1, 1), workers=1)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("page", ["explanation/methods", "explanation/adversarial", "tutorials/loop"])
def test_pages_that_train_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir((ROOT / "nbs" / page).parent)
    assert (run_notebook(page, tmp_path, {}) / f"{Path(page).name}.ipynb").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("tflops, cores, resized, limit", [(400, 1, 15.5, "reading"), (10, 16, 87.6, "network")])
def test_costs_of_other_gpus(tflops, cores, resized, limit, tmp_path):
    "Slow readers become the limit of fast GPUs, and nothing but the network that of slow ones."
    run_notebook("explanation/costs", tmp_path, dict(tflops=tflops, cores=cores, resized=resized))
    shown = next(
        "".join(o["data"]["text/plain"])
        for c in json.loads((tmp_path / "costs.ipynb").read_text())["cells"]
        for o in c.get("outputs", [])
        if "text/plain" in o.get("data", {})
    )
    assert set(re.findall("reading|averaging|network", shown.split("limit")[1])) == {limit}


def test_evaluate_command(root):
    run = train(
        "tiny",
        source="gta5",
        target="cityscapes",
        method="source_only",
        data_root=str(root / "data"),
        out=str(root / "runs"),
        device="cpu",
        precision="fp32",
        choice_images=0,
    )
    argv = [
        "evaluate",
        "-p",
        "weights",
        str(run.path),
        "-p",
        "domain",
        "cityscapes",
        "-p",
        "data_root",
        str(root / "data"),
        "-p",
        "flip",
        "True",
        "-p",
        "out",
        str(root / "scored"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", "from adaptseg.cli import main; main()", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {"evaluate.ipynb", "metrics.json", "worst_and_best.png"} <= {p.name for p in (root / "scored").iterdir()}


def python(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf8"), re.M | re.S)


def test_add_a_method_as_the_page_says(root, monkeypatch):
    monkeypatch.setenv("ADAPTSEG_ROOT", str(root))
    names = {}
    for block in python("nbs/howto/method.md"):
        exec(block, names)
    plain, ours = names["runs"]
    assert ours.path.name == "min_ent-s0" and ours.config["lambda_ent"] == 1e-3
    assert all(0 < row["loss_ent"] <= 1 for row in ours.history) and "loss_ent" not in plain.history[0]
    assert "min_ent-s0" in results_table([plain, ours])
    assert "entropy, target" in [ax.get_title(loc="left") for ax in learning_curves([plain, ours]).axes]
    assert "entropy, target" in [ax.get_title(loc="left") for ax in monitor_figure(Monitor(ours.path)).axes]
    first = python("nbs/howto/method.md")[0]
    lines = [line for line in first[first.index("class") :].splitlines() if line.strip()]
    assert len(lines) <= 25
    planned = make_config("tiny", target="cityscapes", method=names["MinEnt"])
    assert step_bytes(planned, precision="fp32") > 0


def test_add_a_domain_as_the_page_says(root, monkeypatch):
    import numpy as np
    from PIL import Image
    from adaptseg.datasets.domains import DOMAINS

    monkeypatch.chdir(root)
    monkeypatch.setitem(DOMAINS, "harbour", None)  # which removes it afterwards
    for side, array in (("photos", np.zeros((8, 12, 3), np.uint8)), ("masks", np.ones((8, 12), np.uint8))):
        (root / "data/Harbour" / side / "train").mkdir(parents=True)
        Image.fromarray(array).save(root / "data/Harbour" / side / "train/a.png")
    names = {}
    for block in python("nbs/howto/domain.md"):
        exec(block, names)
    assert names["split"].labelled and len(names["split"]) == 1 and names["split"].classes.names == ("water", "boat")
    assert dataset("harbour").folder == Path("Harbour") and "harbour" in found_datasets(root / "data")


@pytest.mark.parametrize("page", [p for p in PAGES if python(p)])
def test_names_in_python_examples_exist(page):
    import builtins

    known = {*dir(builtins), *importlib.import_module("adaptseg.core").__all__}
    tree = ast.parse("\n".join(python(page)))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.names[0].name != "*":
            assert all(hasattr(importlib.import_module(node.module), a.name) for a in node.names)
    names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
    made = {n.id for n in names if isinstance(n.ctx, ast.Store)} | {
        a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names
    }
    made |= {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))} | {
        a.arg for n in ast.walk(tree) if isinstance(n, ast.arguments) for a in n.args
    }
    made |= {(a.asname or a.name).split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not {n.id for n in names if isinstance(n.ctx, ast.Load)} - known - made


# What every public name says

ARRAY, SHAPE = re.compile(r"\b(Tensor|ndarray)\b"), re.compile(r"\([^()]*\)|\bscalar")


def called(module):
    "The public functions, classes and methods that a module makes: name and thing."
    for name in own_names(module):
        thing = getattr(importlib.import_module(f"adaptseg.{module}"), name)
        if not (inspect.isfunction(thing) or inspect.isclass(thing)):
            thing = getattr(thing, "__wrapped__", None)  # of a cache
            if thing is None:
                continue
        yield name, inspect.unwrap(thing)
        for key, member in vars(thing).items() if inspect.isclass(thing) else ():
            member = inspect.unwrap(getattr(member, "__func__", member))
            if not key.startswith("_") and inspect.isfunction(member):
                yield f"{name}.{key}", member


def missing(module, name, thing):
    "What a reader is not told about the parameters and the result of a function or class."
    for key, found in parameters(thing).items():
        kind, text = annotation(found["anno"]), meaning(module, key, found["docment"], annotation(found["anno"]))
        if key not in ("return", "self", "cls") and not text and kind.removesuffix(" | None") not in own_types():
            yield f"{name}: {key} has no comment, and no word in nbs/explanation/words.md"
        elif ARRAY.search(kind) and not SHAPE.search(text or ""):
            yield f"{name}: {key} is an array without a shape, such as (N, C, H, W)"


@pytest.mark.parametrize("module", LIBRARY)
def test_parameters_say_what_they_are(module):
    wrong = [line for name, thing in called(module) for line in missing(module, name, thing)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", LIBRARY)
def test_docstrings_are_one_line(module):
    text = {
        name: (thing.__doc__ or "") if inspect.isfunction(thing) else vars(thing).get("__doc__") or ""
        for name, thing in called(module)
        if "." not in name
    }
    wrong = [name for name, doc in text.items() if not doc.strip() or "\n" in doc.strip()]
    assert not wrong, wrong


def test_what_is_raised_is_on_the_page(site):
    text = (site / "api/evaluation/metrics.html").read_text(encoding="utf8")
    assert "Raises" in text and "ValueError" in text[text.index("Raises") :][:200]


def test_a_missing_comment_or_shape_is_noticed():
    def function(one: "Tensor", other: int):
        "No comments."

    assert len(list(missing("charts", "function", function))) == 2

    def function(
        one: "Tensor",  # an image
        other: int,  # a number
    ) -> "Tensor":  # (H, W)
        "Comments."

    assert list(missing("charts", "function", function)) == [
        "function: one is an array without a shape, such as (N, C, H, W)"
    ]


FROM_PAPERS = (
    "networks.losses",
    "methods.adversarial",
    "networks.heads",
    "networks.levels",
    "networks.deeplab",
    "networks.discriminator",
    "networks.vgg",
    "unsupervised.kanezaki",
    "networks.optimisers",
    "evaluation.label_free",
    "unsupervised.scores",
)
OURS = {  # in these modules, what no paper defines
    "upsample",
    "probabilities",
    "Method",
    "MethodValues",
    "Problem",
    "method",
    "find_method",
    "SourceOnly",
    "AdversarialValues",
    "discriminator_problems",
    "conv_bn",
    "frozen_statistics",
    "unmoved_statistics",
    "second_forward",
    "checkpointed",
    "read_maps",
    "make_head",
    "weight_groups",
    "check_choice",
    "deeplab",
    "vgg_features",
    "seeded_networks",
    "Iteration",
    "count_labels",
    "strays",
    "update_multiplicity",
    "RepeatedSGD",
    "NumericOptimWrapper",
    "all_optimisers",
    "train_step",
    "entropy",
    "LabelFree",
    "connected",
    "overlaps",
    "match_segments",
    "summarise",
    "segment_scores",
    "read_truths",
    "padded",
    "windows",
    "cut",
    "along",
    "filters",
    "bands",
    "blank",
    "gradient_of_input",
    "gradient_of_weight",
    "direct_convolutions",
}


@pytest.mark.parametrize("module", FROM_PAPERS)
def test_sources_are_named(module):
    "What comes from a paper names it with its year; what is ours does not."
    things = {name: getattr(importlib.import_module(f"adaptseg.{module}"), name) for name in own_names(module)}
    cites = {
        name: bool(re.search(r"\b(19|20)\d\d\b", inspect.getdoc(t) or ""))
        for name, t in things.items()
        if inspect.isfunction(t) or inspect.isclass(t)
    }
    assert {name for name, found in cites.items() if not found} == OURS & set(cites)
