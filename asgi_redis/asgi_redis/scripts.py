"""The Lua scripts: one file each in lua/, which describes its keys and arguments at its top."""

import hashlib
import os

_DIRECTORY = os.path.join(os.path.dirname(__file__), "lua")


class Script:
    """A script by its file's name: `text` as it is, `sha` as Redis knows it."""

    def __init__(self, name):
        self.name = name
        with open(os.path.join(_DIRECTORY, name + ".lua"), encoding="utf-8") as file:
            source = file.read()
        # What describes it is for readers: a server that has restarted is sent the code alone.
        self.text = "".join(line for line in source.splitlines(True) if not line.startswith("--"))
        self.sha = hashlib.sha1(self.text.encode()).hexdigest()


ALL = {
    name[:-4]: Script(name[:-4]) for name in sorted(os.listdir(_DIRECTORY)) if name.endswith(".lua")
}
BY_SHA = {script.sha: script for script in ALL.values()}


def run(name, keys, arguments=()):
    """The command that runs a script."""
    return ("EVALSHA", ALL[name].sha, len(keys)) + tuple(keys) + tuple(arguments)


def in_full(command):
    """A command of `run` with the script's text, for a server that does not know it."""
    return ("EVAL", BY_SHA[command[1]].text) + tuple(command[2:])
