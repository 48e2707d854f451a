"""Channels 1.1 with asgi_redis 1.4, on Django 1.11. BENCH_REDIS is the server's URL."""

import os

SECRET_KEY = "only for benchmarks on the loopback interface"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "urls"
MIDDLEWARE = []
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["channels"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "asgi_redis.RedisChannelLayer",
        "ROUTING": "routing.routing",
        "CONFIG": {
            "hosts": [os.environ.get("BENCH_REDIS", "redis://localhost")],
            "capacity": 10000,
        },
    }
}
