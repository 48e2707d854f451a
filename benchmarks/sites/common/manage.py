"""`manage.py` of every site: DJANGO_SETTINGS_MODULE and the path come from the process that starts it."""

import os
import sys

sys.path.insert(0, os.getcwd())

from django.core.management import execute_from_command_line  # noqa: E402

execute_from_command_line(sys.argv)
