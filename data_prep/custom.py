"""A dataset of one's own: a folder of images, perhaps one of label maps, and a table of what their ids or colours
mean.
"""

import argparse
import csv
import re
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from adaptseg.datasets.archives import whole_file
from adaptseg.base.images import IMAGES
from adaptseg.datasets.domains import read_ids
from adaptseg.base.images import read_image
from adaptseg.datasets.labels import read_label
from adaptseg.base.parallel import parallel_map
from data_prep.prepare import Recipe, run

OFFERED = """
Your own images, with label maps or without:
  python -m data_prep.custom IMAGES --name harbour                      a target: images alone
  python -m data_prep.custom IMAGES LABELS ids.csv --name harbour       with label maps, PNGs of ids or of colours
ids.csv has the columns id,name,red,green,blue; an empty name is a known id that is ignored. --dry-run only shows what
is found. Folders train, val and test in IMAGES stay what they are; without them the last tenth by name becomes val
(--val).
"""


def arguments(p: argparse.ArgumentParser) -> None:
    "What is special about one's own data."
    p.add_argument(
        "--name", default="custom", help="of the dataset: it lies in OUT/NAME and is used as folder:OUT/NAME"
    )
    p.add_argument(
        "--val",
        type=float,
        default=0.1,
        help="the last part by name, kept for val where IMAGES has no folders train and val (0.1)",
    )
    p.add_argument("--dry-run", action="store_true", help="show what is found and what would be done")


def domain(args: argparse.Namespace) -> str:
    "folder:OUT/NAME."
    if not re.fullmatch(r"\w[\w.-]*", args.name):
        raise ValueError(f"--name: expected letters, digits, '_', '-' and '.', found {args.name!r}")
    return f"folder:{(args.out / args.name).absolute()}"


def pictures(folder: Path, ends=IMAGES) -> dict[str, Path]:
    "The visible images below a folder, by path without ending."
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in ends and not p.name.startswith(".")]
    return {p.relative_to(folder).with_suffix("").as_posix(): p for p in files}


def matched(
    images: dict, labels: dict
) -> tuple[dict, str]:  # image key -> label path, and what the labels' names have more
    "Label maps by the key of their image; the names may be longer by one common ending, such as _labelIds."
    endings = Counter(k[len(image) :] for image in list(images)[:50] for k in labels if k.startswith(image))
    more = max(endings, key=lambda e: (endings[e], -len(e)), default="")
    return {k.removesuffix(more): p for k, p in labels.items() if k.endswith(more)}, more


def split_of(keys: list, val: float) -> dict[str, str]:
    "Key -> split: that of its first folder, or by name."
    if all(k.split("/")[0] in ("train", "val", "test") and "/" in k for k in keys):
        return {k: k.split("/")[0] for k in keys}
    return {k: "val" if i >= (1 - val) * len(keys) else "train" for i, k in enumerate(sorted(keys))}


def flat(key: str) -> str:
    "A key as a file name: folders but the split's become part of it."
    parts = key.split("/")
    return "_".join(parts[1:] if parts[0] in ("train", "val", "test") and len(parts) > 1 else parts)


def fill(recipe: Recipe, args: argparse.Namespace, part: Path) -> None:
    "Copy the images; write the label maps as ids."
    images, labels, table, more = find(args)
    splits = split_of(list(images), args.val)
    if args.dry_run:
        print(describe(images, labels, table, more, splits))
        raise SystemExit(0)
    colours = colour_table(args.source[2]) if table else None
    parallel_map(
        partial(bring, part, colours),
        [(images[k], labels.get(k), splits[k], flat(k)) for k in images],
        args.jobs,
        args.name,
    )
    if table:
        shutil.copyfile(args.source[2], part / "ids.csv")


def find(args) -> tuple:  # images, labels, (IdTable, ClassSet) or None, ending
    "What the sources hold; an error if they do not fit."
    if len(args.source) not in (1, 3):
        raise ValueError("expected IMAGES, or IMAGES LABELS ids.csv")
    images = pictures(args.source[0])
    if not images:
        raise ValueError(f"{args.source[0]} holds no images ({', '.join(IMAGES)})")
    splits = split_of(list(images), args.val)
    twice = [name for name, n in Counter(f"{splits[k]}/{flat(k)}" for k in images).items() if n > 1]
    if twice:
        raise ValueError(f"two images would be called {twice[0]}: rename one")
    if len(args.source) == 1:
        return images, {}, None, ""
    labels, more = matched(images, pictures(args.source[1], (".png",)))
    alone, orphans = sorted(images.keys() - labels.keys()), sorted(labels.keys() - images.keys())
    if (alone or orphans) and not (args.partial or args.dry_run):
        raise ValueError(
            f"{len(alone)} images have no label map ({', '.join(alone[:3])}), {len(orphans)} label maps "
            f"have no image ({', '.join(orphans[:3])}). Names must be equal but for a common ending of the "
            f"labels; --partial leaves these out, --dry-run shows more"
        )
    if args.partial:
        images = {k: p for k, p in images.items() if k in labels}
    return images, labels, read_ids(args.source[2]), more


