"""
Messages for later: a separate application (`channels.delay` in INSTALLED_APPS, then `migrate`).

A message on the channel `asgi.delay` says what to send where, and after how many milliseconds;
`manage.py rundelay` keeps it in the database until then.
"""

import django

if django.VERSION < (3, 2):  # later versions find the AppConfig by themselves
    default_app_config = __name__ + ".apps.DelayConfig"
