"""The documentation as a site in build/docs, in the add-on's names. `make docs` runs it.

The pages in docs/ are written for Django's own documentation, in which `make test-patch` builds them.
Here they are built alone: a copy of them says `channels` where Django's says `django.channels`.
Sphinx treats warnings as errors, and a link inside the site that leads nowhere is one.
"""

import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCE = os.path.join(ROOT, "docs")
SETTINGS = os.path.join(ROOT, "scripts", "docs")
COPY = os.path.join(ROOT, "build", "docs-source")
SITE = os.path.join(ROOT, "build", "docs")

#: What only readers of Django's documentation need.
HINT = re.compile(
    r"\s*\(?With the add-on,\s+read\s+``django\.channels``\s+as\s+``channels``:\s+see\s+"
    r":ref:`channels-addon`\.\)?"
)

#: A diagram in text, which Django's documentation keeps: "diagram: name of the SVG: what it shows".
DIAGRAM = re.compile(
    r"^\.\. diagram: (\w+): (.*)\n\n\.\. code-block:: text\n\n(?:(?:    .*)?\n)+", re.M
)
#: Names of loggers, which are the same in the add-on: after the word, or between two comments.
LOGGERS = re.compile(
    r"[Ll]oggers?\s+``django\.channels|^\.\. loggers: begin$.*?^\.\. loggers: end$", re.M | re.S
)

IMAGE = r".. image:: /images/\1.svg\n   :alt: \2\n   :class: diagram\n\n"


def in_names_of_addon(text):
    """Return a page as the add-on's users need it."""
    text = HINT.sub("", text)
    text = DIAGRAM.sub(IMAGE, text)
    text = re.sub(r"^ *\.\. versionadded:: 1\.11\n\n?", "", text, flags=re.M)
    text = LOGGERS.sub(
        lambda found: found.group().replace("django.channels", "django\0channels"), text
    )
    # In the first column of a table, a shorter name is followed by more spaces.
    text = re.sub(r"``django\.(channels[\w.]*``)(?=  )", r"``\1       ", text)
    # An included file is found from the top of the pages, because the copy lies deeper than docs/.
    text = text.replace(".. literalinclude:: ../../../", ".. literalinclude:: /../../")
    return re.sub(r"\bdjango\.channels\b", "channels", text).replace("\0", ".")


def copy_pages():
    """Write the pages to build/docs-source, in the add-on's names."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(SOURCE, COPY)
    for folder, _, names in os.walk(COPY):
        for name in names:
            if name.endswith(".txt"):
                path = os.path.join(folder, name)
                with open(path, encoding="utf-8") as stream:
                    text = stream.read()
                with open(path, "w", encoding="utf-8") as stream:
                    stream.write(in_names_of_addon(text))
    shutil.copy(os.path.join(SETTINGS, "index.txt"), COPY)
    shutil.copytree(os.path.join(SETTINGS, "images"), os.path.join(COPY, "images"))
    picture = os.path.join(ROOT, "examples", "chat", "screenshot.png")
    shutil.copy(picture, os.path.join(COPY, "images", "chat.png"))


def main():
    """Build the site. Returns Sphinx's exit status."""
    copy_pages()
    shutil.rmtree(SITE, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--conf-dir", SETTINGS]
    command += ["--fail-on-warning", "--keep-going", "--quiet", "--fresh-env", COPY, SITE]
    status = subprocess.call(command)
    if status == 0:
        print("The documentation: " + os.path.relpath(os.path.join(SITE, "index.html"), ROOT))
    return status


if __name__ == "__main__":
    sys.exit(main())
