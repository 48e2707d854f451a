"""
What each consumer begins with: its own context, and the default language, time zone, URL prefix and URLconf.

A worker's thread runs consumers and views of many visitors, one after the other.
"""

from __future__ import annotations

import contextvars
import decimal
import operator
import threading
from typing import Any, Callable, NamedTuple

from django.conf import settings
from django.utils import timezone, translation

from .compat import (
    forget_opened,
    get_script_prefix,
    get_urlconf,
    keep_opened,
    local_of,
    opened_by,
    opening_handlers,
    set_script_prefix,
    set_urlconf,
)


class _State(NamedTuple):
    """What is active in this thread. None for a language means that translation is off."""

    language: Any
    zone: Any
    prefix: str
    urlconf: Any


class _Thread(threading.local):
    #: The context of this thread, and the same with the site's defaults, which was made of it.
    found_and_clean: tuple[contextvars.Context, contextvars.Context] | None = None
    #: Whether the thread's context has caches that consumers have opened.
    has_opened = False


_thread = _Thread()


def own_context() -> contextvars.Context:
    """
    Return a new context for one consumer: what this thread's context has, and the site's default language,
    time zone, URL prefix and URLconf. What the consumer sets in it ends with it.
    """
    now = contextvars.copy_context()
    if not IN_CONTEXT_VARIABLES:
        return now
    kept = _thread.found_and_clean
    # Python compares contexts at once, if nothing was set after one was copied from the other.
    if kept is not None and _equal(kept[0], now):
        return _unshared(kept[1].copy())
    clean = _unshared(now.copy())
    clean.run(apply_state, _defaults())
    _thread.found_and_clean = _unshared(now.copy()), clean
    return _unshared(clean.copy())


def _unshared(context: contextvars.Context) -> contextvars.Context:
    """Return `context`, a copy. What is set in the Locals of asgiref must not reach where it came from."""
    if SHARES_LOCALS:
        for variable, value in list(context.items()):
            if variable.name == "asgiref.local" and type(value) is dict:
                context.run(variable.set, dict(value))
    return context


def _equal(one: contextvars.Context, other: contextvars.Context) -> bool:
    """Return whether two contexts have the same: equal values may be different objects, such as lists."""
    try:
        if one != other:
            return False
        if SHARES_LOCALS:
            return all(_is_same(each, value, other[each]) for each, value in one.items())
        return all(map(operator.is_, one.values(), other.values()))
    except BaseException:  # from comparing values of the site's own variables
        return False


def _is_same(variable: contextvars.ContextVar[Any], one: Any, other: Any) -> bool:
    """Return whether two equal values of `variable` are the same object, or copies that `_unshared` made."""
    if one is not other and variable.name == "asgiref.local" and type(one) is dict:
        return all(value is other[name] for name, value in one.items())
    return one is other


def run_in(
    context: contextvars.Context, root_path: Any, function: Callable[..., Any], *args: Any
) -> Any:
    """
    Return what `function(*args)` returns, run in this thread, in `context` of `own_context`, and with the
    prefix of URLs that the server has told as `root_path` (text or None). As in a request,
    FORCE_SCRIPT_NAME replaces that.

    Where Django keeps its state for each thread, restore at the end what was there before: in a worker, the
    defaults; in a test, what the test has set.
    """
    prefix = _prefix_of(root_path)
    if not IN_CONTEXT_VARIABLES:
        before = current_state()
        apply_state(_defaults()._replace(prefix=prefix))
        try:
            return context.run(function, *args)
        finally:
            apply_state(before)
    if prefix != "/":
        context.run(set_script_prefix, prefix)
    try:
        return context.run(function, *args)
    finally:
        keep_opened_in(context)


def _prefix_of(root_path: Any) -> str:
    try:
        # As `settings.FORCE_SCRIPT_NAME` in a tenth of the time: settings keep there what was asked for.
        name = object.__getattribute__(settings, "FORCE_SCRIPT_NAME")
    except AttributeError:
        name = settings.FORCE_SCRIPT_NAME
    if name is None:
        name = root_path if isinstance(root_path, str) else ""
    return name.rstrip("/") + "/" if name else "/"


class _Opening(NamedTuple):
    """A handler of Django that opens its caches, for example, once in each context, and keeps them there."""

    handler: Any
    #: The asgiref Local in which it keeps them.
    local: Any
    #: The context variable of that, or None if it has several.
    variable: contextvars.ContextVar[Any] | None


_openings: list[_Opening] = []


def _find_openings() -> None:
    """Find the variables of what may be opened. Changed settings replace the Locals."""
    found = []
    for handler in opening_handlers():
        local = local_of(handler)
        # asgiref 3.9.0 has one for each attribute.
        first, second = (_set_by(local, name) for name in ("channels_1", "channels_2"))
        variable = first.pop() if first == second and len(first) == 1 else None
        found.append(_Opening(handler, local, variable))
    _openings[:] = found


def _set_by(local: Any, name: str) -> set[contextvars.ContextVar[Any]]:
    """Return the context variables that setting an attribute of `local` sets."""
    before, after = contextvars.copy_context(), contextvars.copy_context()
    after.run(setattr, local, name, None)
    return {each for each in after if each not in before or after[each] is not before[each]}


def keep_opened_in(context: contextvars.Context) -> None:
    """
    Keep in this thread's context the caches that code in `context` has opened: the next consumer of this
    thread uses their connections again.
    """
    for handler, local, variable in _openings:
        if local_of(handler) is not local:
            _find_openings()
            break
        # Asking the Local itself takes longer than a small consumer.
        if variable is None or _differ(context.get(variable), variable.get(None)):
            break
    else:
        return
    for handler in opening_handlers():
        here = opened_by(handler)
        for alias, opened in context.run(opened_by, handler).items():
            if alias not in here:
                keep_opened(handler, alias, opened)
                _thread.has_opened = True


def leave_opened(context: contextvars.Context) -> contextvars.Context:
    """Return `context`, for another thread, without the caches that this thread has opened and uses."""
    if _thread.has_opened:
        _unshared(context).run(_forget_opened)
    return context


def _forget_opened() -> None:
    for handler in opening_handlers():
        forget_opened(handler)


def starting_context() -> contextvars.Context:
    """
    Return the context for new threads that run consumers: what the process has set in this one, without what
    belongs to a single thread, as caches and the context of `decimal` do.
    """
    now = contextvars.copy_context()
    probe = now.copy()
    probe.run(decimal.setcontext, decimal.Context())
    context = contextvars.Context()
    for variable, value in now.items():
        if probe[variable] is value:
            context.run(variable.set, value)
    _unshared(context).run(_forget_opened)
    return context


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
    """Return whether Django keeps this state in context variables: since 3.0, with asgiref 3.8 or newer."""
    before = get_urlconf()
    contextvars.Context().run(set_urlconf, "probe")
    if get_urlconf() != "probe":
        return True
    set_urlconf(before)
    return False


def _shares_locals() -> bool:
    """Return whether a copy of a context shares what Django keeps in it: with asgiref 3.8."""
    set_urlconf("probe")
    contextvars.copy_context().run(set_urlconf, "changed")
    return bool(get_urlconf() != "probe")


#: Whether each task has its own language, time zone and URLs.
IN_CONTEXT_VARIABLES = _keeps_in_context_variables()
#: Whether it has them only in a context whose Locals of asgiref were copied, too.
SHARES_LOCALS = IN_CONTEXT_VARIABLES and contextvars.Context().run(_shares_locals)
_differ = operator.ne if SHARES_LOCALS else operator.is_not
if IN_CONTEXT_VARIABLES:
    _find_openings()
