"""What all commands of data_prep share: sources in, a checked dataset out, all or nothing."""

import argparse
import errno
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from adaptseg.base.images import files_below
from adaptseg.datasets.archives import check_target, gather, is_archive, part_of, publish, unpack
from adaptseg.datasets.checking import Report, check_dataset, dataset, write_manifest
from adaptseg.datasets.resizing import make_copy
from adaptseg.runs.config import parse_size

CARDS = Path(__file__).parent / "cards"


def nothing(*args) -> None:
    "For what a recipe does not need."


@dataclass(frozen=True)
class Recipe:
    "What is special about preparing one dataset."

    name: str  # of the dataset; its module and its card are called so
    offered: str  # where it is to be had and under which terms, for a person
    # name in a source -> path in the dataset, or None for what is left out
    place: Callable[[str], str | None] = nothing
    settle: Callable[[Path], None] = nothing  # finishes what was unpacked into a folder
    counted: bool = True  # is it an error if there are not as many images as officially offered?
    missing: Callable[[Report], str] = lambda report: ""  # which downloads the missing images would come from
    arguments: Callable[[argparse.ArgumentParser], None] = nothing  # further options
    fill: Callable | None = None  # (recipe, args, folder): in place of unpacking every source
    # in place of the name: that of the dataset in `adaptseg.datasets.checking`
    domain: Callable[[argparse.Namespace], str] | None = None


def parser(recipe: Recipe) -> argparse.ArgumentParser:
    "The command line of one dataset."
    p = argparse.ArgumentParser(
        f"python -m data_prep.{recipe.name}",
        description=f"Prepare {recipe.name}. Without a source: where it is to be had.",
    )
    p.add_argument("source", nargs="*", type=Path, help="archives as downloaded, or folders")
    p.add_argument("--out", type=Path, default=Path("data"), help="data root (data)")
    p.add_argument(
        "--check",
        action="store_true",
        help="read a prepared dataset to the end, and keep what is found in its manifest",
    )
    p.add_argument(
        "--resize", metavar="WxH", type=parse_size_argument, help="make a copy at this size, which training then reads"
    )
    p.add_argument("--shards", action="store_true", help="make a copy in tar shards (with --resize: of that size)")
    p.add_argument("--jobs", type=int, help="processes (one a core)")
    p.add_argument("--overwrite", action="store_true", help="replace what is there")
    p.add_argument("--partial", action="store_true", help="take the pairs that are whole, leave out the others")
    p.add_argument("--link", action="store_true", help="folders as source: hard links in place of copies")
    recipe.arguments(p)
    return p


