"""A run whose workdir is in a bucket works in a folder here, which is uploaded while it goes on.

Appending, locks, renames and syncs to disk, on which runs rely, are those of the local folder. The
bucket gets whole objects: first those of finished checkpoints and other new or changed files, then
the list of all of them (`LIST`), which is what a run that resumes elsewhere downloads, and only
then removes what is no longer listed. A process that dies between leaves the previous list and
everything on it, but for files that have been replaced by a newer whole version.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from byol_jax import config as config_lib
from byol_jax.workdir import bucket as bucket_lib
from byol_jax.workdir import console, files
from byol_jax.workdir import lease as lease_lib

LIST = "uploaded.json"
SMALL = 64 << 20  # bytes of a file that is read before it is sent, so that it cannot change
# Locks are of this machine; what is being written gets another name once it is whole.
_LEFT_OUT = re.compile(r"lock|.*\.part|.*\.orbax-checkpoint-tmp.*")

Stamps = dict[str, tuple[int, int]]  # size and time of change of files, by relative name


def local_folder(address: str) -> pathlib.Path:
    """Where this user's runs of an address work: below $BYOL_JAX_WORKDIRS or ~/.cache/byol_jax."""
    root = os.environ.get("BYOL_JAX_WORKDIRS") or "~/.cache/byol_jax/workdirs"
    address = address.rstrip("/")
    digest = hashlib.sha256(address.encode()).hexdigest()[:12]
    name = re.sub(r"[^\w.-]+", "_", address.partition("://")[2])[-60:]
    return pathlib.Path(root).expanduser() / f"{name}-{digest}"


class Mirror:
    """Keeps a folder in a bucket as the local one is, until `close`.

    Args:
      address: of the folder in the bucket.
      every: seconds between uploads; None: those between beats of the lease.
      say: takes a line of text.

    Raises:
      UsageError: the address cannot be used, or another run uses it.
      bucket.BucketError: the bucket cannot be read or written to.
    """

    def __init__(
        self,
        address: str,
        *,
        every: float | None = None,
        say: Callable[[str], None] = console.say,
    ):
        self._bucket, self._say = bucket_lib.Bucket(address), say
        self._every = lease_lib.BEAT_SECONDS if every is None else every
        self.address, self.folder = self._bucket.address, local_folder(address)
        self._note = self.folder.with_name(f"{self.folder.name}.{LIST}")
        self._lease = lease_lib.Lease(self._bucket)
        self._lease.take(say=say)
        self._uploaded: Stamps = {}
        self._listed: list[str] = []
        self._failure = ""
        self._lost: lease_lib.LostError | None = None
        self._fill()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep_uploading, name="upload", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        """Makes the local folder what a run at this address goes on with."""
        listed = _load(self._bucket.read(LIST), f"{self.address}/{LIST}")
        note = self._note.read_bytes() if self._note.exists() else None
        known = _load(note, str(self._note))
        self._listed = sorted(listed.get("files", {}))
        stamps = {name: tuple(stamp) for name, stamp in known.get("stamps", {}).items()}
        here = _stamps(self.folder) if self.folder.exists() else {}
        is_last_writer = listed.get("version") == known.get("version")
        if is_last_writer and _has_all(here, stamps):
            self._uploaded = stamps
        else:
            if here:
                self._set_aside(is_uploaded=here == stamps)
            if listed:
                self._download(listed)
        files.make_folder(self.folder)

    def _set_aside(self, *, is_uploaded: bool) -> None:
        """What is here is not what the bucket goes on with; it is kept if it was never uploaded."""
        if is_uploaded:
            shutil.rmtree(self.folder)
            return
        aside = self.folder.with_name(f"{self.folder.name}.aside-{secrets.token_hex(4)}")
        self.folder.rename(aside)
        self._say(f"{aside} has files of {self.address} that were never uploaded; they are kept.")

    def _download(self, listed: dict[str, Any]) -> None:
        """In a folder of another name, which gets its own once it is whole."""
        self._say(f"Downloading {len(self._listed)} files of {self.address}...")
        part = self.folder.with_name(f"{self.folder.name}.download")
        shutil.rmtree(part, ignore_errors=True)
        for name in self._listed:
            target = part / _checked(name, self._bucket)
            files.make_folder(target.parent)
            self._bucket.download(name, target)
        files.make_folder(part)
        part.rename(self.folder)
        self._uploaded = _stamps(self.folder)
        self._remember(listed.get("version"))

    def upload(self) -> None:
        """Uploads what is new, changed or gone since the last time.

        Raises:
          bucket.BucketError: the bucket cannot be written to.
          lease.LostError: another process has taken it over; nothing more is written.
        """
        self._lease.beat()
        stamps = _stamps(self.folder)
        changed = [name for name, stamp in stamps.items() if self._uploaded.get(name) != stamp]
        if not changed and stamps.keys() == set(self._listed):
            return
        gone = {name for name in changed if not self._send(name, stamps[name])}
        steps = {_step(name) for name in gone} - {None}  # whole checkpoints, or nothing of them
        stamps = {
            name: stamp
            for name, stamp in stamps.items()
            if name not in gone and _step(name) not in steps
        }
        version = secrets.token_hex(8)
        content = {"version": version, "files": {n: size for n, (size, _) in stamps.items()}}
        self._lease.beat()
        self._bucket.write(LIST, json.dumps(content, indent=1).encode())
        removed = sorted({*self._listed, *changed} - stamps.keys())
        self._uploaded, self._listed = stamps, sorted(stamps)
        self._remember(version)
        for name in removed:
            self._bucket.remove(name)

    def _send(self, name: str, stamp: tuple[int, int]) -> bool:
        """Uploads one file; False if it is gone, as an older checkpoint may be."""
        path = self.folder / name
        try:
            if stamp[0] <= SMALL:
                self._bucket.write(name, path.read_bytes())
            else:
                self._bucket.upload(path, name)
        except (FileNotFoundError, bucket_lib.BucketError):
            if path.exists():
                raise
            return False
        return True

    def _remember(self, version: str | None) -> None:
        """What of the local folder is in the bucket, for the next run on this machine."""
        files.write_text(self._note, json.dumps({"version": version, "stamps": self._uploaded}))

    def _keep_uploading(self) -> None:
        while not self._ending.wait(self._every):
            try:
                self.upload()
                self._failure = ""
            except lease_lib.LostError as error:
                self._lost = error
                self._say(f"WARNING: {error} Stopping; nothing more is uploaded.")
                os.kill(os.getpid(), signal.SIGTERM)  # the run saves, here, and ends
                return
            except (bucket_lib.BucketError, OSError) as error:
                if not self._failure:
                    self._say(f"WARNING: {error} The run goes on in {self.folder}; trying again.")
                self._failure = str(error)

    def close(self) -> None:
        """Uploads what is left and frees the folder in the bucket.

        Raises:
          BucketError: not all could be uploaded; everything is in the local folder.
        """
        self._ending.set()
        self._thread.join()
        try:
            if self._lost:
                raise self._lost
            self.upload()
            self._lease.release()
        except (bucket_lib.BucketError, lease_lib.LostError, OSError) as error:
            raise bucket_lib.BucketError(
                f"{error} What this run has done is in {self.folder}; once this is mended, rerun "
                "the same command on this machine to upload it."
            ) from None


