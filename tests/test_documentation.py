"""The code that the documentation shows runs, and every public name is documented. None of this needs Sphinx."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest

import fastgmm

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
README, DOCS = ROOT / "README.md", ROOT / "docs"
WRITTEN = sorted(page for page in DOCS.rglob("*.md") if not {"_build", "auto_examples"} & set(page.parts))
PYTHON = re.compile(r"^```python\n(.*?)^```", flags=re.M | re.S)
PAGES_WITH_CODE = [README, *(page for page in WRITTEN if PYTHON.search(page.read_text()))]
QUOTED = re.compile(r"^<!-- quoted from the source -->\n```py\n(.*?)^```", flags=re.M | re.S)
MODULES = [
    module.name
    for module in pkgutil.walk_packages(fastgmm.__path__, "fastgmm.")
    if not module.name.endswith("__main__")
]
PUBLIC = [fastgmm, importlib.import_module("fastgmm.engine")]


def page_name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_readme_begins_with_the_two_commands():
    blocks = re.findall(r"^```\w*\n(.*?)^```", README.read_text(), flags=re.M | re.S)
    assert blocks[:2] == ['pip install ".[demo]" && python -m fastgmm demo\n', 'pip install ".[test]" && pytest\n']


def test_readme_has_at_most_200_lines():
    assert len(README.read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=page_name)
def test_python_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "documentation"}
    text = page.read_text()
    for block in PYTHON.finditer(text):
        # Lines of a traceback are those of the page.
        code = "\n" * text.count("\n", 0, block.start(1)) + block.group(1)
        exec(compile(code, page_name(page), "exec"), namespace)


def test_the_guide_shows_code():
    guide = {page.stem for page in PAGES_WITH_CODE if page.parent.name == "guide"}
    topics = {
        "drop_in",
        "covariance_models",
        "choosing",
        "bayesian",
        "large_data",
        "dask",
        "streaming",
        "engine",
        "starts",
    }
    assert topics | {"engine"} <= guide


def anchors(page):
    """The anchors of a Markdown page: explicit labels, and headings as they appear in links."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, flags=re.M))


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md", *WRITTEN], ids=page_name)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)):
        if "://" in target or "auto_examples/" in target:  # the gallery is generated
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_quoted_code_is_that_of_the_source():
    sources = [file.read_text() for file in Path(fastgmm.__file__).parent.rglob("*.py")]
    quotations = [(page, code) for page in WRITTEN for code in QUOTED.findall(page.read_text())]
    assert quotations
    for page, code in quotations:
        assert any(code in source or textwrap.indent(code, "    ") in source for source in sources), page


def names_in_the_api_reference():
    """The entries of the API reference's tables, by the module that they are looked up in."""
    names, module = {}, None
    for line in (DOCS / "api" / "index.rst").read_text().splitlines():
        if match := re.fullmatch(r"\.\. currentmodule:: (\S+)", line):
            module = match.group(1)
        elif match := re.fullmatch(r"   (\w+)", line):
            names.setdefault(module, []).append(match.group(1))
    return names


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_the_api_reference_has_the_public_names_and_no_others(module):
    public = {name for name in module.__all__ if name != "__version__" and not inspect.ismodule(getattr(module, name))}
    if module is not fastgmm:  # what is the same object in both is described once
        public = {name for name in public if getattr(fastgmm, name, None) is not getattr(module, name)}
    names = names_in_the_api_reference()[module.__name__]
    assert sorted(names) == sorted(public)


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_public_names_have_docstrings(module):
    for name in module.__all__:
        value = getattr(module, name)
        if not callable(value):
            continue
        assert inspect.getdoc(value), name
        if inspect.isclass(value) and not issubclass(value, Exception):
            for method, function in inspect.getmembers(value, inspect.isfunction):
                inherited = function.__module__ is None or not function.__module__.startswith("fastgmm")
                if not method.startswith("_") and not inherited:
                    assert inspect.getdoc(function), f"{name}.{method}"


def test_the_glossary_explains_each_word_once():
    terms = re.findall(r"^(\S.*)\n: ", (DOCS / "guide" / "glossary.md").read_text(), flags=re.M)
    words = {"pass", "run", "move", "birth", "chunk", "tile", "block", "layout", "form", "model"}
    assert words <= set(terms)
    assert len(terms) == len(set(terms))


def test_the_gallery_has_at_least_eight_examples_with_titles():
    examples = sorted((DOCS / "examples").glob("plot_*.py"))
    assert len(examples) >= 8
    for example in examples:
        title, underline = inspect.cleandoc(ast.get_docstring(ast.parse(example.read_text()))).splitlines()[:2]
        assert set(underline) == {"="}, example
        assert len(underline) == len(title), example
