"""The README's examples are what a new user runs first."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_example_runs(index: int) -> None:
    exec(compile(EXAMPLES[index], f"README.md, example {index + 1}", "exec"), {"__name__": "readme"})


def test_there_are_examples_and_one_of_them_is_a_device() -> None:
    assert len(EXAMPLES) >= 3
    assert any("emu.Device" in example for example in EXAMPLES)


def test_links_lead_somewhere() -> None:
    pages = {link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link}
    assert {page for page in pages if not (ROOT / page).exists()} == set()
