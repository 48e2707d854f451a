"""
Warnings about what would otherwise be lost in silence: a message that no route takes, a message on a layer
that ends with this process, while the process serves nothing, and a message to clients whose text is a dict.

The first two are about how processes are started, so the processes of tests are not warned of them. They are
warned of what they send to the running site.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Generator
from urllib.parse import urlparse

from django.apps import apps
from django.conf import settings
from django.core import mail
from django.core.exceptions import DisallowedHost, ImproperlyConfigured
from django.http.response import HttpResponseBase

from .backends import DATABASE
from .log import RateLimit, RateLimitByKey, shown
from .pages import see
from .protocol import GATEWAY_PREFIX

if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer

logger = logging.getLogger("django.channels")

#: Seconds between two lines about the same channel or group. With DEBUG, each message gets one.
INTERVAL = 60.0

#: The channel of messages that will be sent later.
DELAY = "asgi.delay"

#: What consumes delayed messages on a layer that rundelay can't reach.
DELAY_CONSUMER = "%r" % (__package__ + ".delay.consumers.delay_message")

_unrouted, _unserved = RateLimitByKey(INTERVAL), RateLimitByKey(INTERVAL)
_not_text, _returned = RateLimitByKey(INTERVAL), RateLimitByKey(INTERVAL)
_late_groups = RateLimitByKey(INTERVAL)
_static, _host = RateLimit(INTERVAL), RateLimit(INTERVAL)

#: What a reply to a client has, of which one is enough.
_REPLY_KEYS = {"accept", "text", "bytes", "close", "status", "content"}


def advise(layer: BaseChannelLayer, name: str, is_channel: bool) -> None:
    """Warn if a message that a site sends to the channel or group `name` would be lost."""
    if "!" in name or "?" in name:
        return
    if is_test():
        if layer.crosses_processes:
            from .test.shared import warn_of_send

            warn_of_send(layer, name, is_channel)
        return
    is_lost = not layer.crosses_processes and not layer.is_served
    if not is_lost and (not is_channel or _is_routed(layer, name)):
        return
    if is_lost:
        _unserved.log(
            name,
            logger.warning,
            "A message to %s was sent in a process without a server: the channel layer %s lives in one "
            "process, so no consumer and no client gets it. %s",
            name,
            layer,
            _remedy_without_server(),
        )
    elif name == DELAY and layer.crosses_processes:
        _unrouted.log(
            name,
            logger.warning,
            "A message was sent to %s, but the app that delays it isn't installed. Add %r to INSTALLED_APPS, "
            "run manage.py migrate, and keep manage.py rundelay running. Without them, the message expires.",
            name,
            __package__ + ".delay",
        )
    else:
        _unrouted.log(
            name,
            logger.warning,
            "A message was sent to the channel %s, which no route takes, so no worker consumes it. Add "
            "route(%r, %s) to the ROUTING of the layer %s.",
            name,
            name,
            DELAY_CONSUMER if name == DELAY else "consumer",
            layer.alias,
        )


def advise_text(name: str, is_channel: bool) -> None:
    """Warn that the "text" of a message to the channel or group `name` is a dict or list."""
    if is_channel and not name.startswith(GATEWAY_PREFIX):
        return  # of the site, which may send what it likes
    _not_text.log(
        "gateway" if is_channel else name,
        logger.warning,
        "The 'text' of a message to %s is a dict or list, so no WebSocket gets it. Send JSON by "
        "send_json(content), or json.dumps it. %s",
        name,
        see("ref/channels/messages"),
    )


def advise_late_groups(consumer: str) -> None:
    """Warn that `connect` of a class changed `groups`, which the socket had joined before."""
    _late_groups.log(
        consumer,
        logger.warning,
        "%s.connect() changed self.groups, which was read before it, so the socket has not joined what was "
        "added. A list of the class is that of all its sockets. Return the names from "
        "connection_groups(self, **kwargs), or call Group(name).add(self.message.reply_channel).",
        consumer,
    )


def advise_returned(consumer: str, returned: Any) -> None:
    """Warn that a consumer returned what it must send: only the test client hands it on."""
    is_reply = isinstance(returned, dict) and not _REPLY_KEYS.isdisjoint(returned)
    remedy = "It sends with message.reply_channel.send({…})."
    if not is_reply:
        remedy += (
            " For a response of Django, send each message of AsgiHandler.encode_response(response)."
        )
    if is_reply or isinstance(returned, (HttpResponseBase, Generator)):
        _returned.log(
            consumer,
            logger.warning,
            "The consumer %s returned a %s, which is ignored: a consumer returns nothing. "
            + remedy,
            consumer,
            type(returned).__name__,
        )


def advise_static(path: str, root: str) -> None:
    """
    Warn that the request for `path` got a 404 although it names a static file of the site. `root` is the
    script prefix, which may stand in front of STATIC_URL.
    """
    base = urlparse(getattr(settings, "STATIC_URL", None) or "")
    if root and not base.path.startswith(root) and path.startswith(root):
        path = path[len(root) :]
    if base.netloc or not base.path or not path.startswith(base.path):
        return
    if not apps.is_installed("django.contrib.staticfiles"):
        return
    from django.contrib.staticfiles import finders

    try:
        is_found = os.path.isfile(finders.find(path[len(base.path) :]) or "")
    except Exception:  # of a storage of the site, or a path that leads outside
        return
    if is_found:
        _static.log(
            logger.warning,
            "The request for the static file %s got a 404: runserver serves static files if DEBUG is on, and "
            "other servers don't. Run manage.py collectstatic, and let the web server in front serve %s from "
            "STATIC_ROOT. %s",
            shown(path),
            settings.STATIC_URL,
            see("howto/deployment/asgi/nginx"),
        )


def advise_host(request: Any) -> None:
    """Log why `request` got a 400, if its Host isn't allowed. Django itself says so with DEBUG alone."""
    if settings.DEBUG:
        return
    try:
        request.get_host()
    except DisallowedHost as error:
        _host.log(
            logger.warning, "The request for %s got a 400: %s", shown(request.path), shown(error)
        )


def _remedy_without_server() -> str:
    if not apps.is_installed(__package__):
        return (
            "Add %r to INSTALLED_APPS: without it, runserver is Django's and serves no layer."
            % __package__
        )
    return "Use a layer that crosses processes, such as the BACKEND %r." % DATABASE


def is_test() -> bool:
    """Return whether a test runner has set this process up."""
    return "outbox" in vars(mail)


def _is_routed(layer: BaseChannelLayer, name: str) -> bool:
    """
    Return whether a worker consumes `name`. The names that begin with "asgi." have their own consumers, on a
    layer that these can reach; that of DELAY is rundelay, of an app.
    """
    try:
        has_consumers = name.startswith("asgi.") and layer.crosses_processes
        if name == DELAY and not apps.is_installed(__package__ + ".delay"):
            has_consumers = False
        return has_consumers or name in layer.router.channels
    except ImproperlyConfigured:  # workers and `check` report it
        return True
