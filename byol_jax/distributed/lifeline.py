"""Connections by which processes learn at once that one of them is gone.

The system closes the connection of a process that ends, however it ends, and keeps that of one that
only stands still. Where hosts cannot reach each other's ports, heartbeats alone have to do.
"""

import contextlib
import socket
import threading
from collections.abc import Callable

CONNECT_SECONDS = 10
# A process without a heartbeat for so long counts as dead; JAX gives up after 60.
SILENT_SECONDS = 50.0


def listen(on_gone: Callable[[int], None]) -> int:
    """Waits in the background for `connect` of other processes.

    Args:
      on_gone: called with the number of a process whose connection has closed.

    Returns:
      The port.
    """
    if socket.has_dualstack_ipv6():
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        listener = socket.create_server(("", 0))

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_greet, args=(connection, on_gone), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def _greet(connection: socket.socket, on_gone: Callable[[int], None]) -> None:
    with connection:
        index = connection.recv(16, socket.MSG_WAITALL)
        if len(index) == 16 and index.isdigit():  # and no scanner of ports
            _watch(connection, int(index), on_gone)


def connect(host: str, port: int, index: int, on_gone: Callable[[int], None]) -> None:
    """Connects process ``index`` to process 0, which listens there.

    Args:
      host: of process 0.
      port: what `listen` gave there.
      index: of this process.
      on_gone: called with 0 when process 0 is gone.
    """
    try:
        connection = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
    except OSError:
        return
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.sendall(b"%016d" % index)
    threading.Thread(target=_watch, args=(connection, 0, on_gone), daemon=True).start()


def is_reachable(host: str, port: str) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _watch(connection: socket.socket, other: int, on_gone: Callable[[int], None]) -> None:
    with connection, contextlib.suppress(OSError):
        connection.recv(1)  # nothing is sent; it returns when the connection closes
    on_gone(other)
