"""
Sphinx settings of the add-on's documentation. `make docs` uses them on a copy of docs/.

What turns Django's form of the pages into the add-on's is in ../make_docs.py, and what resolves
references to Django's own documentation in django_references.py. Drawings become links in
pictures.py. Nothing else belongs here.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

project = "Channels"
author = "The authors of channels"
html_title = "Channels for Django"
extensions = ["django_references", "pictures", "sphinx_copybutton"]
source_suffix = {".txt": "restructuredtext"}
root_doc = "index"
tags.add("addon")  # noqa: F821  (Sphinx defines it)
highlight_language = "python"
smartquotes = False
html_theme = "furo"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["channels.css"]
# The prompt of a console isn't part of the command.
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
