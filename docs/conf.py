"""Configuration of the documentation: ``pip install ".[docs]" && sphinx-build -W docs docs/_build``."""

import inspect
import re
import urllib.request
import warnings
from concurrent.futures import ThreadPoolExecutor

import fastgmm

project = "fastgmm"
author = "The fastgmm developers"
copyright = "the fastgmm developers"
version = release = fastgmm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "examples", "auto_examples/**/*.py.md5", "**/README.md"]
templates_path = ["_templates"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
# A name between single backquotes in a docstring links to its page if it has one, and is code if not.
default_role = "py:obj"
# Quotes of docstrings are those of Python.
smartquotes = False
toc_object_entries_show_parents = "hide"

# MyST: links to headings of other pages, definition lists for the glossary.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The API reference. The templates list the methods that fastgmm defines: those inherited from scikit-learn, such as
# `set_fit_request`, are documented there, and their docstrings refer to pages of scikit-learn's documentation.
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False


def own_members(cls: type) -> dict[str, list[str]]:
    """Return the names of the public methods and of the properties of a class that fastgmm defines."""
    methods, properties = [], []
    for name, value in inspect.getmembers(cls):
        is_property = isinstance(value, property)
        function = value.fget if is_property else getattr(value, "__func__", value)
        is_own = (getattr(function, "__module__", None) or "").startswith("fastgmm")
        if not name.startswith("_") and is_own and (is_property or inspect.isroutine(value)) and inspect.getdoc(value):
            (properties if is_property else methods).append(name)
    return {"methods": methods, "properties": properties}


PUBLIC = {f"fastgmm.{name}": getattr(fastgmm, name) for name in fastgmm.__all__}
autosummary_context = {
    "own_members": {name: own_members(value) for name, value in PUBLIC.items() if inspect.isclass(value)},
}


def quote_attributes(app, what, name, obj, options, lines):
    """Quote names that end in an underscore in the shapes of a docstring: reStructuredText takes them for links."""
    lines[:] = [re.sub(r"\((\w+_)(?=,)", r"(`\1`", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", quote_attributes, priority=1)  # before numpydoc


# Links to other projects. Their inventories are left out where they cannot be reached: otherwise a build without a
# network would fail, because `sphinx-build -W` turns the warning of a failed download into an error.
INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
    "sklearn": "https://scikit-learn.org/stable/",
    "matplotlib": "https://matplotlib.org/stable/",
}


def is_reachable(url: str) -> bool:
    """Return whether a project's inventory can be downloaded within five seconds."""
    try:
        with urllib.request.urlopen(f"{url}objects.inv", timeout=5) as response:
            return bool(response.read(16).startswith(b"# Sphinx"))
    except OSError:
        return False


with ThreadPoolExecutor() as pool:
    reachable = dict(zip(INVENTORIES, pool.map(is_reachable, INVENTORIES.values()), strict=True))
intersphinx_mapping = {name: (url, None) for name, url in INVENTORIES.items() if reachable[name]}
intersphinx_timeout = 30

# The gallery. Every example is run; one that fails, fails the build.
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("fastgmm",),
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 5,
    "image_scrapers": ("matplotlib",),
}
# Examples draw without a display.
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")

html_theme = "pydata_sphinx_theme"
html_title = f"fastgmm {release}"
html_static_path = ["_static"]
html_css_files = ["fastgmm.css"]
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "fastgmm"},
    "show_prev_next": True,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}
