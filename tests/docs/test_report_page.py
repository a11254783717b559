"""docs/report.md: the files it names are the bundle's, its letters and its example are true."""

import json
import re

from documents import REPOSITORY

from trtforge.report.types import LETTERS
from trtforge.verify.types import ErrorHistogram

PAGE = (REPOSITORY / "docs" / "report.md").read_text(encoding="utf-8")


def test_the_example_is_a_histogram():
    (example,) = re.findall(r'^    "errors": ({.*})$', PAGE, re.MULTILINE)
    found = ErrorHistogram.model_validate(json.loads(example))
    assert found.counts


def test_the_letters_are_those_of_the_page():
    told = dict(re.findall(r"(\w) is ([A-Z]+\d+)", PAGE))
    styled = {letter: kind.upper() for kind, letter in LETTERS.items() if kind != "other"}
    assert told == styled


def test_the_files_are_those_that_a_build_leaves():
    named = set(re.findall(r"`(\w+\.json)`", PAGE))
    shipping = (REPOSITORY / "trtforge" / "pipeline" / "shipping.py").read_text(encoding="utf-8")
    assert named - {"manifest.json"} <= set(re.findall(r"\w+\.json", shipping))
