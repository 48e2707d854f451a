"""Settings of the chat: small enough to read whole, and changed through the environment.

PORT and HOST are demo.py's. Here: LAYER ("memory" or "database"), CHANNEL_REDIS_URL, CHAT_DATABASE (a
file), DEBUG (0 or 1), ALLOWED_HOSTS (separated by spaces) and SECRET_KEY.
"""

import os

import django

BASE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

DEBUG = os.environ.get("DEBUG", "1") == "1"
SECRET_KEY = os.environ.get("SECRET_KEY", "for trying the chat out: everybody knows this one")
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost 127.0.0.1 [::1]").split()

INSTALLED_APPS = [
    "channels",  # before staticfiles, whose runserver it replaces
    "chat",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
if django.VERSION < (1, 10):
    MIDDLEWARE_CLASSES = MIDDLEWARE

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]

ROOT_URLCONF = "chat.urls"
STATIC_URL = "/static/"
USE_TZ = True
TIME_ZONE = "UTC"  # browsers show their own
SESSION_COOKIE_AGE = 365 * 24 * 60 * 60  # seconds; a nickname is chosen once

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("CHAT_DATABASE", os.path.join(BASE_DIR, "db.sqlite3")),
        "OPTIONS": {"timeout": 20},  # seconds that a writer waits for its turn
    }
}
if django.VERSION >= (5, 1):  # readers and the one writer do not wait for each other
    DATABASES["default"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL"
if django.VERSION >= (3, 2):
    DEFAULT_AUTO_FIELD = "django.db.models.AutoField"

# What carries messages between the server and the code. In memory, one process does it all; with
# any other layer, servers and workers (manage.py runworker) are separate processes.
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels.layers.memory.MemoryChannelLayer",
        "ROUTING": "chat.routing.channel_routing",
    }
}
if os.environ.get("LAYER") == "database":  # on SQLite, a separate file next to the site's
    INSTALLED_APPS.append("channels.layers.database")
    CHANNEL_LAYERS["default"]["BACKEND"] = "channels.layers.database.DatabaseChannelLayer"
if os.environ.get("CHANNEL_REDIS_URL"):
    CHANNEL_LAYERS["default"]["BACKEND"] = "asgi_redis.RedisChannelLayer"
    CHANNEL_LAYERS["default"]["CONFIG"] = {
        "hosts": [os.environ["CHANNEL_REDIS_URL"]],
        "prefix": "chat:",
    }
