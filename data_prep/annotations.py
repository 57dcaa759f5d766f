"""What people labelled in CVAT, labelme, Label Studio or another tool as a dataset: its export in, label maps out."""

import argparse
import colorsys
import shutil
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from adaptseg.annotations.reading import Export, find_export, survey
from adaptseg.annotations.shapes import WITHOUT, paint
from adaptseg.base.images import image_size
from adaptseg.datasets.archives import is_archive, unpack
from adaptseg.datasets.labels import CAMVID11, CITYSCAPES19, IGNORE
from adaptseg.datasets.masks import Entry, read_mask, read_table, write_table
from data_prep.custom import Source, arguments, bring, domain, flat, forget, split_of
from data_prep.prepare import Recipe, run

OFFERED = """
An export of a labelling tool, a zip or a folder, and the photographs (where they are not in it):
  python -m data_prep.annotations EXPORT [PHOTOGRAPHS] --name harbour
It may be of CVAT ("CVAT for images 1.1" or "Segmentation mask 1.1"), COCO, Pascal VOC with a labelmap.txt, labelme,
Label Studio (JSON) or Cityscapes' polygons. Its labels become classes, background, void and unlabelled none; --table
ids.csv says which there are and what their ids are. Photographs that nobody labelled stay, without a label map.
"""


def more_arguments(p: argparse.ArgumentParser) -> None:
    "What is special about an export."
    arguments(p)
    p.add_argument("--table", type=Path, help="ids.csv: the classes that there are; a label beside them is an error")


def fill(recipe: Recipe, args: argparse.Namespace, part: Path) -> None:
    "Copy the photographs; paint the label maps."
    if len(args.source) > 2:
        raise ValueError("expected EXPORT, and perhaps PHOTOGRAPHS")
    work = part / ".export"
    shutil.rmtree(work, ignore_errors=True)
    try:
        folder = unpacked(args.source[0], work)
        export = find_export(folder)
        photographs = Source(args.source[1] if len(args.source) == 2 else folder).files
        if export.masks:
            taken = {str(path) for path in export.masks.values()}
            photographs = {k: p for k, p in photographs.items() if not _beside_masks(p, taken)}
        if not photographs:
            raise ValueError(f"{args.source[-1]} holds no photographs: give their folder after the export")
        labels, names = survey(export)
        table, known = classes_of(export, labels, args.table)
        labelled = _pairs(names, photographs, args.partial)
        if args.dry_run:
            print(described(export, photographs, labelled, table))
            raise SystemExit(0)
        _bring_all(export, photographs, labelled, table, known, args, part)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write_table(table, part / "ids.csv")


def unpacked(source: Path, work: Path) -> Path:
    "The export's folder."
    if source.is_dir():
        return source
    if not is_archive(source):
        raise ValueError(f"{source}: expected a zip, a tar or a folder")
    work.mkdir(parents=True)
    unpack(source, work, lambda name: name)
    return work


def _beside_masks(path, taken):
    return str(path) in taken or {"SegmentationClass", "SegmentationObject"} & set(path.parts)


def classes_of(export: Export, every: list[str], file: Path | None) -> tuple[list[Entry], dict[str, int]]:
    "A table with a line for pixels of no class, and which line each label means."
    labels = [label for label in every if label.lower() not in WITHOUT]
    table = read_table(file) if file else drawn_up(export, labels)
    if all(e.name for e in table):
        free = max(set(range(256)) - {e.id for e in table})
        table.append(Entry(free, "", (0, 0, 0)))
    lines = {e.name: i for i, e in reversed(list(enumerate(table)))}  # the first of several
    unknown = [label for label in labels if label not in lines]
    if unknown:
        names = ", ".join(name for name in lines if name)
        raise ValueError(f"{file} has no {', '.join(unknown)}, which the export has; it has {names}")
    return table, {label: lines[label if label in labels else ""] for label in every}


def drawn_up(export: Export, labels: list[str]) -> list[Entry]:
    "A table of the labels in their order."
    if not labels:
        raise ValueError(f"the export ({export.form}) has no label: nobody has labelled anything in it")
    if len(labels) > 254:
        raise ValueError(f"expected 1 to 254 labels, found {len(labels)}")
    painted = {e.name: e.colour for e in export.entries or ()}
    return [Entry(i, label, painted.get(label) or colour(label, i)) for i, label in enumerate(labels)]


def colour(label: str, i: int) -> tuple[int, int, int]:
    "That of a class that is known by this name, or one unlike those before."
    for known in (CITYSCAPES19, CAMVID11):
        if label in known.names:
            return known.colours[known.names.index(label)]
    hue, bright = i * 0.618034 % 1, (0.95, 0.7)[i % 2]
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.75, bright))


