"""A line on the terminal that says how far a long run has come."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from types import TracebackType

    from asm.assembler import Assembler

FIRST, NEXT = 1.0, 0.2  # seconds before the line is shown, and between its changes


class Progress:
    """Shows progress on a stream while the block runs, if it is a terminal and the run takes more than a second.

    `watch` is told of each round's assembler.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.rounds = 0
        self.assembler: Assembler | None = None
        self.shown = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True) if stream.isatty() else None

    def watch(self, assembler: Assembler) -> None:
        """Takes note of the round that begins."""
        self.assembler = assembler
        self.rounds += 1

    def text(self) -> str:
        """The line."""
        assembler = self.assembler
        if assembler is None:
            return "assembling"
        frames = assembler.preprocessor.frames[:1]
        again = f", round {self.rounds}" if self.rounds > 1 else ""
        if not frames:
            return f"{assembler.name}: {len(assembler.items)} statements{again}, settling the layout"
        frame = frames[0]
        lines = max(len(frame.lines), 1)
        return f"{assembler.name}: line {frame.number} of {lines} ({100 * frame.number // lines}%){again}"

    def _run(self) -> None:
        wait = FIRST
        while not self._done.wait(wait):
            self.stream.write(f"\r\x1b[K{self.text()}")
            self.stream.flush()
            self.shown = True
            wait = NEXT

    def __enter__(self) -> Progress:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        if self.shown:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
