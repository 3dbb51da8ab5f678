"""`emu models`: the processor models, and where their figures come from."""

import argparse
import sys

from emu import models
from emu.errors import ConfigError
from emu.host.terminal import Style

__all__ = ["show"]


def show(options: argparse.Namespace) -> int:
    """Lists the models, or explains those that are named."""
    style = Style(sys.stdout)
    if options.name:
        for name in options.name:
            explain(name, style)
        return 0
    width = max(len(name) for name in models.names())
    print(style.strong(f"{'model':{width}}  {'MHz':>6}  {'assumed':>7}  processor"))
    for name in models.names():
        model, groups = models.load(name), models.provenance(name)
        assumed = sum(group.assumed for group in groups)
        share = f"{assumed}/{len(groups)}"
        note = " (default)" if name == models.DEFAULT else ""
        print(f"{style.name(f'{name:{width}}')}  {model['hz'] / 1e6:6.0f}  {share:>7}  {model['title']}{note}")
    print(style.faint("assumed: groups of clocks that no source gives; `emu models NAME` lists all with their sources"))
    return 0


def explain(name: str, style: Style) -> None:
    """The groups of a model's figures: source, mark, and which instructions they are of."""
    if name not in models.names():
        raise ConfigError(f"unknown processor model {name!r}; there are: {', '.join(models.names())}")
    model = models.load(name)
    print(f"{style.strong(name)}: {model['title']}")
    marks = {"V": style.good("read    "), "D": "derived ", "M": style.warning("assumed ")}
    for group in models.provenance(name):
        print(f"  {marks.get(group.mark, group.mark)} {group.source}")
        print(style.faint(f"           {group.subject}"))
