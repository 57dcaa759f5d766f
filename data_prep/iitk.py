"""IITK: fixed campus cameras, each given as a video or as a folder of frames; yours can take their place."""

import argparse
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from adaptseg.datasets.archives import gather, whole_file
from adaptseg.base.images import IMAGES, encoded, frames_in, read_image
from adaptseg.base.parallel import parallel_map
from adaptseg.reports.video import change, is_video, read_frames
from data_prep.prepare import Recipe, run, signature

OFFERED = """
IITK: 6,224 frames of five surveillance cameras on a campus (1,079, 2,255, 1,000, 810 and 1,080 of cameras 1 to 5).
They are not public; the authors of the report have them. Any fixed cameras of your own can take their place: give one
video or one folder of frames for each camera, in order. Faces and number plates can be recognised on such pictures:
you need the consent, or the law, that allows you to use them.
"""


def arguments(p: argparse.ArgumentParser) -> None:
    "What is special about films."
    p.add_argument("--rate", type=float, default=1, help="frames a second taken from a video (1)")
    p.add_argument("--every", type=int, default=1, help="of a folder of frames, take each n-th (1)")
    p.add_argument("--val", type=float, default=0.1, help="the last part of each camera's time, kept for val (0.1)")
    p.add_argument(
        "--drop-still",
        type=float,
        metavar="T",
        help="leave out frames that differ from the last kept one by less than T of 255 (2 is little more than noise)",
    )


def fill(recipe: Recipe, args: argparse.Namespace, part: Path) -> None:
    "The frames of every camera, split by time; or folders that are sorted already."
    if not (0 <= args.val < 1 and args.rate > 0 and args.every > 0):
        raise ValueError(f"expected 0 <= val < 1, rate > 0 and every > 0, found {args.val}, {args.rate}, {args.every}")
    if len(args.source) == 1 and (args.source[0] / "leftImg8bit").is_dir():
        return sorted_already(args, part)
    if len(args.source) > 5:
        raise ValueError(f"expected up to five cameras, found {len(args.source)} sources")
    options = dict(rate=args.rate, every=args.every, val=args.val, still=args.drop_still)
    parallel_map(partial(one_camera, part, options), list(enumerate(args.source, 1)), args.jobs, "cameras")


def sorted_already(args, part) -> None:
    "A folder in the very layout, copied."
    gather(args.source[0], part, place, args.link, args.jobs)


def place(name: str) -> str | None:
    "leftImg8bit/train/camera1/JPEGImages/00314.jpg."
    found = re.search(
        r"(?:^|/)(leftImg8bit/(?:train|val)/camera\d+/JPEGImages/[^/.][^/]*\.(?:jpe?g|png))$", name, re.IGNORECASE
    )
    return found and found[1]


def one_camera(part: Path, options: dict, camera) -> None:
    "Write the frames of one camera; those of its last part of time are val."
    number, source = camera
    folder = part / "leftImg8bit"
    done = folder / f".camera{number}"  # written last: a camera that was stopped begins again
    made_of = f"{source} {signature([source])} {options}"
    if done.is_file() and done.read_text(encoding="utf-8") == made_of:
        return
    for split in ("all", "train", "val"):
        shutil.rmtree(folder / split / f"camera{number}", ignore_errors=True)
    kept, last = [], None
    for index, frame in frames(source, options):
        if options["still"] is not None and last is not None and change(last, rgb(frame)) < options["still"]:
            continue
        last = rgb(frame)
        kept.append(write_frame(folder / "all" / f"camera{number}", index, frame))
    if not kept:
        raise ValueError(f"{source} holds no frames: expected a video, or a folder of images ({', '.join(IMAGES)})")
    total = max(int(p.stem) for p in kept)
    for path in kept:
        split = "val" if int(path.stem) > (1 - options["val"]) * total else "train"
        to = folder / split / f"camera{number}" / "JPEGImages" / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        path.replace(to)
    path.parent.rmdir()
    done.write_text(made_of, encoding="utf-8")


def frames(source: Path, options: dict):
    "Pairs of a number from 1, which grows with time, and a frame (H, W, 3) or the file of one."
    if source.is_dir():
        yield from enumerate(frames_in(source)[:: options["every"]], 1)
    elif is_video(source):
        yield from ((i, frame) for i, (_, frame) in enumerate(read_frames(source, options["rate"]), 1))
    else:
        raise ValueError(f"{source} is neither a video nor a folder of frames")


def rgb(frame) -> np.ndarray:
    "A frame, or that in a file."
    return frame if isinstance(frame, np.ndarray) else np.asarray(read_image(frame))


def write_frame(folder: Path, index: int, frame) -> Path:
    "A frame of a video as JPEG (quality 95); a file as it is."
    path = folder / f"{index:05}{'.jpg' if isinstance(frame, np.ndarray) else frame.suffix.lower()}"
    with whole_file(path) as f:
        if isinstance(frame, np.ndarray):
            f.write(encoded(Image.fromarray(frame), "jpeg", quality=95))
        else:
            f.write(frame.read_bytes())
    return path


def settle(folder: Path) -> None:
    "Marks of finished cameras go."
    for mark in (folder / "leftImg8bit").glob(".camera*"):
        mark.unlink()
    if (rest := folder / "leftImg8bit" / "all").is_dir():
        rest.rmdir()


RECIPE = Recipe("iitk", OFFERED, place, settle, arguments=arguments, fill=fill, counted=False)
if __name__ == "__main__":
    run(RECIPE)
