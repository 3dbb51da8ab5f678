"""Processor models: what a processor can do and what its instructions cost.

They are written as `emu/models/NAME.toml`, which the build resolves to `NAME.json` (emu/model_compiler.py has the
format). Here is what is wanted at run time; it imports little, since every start pays for it.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from emu.errors import BadInput, ConfigError

DEFAULT = "westmere"
"""The model of a machine or processor that was not given one."""

FOLDER = os.path.join(os.path.dirname(__file__), "models")


def names() -> list[str]:
    """The models there are."""
    return sorted(name.removesuffix(".json") for name in os.listdir(FOLDER) if name.endswith(".json"))


def load(name: str) -> Mapping[str, Any]:
    """The compiled model of this name, in the form that emu._core.Model takes.

    Raises:
        ConfigError: there is none.
    """
    if name not in names():
        raise ConfigError(f"unknown processor model {name!r}; there are: {', '.join(names())}")
    with open(os.path.join(FOLDER, f"{name}.json"), encoding="ascii") as file:
        compiled: Mapping[str, Any] = json.load(file)
    return compiled


class RowClocks(NamedTuple):
    """What a row of the instruction table costs, in clocks, as emu/core/timing.h explains."""

    reg: int
    mem: int
    rep: int
    variable: int
    cases: tuple[int, ...]


def clocks(name: str) -> list[RowClocks]:
    """The clocks of a model by row of the instruction table; of a row that it does not execute they mean nothing.

    Raises:
        ConfigError: there is no model of this name.
    """
    import array
    import binascii

    compiled = load(name)
    numbers = array.array("H", binascii.a2b_base64(compiled["clocks"]))
    each = len(numbers) // compiled["rows"]
    rows = (numbers[start : start + each] for start in range(0, len(numbers), each))
    return [RowClocks(row[0], row[1], row[2], row[3], tuple(row[4:])) for row in rows]


def read_model(name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """The tables of a model file, with what it takes over from the one that it is like.

    Args:
        name: of the model.
        texts: the contents of the model files by name.

    Raises:
        BadInput: a file is no TOML, or is like one that is not there or like itself.
    """
    import tomllib

    if name not in texts:
        raise BadInput(f"like = {name!r}: there is no such model")
    try:
        model = tomllib.loads(texts[name])
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{name}.toml: {error}") from None
    if "like" not in model:
        return model
    other = read_model(str(model.pop("like")), {key: text for key, text in texts.items() if key != name})
    return {**other, **model, "clocks": [*other.get("clocks", ()), *model.get("clocks", ())]}


PAGE_WALK = "a page walk, which is not charged"
"""The subject of Figures for the model's `page_walk`."""


class Figures(NamedTuple):
    """A group of a model's figures and where they come from."""

    subject: str
    source: str
    mark: str

    @property
    def assumed(self) -> bool:
        """They were not read in a source."""
        return self.mark == "M"


def provenance(name: str) -> list[Figures]:
    """Where the figures of a model come from, one item a group, in the order of its file.

    Args:
        name: of the model, one of `names()`.

    Raises:
        ConfigError: there is none of this name.
    """
    load(name)
    texts = {}
    for other in names():
        with open(os.path.join(FOLDER, f"{other}.toml"), encoding="utf-8") as file:
            texts[other] = file.read()
    model = read_model(name, texts)
    groups = [
        Figures("interrupts, task switches", model["events"]["source"], model["events"]["mark"]),
        Figures(PAGE_WALK, model["tlb"]["source"], model["tlb"]["mark"]),
    ]
    if "vmx" in model:
        groups.append(Figures("VT-x: capabilities, VM entries and exits", model["vmx"]["source"], model["vmx"]["mark"]))
    return groups + [Figures(", ".join(group["rows"]), group["source"], group["mark"]) for group in model["clocks"]]
