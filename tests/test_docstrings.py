"""The docstrings of public names are complete numpydoc, by numpydoc's own validation."""

import functools
import importlib
import inspect
import warnings

import pytest

import fastgmm
import fastgmm.engine

with warnings.catch_warnings():  # warnings of Sphinx, which numpydoc imports, are not this package's
    warnings.simplefilter("ignore")
    from numpydoc.validate import validate

# Every code of numpydoc is checked, for every public function, class, method and property, except for these.
LEFT_OUT = {
    "GL01": "the summary stands on the line of the opening quotes, in this package as in NumPy",
    "GL02": "the quotes that close a docstring of one line stand on that line",
    "ES01": "a summary that says everything needs no second paragraph",
    "RT02": "a name in front of the type of a single result, as scikit-learn has it, tells what it is",
}
# Checked for public names only. What a method is for is shown by the example of its class, where its relatives are
# listed, and a method's own docstring need not repeat that.
ONLY_OF_NAMES = {"SA01", "EX01"}
# What public functions return: no user makes one, so its attributes are described instead of the parameters of its
# constructor, and the function's example shows it.
RESULTS = [
    "fastgmm.analysis.bootstrap.ParameterBootstrap",
    "fastgmm.analysis.bootstrap.LikelihoodRatioTest",
    "fastgmm.analysis.component_merging.CombinedComponents",
    "fastgmm.initialization.hierarchy.Hierarchy",
]
NAMES = [
    f"{module.__name__}.{name}"
    for module in (fastgmm, fastgmm.engine)
    for name in module.__all__
    if callable(getattr(module, name))
]
METHODS = (classmethod, staticmethod, property, functools.cached_property)


def load(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def members():
    """Paths of the methods and properties of public classes, each once: where the first class that has it names it."""
    seen = set()
    for path in [*NAMES, *RESULTS]:
        cls = load(path)
        if not inspect.isclass(cls):
            continue
        for name in dir(cls):
            owner = next(ancestor for ancestor in cls.__mro__ if name in vars(ancestor))
            is_method = inspect.isfunction(vars(owner)[name]) or isinstance(vars(owner)[name], METHODS)
            is_ours = owner.__module__.startswith("fastgmm.")
            if is_method and is_ours and not name.startswith("_") and (owner, name) not in seen:
                seen.add((owner, name))
                yield f"{path}.{name}"


def problems(path, left_out):
    return [f"{code} {text}" for code, text in validate(path)["errors"] if code not in left_out]


@pytest.mark.parametrize("path", NAMES)
def test_docstrings_of_public_names(path):
    assert problems(path, {*LEFT_OUT}) == []


@pytest.mark.parametrize("path", [*RESULTS, *members()])
def test_docstrings_of_results_and_methods(path):
    parameters = {"PR01"} if path in RESULTS else set()
    assert problems(path, {*LEFT_OUT, *ONLY_OF_NAMES, *parameters}) == []


@pytest.mark.parametrize("path", [*NAMES, *RESULTS, *members()])
def test_summaries_fit_a_line_of_79_characters(path):
    owner, _, name = path.rpartition(".")
    value = load(path) if path in {*NAMES, *RESULTS} else inspect.getattr_static(load(owner), name)
    assert len(inspect.getdoc(value).splitlines()[0]) <= 79


def test_a_docstring_that_is_not_complete_is_found(tmp_path, monkeypatch):
    (tmp_path / "incomplete.py").write_text('def f(x):\n    """Returns x"""\n    return x\n')
    monkeypatch.syspath_prepend(tmp_path)
    codes = {text.split()[0] for text in problems("incomplete.f", LEFT_OUT)}
    assert {"SS03", "SS05", "PR01", "RT01", "SA01", "EX01"} <= codes