def _pairs(names, photographs, some):
    "Photograph's key -> name in the export, of all that have a shape."
    find, found, lost = finder(photographs), {}, []
    for name in names:
        key = find(name)
        if key is None:
            lost.append(name)
        elif key in found:
            raise ValueError(
                f"{found[key]} and {name} of the export are both {photographs[key]}: name them with folders"
            )
        else:
            found[key] = name
    if lost and not some:
        raise ValueError(
            f"{len(lost)} labelled pictures have no photograph ({', '.join(lost[:3])}); --partial leaves them out"
        )
    if not found:
        raise ValueError("no picture of the export is labelled and has a photograph")
    return found


def finder(photographs: dict[str, Path]):
    "A function from a picture's name in an export to a photograph's key, or None; tools drop folders and endings."
    by_stem = defaultdict(list)
    for key in photographs:
        for stem in {PurePosixPath(key).name, PurePosixPath(key).name.removesuffix("_leftImg8bit")}:
            by_stem[stem].append(key)

    def find(name):
        path = PurePosixPath(name)
        keys = by_stem.get(path.name) or by_stem.get(path.with_suffix("").name) or []
        shared = lambda key: _shared(PurePosixPath(key).parent.parts, path.parent.parts)
        best = max(map(shared, keys), default=0)
        first = [key for key in keys if shared(key) == best]
        if len(first) > 1:
            raise ValueError(f"{name} of the export may be {photographs[first[0]]} or {photographs[first[1]]}")
        return first[0] if first else None

    return find


def _shared(a, b):
    "How many folders two paths share, counted from their ends."
    return next((i for i, (x, y) in enumerate(zip(reversed(a), reversed(b))) if x != y), min(len(a), len(b)))


def described(export, photographs, labelled, table) -> str:
    "What --dry-run shows."
    return (
        f"{export.form}: {len(labelled)} of {len(photographs)} photographs are labelled\n"
        f"classes: {', '.join(dict.fromkeys(e.name for e in table if e.name))}"
    )


def _bring_all(export, photographs, labelled, table, known, args, part):
    "Each photograph, and its label map where it has one, into their places."
    splits = split_of(list(labelled), args.val)
    splits |= {key: "train" for key in photographs if key not in labelled}  # nothing of them could be scored
    names = {key: flat(key) for key in photographs}
    twice = [name for name, n in Counter((splits[k], names[k]) for k in photographs).items() if n > 1]
    if twice:
        raise ValueError(f"two photographs would be called {'/'.join(twice[0])}: rename one")
    forget(part, {f"{side}/{splits[k]}/{names[k]}" for k in photographs for side in ("images", "labels")})
    maps = part / ".export" / "painted.png"
    maps.parent.mkdir(parents=True, exist_ok=True)
    ids = np.array([e.id for e in table] + [next(e.id for e in table if not e.name)] * (256 - len(table)))
    for key, label in _labels(export, photographs, labelled, known):
        if label is not None:
            Image.fromarray(ids[label].astype(np.uint16)).save(maps)
        bring(part, table, (photographs[key], maps if label is not None else None, splits[key], names[key]))
    print(f"{len(labelled)} of {len(photographs)} photographs are labelled, as {export.form} has them")


def _labels(export, photographs, labelled, known):
    "Photograph's key -> (H, W) lines of the table, or None, of all of them."
    yield from ((key, None) for key in photographs if key not in labelled)
    if export.masks:
        for key, name in labelled.items():
            ids = read_mask(export.masks[name], export.entries)[0]
            label = np.full(ids.shape, IGNORE, np.uint8)
            for entry in export.entries:
                if entry.name:
                    label[ids == entry.id] = known[entry.name]
            yield key, fitting(label, photographs[key], name)
        return
    keys = {name: key for key, name in labelled.items()}
    for picture in export.pictures():
        if picture.name in keys:
            key = keys.pop(picture.name)
            yield key, fitting(paint(picture.shapes, picture.size, known), photographs[key], picture.name)


def fitting(label: np.ndarray, photograph: Path, name: str) -> np.ndarray:
    "The label map, if it is as large as its photograph; else a ValueError."
    size = image_size(photograph)
    if label.shape != size:
        raise ValueError(
            f"{name} was labelled at {label.shape[1]}x{label.shape[0]}, {photograph} is {size[1]}x{size[0]}: give the "
            f"photographs that were labelled"
        )
    return label


RECIPE = Recipe("annotations", OFFERED, arguments=more_arguments, fill=fill, domain=domain)
if __name__ == "__main__":
    run(RECIPE)
