"""Each form of `hosts` and each option of redis-py is honoured or refused; no password is told."""

import asyncio
import traceback
import unittest

import redis
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.views.debug import ExceptionReporter

from asgi_redis import RedisChannelLayer
from channels_tests.support.ports import free_port
from channels_tests.support.redis_server import RedisServer
from channels_tests.support.waiting import TIMEOUT

from .test_standalone import RedisLayerCase

SECRET = "s3cret"


def make(hosts=None, **config):
    return RedisChannelLayer(hosts=hosts, **config)


class HostsTests(RedisLayerCase, unittest.TestCase):
    def assertWorks(self, layer):
        """Both ends connect: the blocking one and the event loop's."""
        self.addCleanup(layer.close)
        layer.flush()
        layer.send("test.x", {"number": 1})
        self.assertEqual(layer.receive_many(["test.x"]), ("test.x", {"number": 1}))

        async def check():
            inbox = layer.open_inbox("gateway.a!")
            try:
                layer.send("gateway.a!1", {"number": 2})
                return await asyncio.wait_for(inbox.receive(), TIMEOUT)
            finally:
                await inbox.close()

        self.assertEqual(asyncio.run(check()), [("gateway.a!1", {"number": 2})])

    def test_each_documented_form(self):
        server = RedisServer.shared()
        address = ("127.0.0.1", server.port)
        for hosts in (
            [server.url],
            server.url,
            [address],
            [list(address)],
            address,
            [{"address": server.url}],
            [{"address": address}],
            {"host": "127.0.0.1", "port": server.port},
            [{"host": "127.0.0.1", "port": server.port, "socket_keepalive": True}],
            [server.url.rsplit("/", 1)[0]],
        ):
            with self.subTest(hosts=hosts):
                self.assertWorks(make(hosts))

    def test_options_of_a_url_and_of_a_dict(self):
        url = RedisServer.shared().url
        for query in (
            "health_check_interval=1",
            "socket_timeout=3",
            "socket_connect_timeout=3",
            "socket_keepalive=yes",
            "client_name=site",
            "protocol=2",
            "decode_responses=False",
        ):
            if query == "decode_responses=False":
                layer = make([{"address": url, "decode_responses": False}])
            else:
                layer = make([url + "?" + query])
            with self.subTest(query=query):
                self.assertWorks(layer)

    def test_text_of_an_environment_variable_is_a_number(self):
        port = RedisServer.shared().port
        self.assertWorks(make([{"host": "127.0.0.1", "port": str(port), "db": "0"}]))
        self.assertWorks(make([{"address": "redis://127.0.0.1:%d/3" % port, "db": 3}]))

    def database_of(self, layer):
        layer.send("test.x", {})
        self.addCleanup(layer.close)
        _, _, database = layer.store.servers.call(("CLIENT", "INFO")).partition(b" db=")
        return int(database.split()[0])

    def test_a_database(self):
        server = RedisServer.shared()
        bare = "redis://127.0.0.1:%d" % server.port
        for hosts in (
            [bare + "/3"],
            [bare + "?db=3"],
            [{"address": bare, "db": 3}],
            [{"host": "127.0.0.1", "port": server.port, "db": 3}],
        ):
            self.assertEqual(self.database_of(make(hosts)), 3)
        layer = make([("127.0.0.1", server.port)], connection_kwargs={"db": 3})
        self.assertEqual(self.database_of(layer), 3)

    def test_a_unix_socket_and_a_user(self):
        server = RedisServer()
        path = server.directory + "/redis.sock"
        server.options.update(unixsocket=path, user=["site on >%s ~* &* +@all" % SECRET])
        server.start()
        self.addCleanup(server.stop)
        for hosts in (
            ["unix://" + path],
            ["unix://site:%s@%s?db=2" % (SECRET, path)],
            [{"path": path}],
            [{"path": path, "username": "site", "password": SECRET}],
        ):
            with self.subTest(hosts=hosts):
                self.assertWorks(make(hosts))


