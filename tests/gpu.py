"""`make gpu`: on a machine with a card, what nobody here could see. Leaves one file, gpu-report.md, to be sent back."""

import subprocess
import sys
import time
from pathlib import Path

import nbformat
import torch

ROOT, RUNS = Path(__file__).parents[1], Path("runs/gpu")
METHODS = "adabn adaptseg_multi advent_single minent maxsquare fda selftrain selftrain,lambda_mask=1"


def parts(cards: int) -> dict[str, list[str]]:  # what is tried: its title, a command line
    "All that is run, the quick and telling parts first."
    python = [sys.executable, "-m"]
    given = lambda **values: [s for k, v in values.items() for s in ("-p", k, str(v))]
    only = dict(n=0, steps=0, imports=0, loader=0)
    bench = lambda name, **values: [
        *python,
        "adaptseg",
        "benchmark",
        "--out",
        str(RUNS / name),
        *given(**only | values),
    ]
    usual = given(source="gta5", target="cityscapes", preset="sample", steps=40, val_every=20, out=RUNS, overwrite=True)
    found = {
        "The suite's CUDA part, resume among it": [
            *python,
            "pytest",
            "tests/test_gpu.py",
            "-q",
            "-rs",
            "--durations",
            "0",
        ],
        "The training step at 1280x720 and 1024x512, evaluation at 2048x1024": bench("step", steps=10),
        "All methods": bench("methods", methods=METHODS),
        "Networks": bench("networks", backbones="resnet101,resnet50,efficientnet_lite0"),
        "Kanezaki, one by one and batched": bench("kanezaki", n=2),
        "The loader, and a folder of photographs": bench("loader", loader=20, photographs=24),
    }
    if cards > 1:
        launch = [*python, "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "adaptseg", "train"]
        found["Two processes with a card each"] = [*launch, *usual, *given(batch_size=2, name="two")]
    return found


def tables(folder: Path) -> str:
    "What an executed notebook printed, as text."
    said = []
    for notebook in sorted(folder.glob("*.ipynb")):
        for cell in nbformat.read(notebook, 4).cells:
            for output in cell.get("outputs", ()):
                said.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return "\n".join(filter(None, said))


def report(commands: dict[str, list[str]], file: Path, machine: str) -> bool:  # did all end well?
    "Run each, and write after each what there is so far."
    text, well = f"# adaptseg on a GPU\n\n```\n{machine}\n```\n", True
    for title, line in commands.items():
        print(f"{title} ...", flush=True)
        start = time.monotonic()
        done = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        out = line[line.index("--out") + 1] if "--out" in line else None
        said = (tables(ROOT / out) if out and not done.returncode else "") or done.stdout[-6000:]
        outcome = "well" if done.returncode == 0 else f"FAILED ({done.returncode})"
        text += f"\n## {title}: {outcome}, {time.monotonic() - start:.0f} s\n\n```\n{said.strip()}\n```\n"
        file.write_text(text, encoding="utf8")
        print(f"  {outcome}", flush=True)
        well = well and not done.returncode
    return well


def main() -> int:
    "The exit status."
    if not torch.cuda.is_available():
        print("no CUDA device here: `make gpu` needs one; `make test` is for all machines", file=sys.stderr)
        return 1
    from adaptseg.doctor import machine

    cards, file = torch.cuda.device_count(), Path("gpu-report.md")
    driver = subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout
    well = report(parts(cards), file, f"{machine(ROOT)}\n{cards} cards; CUDA {torch.version.cuda}\n{driver}")
    print(f"{file}: send it as an issue, please" + ("" if well else "; some parts failed, it says which"))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
