"""The former place of support/databases.py and aliases.py."""

from .support.aliases import add_alias, make_tables, mariadb_alias, postgresql_alias  # noqa: F401
from .support.databases import MariaDB, PgBouncer, PostgreSQL, mysql_driver  # noqa: F401
from .support.processes import python_environment  # noqa: F401
