"""What the gateway uses of servers beyond ASGI: another version of a server may lack it."""

import inspect
import sys
import types
import unittest
from collections import deque
from importlib import import_module
from unittest import mock

from django.channels.gateway import internals
from django.channels.gateway.fragments import bound_twisted
from django.channels.gateway.limits import Limits
from django.channels.gateway.pipelines import MAX_PIPELINED, has_too_many
from django.channels.gateway.refusal import Refusals
from django.channels.gateway.servers import bound_servers
from django.channels.layers.memory import MemoryChannelLayer

LOGGER = "django.channels.gateway"
BOUNDS = internals.BOUNDS


def modules_of_bounds():
    return {each.module for bound in BOUNDS for each in bound.kinds}


class _Instances:
    """A class whose instances have `transport`, which only a method tells."""

    def __init__(self):
        self.transport = None


class InternalsTests(unittest.TestCase):
    def setUp(self):
        patched = mock.patch.object(internals, "_reported", set())
        patched.start()
        self.addCleanup(patched.stop)

    def bound(self, modules):
        """Bound servers that have these modules only, and return the lines in the log."""
        none = dict.fromkeys([*modules_of_bounds(), internals.HTTP2])
        with mock.patch.dict(sys.modules, {**none, **modules}), self.assertLogs(LOGGER) as logs:
            internals.logger.warning("the last line")  # there may be no other
            for _ in range(2):  # of two gateways
                bound_servers(Limits(), Refusals(MemoryChannelLayer()))
        return logs.output[1:]

    def modules_without(self, class_of_a_server, name):
        """Return the modules and the class, with all that any bound uses of it but `name`."""
        uses = {
            use
            for bound in BOUNDS
            for each in bound.kinds
            if each[:2] == class_of_a_server[:2]
            for use in each.uses
        }
        names = uses - {name, "transport"}
        body = {each: lambda self, *args: None for each in names}
        bases = (_Instances,) if name != "transport" else ()
        kind = type(class_of_a_server.name, bases, body)
        module = types.SimpleNamespace(**{class_of_a_server.name: kind})
        if class_of_a_server.name == internals.CYCLE:
            return {class_of_a_server.module: module}, kind
        if class_of_a_server.module in (internals.HTTPTOOLS, internals.H11):
            setattr(
                module, internals.CYCLE, type(internals.CYCLE, (), {"conn": 1, "on_response": 1})
            )
        return {class_of_a_server.module: module}, kind

    def test_the_installed_servers_have_all_that_the_gateway_uses(self):
        for module in modules_of_bounds():
            try:
                import_module(module)
            except ImportError:
                continue  # this server, or this protocol of it, isn't installed
            for bound in BOUNDS:
                for each in bound.kinds:
                    if each.module == module:
                        with self.subTest(module=module, bound=bound.what):
                            one = bound._replace(kinds=(each,))
                            self.assertEqual(len(list(internals.usable(one))), 1)
        self.assertEqual(internals._reported, set())

    def test_a_class_that_lacks_a_name_is_left_alone_and_logged_once(self):
        for bound in BOUNDS:
            for each in bound.kinds:
                for name in each.uses:
                    with self.subTest(bound=bound.what, class_of_a_server=each.name, name=name):
                        internals._reported.clear()
                        modules, kind = self.modules_without(each, name)
                        before = getattr(kind, "connection_made", None)
                        lines = [
                            line
                            for line in self.bound(modules)
                            if bound.what in line and each.name in line
                        ]
                        self.assertEqual(len(lines), 1, lines)
                        self.assertIn(name, lines[0])
                        self.assertIn(each.module, lines[0])
                        if bound is internals.FRAMES:
                            self.assertIs(getattr(kind, "connection_made", None), before)
                        if bound is internals.HEADS:
                            self.assertFalse(hasattr(kind, "channels_heads"))
                        if bound is internals.CHUNKS:
                            self.assertFalse(hasattr(kind, "channels_waiting"))

    def test_a_further_gateway_changes_no_class_once_more(self):
        """Otherwise each call of a server would pass through one wrapper for each gateway that there was."""
        for bound in BOUNDS:
            for each in bound.kinds:
                with self.subTest(bound=bound.what, class_of_a_server=each.name):
                    modules, kind = self.modules_without(each, None)
                    self.bound(modules)
                    methods = dict(inspect.getmembers(kind, inspect.isfunction))
                    self.bound(modules)
                    again = dict(inspect.getmembers(kind, inspect.isfunction))
                    self.assertEqual(again, methods)

    def test_a_class_with_another_name_is_logged(self):
        for bound in BOUNDS:
            for each in bound.kinds:
                with self.subTest(bound=bound.what, class_of_a_server=each.name):
                    internals._reported.clear()
                    lines = self.bound({each.module: types.SimpleNamespace()})
                    lines = [line for line in lines if bound.what in line and each.name in line]
                    self.assertEqual(len(lines), 1, lines)

    def test_a_protocol_that_the_gateway_does_not_know_is_logged_once(self):
        for module in (internals.HTTP_MODULES, internals.SOCKET_MODULES):
            lines = self.bound({module + "new_impl": types.SimpleNamespace()})
            self.assertEqual(len(lines), 1, lines)
            self.assertIn(module + "new_impl", lines[0])
            self.assertIn("what one client sends", lines[0])

    def test_pipelined_requests_beyond_the_bound_are_dropped(self):
        class Connection:
            def on_response(self):
                """What uvicorn calls after each response."""

        class Cycle:
            async def receive(self):
                """What uvicorn gives to the gateway."""

        Cycle.__module__ = internals.HTTPTOOLS
        for number, left in ((MAX_PIPELINED, MAX_PIPELINED), (MAX_PIPELINED + 1, 0)):
            connection, cycle = Connection(), Cycle()
            connection.pipeline, cycle.on_response = deque(range(number)), connection.on_response
            self.assertEqual(has_too_many(cycle.receive), not left)
            self.assertEqual(len(connection.pipeline), left)

    def test_a_socket_of_daphne_that_lacks_a_name_is_left_alone_and_logged_once(self):
        for name in internals.SOCKET_OF_DAPHNE:
            with self.subTest(name=name):
                internals._reported.clear()
                protocol = types.SimpleNamespace(**dict.fromkeys(internals.SOCKET_OF_DAPHNE, 0))
                delattr(protocol, name)
                before = dict(vars(protocol))
                with self.assertLogs(LOGGER) as logs:
                    for _ in range(2):
                        bound_twisted(protocol, "192.0.2.1", self.fail)
                self.assertEqual(len(logs.output), 1)
                self.assertIn(name, logs.output[0])
                self.assertEqual(vars(protocol), before)
