"""Makes a page of what runs have learned, or plots for papers, from the files they left.

    python -m byol_jax.report RUN [RUN ...] [--out report.html]
    python -m byol_jax.report RUN --watch
    python -m byol_jax.report RUN --format=png,svg,pdf

RUN is the workdir of a pretraining or of an evaluation, also gs://... or s3://... The page of one
run is written into its folder, of one in a bucket into the folder where the command is given.
"""

import argparse
import pathlib
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import byol_jax
from byol_jax.report import bucket, html_page, run_data, writing
from byol_jax.report.run_data import ReportError

PLOTS = ("png", "svg", "pdf")
FORMATS = ("html", *PLOTS)


def write(paths: Sequence[str], out: pathlib.Path) -> pathlib.Path:
    """Writes the page of some runs, in one piece, and returns where it is.

    Raises:
      ReportError: a folder is missing or is not that of a run, or ``out`` cannot be written
        or is somebody's file.
    """
    writing.require_ours(out)
    page = html_page.render(run_data.load_runs(paths), now=run_data.now())
    return writing.write(out, lambda part: part.write_text(page, encoding="utf-8"))


def write_for(workdir: pathlib.Path) -> pathlib.Path | None:
    """Writes ``report.html`` into a run's folder; whatever goes wrong is a warning and None."""
    try:
        return write([str(workdir)], workdir / "report.html")
    except Exception as error:  # nothing in a picture is worth a run
        print(
            f"Warning: no report was written ({type(error).__name__}: {error}). To make it later: "
            f"python -m byol_jax.report {shlex.quote(str(workdir))}",
            file=sys.stderr,
        )
        return None


def main(arguments: Sequence[str]) -> None:
    """The command; a mistake ends in a message and status 2."""
    try:
        _run(_parse(arguments))
    except ReportError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)


def _run(options: argparse.Namespace) -> None:
    if options.out and bucket.is_address(options.out):
        raise ReportError(f"{options.out} is no folder here: give --out=report.html.")
    out = pathlib.Path(options.out).expanduser() if options.out else None
    place = _place(options.runs)
    copies = [bucket.Copy(path) if bucket.is_address(path) else None for path in options.runs]
    runs = [str(c.folder) if c else p for c, p in zip(copies, options.runs, strict=True)]
    if options.watch:
        from byol_jax.report import live_server

        if out or options.format != "html":
            raise ReportError("--watch serves a page and writes none: leave out --out, --format.")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it ends by Ctrl-C as planned
        refresh = [copy.refresh for copy in copies if copy]
        live_server.serve(runs, port=options.port, refresh=refresh)
        return
    formats = options.format.split(",")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ReportError(f"Unknown --format '{unknown[0]}'. Valid: {', '.join(FORMATS)}.")
    plots = [name for name in formats if name in PLOTS]
    if "html" in formats:
        if out and plots:
            raise ReportError("--out names one file: make the page and the plots one by one.")
        _show(write(runs, out or place / "report.html"))
    if plots:
        from byol_jax.report import figures  # the page needs no matplotlib

        found = run_data.load_runs(runs, is_whole=True)  # all values go into CSV files
        for path in figures.write(found, out or place / "plots", plots):
            _show(path)


def _show(path: pathlib.Path) -> None:
    """Prints where a file is, if somebody still reads; the file is there all the same."""
    try:
        print(path, flush=True)
    except (OSError, ValueError):
        sys.stdout = None  # else Python would try once more at its end


def _place(runs: Sequence[str]) -> pathlib.Path:
    """What belongs to one run is written into it; a comparison, or of a bucket, where one works."""
    is_folder = len(runs) == 1 and not bucket.is_address(runs[0])
    return pathlib.Path(runs[0]).expanduser() if is_folder else pathlib.Path()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the usage, which --help shows."""
        raise ReportError(f"{message}. {self.prog} --help shows what there is.")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m byol_jax.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="workdir of a run")
    parser.add_argument("--out", help="page or, with --format, folder of plots")
    parser.add_argument(
        "--format", default="html", help=f"some of {','.join(FORMATS)}; plots come with CSV files"
    )
    parser.add_argument(
        "--watch", action="store_true", help="serve a page on this machine that follows the run"
    )
    parser.add_argument("--version", action="version", version=f"byol_jax {byol_jax.__version__}")
    parser.add_argument("--port", type=int, default=8321, help="of --watch; 0: any free one")
    return parser.parse_args(arguments)