class RefusedTests(unittest.TestCase):
    def assertRefused(self, pattern, hosts=None, **config):
        with self.assertRaisesRegex(ImproperlyConfigured, pattern) as caught:
            make(hosts, **config)
        self.assertNotIn(SECRET, "".join(traceback.format_exception(None, caught.exception, None)))

    def test_options_of_another_type(self):
        self.assertRefused("pool_size", pool_size="many")
        self.assertRefused("pool_size", pool_size=-1)
        self.assertRefused("cluster", cluster="no")
        for partitions in (0, True, "2"):
            self.assertRefused("partitions", partitions=partitions)
        for service in (b"mymaster", 1, ""):
            self.assertRefused("service", sentinels=[("localhost", 26379)], service=service)
        for options in ({1: 1}, {"socket_keepalive_options": "x"}):
            self.assertRefused("options", connection_kwargs=options)
            self.assertRefused("options", [dict(options, host="localhost")])
        for options in ({"x": 1}, {1: "x"}, [1]):
            keepalive = {"socket_keepalive": True, "socket_keepalive_options": options}
            self.assertRefused("socket_keepalive_options", connection_kwargs=keepalive)

    def test_options_that_cannot_be_honoured(self):
        url = "redis://user:%s@localhost/0" % SECRET
        for query, pattern in (
            ("protocol=3", "protocol"),
            ("decode_responses=True", "decode_responses"),
            ("encoding=latin-1", "encoding"),
            ("max_connections=5", "pool_size"),
            ("timeout=5", "socket_timeout"),
            ("retry_on_timeout=yes", "retry_on_timeout"),
            ("socket_timeout=0", "socket_timeout"),
            ("socket_timeout=nan", "socket_timeout"),
            ("socket_connect_timeout=inf", "socket_connect_timeout"),
            ("socket_timeout=1e300", "socket_timeout"),
            ("socket_timeout=soon", "cannot be read"),
            ("ssl_cert_reqs=none", "rediss"),
            ("unknown=1", "unknown"),
            ("db=1&db=2", "db"),
            ("db=", "db"),
        ):
            with self.subTest(query=query):
                self.assertRefused(pattern, [url + "?" + query])

    def test_the_same_options_in_a_dict_or_in_connection_kwargs(self):
        url = "redis://user:%s@localhost/0" % SECRET
        for options, pattern in (
            ({"protocol": 3}, "protocol"),
            ({"decode_responses": True}, "decode_responses"),
            ({"retry": object()}, "retry"),
            ({"socket_timeout": None}, "socket_timeout"),
            ({"ssl_ca_certs": "x.pem"}, "rediss"),
            ({"ssl": "yes"}, "ssl"),
            ({"unknown": SECRET}, "unknown"),
            ({"health_check_interval": float("nan")}, "health_check_interval"),
            ({"ssl": True, "ssl_cert_reqs": "wrong"}, "ssl_cert_reqs"),
        ):
            with self.subTest(options=options):
                self.assertRefused(pattern, [dict(options, address=url)])
                self.assertRefused(pattern, [url], connection_kwargs=options)
        self.assertRefused("socket_timeout", [url], socket_timeout=None)
        for hosts in ([url], [("h", 1)], None):
            for options in ({"host": "other"}, {"port": 2}, {"path": "/x.sock"}):
                self.assertRefused("there", hosts, connection_kwargs=options)
        for kwargs in ("x", [], 5, [("db", 1)]):
            self.assertRefused("connection_kwargs", [url], connection_kwargs=kwargs)

    def test_what_is_said_twice_or_has_no_meaning_is_refused_and_not_dropped(self):
        for hosts in (
            5,
            {("localhost", 1)},
            ["redis://h:1/4?db=5"],
            ["redis://u:p@h?password=x"],
            ["redis://u@h?username=x"],
            ["redis://h?host=x"],
            ["redis://h?port=5"],
            ["redis://h?credential_provider=x"],
            ["redis://h?socket_type=1"],
            ["redis://h:0"],  # redis-py connects to 6379
            ["redis://h?socket_keepalive=maybe"],  # it takes any word for True
            ["rediss://h?ssl_check_hostname=off"],
            ["redis://h?socket_read_size=0"],  # each connection would look closed
            ["redis://h?socket_read_size=-1"],
            ["redis://h?client_name=my%20site"],  # an error of the server at each connection
            ["redis://h?client_name=a%0D%0Ab"],
            ["redis://h?client_name=caf%C3%A9"],
            ["redis://h?lib_name=my%20site"],
            ["redis://h?driver_info=x"],
            ["redis://h?event_dispatcher=x"],
            ["redis://h?maint_notifications_config=x"],
            ["redis://h?orig_host_address=x"],
            ["rediss://h?ssl_min_version=1"],
            [{"host": "h", "client_name": ""}],
            [{"host": "h", "credential_provider": object()}],
            [{"host": "h", "event_dispatcher": None}],
            [{"host": "h", "socket_read_size": True}],
            [{"host": "h", "ssl": True, "ssl_check_hostname": "no"}],
            [{"host": "h", "ssl": True, "ssl_min_version": "771"}],
            ["redis://h1,h2"],
            ["redis://\x00h"],
            [{"address": "redis://h:1/2", "db": 3}],
            [{"address": ("h", 1), "host": "other"}],
            [("h", 0)],
            [("h", 70000)],
            [{"host": 5}],
            [{"host": "h", "port": "x"}],
            [{"host": "h", "db": -1}],
            [{"host": "h", "db": True}],
            [{"host": "h", "password": 5}],
            [{"host": "h", "socket_keepalive": "yes"}],
            [{"sentinels": [("s", 1)], "master_name": "m", "db": "x"}],
        ):
            with self.subTest(hosts=hosts), self.assertRaises(ImproperlyConfigured):
                make(hosts)

    def test_forms_that_say_nothing(self):
        for hosts, pattern in (
            (["localhost"], "list of URLs"),
            ([("localhost", 6379, 1)], "list of URLs"),
            ([{}], "address"),
            ([{"password": SECRET}], "address"),
            (["http://user:%s@localhost" % SECRET], "cannot be read"),
            (["redis://user:a#%s@localhost" % SECRET], "percent-encode"),
            (["redis://user:a/%s@localhost" % SECRET], "cannot be read|percent-encode"),
            (["redis://localhost:%s" % SECRET], "cannot be read"),
            (["redis://localhost/%s" % SECRET], "number of the database"),
            (["unix://"], "path"),
            (["redis://localhost:1", "redis://localhost:2"], "2 servers"),
            # Numbers for `str.isdigit`, but not for int() or redis-py.
            ([("localhost", "²")], "list of URLs"),
            ([{"host": "localhost", "port": "²"}], "port"),
            ([{"host": "localhost", "db": "²"}], "db"),
            (["redis://localhost/²"], "number of the database"),
            (["redis://localhost/１"], "number of the database"),
        ):
            with self.subTest(hosts=hosts):
                self.assertRefused(pattern, hosts)

    def test_what_may_be_a_part_of_a_password_is_not_told_as_the_name_of_an_option(self):
        for hosts in (
            [
                "redis://localhost:1?%s@localhost" % SECRET
            ],  # the password: 1?…, or a part of the port
            ["redis://:1?%s@localhost/0" % SECRET],
            ["redis://:1?a&%s=b@localhost/0" % SECRET],
            ["redis://:1?%s=b@localhost/0" % SECRET],
            ["redis://localhost?%s!=1" % SECRET],
            {"redis://:%s@localhost" % SECRET: {}},
            [{"host": "localhost", ":%s@localhost" % SECRET: 6379}],
        ):
            with self.subTest(hosts=hosts):
                self.assertRefused("", hosts)

    def test_a_url_without_a_host_is_taken_as_an_address_too(self):
        for url in ("redis://", "redis://:6380/1"):
            first, second = make([url]), make([{"address": url}])
            self.assertEqual(first.store.servers.where, second.store.servers.where)

    def test_a_credential_provider_comes_in_place_of_a_password(self):
        provider = redis.UsernamePasswordCredentialProvider("user", SECRET)
        for options in ({"password": SECRET}, {"username": "user"}):
            host = dict(options, host="localhost", credential_provider=provider)
            self.assertRefused("in place of", [host])
        make([{"host": "localhost", "credential_provider": provider}])

    def test_a_cluster(self):
        self.assertRefused("db", ["redis://localhost/1"], cluster=True)
        self.assertRefused("path", ["unix:///x.sock"], cluster=True)
        self.assertRefused(
            "health_check", ["redis://localhost?health_check_interval=9"], cluster=True
        )
        hosts = ["redis://:%s@localhost:1" % SECRET, "redis://:other@localhost:2"]
        self.assertRefused("different options", hosts, cluster=True)

    def test_sentinels(self):
        self.assertRefused("service", sentinels=[("localhost", 1)])
        self.assertRefused("sentinels", service="mymaster")
        self.assertRefused("list of", sentinels=["localhost:1"], service="mymaster")
        self.assertRefused("list of", sentinels=[], service="mymaster")
        self.assertRefused("port", sentinels=[("localhost", 0)], service="mymaster")
        self.assertRefused("kwargs", sentinels=[("a", 1)], service="m", sentinel_kwargs="x")
        self.assertRefused("not both", ["redis://localhost"], sentinels=[("a", 1)], service="m")
        for name in ("connection_kwargs", "sentinel_kwargs"):
            config = {name: {"decode_responses": True}}
            self.assertRefused("decode_", sentinels=[("a", 1)], service="m", **config)
            config = {name: {"unknown": 1}}
            self.assertRefused("unknown", sentinels=[("a", 1)], service="m", **config)
        # As channels_redis writes it.
        host = {"sentinels": [("a", 1)], "master_name": "m", "sentinel_kwargs": "x"}
        self.assertRefused("sentinel_kwargs", [host])
        host = {"sentinels": [("localhost", 1)], "master_name": "mymaster", "password": SECRET}
        self.assertIn("Sentinel", make([host]).store.servers.where)


