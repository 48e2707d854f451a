"""What tests, chaos, benchmarks and scripts share: ports, waiting, processes, servers.

* `requirements`: skip a test whose server is missing, or fail it in CI.
* `waiting`: wait for a condition; the one time-out.
* `ports`: a free port, and whether a port answers.
* `processes`: one child process whose output is kept; what a run left behind.
* `redis_server`, `databases`: a Redis, Sentinel or Cluster node, PostgreSQL, PgBouncer, MariaDB.
* `sites`: a Django project in a temporary directory, and an ASGI server in front of it.
* `aliases`: a database server as an alias of Django's.

All but the last two need only the standard library, so chaos/, benchmarks/ and scripts/ import them with
tests/ on `sys.path`.
"""