def _has_all(here: Stamps, uploaded: Stamps) -> bool:
    """Whether a folder is as it was uploaded or further on, where older checkpoints are removed."""
    missing = uploaded.keys() - here.keys()
    newest = max((_number(name) for name in here), default=-1)
    return all(0 <= _number(name) < newest for name in missing)


def _number(name: str) -> int:
    """The step of a file's checkpoint; -1 if it is of none."""
    step = _step(name) or ""
    return int(step) if step.isdecimal() else -1


def _stamps(folder: pathlib.Path) -> Stamps:
    """Of all files that are whole, finished checkpoints first.

    Raises:
      OSError: not all of the folder can be seen; what is not listed would be removed elsewhere.
    """
    found: Stamps = {}
    for path in sorted(_walk(folder), key=lambda p: (_step(_name(p, folder)) is None, str(p))):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found[_name(path, folder)] = (status.st_size, status.st_mtime_ns)
    return found


def _walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not _LEFT_OUT.fullmatch(name)]
        for name in names:
            path = pathlib.Path(place, name)
            if not _LEFT_OUT.fullmatch(name) and path.is_file():
                yield path


def _raise(error: OSError) -> None:
    if pathlib.Path(error.filename).parent.name == "checkpoints":
        return  # an older one was removed meanwhile
    raise error


def _name(path: pathlib.Path, folder: pathlib.Path) -> str:
    return path.relative_to(folder).as_posix()


def _step(name: str) -> str | None:
    """Which checkpoint a file belongs to; None if to none."""
    found = re.match(r"checkpoints/([^/]+)/", name)
    return found and found[1]


def _checked(name: str, bucket: bucket_lib.Bucket) -> str:
    """The name of a file below the folder."""
    if name.startswith("/") or ".." in name.split("/"):
        raise config_lib.UsageError(f"{bucket.address}/{LIST} names {name}, which is not below it.")
    return name


def _load(data: bytes | None, where: str) -> dict[str, Any]:
    """What a list says; empty if there is none, which has to be told from one that is damaged."""
    try:
        found = json.loads(data or b"{}") if data != b"" else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise config_lib.UsageError(
            f"{where} is damaged: put back a copy, or give another --workdir."
        )
    return found


_current: list[Mirror] = []


def open_folder(address: str) -> None:
    """Mirrors an address until `finish`, which the end of a command calls, whatever it ends by."""
    try:
        mirror = Mirror(address)
    except bucket_lib.BucketError as error:
        raise config_lib.UsageError(str(error)) from None
    _current.append(mirror)
    mirror._say(
        f"{mirror.address} is worked on in {mirror.folder}, and uploaded every "
        f"{mirror._every:.0f} seconds and at the end."
    )


def finish() -> str:
    """Uploads what is left; says what went wrong, if anything did."""
    while _current:
        mirror = _current.pop()
        try:
            mirror.close()
        except bucket_lib.BucketError as error:
            return str(error)
    return ""
