"""What each test has to leave as it found it, because the tests after it in the same process meet it."""

import logging
import os
import sys

from django.channels.compat import set_script_prefix
from django.channels.continued import current_event
from django.channels.log import LastResort, RateLimit, RateLimitByKey
from django.conf import settings
from django.utils import timezone, translation


def begin():
    """
    Forget what any test may leave: the script prefix of a request that it handled, and that a line was logged
    a short time ago. Return the `state()` that the test begins with.
    """
    set_script_prefix("/")
    for limit in _limits():
        limit.clear()
    return state()


def _limits():
    """Return the limits of lines that the modules of the package share."""
    found = set()
    package = RateLimit.__module__.rpartition(".")[0]  # it may have either name
    for name, module in list(sys.modules.items()):
        if name.startswith((package + ".", "asgi_redis.")):
            for value in list(vars(module).values()):
                if isinstance(value, (RateLimit, RateLimitByKey)):
                    found.add(value)
    return found


def state():
    """Return {what: value} of the process and of this thread, to be compared with that of another time."""
    found = {
        "settings": settings._wrapped,  # each override has its own
        "environment variables": sorted(os.environ),
        "a current directory": os.getcwd(),
        "sys.path": list(sys.path),
        "a current event": current_event(),
        "a language": translation.get_language(),
        "a time zone": timezone.get_current_timezone_name(),
        "logging.disable": logging.root.manager.disable,
        "the logger root": _logger(logging.root),
    }
    for name, value in os.environ.items():
        found["the variable " + name] = value
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            found["the logger " + name] = _logger(logger)
    return found


def _logger(logger):
    # Libraries add a NullHandler when they are imported. Django makes new handlers of the same classes, and
    # drops the one of the package, when a test has changed the settings of logging.
    handlers = [
        type(each).__name__
        for each in logger.handlers
        if not isinstance(each, (logging.NullHandler, LastResort))
    ]
    return logger.level, logger.propagate, logger.disabled, handlers, len(logger.filters)


def changed(before):
    """Return what differs now from `before`, a `state()`, as text for an error; "" if nothing does."""
    now = state()
    parts = []
    for what, value in before.items():
        if now.get(what) != value:
            left = now.get(what)
            if what == "environment variables":
                value, left = sorted(set(value) - set(left)), sorted(set(left) - set(value))
            parts.append("%s (found: %r, left: %r)" % (what, value, left))
    return "; ".join(parts)
