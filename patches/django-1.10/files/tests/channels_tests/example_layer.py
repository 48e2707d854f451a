"""The example layer of the guide, for tests. Without fcntl (Windows), both names are None."""

try:
    import fcntl
except ImportError:
    fcntl = None

if fcntl is None:
    DirectoryChannelLayer = DirectoryStore = None
else:
    from .directory_layer import (  # NOQA: F401
        DirectoryChannelLayer, DirectoryStore,
    )
