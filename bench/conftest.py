"""The table at the end of `make bench`: what was measured, and its ratio to something else that ran then."""

from typing import Any

NOT_MEASURES = ("ratio", "to")


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    terminalreporter.section("speeds, and ratios to what ran in the same minute")
    for entry in session.benchmarks:
        info = entry.extra_info
        measure = next(((name, value) for name, value in info.items() if name not in NOT_MEASURES), None)
        speed = f"{measure[1]:12,.1f} {measure[0]}" if measure else ""
        ratio = f"{info['ratio']:10.2f} x {info['to']}" if "ratio" in info else ""
        terminalreporter.write_line(f"{entry.name:42}{speed:42}{ratio}")
