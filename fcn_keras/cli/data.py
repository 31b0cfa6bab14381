"""`fcn-keras data`: inspects a data set, or makes one from images and masks."""

from __future__ import annotations

import sys

from fcn_keras.cli.early import check_local_place
from fcn_keras.cli.shared import print_next, print_problems, progress
from fcn_keras.errors import printable


def add(commands) -> None:
    data = commands.add_parser("data", help="check or make a data set").add_subparsers(
        required=True, metavar="COMMAND"
    )
    _add_check(data)
    _add_convert(data)


def _add_check(data) -> None:
    check = data.add_parser(
        "check",
        help="find problems in a folder of images and masks",
        description="Counts the images and pixels of each class in a folder in VOC's layout, and "
        "lists every problem. The exit code is 1 if there are any.",
    )
    check.add_argument("directory", metavar="DIR", help="folder in VOC's layout")
    check.set_defaults(command=_check, parser=check)


def _add_convert(data) -> None:
    convert = data.add_parser(
        "convert",
        help="make a data set from a folder of images and a folder of masks",
        description="Writes a new folder in VOC's layout from images and masks of the same names. "
        "Masks hold class ids, or the colours given in the list of classes. From labelme's export, "
        "use JPEGImages, SegmentationClass (SegmentationClassPNG in older versions) and "
        "class_names.txt. If there are problems, they are listed and nothing is written.",
    )
    convert.set_defaults(command=_convert, parser=convert)
    convert.add_argument("--images", required=True, metavar="DIR", help="folder of JPEG/PNG images")
    convert.add_argument("--masks", required=True, metavar="DIR", help="folder of PNG masks")
    convert.add_argument(
        "--classes",
        required=True,
        metavar="FILE",
        help="class list: one name per line, id 0 first; a tab and a colour 'R G B' may follow",
    )
    convert.add_argument("--output", required=True, metavar="DIR", help="new folder to write")
    convert.add_argument(
        "--val", type=float, default=0.2, metavar="SHARE", help="share of validation images (0.2)"
    )
    convert.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed for choosing validation images (0)"
    )


def _check(arguments) -> int:
    from fcn_keras.data.check import check_directory

    report = check_directory(arguments.directory, progress)
    classes = report.labels.names if report.labels else ()
    for split, size in report.split_sizes.items():
        names = [*classes, "(unlabelled)"]
        pixels, images = report.pixels[split], report.images[split]
        width = max(map(len, names))
        print(f"{printable(split)}: {size} images")
        print(f"  {'class':{width}}  images       pixels   share")
        for name, image_count, pixel_count in zip(names, images, pixels):
            share = pixel_count / max(1, pixels.sum())
            print(f"  {name:{width}}  {image_count:6}  {pixel_count:11}  {share:6.2%}")
    print_problems(report.problems)
    if report.problems:
        return 1
    print_next(("train", "--dataset", arguments.directory))
    return 0


def _convert(arguments) -> int:
    check_local_place(arguments.output, folder=True)
    from fcn_keras.data.conversion import convert_masks

    done = convert_masks(
        arguments.images,
        arguments.masks,
        arguments.classes,
        arguments.output,
        arguments.val,
        arguments.seed,
        progress,
    )
    for path in done.unpaired:
        print(f"left out, as it has no partner: {printable(str(path))}", file=sys.stderr)
    if done.problems:
        print_problems(done.problems, " Nothing was written.")
        return 1
    sizes = ", ".join(f"{name} {size}" for name, size in done.sizes.items())
    print(f"{arguments.output}: {sizes} images.")
    print_next(("data", "check", arguments.output), ("train", "--dataset", arguments.output))
    return 0
