"""Settings of the tests of each package; PACKAGE names the one that is tested."""

import os

SECRET_KEY = "only for the tests"
PACKAGE = os.environ["CHANNELS1_PACKAGE"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
STATIC_URL = "/static/"
ROOT_URLCONF = "channels1_packages.settings"
urlpatterns = []
# In the order that the guide of Channels 1.1 gives: channels last.
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
]
INSTALLED_APPS += {
    "presence": ["channels_presence"],
    "television": ["channels1_packages", "television"],
    "knocker": ["knocker"],
    "haystack": ["haystack", "haystack_channels"],
    "slack": ["channels_slack_notifications"],
}.get(PACKAGE, [])
INSTALLED_APPS += ["channels"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "asgiref.inmemory.ChannelLayer",
        "ROUTING": {
            "television": "television.routing.channel_routing",
            "knocker": "knocker.routing.channel_routing",
            "haystack": "haystack_channels.routing.channel_routing",
            "slack": "channels_slack_notifications.routing.slack_routing",
        }.get(PACKAGE, []),
    }
}
HAYSTACK_CONNECTIONS = {"default": {"ENGINE": "haystack.backends.simple_backend.SimpleEngine"}}
HAYSTACK_SIGNAL_PROCESSOR = "haystack_channels.signals.ChannelsRealTimeAsyncSignalProcessor"
CHANNELS_SLACK_TOKEN = "token"
CHANNELS_SLACK_BACKEND = "channels1_packages.test_slack.backend"
