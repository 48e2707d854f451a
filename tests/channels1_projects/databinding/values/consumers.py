from channels.generic.websockets import WebsocketDemultiplexer

from .models import IntegerValueBinding


class Demultiplexer(WebsocketDemultiplexer):
    consumers = {
        "intval": IntegerValueBinding.consumer,
    }

    def connection_groups(self, **kwargs):
        return ["intval-updates"]
