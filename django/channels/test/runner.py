"""
A test runner for sites whose tests are not all of ChannelTestCase: no test reaches the running site.
"""

from __future__ import annotations

import unittest
from contextlib import contextmanager
from typing import Any, Iterator
from unittest import mock

from django.test import override_settings
from django.test.runner import DiscoverRunner

from ..asgi import channel_layers
from ..backends import MEMORY
from ..layers.memory import MemoryChannelLayer
from .base import backend_of


@contextmanager
def in_memory_layers() -> Iterator[None]:
    """
    Replace each layer of the settings that is not in memory by one that is, with the same routing.

    For threads of this process and for processes that it forks meanwhile. The layers are without workers, so
    messages stay on their channels. A test may override the setting further.
    """
    layers = {alias: _in_memory(alias) for alias in channel_layers}
    with override_settings(CHANNEL_LAYERS=layers):
        yield


def empty_layers() -> None:
    """Remove all messages and group members from the layers of this process. Call it between tests."""
    for alias in channel_layers:
        channel_layers[alias].flush()


class ChannelTestRunner(DiscoverRunner):  # type: ignore[misc]
    """Runs all tests with in-memory layers, which are emptied before each test."""

    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        with in_memory_layers(), _empty_before_each_test():
            return super().run_suite(suite, **kwargs)


def _in_memory(alias: str) -> dict[str, Any]:
    entry = channel_layers.configs[alias]
    if issubclass(backend_of(alias), MemoryChannelLayer):
        return entry
    kept = {key: value for key, value in entry.items() if key in ("ROUTING", "GATEWAY")}
    return dict(kept, BACKEND=MEMORY)


@contextmanager
def _empty_before_each_test() -> Iterator[None]:
    # unittest lacks a hook for this: each test of any class comes here, also in a forked process.
    run = unittest.TestCase.run

    def run_with_empty_layers(self: Any, result: Any = None) -> Any:
        for layer in channel_layers.made_in_memory():
            layer.flush()
        return run(self, result)

    with mock.patch.object(unittest.TestCase, "run", run_with_empty_layers):
        yield
