// Run by tests/channels_tests/test_websocketbridge.py, or by hand: node --test tests/channels_tests/js
"use strict";

const assert = require("node:assert");
const { beforeEach, test } = require("node:test");

// The page: a clock that tests move, and sockets that tests open, close and read.
let timers, now, sockets, random, listeners;

class FakeSocket {
  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
    this.readyState = 0;
    this.sent = [];
    sockets.push(this);
  }
  open() {
    this.readyState = 1;
    this.onopen({ type: "open" });
  }
  receive(value) {
    this.onmessage({ type: "message", data: typeof value === "string" ? value : JSON.stringify(value) });
  }
  end(code) {
    this.readyState = 3;
    if (this.onclose) {
      this.onclose({ type: "close", code: code });
    }
  }
  send(data) {
    this.sent.push(data);
  }
  close(code, reason) {
    this.closedWith = [code, reason];
    this.end(code || 1006);
  }
}

globalThis.self = {
  location: { protocol: "https:", host: "example.com:8000" },
  WebSocket: FakeSocket,
  setTimeout: (callback, delay) => {
    timers.push({ at: now + delay, callback, delay });
    return timers[timers.length - 1];
  },
  clearTimeout: (timer) => {
    timers = timers.filter((other) => other !== timer);
  },
  addEventListener: (type, callback) => listeners.push([type, callback]),
  removeEventListener: (type, callback) => {
    listeners = listeners.filter((other) => other[0] !== type || other[1] !== callback);
  },
};
const { WebSocketBridge } = require(process.env.BRIDGE || "../../../django/channels/static/channels/js/websocketbridge.js");
Math.random = () => random;

function pass(milliseconds) {
  now += milliseconds;
  for (const timer of timers.filter((other) => other.at <= now)) {
    if (timers.includes(timer)) {
      timers = timers.filter((other) => other !== timer);
      timer.callback();
    }
  }
}

function connected(url = "/ws/", options) {
  const bridge = new WebSocketBridge();
  bridge.connect(url, undefined, options);
  bridge.calls = [];
  bridge.listen((action, stream) => bridge.calls.push([action, stream]));
  return bridge;
}

// An event of the window.
function happens(type, event) {
  for (const [other, callback] of listeners) {
    if (other === type) {
      callback(event || {});
    }
  }
}

const last = () => sockets[sockets.length - 1];

beforeEach(() => {
  timers = [];
  now = 0;
  sockets = [];
  listeners = [];
  random = 0.5;
});

for (const [given, expected] of [
  ["/ws/", "wss://example.com:8000/ws/"],
  [undefined, "wss://example.com:8000"],
  ["ws://other/chat", "ws://other/chat"],
  ["https://other/chat", "wss://other/chat"],
  ["//other/chat", "wss://other/chat"],
  ["other.com/chat", "wss://other.com/chat"],
  ["localhost/chat", "wss://localhost/chat"],
  ["other:9000", "wss://other:9000"],
]) {
  test(`connect(${given}) opens ${expected}`, () => {
    new WebSocketBridge().connect(given);
    assert.strictEqual(last().url, expected);
  });
}

for (const given of ["live/1/", "live", "live?a.b", "chat#a:b"]) {
  test(`connect("${given}") says to begin a path with a slash`, () => {
    assert.throws(() => new WebSocketBridge().connect(given), (error) => {
      return error.message.includes(`("/${given}")`) && error.message.includes(`("wss://${given}")`);
    });
    assert.strictEqual(sockets.length, 0);
  });
}

test("what isn't a function is refused as a callback", () => {
  const bridge = connected();
  assert.throws(() => bridge.listen("x"), /listen\(\) needs a function .* got string/);
  assert.throws(() => bridge.demultiplex("stream", {}), /demultiplex\(\) needs a function .* got object/);
  assert.throws(() => bridge.demultiplex("stream"), /demultiplex\(\) needs a function .* got undefined/);
  last().open();
  last().receive("1"); // the callback from before is still there
  assert.deepStrictEqual(bridge.calls, [[1, null]]);
});

