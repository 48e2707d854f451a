"""The installed applications, for `available_apps`, which Django's own runner asks of every
TransactionTestCase."""

from django.apps import apps

#: Their names: of `channels` another one inside the patched Django than as the add-on.
INSTALLED = [config.name for config in apps.get_app_configs()]
