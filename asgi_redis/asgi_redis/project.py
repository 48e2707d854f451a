"""Tell the projects on one Redis apart: the default prefix, and which project may use one. No I/O."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.crypto import salted_hmac

from .contract import refusal

#: Digits that tell one SECRET_KEY from another, and nothing about it.
_DIGITS = 16


def default_prefix() -> str:
    """
    Return the prefix of a layer that is given none: the package of the settings, and a colon. Raises
    ImproperlyConfigured if there is none, or one that many projects have.
    """
    module = getattr(settings, "SETTINGS_MODULE", None) or os.environ.get("DJANGO_SETTINGS_MODULE")
    package = str(module or "").partition(".")[0]
    if package in ("", "settings", "config", "conf", "project", "core"):
        raise ImproperlyConfigured(
            'The Redis layer needs a prefix that no other site has: write "prefix": "mysite:" in its CONFIG. '
            "(By default it is the package of DJANGO_SETTINGS_MODULE, which is %r here.)" % package
        )
    return package + ":"


def is_name(value: Any) -> bool:
    """Return whether `value` is text that Redis can hold."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def identities(name: Any) -> list[str]:
    """
    Return what this project is called in Redis, and then what it was called before. `name` is the option
    `project`; by default, a digest of SECRET_KEY, and of SECRET_KEY_FALLBACKS, stands for it. Raises
    ImproperlyConfigured if neither tells this project from others.
    """
    if name is not None:
        if not is_name(name) or not name:
            raise refusal("project", "text that no other project has, such as 'mysite'", name)
        return ["name %s" % name]
    if not settings.SECRET_KEY:  # newer Djangos raise by themselves
        raise ImproperlyConfigured(
            "The Redis layer tells this project from others by SECRET_KEY, which is empty: set it, or the "
            "option project."
        )
    keys = [settings.SECRET_KEY] + list(getattr(settings, "SECRET_KEY_FALLBACKS", ()))
    return [
        "key %s" % salted_hmac("asgi_redis.project", "", secret=key).hexdigest()[:_DIGITS]
        for key in keys
    ]
