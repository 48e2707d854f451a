from channels.test import ChannelTestCase, WSClient

from .models import Liveblog, Post


class LiveblogTests(ChannelTestCase):
    def setUp(self):
        self.blog = Liveblog.objects.create(title="News", slug="news")
        self.path = "/liveblog/news/stream/"

    def test_posts_reach_readers(self):
        reader, other = WSClient(), WSClient()
        Liveblog.objects.create(title="Other", slug="other")
        reader.send_and_consume("websocket.connect", path=self.path)
        other.send_and_consume("websocket.connect", path="/liveblog/other/stream/")
        post = Post.objects.create(liveblog=self.blog, body="hello")
        self.assertEqual(reader.receive()["body"], "hello")
        post.body = "bye"
        post.save()
        self.assertEqual(reader.receive()["body"], "bye")
        self.assertIsNone(other.receive())
        reader.send_and_consume("websocket.disconnect", path=self.path)
        post.save()
        self.assertIsNone(reader.receive())

    def test_an_order_is_kept(self):
        reader = WSClient(ordered=True)
        reader.send_and_consume("websocket.connect", path=self.path)
        for number in range(3):
            reader.send_and_consume("websocket.receive", text={"ping": 1}, path=self.path)
            self.assertEqual(reader.receive(), {"pings": number + 1})

    def test_a_blog_that_does_not_exist(self):
        reader = WSClient()
        reader.send_and_consume(
            "websocket.connect", path="/liveblog/no/stream/", check_accept=False
        )
        self.assertEqual(reader.receive(), {"error": "bad_slug"})
        self.assertEqual(reader.receive(), {"close": True})