test("what JSON doesn't have is refused, and null is sent", () => {
  const bridge = connected();
  last().open();
  assert.throws(() => bridge.send(), /send\(\) needs a value that JSON has.* got undefined/);
  assert.throws(() => bridge.send(() => 1), /send\(\) needs .* got function/);
  assert.throws(() => bridge.stream("s").send(undefined), /stream\(\).send\(\) needs .* got undefined/);
  bridge.send(null);
  bridge.stream("s").send(null);
  assert.deepStrictEqual(last().sent, ["null", '{"stream":"s","payload":null}']);
});

test("a page without TLS opens sockets without TLS", () => {
  self.location.protocol = "http:";
  connected("/ws/");
  self.location.protocol = "https:";
  assert.strictEqual(last().url, "ws://example.com:8000/ws/");
});

test("subprotocols are passed on", () => {
  new WebSocketBridge().connect("/ws/", ["v1", "v2"]);
  assert.deepStrictEqual(last().protocols, ["v1", "v2"]);
});

test("listen gets each message, with stream null", () => {
  const bridge = connected();
  last().open();
  last().receive({ a: 1 });
  last().receive([1]);
  last().receive("null");
  assert.deepStrictEqual(bridge.calls, [[{ a: 1 }, null], [[1], null], [null, null]]);
});

test("a stream's callback gets the payload; other streams go to listen's callback", () => {
  const bridge = connected();
  const mine = [];
  bridge.demultiplex("mine", (action, stream) => mine.push([action, stream]));
  last().open();
  last().receive({ stream: "mine", payload: 1 });
  last().receive({ stream: "other", payload: 2 });
  last().receive({ stream: "constructor", payload: 3 });
  assert.deepStrictEqual(mine, [[1, "mine"]]);
  assert.deepStrictEqual(bridge.calls, [[2, "other"], [3, "constructor"]]);
});

test("listen without a callback serves streams only", () => {
  const bridge = new WebSocketBridge();
  bridge.connect("/ws/");
  bridge.listen();
  const mine = [];
  bridge.demultiplex("mine", (action) => mine.push(action));
  last().receive({ text: "for nobody" });
  last().receive({ stream: "mine", payload: "x" });
  assert.deepStrictEqual(mine, ["x"]);
});

test("send and stream(...).send write JSON", () => {
  const bridge = connected();
  last().open();
  bridge.send({ a: 1 });
  bridge.stream("s").send({ b: 2 });
  assert.deepStrictEqual(last().sent, ['{"a":1}', '{"stream":"s","payload":{"b":2}}']);
});

test("what is sent before the socket opens leaves in order when it does", () => {
  const bridge = connected();
  bridge.send(1);
  bridge.send(2);
  last().open();
  bridge.send(3);
  assert.deepStrictEqual(last().sent, ["1", "2", "3"]);
});

test("more than maxEnqueuedMessages throw", () => {
  const bridge = connected("/ws/", { maxEnqueuedMessages: 2 });
  bridge.send(1);
  bridge.send(2);
  assert.throws(() => bridge.send(3), /2 messages wait/);
});

test("send and listen before connect say what to do", () => {
  assert.throws(() => new WebSocketBridge().send(1), /Call connect\(\) before send/);
  assert.throws(() => new WebSocketBridge().listen(), /Call connect\(\) before listen/);
});

test("a lost connection is made again, later each time, and callbacks stay", () => {
  const bridge = connected();
  const delays = [];
  for (const code of [1006, 1012, 1011, 4012]) {
    last().end(code);
    delays.push(timers[timers.length - 1].delay);
    assert.strictEqual(bridge.socket.readyState, 0);
    pass(delays[delays.length - 1]);
  }
  assert.strictEqual(sockets.length, 5);
  assert.deepStrictEqual(delays.map(Math.round), [500, 850, 1445, 2456]);
  last().open();
  last().receive("5");
  assert.deepStrictEqual(bridge.calls, [[5, null]]);
  last().end(1006);
  assert.strictEqual(timers[timers.length - 1].delay, 500); // a connection that opened starts over
});

test("the delay is random, and bounded", () => {
  const bridge = connected("/ws/", { maxReconnectionDelay: 700 });
  random = 0.1;
  last().end(1006);
  assert.strictEqual(timers[0].delay, 70);
  random = 0.99;
  pass(70);
  last().end(1006);
  assert.strictEqual(timers[0].delay, 693);
  bridge.socket.close();
});

