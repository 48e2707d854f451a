"""django-channels-jsonrpc: remote calls over WebSockets and over HTTP."""

import json

from channels import route_class
from channels.test import ChannelTestCase, HttpClient, WSClient, apply_routes
from channels_jsonrpc.jsonrpcconsumer import JsonRpcConsumer


class Calls(JsonRpcConsumer):
    def connection_groups(self, **kwargs):
        return ["calls"]


@Calls.rpc_method()
def add(one, other):
    return one + other


@Calls.rpc_method(http=False)
def path(**kwargs):
    return kwargs["original_message"]["path"]


def call(method, number=1, **params):
    return {"jsonrpc": "2.0", "method": method, "id": number, "params": params}


@apply_routes([route_class(Calls)])
class JsonRpcTests(ChannelTestCase):
    def test_over_a_socket(self):
        client = WSClient()
        client.send_and_consume("websocket.connect", path="/rpc/")
        for request, key, expected in (
            (call("add", one=1, other=2), "result", 3),
            (call("path"), "result", "/rpc/"),
            (call("nothing"), "error", {"code": -32601, "message": "Method Not Found"}),
        ):
            client.send_and_consume("websocket.receive", text=request, path="/rpc/")
            self.assertEqual(client.receive()[key], expected)
        Calls.notify_group("calls", "ring", {"times": 2})
        self.assertEqual(client.receive()["params"], {"times": 2})

    def test_over_http(self):
        for request, status in ((call("add", one=1, other=2), 200), (call("path"), 404)):
            client = HttpClient()
            content = {"method": "POST", "body": json.dumps(request).encode()}
            client.send_and_consume("http.request", content)
            response = client.receive()
            self.assertEqual(response["status"], status)
        self.assertEqual(json.loads(response["content"].decode())["error"]["code"], -32601)
