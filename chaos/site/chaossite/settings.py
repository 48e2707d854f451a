"""
The site that is put under load; chaos/run.py writes the layer and the databases to chaos.json, and to another
file where gateways reach the layer through a proxy.
"""

import json
import os

try:
    import MySQLdb  # noqa: F401
except ImportError:
    try:
        import pymysql
    except ImportError:
        pass
    else:
        # Django asks for a version of mysqlclient that offers what PyMySQL does.
        pymysql.version_info = (2, 2, 1, "final", 0)
        pymysql.install_as_MySQLdb()

BASE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

with open(os.path.join(BASE_DIR, os.environ.get("CHAOS_SETTINGS", "chaos.json"))) as _file:
    _chaos = json.load(_file)

SECRET_KEY = "only for chaos"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = False
ROOT_URLCONF = "chaossite.urls"
INSTALLED_APPS = ["channels"] + _chaos.get("apps", [])
# It gives every answer a Content-Length.
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATA_UPLOAD_MAX_MEMORY_SIZE = None
DATABASES = _chaos.get("databases", {})
CHANNEL_LAYERS = {"default": dict(_chaos["layer"], ROUTING="chaossite.routing.channel_routing")}
