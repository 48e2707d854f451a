"""
What Django keeps for each thread and sets for each request: language, time zone, URL prefix and URLconf.

A worker's thread runs consumers and views of many visitors, one after the other.
"""

from __future__ import annotations

import contextvars
import threading
from typing import Any, NamedTuple

from django.conf import settings
from django.utils import timezone, translation

from .compat import get_script_prefix, get_urlconf, set_script_prefix, set_urlconf


class _State(NamedTuple):
    """What is active in this thread. None for a language means that translation is off."""

    language: Any
    zone: Any
    prefix: str
    urlconf: Any


class _Thread(threading.local):
    #: The context variables of this thread when everything was last known to be the site's default.
    clean: contextvars.Context | None = None


_thread = _Thread()


class site_defaults:
    """
    A context manager: run with the site's default language, time zone and URLconf, and with the prefix of
    URLs that the server has told as `root_path` (text or None). As in a request, FORCE_SCRIPT_NAME replaces
    that.

    At the end, restore what was there before: in a worker, the defaults; in a test, what the test has set.
    Belongs to one thread.
    """

    __slots__ = ("_before", "_prefix")

    def __init__(self, root_path: Any) -> None:
        try:
            # As `settings.FORCE_SCRIPT_NAME` in a tenth of the time: settings keep there what was asked for.
            name = object.__getattribute__(settings, "FORCE_SCRIPT_NAME")
        except AttributeError:
            name = settings.FORCE_SCRIPT_NAME
        if name is None:
            name = root_path if isinstance(root_path, str) else ""
        self._prefix = name.rstrip("/") + "/" if name else "/"
        self._before: _State | None = None

    def __enter__(self) -> None:
        # Comparing all of the state costs as much as a small consumer.
        if not _is_clean():
            self._before = current_state()
            apply_state(_defaults())
        if self._prefix != "/":
            set_script_prefix(self._prefix)

    def __exit__(self, *exc_info: Any) -> None:
        before = self._before
        if before is not None:
            apply_state(before)
            _thread.clean = contextvars.copy_context() if before == _defaults() else None
        elif not _is_clean():
            _restore_urls()
            if not _is_clean():
                apply_state(_defaults())
                _thread.clean = contextvars.copy_context()


def _is_clean() -> bool:
    """Return whether this thread is known to have the defaults. False may also mean that it isn't known."""
    if not IN_CONTEXT_VARIABLES:
        return False
    now = contextvars.copy_context()
    try:
        is_clean = _thread.clean == now
    except BaseException:  # from comparing values of the site's own variables
        return False
    if is_clean:
        _thread.clean = now  # Python compares contexts at once, if nothing was set between them
    return is_clean


def _restore_urls() -> None:
    """Restore the prefix and the URLconf, if their defaults are known. A request sets no more than these."""
    clean = _thread.clean
    if clean is not None:
        for each in _url_variables:
            if each in clean:
                each.set(clean[each])


def _changed(before: contextvars.Context, after: contextvars.Context) -> set[Any]:
    return {each for each in after if each not in before or after[each] is not before[each]}


def _find_url_variables() -> set[Any]:
    """Return the context variables in which Django keeps the prefix and the URLconf."""
    before, after = contextvars.copy_context(), contextvars.copy_context()
    after.run(set_script_prefix, "/probe/")
    after.run(set_urlconf, "probe")
    return _changed(before, after)


def _defaults() -> _State:
    return _State(settings.LANGUAGE_CODE, timezone.get_default_timezone(), "/", None)


def current_state() -> _State:
    """Return what is active in this thread or task."""
    return _State(
        translation.get_language(),
        timezone.get_current_timezone(),
        get_script_prefix(),
        get_urlconf(),
    )


def apply_state(state: _State) -> None:
    """Activate `state`. A default is set by removing what is active, so that changed settings count."""
    if state.language is None:
        translation.deactivate_all()
    elif state.language == settings.LANGUAGE_CODE:
        translation.deactivate()
    else:
        translation.activate(state.language)
    if state.zone is timezone.get_default_timezone():
        timezone.deactivate()
    else:
        timezone.activate(state.zone)
    set_script_prefix(state.prefix)
    set_urlconf(state.urlconf)


def _keeps_in_context_variables() -> bool:
    """Return whether Django keeps this state in context variables: since 3.0, with asgiref 3.7 or newer."""
    before = get_urlconf()
    contextvars.Context().run(set_urlconf, "probe")
    if get_urlconf() != "probe":
        return True
    set_urlconf(before)
    return False


#: Whether each task has its own language, time zone and URLs.
IN_CONTEXT_VARIABLES = _keeps_in_context_variables()
_url_variables = _find_url_variables() if IN_CONTEXT_VARIABLES else set()
