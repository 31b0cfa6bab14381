"""`fcn-keras report`: a run's folder, or several -> one HTML page."""

from __future__ import annotations

import sys

from fcn_keras.cli.early import check_place
from fcn_keras.cli.shared import import_tensorflow, progress
from fcn_keras.errors import UserError, printable
from fcn_keras.files.writing import require_replaceable


def add(commands) -> None:
    parser = commands.add_parser(
        "report",
        help="write an HTML report of a run, or compare runs",
        description="Writes a run's curves, metrics by class, confusion matrix, worst and best "
        "validation images, settings and the command that reproduces it to one self-contained "
        "HTML file. Given several runs, it compares them: settings that differ, curves, metrics "
        "by class, and the images on which they differ most.",
    )
    parser.set_defaults(command=_report, parser=parser)
    parser.add_argument("run", nargs="+", metavar="RUN", help="run folders, finished or not")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="HTML file to write (RUN/report.html; comparison.html for several runs)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=4,
        metavar="N",
        help="number of worst and of best images, or of those on which runs differ most (4)",
    )
    parser.add_argument("--dataset", help="new place of the runs' data set, if it has moved")
    parser.add_argument("--data-dir", metavar="DIR", help="folder that now holds VOCdevkit")


def _report(arguments) -> int:
    if not 0 <= arguments.images <= 20:
        raise UserError(f"--images must be 0 to 20. Received: {arguments.images}.")
    from fcn_keras.data import labels_of
    from fcn_keras.runs.folder import RunFolder, run_names  # needs NumPy, which not all commands do

    runs = [RunFolder(path) for path in arguments.run]
    configs = [run.read_config() for run in runs]
    for run in runs:
        run.read_labels(), run.read_origin(), run.require_history()
        if run.metrics.is_file():
            run.read_metrics()
    run_names(arguments.run)
    several = len(runs) > 1
    output = arguments.output or ("comparison.html" if several else runs[0].path / "report.html")
    check_place(output)
    kind = b"fcn-keras comparison" if several else b"fcn-keras report"
    require_replaceable("--output", output, b'content="' + kind + b'"')
    if arguments.dataset or arguments.data_dir:
        for config in configs:
            dataset, data_dir = arguments.dataset or config.dataset, arguments.data_dir
            labels_of(dataset, "val", data_dir or config.data_dir)
    import_tensorflow()
    from fcn_keras.evaluation.report.comparison import Comparison, compare
    from fcn_keras.evaluation.report.contents import Contents, gather
    from fcn_keras.evaluation.report.page import write_report

    options = {
        "dataset": arguments.dataset,
        "data_dir": arguments.data_dir,
        "images": arguments.images,
        "progress": progress,
    }
    contents: Contents | Comparison = (
        compare(arguments.run, **options) if several else gather(arguments.run[0], **options)
    )
    for note in contents.notes:
        print(f"Note: {printable(note)}", file=sys.stderr)
    write_report(contents, output)
    print(f"Report: {output}")
    return 0
