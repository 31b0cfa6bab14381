"""`fcn-keras weights`: published weights, listed and downloaded."""

from __future__ import annotations

from fcn_keras.cli.early import check_local_place
from fcn_keras.cli.shared import print_next
from fcn_keras.files.published import PUBLISHED, cached, fetched


def add(commands) -> None:
    parser = commands.add_parser(
        "weights",
        help="list or download published weights",
        description="Networks and backbones that others have trained and published. They are "
        "downloaded when they are first used; fetch does so beforehand.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser(
        "list",
        help="list their names",
        description="Prints the names of published weights, their sizes, and whether they are "
        "on this machine.",
    )
    listing.set_defaults(command=_list, parser=listing)
    fetching = actions.add_parser(
        "fetch",
        help="download them",
        description="Downloads published weights, for example for a machine that is offline "
        "later. A download that was interrupted is continued.",
    )
    fetching.set_defaults(command=_fetch, parser=fetching)
    fetching.add_argument(
        "name", choices=PUBLISHED, metavar="NAME", help=f"one of {', '.join(PUBLISHED)}"
    )
    fetching.add_argument(
        "--to",
        metavar="DIR",
        help="folder to download to ($KERAS_HOME/fcn_keras or ~/.keras/fcn_keras, where the name "
        "finds them)",
    )


def _list(arguments) -> int:
    width = max(map(len, PUBLISHED))
    for name, known in PUBLISHED.items():
        here = "downloaded" if cached(name) else ""
        print(f"{name:{width}}  {known.mib:4.0f} MiB  {here:10}  {known.content}")
    print_next(
        ("predict", "--model", next(iter(PUBLISHED)), "--output", "results", "PHOTOS"),
        ("weights", "fetch", "NAME", "--to", "DIR"),
    )
    return 0


def _fetch(arguments) -> int:
    name = arguments.name
    if arguments.to is not None:
        check_local_place(arguments.to, folder=True)
    path = fetched(name, arguments.to)
    print(f"Weights: {path}")
    given = name if arguments.to is None else path
    if PUBLISHED[name].is_fcn:
        print_next(("predict", "--model", given, "--output", "results", "PHOTOS"))
    else:
        backbone = PUBLISHED[name].backbone
        print_next(("train", "--dataset", "DATA", "--backbone", backbone, "--weights", given))
    return 0
