"""`emu scenarios`: runs the scenarios of the built-in firmware and says whether each ended as it should."""

import argparse
import difflib
import tempfile
import time
from pathlib import Path

from emu.builtin.scenario import Outcome, run_scenario
from emu.builtin.scenarios import SCENARIOS
from emu.errors import BadInput, ConfigError

__all__ = ["scenarios"]

FAILED = 1


def scenarios(options: argparse.Namespace) -> int:
    """Lists them, or runs those that are named, or all; 1 where one did not end as it should."""
    chosen = options.name or list(SCENARIOS)
    for name in chosen:
        if name not in SCENARIOS:
            near = difflib.get_close_matches(name, SCENARIOS, 1)
            raise ConfigError(f"no scenario {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    width = max(map(len, chosen))
    if options.list:
        for name in chosen:
            print(f"{name:{width}}  {SCENARIOS[name].about}")
        return 0
    keep = None if options.keep is None else kept_folder(options.keep)
    failed = 0
    for name in chosen:
        started = time.perf_counter()
        lines = Lines(f"{'':{width}}  | ") if options.console else None
        print(f"{name:{width}}  ", end="" if lines is None else f"{SCENARIOS[name].about}\n", flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) if keep is None else keep / name
            folder.mkdir(exist_ok=True)
            outcome = run_scenario(SCENARIOS[name], folder, lines)
            if keep is not None:
                save(outcome, folder)
        word = "FAILED" if outcome.problems else "ok"
        if lines is not None:
            lines.finish()
            print(f"{name:{width}}  ", end="")
        print(
            f"{word:6}  {outcome.guest_seconds:7.3f} s of guest time, {outcome.switches:3} VM switches"
            f", {time.perf_counter() - started:.1f} s here",
            flush=True,
        )
        for problem in outcome.problems:
            print(f"{'':{width}}  {problem}", flush=True)
        if keep is not None:
            print(f"{'':{width}}  which VM ran when: {folder / 'timeline.svg'}", flush=True)
        failed += bool(outcome.problems)
    if failed:
        print(f"{failed} of {len(chosen)} did not end as they should")
    elif len(chosen) > 1:
        print(f"all {len(chosen)} ended as they should")
    return FAILED if failed else 0


class Lines:
    """Prints the console's lines as they come, behind a margin."""

    def __init__(self, margin: str) -> None:
        self.margin = margin
        self.rest = b""

    def __call__(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            print(f"{self.margin}{line.decode(errors='replace').rstrip()}", flush=True)

    def finish(self) -> None:
        """Prints what has no end."""
        if self.rest:
            self(b"\n")


def kept_folder(path: str) -> Path:
    """The folder of --keep, made where it is missing.

    Raises:
        BadInput: it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--keep {path}: {error.strerror}") from None
    return folder


def save(outcome: Outcome, folder: Path) -> None:
    """Writes what can be looked at later."""
    (folder / "console.txt").write_text(outcome.console, encoding="utf-8")
    outcome.timeline.save(str(folder / "timeline.json"))
    outcome.timeline.save(str(folder / "timeline.svg"))