def describe(images, labels, table, more, splits) -> str:
    "What --dry-run shows."
    sizes = {read_image(p).size for p in list(images.values())[:20]}
    lines = [
        f"{len(images)} images, of {', '.join(f'{w}x{h}' for w, h in sorted(sizes))} (the first 20)",
        *(f"  {s}: {n}" for s, n in Counter(splits.values()).items()),
    ]
    if not table:
        return "\n".join([*lines, "no label maps: a target"])
    pairs = [k for k in images if k in labels]
    lines += [f"{len(labels)} label maps, {len(pairs)} with an image" + (f"; names end in {more!r}" if more else "")]
    lines += [f"  without a label map: {k}" for k in sorted(images.keys() - labels.keys())[:5]] + [
        f"  without an image: {k}" for k in sorted(labels.keys() - images.keys())[:5]
    ]
    if pairs:
        lines.append(
            f"the first one, {labels[pairs[0]].name}, is painted in colours"
            if is_colour(labels[pairs[0]])
            else f"holds the ids {', '.join(map(str, np.unique(read_label(labels[pairs[0]]))[:30]))}"
        )
    return "\n".join([*lines, f"classes: {', '.join(table[1].names)}"])


def is_colour(path: Path) -> bool:
    "Is a label map painted, rather than made of ids?"
    with Image.open(path) as image:
        return image.mode in ("RGB", "RGBA")


def colour_table(path: Path) -> dict[int, int]:
    "Colour as one number -> id; an error where two ids share a colour and differ in name."
    table, names = {}, {}
    with open(path, newline="", encoding="utf-8-sig") as f:
        for row in csv.DictReader(f):
            code, i = (int(row["red"]) << 16) + (int(row["green"]) << 8) + int(row["blue"]), int(row["id"])
            table.setdefault(code, i)
            names.setdefault(code, set()).add(row["name"].strip())
    return {"table": table, "shared": {c for c, n in names.items() if len(n) > 1}}


def bring(part: Path, colours, job) -> None:
    "One image and its label map into their places, unless they are there."
    image, label, split, name = job
    pairs = [(image, part / "images" / split / f"{name}{image.suffix.lower()}", lambda f: f.write(image.read_bytes()))]
    if label:
        pairs.append((label, part / "labels" / split / f"{name}.png", lambda f: write_ids(label, colours, f)))
    for _, to, write in pairs:
        if to.is_file():
            continue
        with whole_file(to) as f:
            write(f)


def write_ids(label: Path, colours: dict, f) -> None:
    "A label map as ids: its bytes as they are, or its colours looked up."
    if not is_colour(label):
        f.write(label.read_bytes())
        return
    x = np.asarray(read_image(label), np.uint32)
    codes, where = np.unique((x[..., 0] << 16) + (x[..., 1] << 8) + x[..., 2], return_inverse=True)
    unknown = [c for c in codes.tolist() if c not in colours["table"]]
    if unknown:
        raise ValueError(
            f"{label}: the colours {', '.join(str((c >> 16, c >> 8 & 255, c & 255)) for c in unknown[:3])} "
            f"are not in the table"
        )
    if twice := colours["shared"] & set(codes.tolist()):
        raise ValueError(
            f"{label}: the colour {[(c >> 16, c >> 8 & 255, c & 255) for c in twice][0]} stands for "
            f"several classes in the table: give label maps of ids"
        )
    ids = np.array([colours["table"][c] for c in codes.tolist()])
    if ids.min() < 0:
        raise ValueError(f"{label}: a PNG cannot hold the id {ids.min()}: use 0..65535 in the table")
    Image.fromarray(ids[where].reshape(x.shape[:2]).astype(np.uint8 if ids.max() < 256 else np.uint16)).save(f, "png")


RECIPE = Recipe("custom", OFFERED, arguments=arguments, fill=fill, domain=domain)
if __name__ == "__main__":
    run(RECIPE)
