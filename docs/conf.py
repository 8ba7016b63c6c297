"""The documentation site: `sphinx-build -W docs dist/site`, with the extra `docs` installed."""

from importlib.metadata import version as version_of

project = "actorflow"
copyright = "the actorflow maintainers"  # noqa: A001 - sphinx's word
version = release = version_of("actorflow")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"actorflow {release}"

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "__init__, __new__"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes stand in the text of their class, once
default_role = "code"  # a word in single backquotes is code in our docstrings
