"""What the documentation shows runs, and every public name has some."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import fastgmm

README = Path(__file__).parent.parent / "README.md"
MODULES = [
    module.name
    for module in pkgutil.walk_packages(fastgmm.__path__, "fastgmm.")
    if not module.name.endswith("__main__")
]
PUBLIC = [fastgmm, importlib.import_module("fastgmm.engine")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def code_blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), flags=re.M | re.S)


def test_readme_begins_with_the_two_commands():
    blocks = re.findall(r"^```\w*\n(.*?)^```", README.read_text(), flags=re.M | re.S)
    assert blocks[:2] == ['pip install ".[demo]" && python -m fastgmm demo\n', 'pip install ".[test]" && pytest\n']


def test_readme_examples_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "readme"}
    blocks = code_blocks("python")
    assert len(blocks) >= 3
    for code in blocks:
        exec(compile(code, "README.md", "exec"), namespace)


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_public_names_are_documented(module):
    readme = README.read_text()
    for name in module.__all__:
        value = getattr(module, name)
        if not callable(value):
            continue
        assert inspect.getdoc(value), name
        assert name in readme, f"{name} is not in the README"
        if inspect.isclass(value) and not issubclass(value, Exception):
            for method, function in inspect.getmembers(value, inspect.isfunction):
                inherited = function.__module__ is None or not function.__module__.startswith("fastgmm")
                if not method.startswith("_") and not inherited:
                    assert inspect.getdoc(function), f"{name}.{method}"
