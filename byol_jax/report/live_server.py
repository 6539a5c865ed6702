"""Serves a page that follows runs while they go on, to browsers on this machine and no others."""

import contextlib
import http.server
import pathlib
import threading
from collections.abc import Callable, Sequence

from byol_jax.report import html_page, run_data, run_state
from byol_jax.report.run_data import ReportError

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")


class Live:
    """The newest page of some runs, made again when one of their files has changed.

    A run that is missing for a moment, since it is moved or begun anew, leaves the last page. To
    look for changes reads no file, so that open pages do not slow a run down.

    Args:
      paths: workdirs.
      refresh: called before each look at them, such as `bucket.Copy.refresh`.

    Raises:
      ReportError: a folder is missing or is not that of a run.
    """

    def __init__(self, paths: Sequence[str], refresh: Sequence[Callable[[], None]] = ()):
        self._paths, self._refresh = paths, refresh
        self._known: list[run_data.Metrics | None] = [None] * len(paths)
        self._lock = threading.Lock()  # several browsers ask at once
        self._version, self._page = "", b""
        self._render(self._find_version())

    def page(self) -> bytes:
        """The whole page."""
        self.version()
        return self._page

    def version(self) -> str:
        """Differs from an earlier one if the page does."""
        with self._lock, contextlib.suppress(ReportError):
            found = self._find_version()
            if found != self._version:
                self._render(found)
        return self._version

    def _find_version(self) -> str:
        """Of files, of whether runs are at work, and of how long they have been quiet."""
        for refresh in self._refresh:
            refresh()
        now, versions = run_data.now(), []
        for path in self._paths:
            folder = pathlib.Path(path).expanduser()
            times = run_data.changes(folder)
            quiet = (now - max(times, default=now)) // run_state.QUIET_SECONDS
            life = run_state.state(folder)
            versions.append(f"{sum(times):.4f}-{len(times)}-{life}-{quiet:.0f}")
        return ",".join(versions)

    def _render(self, version: str) -> None:
        runs = run_data.load_runs(self._paths, known=self._known)
        self._known = [run.metrics for run in runs]
        page = html_page.render(runs, now=run_data.now(), version=version)
        self._version, self._page = version, page.encode()


def make_server(
    paths: Sequence[str], *, port: int, refresh: Sequence[Callable[[], None]] = ()
) -> http.server.ThreadingHTTPServer:
    """A server on this machine's own address; ``serve_forever`` starts it.

    Raises:
      ReportError: a folder is missing or is not that of a run, or the port is taken.
    """
    live = Live(paths, refresh)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802, the name is the library's
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            if host not in HOSTS:  # a page from elsewhere that calls this address by its own name
                self.send_error(403)
            elif self.path == "/":
                self._answer(live.page(), "text/html; charset=utf-8")
            elif self.path == "/version":
                self._answer(live.version().encode(), "text/plain; charset=utf-8")
            else:
                self.send_error(404)

        def _answer(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    try:
        return _Server((ADDRESS, port), Handler)
    except (OSError, OverflowError) as error:
        raise ReportError(f"Cannot listen on port {port}: {error}. Give another --port.") from None


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64  # several browsers, each with several requests
    daemon_threads = True  # an open browser does not keep the command from ending

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that has gone away is none of our business."""


def serve(paths: Sequence[str], *, port: int, refresh: Sequence[Callable[[], None]] = ()) -> None:
    """Serves until Ctrl-C; arguments as of `Live`.

    Raises:
      ReportError: as `make_server` does.
    """
    server = make_server(paths, port=port, refresh=refresh)
    print(f"http://{ADDRESS}:{server.server_address[1]}  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
