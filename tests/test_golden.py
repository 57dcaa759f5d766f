"""The golden replay passes on the reference's numbers, and notices when one of them is another."""

import json
from pathlib import Path

import pytest

import golden

PINNED, KANEZAKI, METHODS = (
    Path(__file__).parent / "golden" / f"{name}.json" for name in ("adaptsegnet", "kanezaki", "methods")
)
INPUTS = "seed shape scale size beta tau picked alpha steps counts temperature".split()
SHARED = Path(__file__).parents[2] / "shared" / "golden"


@pytest.mark.parametrize("file", [PINNED, KANEZAKI, METHODS], ids=lambda p: p.stem)
def test_library_replays_the_reference(file, capsys):
    assert golden.main([file]) == 0
    assert capsys.readouterr().out.endswith("equal\n")


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared golden files beside this checkout")
@pytest.mark.parametrize("file", [PINNED, KANEZAKI, METHODS], ids=lambda p: p.stem)
def test_pinned_copy_is_the_shared_file(file):
    assert file.read_bytes() == (SHARED / file.name).read_bytes()


@pytest.mark.parametrize("kind", golden.KINDS)
def test_a_change_of_a_function_is_noticed(kind):
    def moved(value):
        "Every number by a hundred thousandth, but the inputs."
        if isinstance(value, dict):
            return {k: v if k in INPUTS else moved(v) for k, v in value.items()}
        return [moved(v) for v in value] if isinstance(value, list) else value * (1 + 1e-5)

    case = json.loads(METHODS.read_text())[kind][0]
    assert max(golden.KINDS[kind](case).values()) <= golden.TOLERANCE
    assert min(golden.KINDS[kind](moved(case)).values()) > golden.TOLERANCE


@pytest.mark.parametrize("column", [0, 1])
def test_kanezaki_change_is_noticed(column):
    run = json.loads(KANEZAKI.read_text())["scribble"]
    run["trajectory"][7][column] += 1e-4
    assert max(golden.replay(run).values()) > golden.TOLERANCE
    run["trajectory"].pop()
    assert max(golden.replay(run).values()) > golden.TOLERANCE


def test_every_kind_of_change_is_noticed():
    run = next(r for r in json.loads(PINNED.read_text()).values() if r.get("update_multiplicity"))
    run["losses"][1][2] *= 1 + 1e-5
    run["eval_output"]["conv5_head"][0] += 1e-3
    run["final_state"][next(k for k in run["final_state"] if k.startswith("layer6"))][1] *= 1 + 1e-5
    run["update_multiplicity"][next(iter(run["update_multiplicity"]))] += 1
    errors = golden.replay(run)
    assert set(errors) == {"eval", "losses", "state", "multiplicity"}
    assert min(errors.values()) > golden.TOLERANCE, errors


@pytest.mark.parametrize("error", [2e-6, 1.0, float("inf")])
def test_one_difference_is_enough_to_fail(error, monkeypatch, capsys):
    results = iter([dict(eval=0.0, losses=0.0), dict(eval=0.0, losses=error), dict(eval=0.0, losses=0.0)])
    monkeypatch.setattr(golden, "replay", lambda run: next(results))
    assert golden.main([PINNED]) == 1
    assert capsys.readouterr().out.endswith("DIFFERENT\n")
