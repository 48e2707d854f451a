"""Settings under which runtests_addon.py runs channels_tests: those of Django's own runner.

Inside the patched Django, Django's runtests.py takes this file's place: a test class that needs
another application than Django's runner installs appends it, with `@modify_settings`.
"""

SECRET_KEY = "only for the tests"
DEBUG = False
ALLOWED_HOSTS = []
USE_TZ = False
# This module is its own, empty, URL configuration; a test that needs URLs overrides ROOT_URLCONF.
ROOT_URLCONF = "addon_settings"
urlpatterns = []

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3"},
    "other": {"ENGINE": "django.db.backends.sqlite3"},
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STATIC_URL = "/static/"

INSTALLED_APPS = [
    "django.channels",
    "django.channels.delay",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sites",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.staticfiles",
    "channels_tests",
]
SITE_ID = 1

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
# Django 1.8 and 1.9 read this name.
MIDDLEWARE_CLASSES = MIDDLEWARE

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.debug",
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# auth.E003 and others of the contributed applications are Django's own business.
SILENCED_SYSTEM_CHECKS = ["fields.W342", "channels.W013"]  # the tests set CHANNEL_LAYERS
