"""What a state of the gateway asks for, kept and sorted, for tests without a server."""

from django.channels.gateway.state import COUNT, FINISH, LOG, SEND, WRITE


class Recorder:
    """Keeps the actions of `state`, which a subclass sets."""

    def __init__(self, state):
        self.state = state
        self.sent, self.written, self.counted, self.logged = [], [], [], []
        self.finished = False

    def write(self, event, note):
        self.written.append(event)

    def do(self, actions):
        for action in actions:
            if action[0] == SEND:
                self.sent.append(action[1:])
            elif action[0] == WRITE:
                self.write(*action[1:])
            elif action[0] == COUNT:
                self.counted.append(action[1])
            elif action[0] == LOG:
                self.logged.append(action[2])
            elif action[0] == FINISH:
                self.finished = True
        return self

    def reply(self, **message):
        return self.do(self.state.reply(message))

    def done(self, *replies, **more):
        return self.reply(replies=list(replies), done=self.state.in_flight, **more)
