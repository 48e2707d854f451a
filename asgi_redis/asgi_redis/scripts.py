"""The Lua scripts: one file each in lua/, which describes its keys and arguments at its top."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from typing import Any, Sequence, Tuple

_DIRECTORY = os.path.join(os.path.dirname(__file__), "lua")

#: A command: its name and arguments, as redis-py takes them.
Command = Tuple[Any, ...]


def _read(name: str) -> str:
    """Return the code of a file. Comments that begin a line are for readers: a server gets none."""
    with open(os.path.join(_DIRECTORY, name), encoding="utf-8") as file:
        return "".join(line for line in file if not line.startswith("--"))


def _digest(text: str) -> str:
    """Return the name under which Redis keeps a script. No secret depends on it."""
    if sys.version_info >= (3, 9):
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return hashlib.sha1(text.encode()).hexdigest()


def _with_prelude(code: str, prelude: dict[str, str]) -> str:
    """Return `code` behind the functions of the prelude that it uses, in the prelude's order."""
    needed: set[str] = set()
    for name in reversed(list(prelude)):  # a function uses only those before it
        users = [code] + [prelude[each] for each in needed]
        if any(re.search(r"\b%s\(" % name, text) for text in users):
            needed.add(name)
    return "".join(text for name, text in prelude.items() if name in needed) + code


class Script:
    """The script of the file `name`: `text` as it is, `sha` as Redis knows it."""

    def __init__(self, name: str, prelude: dict[str, str]) -> None:
        self.text = _with_prelude(_read(name + ".lua"), prelude)
        self.sha = _digest(self.text)


def _load() -> dict[str, Script]:
    functions = re.findall(
        r"^(local function (\w+).*?^end\n)", _read("prelude.lua"), re.MULTILINE | re.DOTALL
    )
    prelude = {name: text for text, name in functions}
    names = sorted(name[:-4] for name in os.listdir(_DIRECTORY) if name.endswith(".lua"))
    return {name: Script(name, prelude) for name in names if name != "prelude"}


ALL = _load()
BY_SHA = {script.sha: script for script in ALL.values()}


def run(name: str, keys: Sequence[Any], arguments: Sequence[Any] = ()) -> Command:
    """Return the command that runs a script."""
    return ("EVALSHA", ALL[name].sha, len(keys)) + tuple(keys) + tuple(arguments)


def in_full(command: Command) -> Command:
    """Return a command of `run` with the script's text, for a server that does not know it."""
    return ("EVAL", BY_SHA[command[1]].text) + tuple(command[2:])
