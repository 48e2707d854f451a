"""
Messages for later: a separate application (`channels.delay` in INSTALLED_APPS, then `migrate`).

A message on the channel `asgi.delay` says what to send where, and after how many milliseconds;
`manage.py rundelay` keeps it in the database until then.
"""

import sys

import django

if sys.version_info < (3, 7):  # noqa: UP036  (inside Django)
    default_app_config = "django.channels.old_python.InertDelayConfig"
elif django.VERSION < (3, 2):  # later versions find the AppConfig by themselves
    default_app_config = __name__ + ".apps.DelayConfig"
