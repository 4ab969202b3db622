"""How Sphinx builds these pages: ``sphinx-build -W -b html docs docs/_build/html``."""

import fastinfo

project = "fastinfo"
copyright = "The fastinfo developers"
version = release = fastinfo.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_typehints = "none"  # shapes and dtypes are in the docstrings
numpydoc_show_class_members = False
copybutton_prompt_text = ">>> |... "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = "fastinfo"
html_static_path: list[str] = []
# the program that measured them wrote these
suppress_warnings = ["myst.header"]
linkcheck_ignore = [r"https://doi\.org/.*"]
