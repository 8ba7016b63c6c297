"""What a store on a file needs from the machine: its file system, a clock that every process reads alike, who is alive."""

from __future__ import annotations

import os
import re
import time
import uuid
import weakref
from pathlib import Path

__all__ = ["HostLocks", "boot_id", "boot_time", "file_system", "is_remote"]

# Locks and shared memory do not hold between machines there, whatever the mount options say.
_REMOTE = re.compile(
    r"(nfs|nfs4|cifs|smb\d?|smbfs|9p|afs|ceph|lustre|gfs2?|ocfs2|glusterfs|beegfs|virtiofs|fuse\.(?!fuseblk).*)"
)


def file_system(path: Path, mounts: str | None = None) -> str:
    """The type of the file system that `path` is on, as Linux names it; "" where that cannot be told.

    Args:
        path: A file or directory that exists.
        mounts: What /proc/self/mountinfo says.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    place = path.resolve()
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields.split()[4]))
        # The last of equals hides the others.
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), rest.split()[0]
    return kind


def is_remote(kind: str) -> bool:
    """Whether other machines may have the same files, as seen by the type of the file system."""
    return _REMOTE.fullmatch(kind) is not None


def boot_time() -> float:
    """Seconds since the machine started, sleep included: what no change of the time of day moves."""
    clock: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def boot_id() -> str:
    """Tells one start of the machine from another; "" where that cannot be told, which is another one each time."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


GUEST = "guest-"


class HostLocks:
    """Which hosts are alive: each holds a lock that the kernel takes away when its process dies.

    A store that is open holds one too, as a guest: whoever works on runs then looks often whether it has sent something.

    Args:
        folder: Where the lock files are; None for a store that only this process has.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}
        self._dead: set[str] = set()
        _all.add(self)

    def arrive(self) -> None:
        """Lets the others know that a store is open."""
        assert self._folder is not None  # noqa: S101
        name = f"{GUEST}{uuid.uuid4().hex[:12]}"
        self.take(f".{name}")
        # Only now by its name: who finds a guest without a lock takes it for dead.
        (self._folder / f".{name}").rename(self._folder / name)
        self._held[name] = self._held.pop(f".{name}")

    def others(self) -> tuple[bool, bool]:
        """Whether others are here, and whether a host has died since the last call. Of dead guests nothing is left."""
        if self._folder is None:
            return False, False
        alive = died = False
        names = os.listdir(self._folder)  # noqa: PTH208 - looked at often, and these are names
        self._dead.intersection_update(names)
        for name in names:
            if name in self._held or name.startswith(".") or name in self._dead:
                continue
            if self.alive(name):
                alive = True
            elif name.startswith(GUEST):
                (self._folder / name).unlink(missing_ok=True)
            else:
                self._dead.add(name)
                died = True
        return alive, died

    def take(self, host: str) -> None:
        """Makes a host alive."""
        if self._folder is None:
            self._held[host] = -1
            return
        import fcntl  # noqa: PLC0415 - not on Windows, where stores in memory work

        self._folder.mkdir(exist_ok=True)
        lock = os.open(self._folder / host, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held[host] = lock

    def holds(self, host: str) -> bool:
        """Whether a host is one of this object's, and not dropped."""
        return host in self._held

    def alive(self, host: str) -> bool:
        """Whether the process of a host, whichever it is, lives."""
        if host in self._held:
            return True
        if self._folder is None:
            return False
        import fcntl  # noqa: PLC0415 - not on Windows

        try:
            lock = os.open(self._folder / host, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            # Shared: two who look at the same time do not take each other for the host.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def drop(self, host: str) -> None:
        """Makes a host dead, if it is one of ours, and removes its file."""
        lock = self._held.pop(host, -1)
        if self._folder is not None:
            (self._folder / host).unlink(missing_ok=True)
        if lock >= 0:
            os.close(lock)

    def drop_all(self) -> None:
        """Makes all hosts of this object dead."""
        for host in list(self._held):
            self.drop(host)

    def forked(self) -> None:
        """In a child process: its copies of the locks would keep its parent's hosts alive after the parent."""
        for lock in self._held.values():
            if lock >= 0:
                os.close(lock)
        self._held.clear()


_all: weakref.WeakSet[HostLocks] = weakref.WeakSet()


def _forked() -> None:
    for locks in list(_all):
        locks.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
