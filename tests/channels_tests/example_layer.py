"""
The example layer of the guide, for tests. It imports `channels`, as a site with the add-on does. So the
patched Django gets this name as well. Without fcntl (Windows), both names are None.
"""

import django.channels
from django.channels import alias

try:
    import fcntl
except ImportError:
    fcntl = None

if fcntl is None:
    DirectoryChannelLayer = DirectoryStore = None
else:
    if django.channels.__name__ == alias.IN_DJANGO[alias.ADDON]:
        alias.become_alias()
    from .directory_layer import DirectoryChannelLayer, DirectoryStore  # noqa: F401
