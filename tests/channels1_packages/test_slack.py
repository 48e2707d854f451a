"""channels-slack-notifications: messages to Slack, by a worker."""

from channels.test import ChannelTestCase, Client
from channels_slack_notifications import send

sent = []


def backend(data, url):
    """Take the place of the request to Slack."""
    sent.append(data)


class SlackTests(ChannelTestCase):
    def test_a_notification_reaches_the_backend(self):
        send("hello", {"channel": "#news"})
        Client().consume("slack-notifications")
        (data,) = sent
        self.assertEqual(
            (data["text"], data["channel"], data["token"]), ("hello", "#news", "token")
        )