for (const code of [1000, 1008]) {
  test(`after ${code} from the site the socket stays closed`, () => {
    const bridge = connected();
    last().open();
    last().end(code);
    assert.strictEqual(timers.length, 0);
    assert.strictEqual(bridge.socket.readyState, 3);
    assert.throws(() => bridge.send(1), /closed/);
  });
}

test("close() is for good, also between two attempts", () => {
  const bridge = connected();
  last().end(1006);
  bridge.socket.close();
  pass(1e6);
  assert.strictEqual(sockets.length, 1);
  assert.strictEqual(listeners.length, 0);
  const other = connected();
  last().open();
  other.socket.close(4000, "bye");
  assert.deepStrictEqual(last().closedWith, [4000, "bye"]);
  pass(1e6);
  assert.strictEqual(sockets.length, 2);
});

test("an attempt that hangs is given up after connectionTimeout", () => {
  connected("/ws/", { connectionTimeout: 2000 });
  pass(2000);
  assert.ok(last().closedWith);
  pass(500);
  assert.strictEqual(sockets.length, 2);
});

test("maxRetries ends it", () => {
  const bridge = connected("/ws/", { maxRetries: 1 });
  last().end(1006);
  pass(500);
  last().end(1006);
  assert.strictEqual(timers.length, 0);
  assert.strictEqual(bridge.socket.readyState, 3);
});

test("a network that is back shortens the wait", () => {
  connected();
  last().end(1006);
  happens("online");
  assert.strictEqual(sockets.length, 2);
  happens("online"); // while an attempt runs, there is nothing to do
  assert.strictEqual(sockets.length, 2);
});

test("a page that the browser keeps opens its socket only when it is shown again", () => {
  const bridge = connected();
  const seen = [];
  for (const type of ["open", "close"]) {
    bridge.socket.addEventListener(type, (event) => seen.push([event.type, event.code]));
  }
  last().open();
  happens("pagehide", { persisted: false }); // the browser ends the socket by itself
  assert.strictEqual(last().closedWith, undefined);
  happens("pagehide", { persisted: true });
  assert.ok(last().closedWith);
  bridge.send(1);
  pass(1e6);
  assert.strictEqual(sockets.length, 1);
  happens("pageshow", { persisted: true });
  assert.strictEqual(sockets.length, 2);
  last().open();
  assert.deepStrictEqual(last().sent, ["1"]);
  assert.deepStrictEqual(seen, [["open", undefined], ["close", 1001], ["open", undefined]]);
});

test("a page that the browser keeps begins no attempt", () => {
  connected();
  last().end(1006);
  happens("pagehide", { persisted: true });
  happens("online");
  pass(1e6);
  assert.strictEqual(sockets.length, 1);
  happens("pageshow", { persisted: true });
  happens("pageshow", { persisted: false });
  assert.strictEqual(sockets.length, 2);
});

test("socket has the events of a WebSocket for each connection", () => {
  const bridge = connected();
  const seen = [];
  const count = (event) => seen.push(event.type);
  bridge.socket.addEventListener("open", count);
  bridge.socket.addEventListener("close", { handleEvent: count });
  last().open();
  last().end(1006);
  pass(500);
  last().open();
  bridge.socket.removeEventListener("open", count);
  last().end(1006);
  pass(500);
  last().open();
  assert.deepStrictEqual(seen, ["open", "close", "open", "close"]);
  assert.throws(() => bridge.socket.addEventListener("opened", count), /open, close/);
});

test("connect() again replaces the socket, the old one stays away, and callbacks stay", () => {
  const bridge = connected();
  const first = last();
  first.open();
  bridge.connect("/other/");
  assert.deepStrictEqual(first.closedWith, [1000, ""]);
  assert.strictEqual(last().url, "wss://example.com:8000/other/");
  last().open();
  last().receive("6");
  assert.deepStrictEqual(bridge.calls, [[6, null]]);
  pass(1e5);
  assert.strictEqual(sockets.length, 2);
});

test("bytes are left to the socket's own listeners", () => {
  const bridge = connected();
  const bytes = [];
  bridge.socket.addEventListener("message", (event) => bytes.push(event.data));
  last().open();
  last().onmessage({ type: "message", data: new ArrayBuffer(2) });
  assert.strictEqual(bytes.length, 1);
  assert.deepStrictEqual(bridge.calls, []);
});
