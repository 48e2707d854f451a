"""What Django has removed since 1.10, and how a project of that time is changed for newer Djangos.

This is all that differs between the projects on different Djangos.
"""

import os
import re
import shutil

#: (Django that removed it, names of files, what is replaced, by what). Each is Django's own doing.
REMOVED = [
    ((2, 0), "settings.py", r"^MIDDLEWARE_CLASSES = ", "MIDDLEWARE = "),
    ((2, 0), "settings.py", r"^ .*\.SessionAuthenticationMiddleware\",\n", ""),
    ((2, 0), "models.py", r"django\.core\.urlresolvers", "django.urls"),
    ((2, 0), "models.py", r"(models\.ForeignKey\(\w+)", r"\1, on_delete=models.CASCADE"),
    ((2, 0), "utils.py", r"is_authenticated\(\)", "is_authenticated"),
    (
        (2, 1),
        "urls.py",
        r"from django\.contrib\.auth\.views import login$",
        "from django.contrib.auth.views import LoginView\n\nlogin = LoginView.as_view()",
    ),
    ((3, 0), "models.py", r"^from .* import python_2_unicode_compatible\n", ""),
    ((3, 0), "models.py", r"^@python_2_unicode_compatible\n", ""),
    ((3, 0), ".html", r"{% load staticfiles %}", "{% load static %}"),
    (
        (4, 0),
        "urls.py",
        r"from django\.conf\.urls import url$",
        "from django.urls import re_path as url",
    ),
]


def copy_project(source, target, version):
    """Copy the project in folder `source` to the new folder `target`, for a Django of that version."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3"))
    for folder, _, names in os.walk(target):
        for name in names:
            _replace(os.path.join(folder, name), version)


def _replace(path, version):
    changes = [each[2:] for each in REMOVED if version >= each[0] and path.endswith(each[1])]
    if not changes:
        return
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    for pattern, new in changes:
        text = re.sub(pattern, new, text, flags=re.M)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
