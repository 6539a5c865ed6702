"""Who writes to a folder in a bucket: one object with a beat, since buckets have no locks.

Two that begin within the same moment both believe for at most a beat that the folder is theirs; the
one whose note was replaced then stops. That is noticed, not prevented.
"""

import json
import os
import platform
import secrets
import time
from collections.abc import Callable
from typing import Any

from byol_jax import config as config_lib
from byol_jax.workdir import bucket as bucket_lib

NAME = "writer.json"
BEAT_SECONDS = 30.0
DEAD_AFTER = 4 * BEAT_SECONDS  # without a new beat


class LostError(RuntimeError):
    """Another process has taken the folder over."""


class Lease:
    """Keeps other processes from a folder in a bucket as long as `beat` is called.

    Args:
      bucket: of the folder.
    """

    def __init__(self, bucket: bucket_lib.Bucket):
        self._bucket, self._owner, self._beats = bucket, secrets.token_hex(8), 0

    def take(
        self,
        *,
        say: Callable[[str], None],
        wait: Callable[[float], None] = time.sleep,
        dead_after: float = DEAD_AFTER,
    ) -> None:
        """Takes the folder, if need be after waiting whether its last writer is dead.

        Clocks of machines are not compared: a writer is alive if its note changes meanwhile.

        Raises:
          UsageError: another process is writing to it.
          bucket.BucketError: the bucket cannot be read or written to.
        """
        found = self._read()
        if found and not _is_gone(found):
            say(
                f"{self._bucket.address} was last written by {_name(found)}, which has not said "
                f"that it ended: waiting up to {dead_after:.0f} s for a sign of it..."
            )
            waited = 0.0
            while waited < dead_after:
                wait(BEAT_SECONDS / 3)
                waited += BEAT_SECONDS / 3
                now = self._read()
                if now is None:
                    break
                if now != found:
                    raise config_lib.UsageError(
                        f"Another run is using {self._bucket.address} ({_name(now)}): wait for it, "
                        "stop it, or give another --workdir."
                    )
        self._write()

    def beat(self) -> None:
        """Says that this process is alive.

        Raises:
          LostError: another process has taken the folder over.
        """
        found = self._read()
        if found and found.get("owner") != self._owner:
            raise LostError(f"{self._bucket.address} was taken over by {_name(found)}.")
        self._write()

    def release(self) -> None:
        """Says that the folder is free."""
        found = self._read()
        if found and found.get("owner") == self._owner:
            self._bucket.remove(NAME)

    def _read(self) -> dict[str, Any] | None:
        data = self._bucket.read(NAME)
        try:
            found = json.loads(data or b"null")
        except ValueError:
            found = None
        return found if isinstance(found, dict) and found else None

    def _write(self) -> None:
        self._beats += 1
        note = {
            "owner": self._owner,
            "process": os.getpid(),
            "machine": platform.node(),
            "beats": self._beats,
        }
        self._bucket.write(NAME, json.dumps(note).encode() + b"\n")


def _name(found: dict[str, Any]) -> str:
    return f"process {found.get('process')} on {found.get('machine')}"


def _is_gone(found: dict[str, Any]) -> bool:
    """Whether the last writer was a process of this machine that has ended."""
    process = found.get("process")
    if found.get("machine") != platform.node() or not isinstance(process, int):
        return False
    if process == os.getpid():  # as in a container that was started again
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
