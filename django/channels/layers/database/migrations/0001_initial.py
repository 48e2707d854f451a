"""
The tables of the layer, as sql/<database>.sql has them. On SQLite the layer makes them, in its own
file.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations

from ..statements import FUNCTIONS, TABLES, schema


def create_tables(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor in ("postgresql", "mysql"):
        for statement in schema(schema_editor.connection.vendor):
            schema_editor.execute(statement)


def drop_tables(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor in ("postgresql", "mysql"):
        if schema_editor.connection.vendor == "postgresql":
            for function in FUNCTIONS:
                schema_editor.execute("DROP FUNCTION %s" % function)
        for table in TABLES:
            schema_editor.execute("DROP TABLE %s" % table)


class Migration(migrations.Migration):
    initial = True
    dependencies: list[Any] = []
    operations = [migrations.RunPython(create_tables, drop_tables, atomic=False)]
