"""A folder of frames, or of predictions, as an mp4: `python -m data_prep.video FRAMES out.mp4 --rate 10`."""

import argparse
from pathlib import Path

import numpy as np

from adaptseg.base.images import frames_in, read_image
from adaptseg.reports.video import write_video


def main(argv: list[str] | None = None) -> None:
    "The command."
    p = argparse.ArgumentParser("python -m data_prep.video", description=__doc__)
    p.add_argument("frames", type=Path, help="a folder of images, taken by name")
    p.add_argument("out", type=Path, help="the .mp4 to write")
    p.add_argument("--rate", type=float, default=25, help="frames a second (25)")
    args = p.parse_args(argv)
    try:
        files = frames_in(args.frames)
        n = write_video(args.out, (np.asarray(read_image(f)) for f in files), args.rate)
    except (ValueError, OSError) as e:
        raise SystemExit(f"data_prep.video: {e}") from None
    print(f"{args.out}: {n} frames, {n / args.rate:.1f} s")


if __name__ == "__main__":
    main()