class PasswordTests(RedisLayerCase, unittest.TestCase):
    def report(self, layer, call):
        """The pages that DEBUG shows, and that ADMINS get."""
        try:  # assertRaises would clear the variables
            call()
        except layer.LayerUnavailable as caught:
            error = caught
        else:
            self.fail("it did not fail")
        reporter = ExceptionReporter(None, type(error), error, error.__traceback__)
        frames = reporter.get_traceback_frames()
        variables = [(name, value) for frame in frames for name, value in frame.get("vars", ())]
        self.assertTrue(variables)
        return "%s\n%s" % (variables, reporter.get_traceback_text().partition("Settings:")[0])

    def test_a_report_of_an_outage_has_no_password(self):
        port = free_port()
        url = "redis://user:%s@127.0.0.1:%d" % (SECRET, port)
        for config in (
            {"hosts": [url]},
            {"hosts": [{"host": "127.0.0.1", "port": port, "password": SECRET}]},
            {"hosts": [url], "cluster": True},
            {
                "sentinels": [("127.0.0.1", port)],
                "service": "m",
                "connection_kwargs": {"password": SECRET},
                "sentinel_kwargs": {"password": SECRET},
            },
        ):
            layer = RedisChannelLayer(**config)
            self.addCleanup(layer.close)
            with self.subTest(config=config):
                self.assertNotIn(
                    SECRET, self.report(layer, lambda layer=layer: layer.send("a", {}))
                )
                link = layer.store.servers.link(blocks=False)
                self.assertNotIn(
                    SECRET, self.report(layer, lambda link=link: asyncio.run(link.connect()))
                )

    def test_a_report_of_a_bad_option_has_no_password(self):
        url = "redis://user:%s@localhost/0" % SECRET
        for config in (
            {"hosts": [url + "?protocol=3"]},
            {"hosts": [{"address": url, "unknown": 1}]},
            {"hosts": [url + "?db=x"]},
            {"hosts": [url], "connection_kwargs": {"password": SECRET, "unknown": 1}},
        ):
            with self.subTest(config=config):
                try:
                    RedisChannelLayer(**config)
                except ImproperlyConfigured as caught:
                    error = caught
                    reporter = ExceptionReporter(None, type(error), error, error.__traceback__)
                    frames = reporter.get_traceback_frames()[1:]  # without this test's own
                    self.assertNotIn(SECRET, str([frame["vars"] for frame in frames]))
                else:
                    self.fail("it was taken")


