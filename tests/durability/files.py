"""A SQLite file layer that forgets what was not synced, and one whose disk is full: registered with apsw by name.

What a program was promised by a sync survives a power cut; of the rest any sectors may, in any order, torn anywhere.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUntypedBaseClass=false
# apsw's types name one that Python 3.11 does not have, so its classes are unknown to a checker.

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from actorflow.stores._sqlite_db import load_apsw

__all__ = ["PowerCut", "fill_after", "forget_unsynced"]

SECTOR = 512
apsw: Any = load_apsw()


@attrs.define
class Unsynced:
    """What one file has been told since its last sync: writes as offset and data, cuts as a size."""

    todo: list[tuple[int, bytes] | int] = attrs.field(factory=list[Any])


class PowerCut:
    """The power of one process: fails at the n-th time that something reaches for the disk.

    Args:
        at: Which time that is.
        dice: Decides what the disk had done by then.
    """

    def __init__(self, at: int, dice: random.Random) -> None:
        self.left = at
        self.dice = dice
        self.files: dict[str, Unsynced] = {}

    def tick(self) -> None:
        """One more touch; the last one does not return."""
        self.left -= 1
        if self.left == 0:
            for path, unsynced in self.files.items():
                self._leave_behind(path, unsynced)
            os._exit(9)

    def _leave_behind(self, path: str, unsynced: Unsynced) -> None:
        if not Path(path).exists():
            return
        mode = self.dice.choice(["nothing", "first ones", "some", "torn"])
        todo = unsynced.todo[: self.dice.randrange(len(unsynced.todo) + 1)] if mode == "first ones" else unsynced.todo
        file = os.open(path, os.O_RDWR)
        for item in todo if mode != "nothing" else ():
            if isinstance(item, int):
                if mode == "first ones" or self.dice.random() < 0.5:
                    os.ftruncate(file, item)
                continue
            if mode == "some" and self.dice.random() < 0.5:
                continue
            offset, data = item
            for begin in range(0, len(data), SECTOR):
                if mode != "torn" or self.dice.random() < 0.6:
                    os.pwrite(file, data[begin : begin + SECTOR], offset + begin)
        os.close(file)


def forget_unsynced(name: str, power: PowerCut) -> object:
    """Registers a file layer that keeps in memory what was not synced; keep what is returned."""

    class File(apsw.VFSFile):  # type: ignore[misc]
        def __init__(self, vfs: Any, filename: Any, flags: Any) -> None:
            self.path = str(filename.filename() if hasattr(filename, "filename") else filename)
            super().__init__(vfs, filename, flags)
            self.unsynced = power.files.setdefault(self.path, Unsynced())

        def xFileSize(self) -> int:
            size: int = super().xFileSize()
            for item in self.unsynced.todo:
                size = item if isinstance(item, int) else max(size, item[0] + len(item[1]))
            return size

        def xRead(self, amount: int, offset: int) -> bytes:
            here = max(0, min(amount, self.xFileSize() - offset))
            on_disk = super().xFileSize()
            data = super().xRead(min(here, on_disk - offset), offset) if offset < on_disk and here else b""
            buffer = bytearray(data.ljust(here, b"\0"))
            for item in self.unsynced.todo:
                if isinstance(item, int):
                    gone = max(0, min(here, item - offset))
                    buffer[gone:] = bytes(here - gone)
                    continue
                begin, end = max(item[0], offset), min(item[0] + len(item[1]), offset + here)
                if begin < end:
                    buffer[begin - offset : end - offset] = item[1][begin - item[0] : end - item[0]]
            return bytes(buffer)

        def xWrite(self, data: Any, offset: int) -> None:
            power.tick()
            self.unsynced.todo.append((offset, bytes(data)))

        def xTruncate(self, newsize: int) -> None:
            power.tick()
            self.unsynced.todo.append(newsize)

        def xSync(self, flags: int) -> None:
            power.tick()
            for item in self.unsynced.todo:
                if isinstance(item, int):
                    super().xTruncate(item)
                else:
                    super().xWrite(item[1], item[0])
            self.unsynced.todo.clear()
            # Not down to the real disk: this power cut is played, and the machine's own is not what is tested.
            power.tick()

    return layer(name, File)


def fill_after(name: str, room: Callable[[], int]) -> object:
    """Registers a file layer on a disk with room for so many more bytes; keep what is returned."""

    class File(apsw.VFSFile):  # type: ignore[misc]
        def xWrite(self, data: Any, offset: int) -> None:
            if offset + len(data) > self.xFileSize() and room() < len(data):
                raise apsw.FullError("no room left")
            super().xWrite(data, offset)

    return layer(name, File)


def layer(name: str, file: Any) -> object:
    """Registers a file layer that opens files of a class on top of the system's own."""

    class Layer(apsw.VFS):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name, "", maxpathname=0)

        def xOpen(self, filename: Any, flags: Any) -> Any:
            return file("", filename, flags)

    return Layer()
