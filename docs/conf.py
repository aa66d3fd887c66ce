"""The documentation site: ``make docs`` builds it into ``build/docs``."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

from esl_apps import __version__  # noqa: E402

project = "esl_apps"
author = "the esl_apps authors"
copyright = "the esl_apps authors, MIT licence"
version = release = __version__

extensions = [
    "sphinx_copybutton",
    "repository",
    "hazards",
    "log_events",
    "from_code",
    "alarms",
    "interface",
    "drawing",
    "benchmark",
    "walk",
    "readme",
    "link_check",
]
exclude_patterns = ["_ext", "_build"]
nitpicky = True
default_role = "any"
highlight_language = "none"
html_theme = "furo"
html_title = f"esl_apps {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": "",
    "light_css_variables": {"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"},
    "dark_css_variables": {"color-brand-primary": "#7cb7ff", "color-brand-content": "#7cb7ff"},
}
# A prompt is not part of the command that a reader copies.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"
