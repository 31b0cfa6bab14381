"""`fcn-keras data`: what is in a data set."""

from __future__ import annotations

import sys

from fcn_keras.cli.shared import progress


def add(commands) -> None:
    data = commands.add_parser("data", help="inspect a data set").add_subparsers(
        required=True, metavar="COMMAND"
    )
    check = data.add_parser(
        "check",
        help="find what is wrong with a folder of images and masks",
        description="Counts images and pixels by class in a folder in VOC's layout, and lists "
        "every problem. The exit code is 1 if there is any.",
    )
    check.add_argument("directory", metavar="DIR")
    check.set_defaults(command=_check, parser=check)


def _check(arguments) -> int:
    from fcn_keras.datasets.check import check_directory

    report = check_directory(arguments.directory, progress)
    for split, size in report.split_sizes.items():
        names = [*report.labels.names, "(unlabelled)"]
        pixels, images = report.pixels[split], report.images[split]
        width = max(map(len, names))
        print(f"{split}: {size} images\n  {'class':{width}}  images       pixels   share")
        for name, image_count, pixel_count in zip(names, images, pixels):
            share = pixel_count / max(1, pixels.sum())
            print(f"  {name:{width}}  {image_count:6}  {pixel_count:11}  {share:6.2%}")
    for problem in report.problems:
        print(f"problem: {problem}", file=sys.stderr)
    print("1 problem." if len(report.problems) == 1 else f"{len(report.problems)} problems.")
    return 1 if report.problems else 0