class ProjectTests(RedisLayerCase, unittest.TestCase):
    def test_another_project_under_the_same_prefix_is_refused(self):
        mine = self.make_layer(prefix="shared:")
        mine.flush()
        mine.send("test.x", {"cookie": "mine"})
        with override_settings(SECRET_KEY="another one"):
            other = self.make_layer(prefix="shared:")
            for _ in range(2):
                with self.assertRaisesRegex(
                    mine.LayerUnavailable, "another project uses this prefix"
                ):
                    other.receive_many(["test.x"])
            link = other.store.servers.link(blocks=False)
            with self.assertRaisesRegex(mine.LayerUnavailable, "another project uses this prefix"):
                asyncio.run(link.connect())
        self.assertEqual(mine.receive_many(["test.x"])[1], {"cookie": "mine"})

    def expire(self, layer):
        """Free a prefix whose project expires. Return the milliseconds that it had left, or -1."""
        servers, key = layer.store.servers, layer._keys.project
        left = servers.call(("PTTL", key))
        if left > 0:
            servers.call(("DEL", key))
        return left

    def test_a_prefix_stays_its_projects_while_a_delayed_message_waits(self):
        mine = self.make_layer(prefix="delayed:")
        mine.flush()
        mine.send_later("test.x", {"cookie": "mine"}, 3600)
        self.assertEqual(self.expire(mine), -1)
        self.make_layer(prefix="delayed:").send("test.y", {})  # it connects, and so checks again
        self.assertEqual(self.expire(mine), -1)
        with override_settings(SECRET_KEY="another one"):
            other = self.make_layer(prefix="delayed:")
            with self.assertRaisesRegex(mine.LayerUnavailable, "has delayed messages there"):
                other.receive_many(["test.x"])
            self.assertEqual(self.expire(mine), -1)
            mine.flush()
            with self.assertRaises(mine.LayerUnavailable):
                other.receive_many(["test.x"])
            self.assertGreater(self.expire(mine), 0)
            self.assertEqual(other.receive_many(["test.x"]), (None, None))

    def test_a_project_keeps_its_prefix_after_its_former_key_is_forgotten(self):
        first = self.make_layer(prefix="forgotten:")
        first.flush()
        first.send_later("test.x", {}, 3600)
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            for _ in range(2):
                self.make_layer(prefix="forgotten:").send("test.y", {})
        with override_settings(SECRET_KEY="new"):
            self.make_layer(prefix="forgotten:").send("test.y", {})
        self.make_layer(prefix="forgotten:").send("test.y", {})
        first.flush()

    def test_a_changed_secret_key_is_the_same_project(self):
        before = self.make_layer(prefix="rotated:")
        before.send("test.x", {})
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            after = self.make_layer(prefix="rotated:")
        self.assertEqual(after.receive_many(["test.x"])[0], "test.x")
        before.store.servers.suspect()
        before.send("test.x", {})

    def test_a_name_stands_for_the_key(self):
        one = self.make_layer(prefix="named:", project="site")
        with override_settings(SECRET_KEY="another one"):
            two = self.make_layer(prefix="named:", project="site")
        one.send("test.x", {})
        self.assertEqual(two.receive_many(["test.x"])[0], "test.x")

    def test_a_heartbeat_notices_a_project_that_came_meanwhile(self):
        mine = self.make_layer(prefix="meanwhile:")
        mine.leases.step()
        client = RedisServer.shared().client()
        client.set(mine.store.keys.project, "key of another")
        with self.assertRaisesRegex(mine.LayerUnavailable, "another project"):
            mine.leases.step()
        client.delete(mine.store.keys.project)
        mine.leases.step()

    def test_a_name_that_tells_no_project_from_others_is_refused(self):
        for value in ("", b"site", 5, True, ["site"], "\ud800"):
            with self.assertRaisesRegex(ImproperlyConfigured, "option project"):
                make(prefix="named:", project=value)
        with override_settings(SECRET_KEY=""), self.assertRaisesRegex(
            ImproperlyConfigured, "SECRET_KEY"
        ):
            make(prefix="named:")

    def test_a_prefix_is_text_that_redis_can_hold(self):
        for value in (b"site:", 5, "a{b", "}", "\ud800"):
            with self.assertRaisesRegex(ImproperlyConfigured, "option prefix"):
                make(prefix=value)
        for value in ("", ":", "a:b", "caf\u00e9*"):
            self.assertEqual(make(prefix=value)._keys.tag, "{%s#0}" % value)

    def test_equal_names_of_settings_in_two_folders_are_two_projects(self):
        """Their SECRET_KEY differs; the one that comes second is refused, and told why."""
        # No other test has this prefix; Redis remembers for a minute whose one is.
        with override_settings(SETTINGS_MODULE="twofolders.settings", SECRET_KEY="one"):
            one = self.layer_by_default()
            one.flush()
            one.send("http.request", {"cookie": "one"})
        with override_settings(SETTINGS_MODULE="twofolders.settings.prod", SECRET_KEY="two"):
            two = self.layer_by_default()
            for call in (
                lambda: two.receive_many(["http.request"]),
                lambda: two.send("http.request", {}),
                lambda: two.claim("worker", ["http.request"]),
                lambda: two.send_group("room", {}),
                lambda: two.leases.step(),
            ):
                with self.assertRaisesRegex(two.LayerUnavailable, "another project"):
                    call()
        self.assertEqual(one.receive_many(["http.request"])[1], {"cookie": "one"})

    def layer_by_default(self):
        layer = make([RedisServer.shared().url])
        self.addCleanup(layer.close)
        return layer

    def test_the_default_prefix_is_the_package_of_the_settings(self):
        for module, prefix in (("mysite.settings", "mysite:"), ("shop.settings.prod", "shop:")):
            with override_settings(SETTINGS_MODULE=module):
                self.assertEqual(make()._keys.tag, "{%s#0}" % prefix)
        for module in ("settings", "config.settings"):
            with override_settings(SETTINGS_MODULE=module):
                with self.assertRaisesRegex(ImproperlyConfigured, "prefix"):
                    make()
                self.assertEqual(make(prefix="mine:")._keys.tag, "{mine:#0}")
