"""Give a Python module the style that Django 1.10's setup.cfg asks of isort and flake8.

The formatter of this repository puts operators at the beginning of a line, and each name of a long import
on its own line. Django 1.10 puts them at the end, and as many names on a line as fit.

`styled` and `without_unused_imports` take the text of a module. `sort_imports` works on files in Django's
tree, whose setup.cfg isort reads.
"""

import ast
import io
import keyword
import os
import re
import sys
import tokenize

from interpreters import environment, own_version, python_of, run

#: The last isort of its time, and what it needs on Python 3.12 and later.
ISORT = ["isort==4.3.21", "setuptools<80"]

_OPERATORS = frozenset(
    ["and", "or", "in", "is", "not", "+", "-", "*", "/", "//", "%", "|", "&", "^", "<<", ">>"]
    + ["==", "!=", "<", ">", "<=", ">="]
)
_NOT_TEXT = (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT)


def styled(text):
    """Return the module `text` in Django's style."""
    return _blank_lines(_slices(_operators(text)))


def without_unused_imports(text):
    """Return the module `text` without the imports whose names it doesn't use."""
    while True:
        tree = ast.parse(text)
        used = _names_used(tree)
        found = None
        for parent in ast.walk(tree):
            for node in getattr(parent, "body", None) or () if _is_block(parent) else ():
                if isinstance(node, (ast.Import, ast.ImportFrom)) and not found:
                    found = _unused(node, used, text) and (parent, node)
        if not found:
            return text
        text = _without_names(text, *found, used)


def _is_block(node):
    return isinstance(getattr(node, "body", None), list)


def _names_used(tree):
    used, texts = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            used.add(node.id)
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            texts += ast.walk(node.value)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "cast":
            texts.append(node.args[0])  # a type that is written as text
    for node in texts:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.update(re.findall(r"\w+", node.value))
    return used


def _bound(alias):
    return alias.asname or alias.name.split(".")[0]


def _unused(node, used, text):
    """Return the aliases of the import `node` that aren't used. An import with a ``noqa`` has none."""
    if getattr(node, "module", None) == "__future__":
        return []
    lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
    if any("noqa" in line for line in lines):
        return []
    return [
        alias
        for alias in node.names
        if _bound(alias) not in used and alias.asname != alias.name and alias.name != "*"
    ]


def _without_names(text, parent, node, used):
    """Return `text` without the unused names of the import `node`, which is in the body of `parent`."""
    lines = text.splitlines(True)
    gone = _unused(node, used, text)
    kept = [alias for alias in node.names if alias not in gone]
    if kept:
        line = _statement(node, kept)
        return "".join(lines[: node.lineno - 1] + [line] + lines[node.end_lineno :])
    if parent.body == [node] and not isinstance(parent, ast.Module):
        if isinstance(parent, ast.If) and not parent.orelse:
            node = parent
        else:
            raise ValueError(f"an import is all that a block holds: line {node.lineno}")
    return "".join(lines[: node.lineno - 1] + lines[node.end_lineno :])


def _statement(node, aliases):
    names = ", ".join(
        alias.name + (f" as {alias.asname}" if alias.asname else "") for alias in aliases
    )
    indent = " " * node.col_offset
    if isinstance(node, ast.Import):
        return f"{indent}import {names}\n"
    return f"{indent}from {'.' * node.level}{node.module or ''} import {names}\n"


def _operators(text):
    """Move the operators at the beginning of lines to the end of the lines above."""
    lines = text.splitlines(True)
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    words = [token for token in tokens if token.type not in _NOT_TEXT]
    moves = []
    for index, token in enumerate(words[1:-1], 1):
        before, after = words[index - 1], words[index + 1]
        begins = before.end[0] < token.start[0]
        if begins and token.string in _OPERATORS and not _is_unary(before, token):
            operator, last = token.string, token
            if (operator, after.string) in (("not", "in"), ("is", "not")):
                operator, last = f"{operator} {after.string}", after
            elif operator == "not":
                continue
            moves.append((before.end, token.start, last.end, operator))
    for end, start, last, operator in reversed(moves):
        line = lines[start[0] - 1]
        lines[start[0] - 1] = line[: start[1]] + line[last[1] :].lstrip(" ")
        line = lines[end[0] - 1]
        lines[end[0] - 1] = line[: end[1]] + " " + operator + line[end[1] :]
    return "".join(lines)


def _is_unary(before, token):
    """Return whether the operator `token` after the token `before` lacks a left operand."""
    if before.type == tokenize.NAME:
        return keyword.iskeyword(before.string) and before.string not in ("True", "False", "None")
    return before.type == tokenize.OP and before.string not in (")", "]", "}")


def _slices(text):
    """Remove the spaces before the colons of slices."""
    lines = text.splitlines(True)
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    for before, token in reversed(list(zip(tokens, tokens[1:]))):
        if token.string == ":" and before.end[0] == token.start[0] and before.end < token.start:
            line = lines[token.start[0] - 1]
            lines[token.start[0] - 1] = line[: before.end[1]] + line[token.start[1] :]
    return "".join(lines)


def _blank_lines(text):
    """Return `text` with at most two blank lines in a row outside of strings, and none at its end."""
    inside = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.STRING:
            inside.update(range(token.start[0], token.end[0] + 1))
    kept, blank = [], 0
    for number, line in enumerate(text.splitlines(True), 1):
        blank = 0 if line.strip() or number in inside else blank + 1
        if blank <= 2:
            kept.append(line)
    text = "".join(kept)
    return text.rstrip("\n") + "\n" if text.strip() else text


def sort_imports(tree, paths):
    """Sort the imports of the modules at `paths` in Django's tree `tree`."""
    python = python_of(environment("django-isort", own_version(), sys.executable, ISORT))
    command = [python, "-W", "ignore", "-m", "isort", "--quiet"] + list(paths)
    run(command, cwd=tree)
    for path in paths:  # where isort took a line away, its blank lines remain
        with open(os.path.join(tree, path), encoding="utf-8") as stream:
            text = stream.read()
        with open(os.path.join(tree, path), "w", encoding="utf-8") as stream:
            stream.write(_blank_lines(text))
    run(command, cwd=tree)
