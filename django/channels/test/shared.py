"""The warnings that a test uses the channel layer of the running site, and where warnings point."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

from ..asgi import channel_layers
from ..pages import see

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer


def warn_of_shared_layer(layer: BaseChannelLayer) -> None:
    """Warn if a test client is about to use the layer of the settings, which other processes may use, too."""
    if not (layer.crosses_processes and channel_layers.is_from_settings(layer)):
        return
    _warn(
        "This test client uses the layer %r of CHANNEL_LAYERS (%s), as the running site does: workers of the "
        "site may take its messages, and clients of the site get what the test sends to groups."
        % (layer.alias, type(layer).__name__)
    )


def warn_of_send(layer: BaseChannelLayer, name: str, is_channel: bool) -> None:
    """
    Warn if a test sends to the channel or group `name` of the running site. A test that overrides
    CHANNEL_LAYERS knows where it sends, and a database layer has the database of the tests.
    """
    if channel_layers.overrides > 0 or not channel_layers.is_from_settings(layer):
        return
    if not layer.is_of_tests():
        _warn(
            "A test sends to the %s %r on the layer %r of CHANNEL_LAYERS (%s), as the running site does: %s."
            % (
                "channel" if is_channel else "group",
                name,
                layer.alias,
                type(layer).__name__,
                "a worker of the site takes it" if is_channel else "the site's clients get it",
            )
        )


def _warn(text: str) -> None:
    remedy = (
        "Derive the test case from ChannelTestCase, or write TEST_RUNNER = '%s.runner.ChannelTestRunner' in "
        "the settings." % __package__
    )
    warnings.warn(
        "%s %s %s" % (text, remedy, see("topics/channels/testing")),
        RuntimeWarning,
        stacklevel=level_of_test(),
    )


def level_of_test() -> int:
    """Return the `stacklevel` of the nearest frame outside this package, for the caller's `warn`."""
    level, frame = 1, sys._getframe(1)
    package = __name__.split(".test.")[0] + "."
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(package):
        level, frame = level + 1, frame.f_back
    return level
