"""A dataset of one's own: a folder of images, perhaps one of label maps, and a table of what their ids or colours
mean.
"""

import argparse
import filecmp
import os
import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from adaptseg.base.images import IMAGES, LABELS, left_out, list_images, natural, normal, read_image
from adaptseg.base.parallel import parallel_map
from adaptseg.datasets.archives import whole_file
from adaptseg.datasets.masks import Entry, read_mask, read_table, write_table
from data_prep.prepare import Recipe, run

OFFERED = """
Your own images, with label maps or without:
  python -m data_prep.custom IMAGES --name harbour                      a target: images alone
  python -m data_prep.custom IMAGES LABELS ids.csv --name harbour       with label maps, of ids or of colours
ids.csv has the columns id,name,red,green,blue; an empty name is a known id that is ignored. IMAGES and LABELS may be
one folder. --dry-run only shows what is found. Folders train, val and test in IMAGES stay what they are; without them
the last tenth by name becomes val (--val 0.1; --val 2: two images).
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
        help="the last part by name, or number of images, kept for val where IMAGES has no folders train and val (0.1)",
    )
    p.add_argument("--dry-run", action="store_true", help="show what is found and what would be done")


def domain(args: argparse.Namespace) -> str:
    "folder:OUT/NAME."
    if not re.fullmatch(r"\w[\w.-]*", args.name):
        raise ValueError(f"--name: expected letters, digits, '_', '-' and '.', found {args.name!r}")
    return f"folder:{(args.out / args.name).absolute()}"


class Source:
    "The files of one side, by path without ending, and what was left out of it."

    def __init__(self, folder: Path, ends=IMAGES):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        found, left = list_images(folder, ends)
        self.left, self.files = left, {}
        for path in found:
            key = normal(path.relative_to(folder).with_suffix(""))
            if key in self.files:
                raise ValueError(f"{self.files[key]} and {path} would both be called {key}: rename one of them")
            self.files[key] = path
        self.gone = [path for path, why in left.items() if why == "a link to nothing"]

    @property
    def lossy(self) -> list[Path]:
        "Images that lose what they are given, so that they are no label maps."
        return [p for p in self.left if p.name.lower().endswith(IMAGES) and not p.name.lower().endswith(LABELS)]


def matched(images: dict, labels: dict) -> tuple[dict, str]:
    "Image key -> label path, and what labels' names have more, such as _labelIds; no file is its own label."
    names = {key: key + path.suffix for key, path in images.items()}
    ways = Counter()
    for key in list(images)[:50]:
        for known in labels:
            for whole, start in ((False, key), (True, names[key])):
                if known.startswith(start) and not same(labels[known], images[key]):
                    ways[whole, known[len(start) :]] += 1
    if not ways:
        return {}, ""
    whole, more = max(ways, key=lambda way: (ways[way], -len(way[1]), way[0]))
    found = {key: labels.get((names[key] if whole else key) + more) for key in images}
    return {k: p for k, p in found.items() if p and not same(p, images[k])}, more


def same(a: Path, b: Path) -> bool:
    "One file?"
    return os.path.abspath(a) == os.path.abspath(b)


def split_of(keys: list, val: float) -> dict[str, str]:
    "Key -> split: that of its first folder, or by name; val below 1 is a part, from 1 on a number of images."
    if all(k.split("/")[0] in ("train", "val", "test") and "/" in k for k in keys):
        return {k: k.split("/")[0] for k in keys}
    if not (0 <= val < 1 or val == int(val) < len(keys)):
        raise ValueError(f"--val: expected a part in 0..1, or a number of images below {len(keys)}, found {val:g}")
    held = int(val) if val >= 1 else len(keys) - int(np.ceil((1 - val) * len(keys)))
    return {k: "val" if i >= len(keys) - held else "train" for i, k in enumerate(sorted(keys, key=natural))}


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
    if labels and "val" not in splits.values():
        print(f"no val split: a tenth of {len(images)} is none; --val 1 keeps one image, --val 2 two")
    jobs = [(images[k], labels.get(k), splits[k], flat(k)) for k in images]
    forget(part, {f"{side}/{split}/{name}" for *_, split, name in jobs for side in ("images", "labels")})
    notes = [note for note in parallel_map(partial(bring, part, table), jobs, args.jobs, args.name) if note]
    for note, n in Counter(notes).items():
        print(f"{n} of {len(labels)} label maps: {note}")
    if table:
        write_table(table, part / "ids.csv")


def find(args) -> tuple:  # images, labels, the table's lines or None, ending
    "What the sources hold; an error if they do not fit."
    if len(args.source) not in (1, 3):
        raise ValueError("expected IMAGES, or IMAGES LABELS ids.csv")
    found = Source(args.source[0])
    images = found.files
    if not images:
        raise ValueError(
            f"{args.source[0]} holds no images ({', '.join(IMAGES)})"
            + (f"\n{left_out(found.left)}" if found.left else "")
        )
    if found.gone and not args.partial:
        raise ValueError(f"{found.gone[0]} is a link to nothing; --partial leaves it out")
    if found.left:
        print(left_out(found.left))
    labels, table, more = {}, None, ""
    if len(args.source) == 3:
        images, labels, more = pairs(args, images)
        table = read_table(args.source[2])
    splits = split_of(list(images), args.val)
    twice = [name for name, n in Counter(f"{splits[k]}/{flat(k)}" for k in images).items() if n > 1]
    if twice:
        raise ValueError(f"two images would be called {twice[0]}: rename one")
    return images, labels, table, more


def pairs(args, images: dict) -> tuple[dict, dict, str]:  # images, labels by image, what labels' names have more
    "Which label map is whose; a ValueError where one of either is alone."
    source = Source(args.source[1], LABELS)
    labels, more = matched(images, source.files)
    taken = {os.path.abspath(p) for p in labels.values()}
    images = {k: p for k, p in images.items() if os.path.abspath(p) not in taken}  # of one folder for both
    labels = {k: p for k, p in labels.items() if k in images}
    pictures = set(map(os.path.abspath, images.values()))
    alone = [k for k in images if k not in labels]
    orphans = [k for k, p in source.files.items() if os.path.abspath(p) not in taken | pictures]
    lossy = [p for p in source.lossy if os.path.abspath(p) not in pictures]
    if alone and lossy:
        raise ValueError(
            f"{len(lossy)} masks are lossy images, {lossy[0].name} among them: JPEG and its like change "
            f"colours and ids, so these are no label maps. Export them as PNG"
        )
    if (alone or orphans) and not (args.partial or args.dry_run):
        raise ValueError(
            f"{len(alone)} images have no label map ({', '.join(alone[:3])}), {len(orphans)} of {len(source.files)} "
            f"label maps have no image ({', '.join(orphans[:3])}). A label map is called as its image, or as all "
            f"others with one ending more (such as _labelIds); --partial leaves these out, --dry-run shows more"
        )
    if args.partial:
        images = {k: p for k, p in images.items() if k in labels}
        if not images:
            raise ValueError(f"no image of {args.source[0]} has a label map in {args.source[1]}")
    return images, labels, more


def describe(images, labels, table, more, splits) -> str:
    "What --dry-run shows."
    sizes = {read_image(p).size for p in list(images.values())[:20]}
    lines = [
        f"{len(images)} images, of {', '.join(f'{w}x{h}' for w, h in sorted(sizes))} (the first 20)",
        *(f"  {s}: {n}" for s, n in Counter(splits.values()).items()),
    ]
    if not table:
        return "\n".join([*lines, "no label maps: a target"])
    alone = [k for k in images if k not in labels]
    lines.append(f"{len(labels)} label maps with an image" + (f"; names end in {more!r}" if more else ""))
    lines += [f"  without a label map: {k}" for k in alone[:5]]
    if labels:
        first = next(iter(labels.values()))
        with Image.open(first) as image:
            painted = ", painted in colours," if image.mode in ("RGB", "RGBA") else ""
        ids = ", ".join(map(str, np.unique(read_mask(first, table)[0])))
        lines.append(f"the first one, {first.name}{painted} holds the ids {ids}")
    return "\n".join([*lines, f"classes: {', '.join(dict.fromkeys(e.name for e in table if e.name))}"])


def forget(part: Path, wanted: set[str]) -> None:
    "Remove what an interrupted preparation of other files left."
    for side in ("images", "labels"):
        for path in [p for p in (part / side).rglob("*") if p.is_file()]:
            if path.relative_to(part).with_suffix("").as_posix() not in wanted:
                path.unlink()


def bring(part: Path, table: list[Entry] | None, job) -> str:  # what had to be decided about the label map
    "One image and its label map into their places; a copy that an interrupted call left is compared with its source."
    image, label, split, name = job
    to = part / "images" / split / f"{name}{image.suffix.lower()}"
    for other in to.parent.glob(f"{glob_of(name)}.*"):
        if other != to:
            other.unlink()  # of the same name, from another source
    if not (to.is_file() and filecmp.cmp(image, to, shallow=False)):
        with whole_file(to) as f:
            f.write(image.read_bytes())
    note = ""
    if label:
        ids, note = read_mask(label, table)
        if ids.min() < 0:
            raise ValueError(f"{label}: a PNG cannot hold the id {ids.min()}: use 0..65535 in the table")
        with whole_file(part / "labels" / split / f"{name}.png") as f:
            Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16)).save(f, "png")
    return note


def glob_of(name: str) -> str:
    "A pattern that means a name and nothing else."
    return re.sub(r"([\[*?])", r"[\1]", name)


RECIPE = Recipe("custom", OFFERED, arguments=arguments, fill=fill, domain=domain)
if __name__ == "__main__":
    run(RECIPE)
