"""Sphinx configuration: `make docs` builds the pages into build/docs, with warnings as errors."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1])]

project = "nasface"
copyright = "the nasface authors"
release = installed_version("nasface")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "nasface_reference",
]
exclude_patterns = ["_ext", "_templates"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = "nasface"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"
suppress_warnings = [
    "misc.highlighting_failure",  # notebooks hold IPython magics, which the lexer of Python does not know
    "ref.python",  # a type that is named alike in two modules; a name that is found nowhere is still an error
]

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autosummary_generate = True
napoleon_google_docstring = True
napoleon_use_ivar = True

nitpicky = True
# types of other packages, whose inventories are not fetched, type variables, and private functions in annotations
nitpick_ignore_regex = [("py:.*", r"(?!nasface\.|searchspaces\.).*"), ("py:class", r".*\.([A-Z]|_[a-z_]+)")]
linkcheck_timeout = 20