def parse_size_argument(text: str) -> tuple[int, int]:  # (height, width)
    "'1280x720' for argparse."
    try:
        return parse_size(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


def run(recipe: Recipe, argv: list[str] | None = None) -> None:
    "The command; a mistake ends with words that say what to do, and status 1."
    args = parser(recipe).parse_args(argv)
    try:
        ok = act(recipe, args)
    except (ValueError, OSError) as e:
        raise SystemExit(f"data_prep.{recipe.name}: {e}") from None
    except KeyboardInterrupt:
        raise SystemExit(f"data_prep.{recipe.name}: stopped; calling again goes on") from None
    raise SystemExit(0 if ok else 1)


def act(recipe: Recipe, args: argparse.Namespace) -> bool:  # is all well?
    "Prepare, check and copy, as far as asked."
    if not (args.source or args.check or args.resize or args.shards):
        print(
            f"{recipe.offered.strip()}\n\nThen:  python -m data_prep.{recipe.name} SOURCE... --out "
            f"{args.out}\nMore:  {CARDS / recipe.name}.md"
        )
        return True
    name = recipe.domain(args) if recipe.domain else recipe.name
    folder, reports = args.out / dataset(name).folder, []
    if args.source:
        reports.append(prepare(recipe, name, folder, args))
    elif args.check:
        reports.append(check_dataset(name, folder, args.jobs))
    if args.resize or args.shards:
        reports.append(make_copy(name, folder, args.resize, args.shards, args.jobs, args.overwrite))
    for report in reports:
        print(report)
    return not any(r.wrong for r in reports)


def prepare(recipe: Recipe, name: str, folder: Path, args: argparse.Namespace) -> Report:
    "From sources to a checked dataset in its place."
    for source in args.source:
        if not source.exists():
            raise FileNotFoundError(f"there is no {source}: expected archives or folders of {recipe.name}")
    check_target(folder, args.overwrite)
    part = part_of(folder)
    part.mkdir(parents=True, exist_ok=True)
    try:
        (recipe.fill or unpack_all)(recipe, args, part)
        recipe.settle(part)
        report = check_at(name, folder, part, args.jobs)
    except OSError as e:
        if e.errno == errno.ENOSPC:
            raise OSError(
                e.errno,
                f"the disk is full ({e.strerror}); {folder} is as it was. What is unpacked is kept in {part}: "
                f"free some room and call again, or remove it",
            ) from None
        raise
    finally:
        with suppress(OSError):
            part.rmdir()  # if nothing came of it
    report = inspect(recipe, report, part, args.partial)
    publish(folder, args.overwrite)
    report.folder = folder
    return report


def signature(sources: list[Path]) -> str:
    "Twelve digits that change with the names, sizes and times of all files in sources."
    digest = sha256()
    for source in sources:
        for path in [source] if source.is_file() else sorted(files_below(source)):
            known = path.stat() if path.exists() else None
            digest.update(f"{path} {known and (known.st_size, known.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:12]


def unpack_all(recipe: Recipe, args: argparse.Namespace, part: Path) -> None:
    "Unpack every archive, copy every folder."
    for source in args.source:
        bring = partial(gather, link=args.link) if source.is_dir() else unpack
        if not source.is_dir() and not is_archive(source):
            raise ValueError(f"{source} is neither a folder nor an archive")
        if not bring(source, part, recipe.place, jobs=args.jobs):
            raise ValueError(
                f"{source} holds nothing of {recipe.name}: expected {dataset(recipe.name).layout}, or the "
                f"official downloads (call without a source to see them)"
            )


def check_at(name: str, folder: Path, part: Path, jobs: int | None) -> Report:
    "Check a dataset while it lies in another folder than its own."
    report = check_dataset(f"folder:{part}" if name.startswith("folder:") else name, part, jobs)
    report.name = name
    return report


def inspect(recipe: Recipe, report: Report, part: Path, partial: bool) -> Report:
    "The report, if it is good enough to take its place; else a ValueError that says what to do."
    kept = f"What is unpacked is kept in {part}, so that calling again goes on; remove it to give up"
    advice = f"fetch these files again, or take only whole pairs with --partial. {kept}"
    if report.wrong and not partial:
        for row in report.wrong:
            remove_broken(part, row)
        raise ValueError(f"{len(report.wrong)} files or pairs are not right:\n{report}\n{advice}")
    if recipe.counted and not (report.whole or partial):
        raise ValueError(
            f"something is missing:\n{report}\n{recipe.missing(report)}Give all downloads, or --partial if "
            f"these are meant to be all. {kept}"
        )
    return leave_out(report, part) if report.wrong else report


def remove_broken(part: Path, row) -> None:
    "Remove files that do not open, so that they are unpacked again."
    for side, name in (("image", row.image), ("label", row.label)):
        if name and any(text in row.problem for text in (f"{side}: cannot", f"{side}: expected")):
            (part / name).unlink(missing_ok=True)


def leave_out(report: Report, part: Path) -> Report:
    "Remove what is not right, and say so."
    wrong = dict.fromkeys(report.wrong)
    for row in wrong:
        for name in filter(None, (row.image, row.label)):
            (part / name).unlink(missing_ok=True)
    kept = [(r, s) for r, s in zip(report.rows, report.splits) if r not in wrong]
    if not kept:
        raise ValueError(f"nothing whole was found:\n{report}")
    report.rows, report.splits = map(list, zip(*kept))
    write_manifest(part, report.rows)
    print(f"left out {len(wrong)}: " + ", ".join([r.image or r.label for r in wrong][:10]), file=sys.stderr)
    return report
