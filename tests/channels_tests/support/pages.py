"""Documentation pages as tests read them: their files, commands and marks, in order.

A block whose first line is a comment with a path is a file. In a block of `console`, lines that begin with
"$ " are commands, and what follows a command is what it prints. An RST comment `.. check: …` is a mark:
there, a test does what the text tells the reader to do.
"""

import os
import re
import textwrap

DOCS = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))),
    "docs",
)

#: "# mysite/urls.py", "{# chat/templates/base.html #}", "# /etc/nginx/nginx.conf"
_PATH = re.compile(r"(?:#|\{#) (/?\w[\w.@-]*(?:/[\w.@-]+)*)(?: #\})?$")
_DIRECTIVE = re.compile(r" *\.\. code-block:: *([\w+-]+)$")
_CHECK = re.compile(r"\.\. check: (.*)$")


def page_exists(name):
    """Return whether `docs/` has the page `name`, such as "addon/tutorial/index.txt"."""
    return os.path.exists(os.path.join(DOCS, name))


def blocks(name):
    """Yield `(kind, text)` of a page, in order: a block with its language, or ("check", what it says)."""
    with open(os.path.join(DOCS, name), encoding="utf-8") as page:
        lines = page.read().split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        directive, check = _DIRECTIVE.match(line), _CHECK.match(line)
        if check:
            yield "check", check.group(1)
        if not directive and (not line.endswith("::") or line.lstrip().startswith(".. ")):
            continue
        indent = len(line) - len(line.lstrip())
        first = number
        while number < len(lines) and (
            not lines[number].strip() or len(lines[number]) - len(lines[number].lstrip()) > indent
        ):
            number += 1
        text = textwrap.dedent("\n".join(lines[first:number])).strip("\n") + "\n"
        yield (directive.group(1) if directive else "python"), text


def path_of(text):
    """Return the path that the first line of a block names, or None if the block isn't a file."""
    first = text.split("\n", 1)[0]
    found = _PATH.match(first)
    if found is None or not re.search(r"[/.]|file$", found.group(1)):
        return None
    return found.group(1)


def commands(text):
    """Return `(command, what it prints)` of each command in a block of `console`."""
    found = []
    for line in text.replace("\\\n", "").split("\n"):
        if line.startswith("$ "):
            found.append((re.sub(r" +", " ", line[2:]).strip(), []))
        elif found:
            found[-1][1].append(line)
    return [(command, "\n".join(printed).strip("\n")) for command, printed in found]


def printed_as_told(told, printed):
    """Return whether `printed` is what the page told; "…" stands for anything."""
    pattern = ".*".join(re.escape(part) for part in told.split("…"))
    return re.search(pattern, printed.replace("\r", ""), re.DOTALL) is not None
