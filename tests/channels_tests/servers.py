"""The former place of support/ports.py, processes.py and sites.py."""

from .support.ports import can_connect, free_port  # noqa: F401
from .support.processes import Process  # noqa: F401
from .support.sites import FILES, PACKAGE, Project, serve  # noqa: F401
from .support.sites import SiteServer as Server  # noqa: F401
from .support.waiting import TIMEOUT, wait_until  # noqa: F401
