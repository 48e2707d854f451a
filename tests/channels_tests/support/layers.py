"""What several test modules do with layers: empty a channel, break a promise, run a model over one."""

import asyncio

from .requirements import require
from .waiting import wait_until


def waiting_on(layer, channel):
    """Take the messages that wait on `channel`; return them, the oldest first."""
    return [message for _, message in iter(lambda: layer.receive_many([channel]), (None, None))]


def next_message(layer, channel):
    """Wait for the next message of `channel`, and return it."""
    return wait_until(
        lambda: layer.receive_many([channel])[1], "a message on %s" % channel, interval=0.002
    )


def replies_on(layer, channel):
    """Take the messages that wait for a client. Return them, but for notices of consumers that take long."""
    return [message for message in waiting_on(layer, channel) if "running" not in message]


def next_reply(layer, channel):
    """Return the next message to a client that isn't a notice of a consumer that takes long."""
    message = next_message(layer, channel)
    while "running" in message:
        message = next_message(layer, channel)
    return message


def lie_to(lies, *tests):
    """
    Return a decorator of a broken layer: it adds the layer to `lies`, with the names of the `tests` of the
    conformance suite, without "test_", that fail for it. `changed` is the class that breaks the promise.
    """

    def decorate(lie, changed=None):
        lie.noticed_by = ["test_" + name for name in tests]
        lie.changed = changed or lie
        lies.append(lie)
        return lie

    return decorate


def run_model(machine, examples, steps, **settings):
    """Run a state machine of Hypothesis: so many examples of so many steps, the same ones each time."""
    require("hypothesis.stateful")
    import hypothesis
    from hypothesis import stateful

    stateful.run_state_machine_as_test(
        machine,
        settings=hypothesis.settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            **settings,
        ),
    )


def check_abandoned_inbox_leaves(case):
    """Check that an inbox whose event loop was closed leaves `case.layer` like one that is closed."""
    name = "gateway.left!"

    async def open_and_wait():
        inbox = case.layer.open_inbox(name)
        inbox.set_will(name + "1", ("websocket.disconnect", {"code": 1006}))
        case.layer.group_add("room", name + "1")
        await inbox.receive()  # that it has joined
        sent = asyncio.get_event_loop().create_future()
        inbox.send("work", {}, sent.set_exception)
        while case.layer.receive_many(["work"])[0] is None:
            await asyncio.sleep(0.01)
        return inbox

    loop = asyncio.new_event_loop()
    inbox = loop.run_until_complete(open_and_wait())
    loop.close()
    inbox.abandon()
    case.assertEqual(case.receive("websocket.disconnect")["code"], 1006)
    wait_until(lambda: case.layer.group_channels("room") == [], "its membership to end")
    case.assertNotIn(name, case.layer.leases._names)
