"""`fcn-keras data`: inspects a data set, or makes one from images and masks."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from fcn_keras.cli.early import check_local_place
from fcn_keras.cli.shared import SHOWN, print_next, print_problems, progress
from fcn_keras.errors import UserError, printable
from fcn_keras.files.writing import require_replaceable, write_file

SOFTWARE = "fcn-keras data check"  # in the picture's metadata


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
    check.add_argument(
        "--pictures",
        metavar="FILE.png",
        help="write a picture of masks over their photographs, those of rare classes first",
    )
    check.add_argument(
        "--all",
        action="store_true",
        help=f"list all problems, not just {SHOWN} of those that differ only in names and numbers",
    )
    check.set_defaults(command=_check, parser=check)


def _add_convert(data) -> None:
    convert = data.add_parser(
        "convert",
        help="make a data set from what a labelling tool wrote",
        description="Writes a new folder in VOC's layout, or adds to one. SOURCE is what a "
        "labelling tool exported, or a folder of photographs and masks as image files; --images "
        "and --masks name these two folders if they are not found. Masks hold class ids or the "
        "colours in the list of classes; without a list, their colours are listed. If there are "
        "problems, they are listed and nothing is written.",
    )
    convert.set_defaults(command=_convert, parser=convert)
    convert.add_argument("source", nargs="?", metavar="SOURCE", help="exported file or folder")
    convert.add_argument(
        "--format", default="auto", metavar="NAME", help="format of SOURCE (auto: detected)"
    )
    convert.add_argument("--images", metavar="DIR", help="folder of photographs")
    convert.add_argument("--masks", metavar="DIR", help="folder of masks as image files")
    convert.add_argument(
        "--classes",
        metavar="FILE",
        help="class list: one name per line, id 0 first; a tab and a colour 'R G B' may follow; "
        "lists of other programs are read, too (default: one beside the masks)",
    )
    convert.add_argument(
        "--mask-suffix", metavar="TEXT", help="ending of masks' names, such as _mask (detected)"
    )
    convert.add_argument(
        "--binary", metavar="NAME", help="class of white (255) in masks of black and white"
    )
    convert.add_argument(
        "--mask-values",
        choices=("ids", "colors"),
        help="what masks hold: ids, also as palette indices or in three equal channels, or the "
        "colours of classes, also in palettes (ids, but colours if channels differ)",
    )
    convert.add_argument(
        "--ids-from", type=int, metavar="N", help="id of the first class in masks of ids (0)"
    )
    convert.add_argument(
        "--unlabelled",
        type=int,
        nargs="+",
        metavar="ID",
        help="ids of unlabelled pixels in masks, beside 255",
    )
    convert.add_argument(
        "--unlabelled-color",
        type=int,
        nargs=3,
        action="append",
        metavar=("R", "G", "B"),
        help="colour of unlabelled pixels in masks, beside 224 224 192; may be repeated",
    )
    convert.add_argument(
        "--nearest",
        action="store_true",
        help="give colours of no class the class of the nearest colour, as for masks saved as JPEG",
    )
    convert.add_argument(
        "--exif",
        choices=("apply", "ignore"),
        help="whether masks fit photographs that EXIF turns as they are shown (apply) or stored "
        "(ignore); by default their sizes decide",
    )
    convert.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="OLD,OLD=NEW",
        help="merge or rename classes; without NEW their pixels become unlabelled",
    )
    place = convert.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", metavar="DIR", help="new folder to write")
    place.add_argument(
        "--into",
        metavar="DIR",
        help="data set of the same classes to add to; photographs that it has are replaced and "
        "keep their split",
    )
    convert.add_argument(
        "--val", type=float, default=0.2, metavar="SHARE", help="share of validation images (0.2)"
    )
    convert.add_argument(
        "--group-by",
        metavar="PATTERN",
        help="regular expression; images whose names contain the same match stay in one split",
    )
    convert.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed for choosing validation images (0)"
    )


def _check(arguments) -> int:
    from fcn_keras.data.check import check_directory
    from fcn_keras.data.class_counts import balanced_weights

    if arguments.pictures:
        if not arguments.pictures.lower().endswith(".png"):
            raise UserError(f"--pictures must end in .png. Received: {arguments.pictures}.")
        require_replaceable("--pictures", arguments.pictures, SOFTWARE.encode())
        check_local_place(arguments.pictures)
    report = check_directory(arguments.directory, progress)
    classes = report.labels.names if report.labels else ()
    for split, size in report.split_sizes.items():
        names = [*classes, "(unlabelled)"]
        pixels, images = report.pixels[split], report.images[split]
        width = max(map(len, names))
        print(f"{printable(split)}: {size} images")
        title, weights = "", [""] * len(names)
        if split == "train" and classes:  # what --class-weights auto chooses
            title = "  weight"
            weights = [*(f"  {weight:6g}" for weight in balanced_weights(pixels)), ""]
        print(f"  {'class':{width}}  images       pixels   share{title}")
        for name, image_count, pixel_count, weight in zip(names, images, pixels, weights):
            share = pixel_count / max(1, pixels.sum())
            print(f"  {name:{width}}  {image_count:6}  {pixel_count:11}  {share:6.2%}{weight}")
    if report.sizes:
        print("Sizes (height×width): " + _sizes(report.sizes))
    if arguments.pictures:
        _write_pictures(arguments, report)
    for note in report.notes:
        print(f"Note: {printable(note)}", file=sys.stderr)
    print_problems(report.problems, shown=None if arguments.all else SHOWN)
    if report.problems:
        return 1
    print_next(("train", "--dataset", arguments.directory))
    return 0


def _sizes(sizes) -> str:
    """The size of all images, or the median and the bounds of height and width."""
    import numpy as np

    (low, narrow), (height, width), (high, wide) = np.percentile(sizes, (0, 50, 100), axis=0)
    if (low, narrow) == (high, wide):
        return f"{height:.0f}×{width:.0f}"
    return f"{height:.0f}×{width:.0f} (median), {low:.0f}×{narrow:.0f} to {high:.0f}×{wide:.0f}"


def _write_pictures(arguments, report) -> None:
    from fcn_keras.data.contact_sheet import draw_contact_sheet

    figure = draw_contact_sheet(arguments.directory, report.labels, report.counts)
    if figure is None:
        print(f"{arguments.pictures}: not written, as no image and its mask can be read.")
        return
    metadata = {"Software": SOFTWARE}
    write_file(
        arguments.pictures, lambda path: figure.savefig(path, format="png", metadata=metadata)
    )
    print(f"Pictures: {arguments.pictures}")


def _convert(arguments) -> int:
    output = arguments.into or arguments.output
    check_local_place(output, folder=True)
    from fcn_keras.data.conversion import convert
    from fcn_keras.data.conversion.source import Options

    if arguments.source is None and not (arguments.images and arguments.masks):
        arguments.parser.error("give a SOURCE, or --images and --masks")
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Options)}
    paths = {name: given[name] and Path(given[name]) for name in ("images", "masks", "classes")}
    done = convert(
        arguments.source,
        output,
        arguments.format,
        Options(**{**given, **paths}),
        into=bool(arguments.into),
        mapping=arguments.map,
        val=arguments.val,
        group_by=arguments.group_by,
        seed=arguments.seed,
        progress=progress,
    )
    for reason, places in done.findings.left_out.items():
        for place in places[:SHOWN]:
            print(f"left out, {reason}: {printable(place)}", file=sys.stderr)
        if len(places) > SHOWN:
            print(f"left out, {reason}: {len(places) - SHOWN} more", file=sys.stderr)
    for note in done.findings.notes:
        print(f"Note: {printable(note)}", file=sys.stderr)
    if done.findings.class_list:
        print("\n".join(done.findings.class_list))
    if done.findings.problems:
        # A class list on standard output is meant to be saved.
        end = sys.stderr if done.findings.class_list else None
        print_problems(done.findings.problems, " Nothing was written.", end=end)
        return 1
    sizes = ", ".join(f"{name} {size}" for name, size in done.sizes.items())
    if arguments.into:
        kinds = ("added", "replaced", "unchanged")
        print(", ".join(f"{kind}: {done.changes.get(kind, 0)}" for kind in kinds))
    print(f"{output}: {sizes} images. Format: {done.format}.")
    _print_classes(done.labels.names, done.pixels)
    print_next(("data", "check", output), ("train", "--dataset", output))
    return 0


def _print_classes(names, pixels) -> None:
    """The share of each class's pixels; the last of `pixels` are unlabelled."""
    names = [*names, "(unlabelled)"]
    width = max(map(len, names))
    print(f"  {'class':{width}}       pixels   share")
    for name, count in zip(names, pixels):
        print(f"  {name:{width}}  {count:11}  {count / max(1, pixels.sum()):6.2%}")
