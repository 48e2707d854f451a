/*
 * channels.WebSocketBridge: JSON messages and multiplexed streams over a WebSocket that reconnects.
 *
 * The names are those of Channels 1.1. Load it with a script tag, which defines `channels`, or with a
 * bundler or Node, which get the same object from `require`. It has no dependencies.
 *
 * ReconnectingSocket knows sockets and time, and nothing of messages. WebSocketBridge knows messages,
 * and nothing of time.
 */
(function (root, factory) {
  "use strict";
  const exported = factory(root);
  if (typeof module === "object" && module.exports) {
    module.exports = exported;
  } else {
    root.channels = Object.assign(root.channels || {}, exported);
  }
})(typeof self !== "undefined" ? self : globalThis, function (root) {
  "use strict";

  const CONNECTING = 0;
  const OPEN = 1;
  const CLOSING = 2;
  const CLOSED = 3;

  /* Milliseconds and counts. `connect` takes others as its third argument. */
  const DEFAULTS = {
    minReconnectionDelay: 500, // before the first new attempt, on average
    maxReconnectionDelay: 30000, // the delay grows no further
    reconnectionDelayGrowFactor: 1.7, // from one failed attempt to the next
    connectionTimeout: 15000, // for one attempt; then it is given up and the next is made
    maxRetries: Infinity, // failed attempts in a row
    maxEnqueuedMessages: 1000, // sent while there is no connection, and kept for it
    WebSocket: undefined, // the class to use instead of the page's own
    // Whether to connect again after this CloseEvent. 1000: the site has closed the socket on purpose.
    // 1008: the site refuses this client.
    shouldReconnect: function (event) {
      return event.code !== 1000 && event.code !== 1008;
    },
  };

  /* A WebSocket that connects again after it was closed, until `close()` is called. Its events are those
   * of a WebSocket: "open" and "close" for each connection, "message" and "error". */
  class ReconnectingSocket {
    constructor(url, protocols, options) {
      this.CONNECTING = CONNECTING;
      this.OPEN = OPEN;
      this.CLOSING = CLOSING;
      this.CLOSED = CLOSED;
      this.onopen = this.onclose = this.onmessage = this.onerror = null;
      this._url = url;
      this._protocols = protocols;
      this._options = Object.assign({}, DEFAULTS, options);
      this._listeners = { open: [], close: [], message: [], error: [] };
      this._queue = [];
      this._socket = null;
      this._timer = null;
      this._binaryType = "blob";
      this._failures = 0;
      this._stopped = false;
      this._pageListeners = {
        // The browser is on a network again: don't wait out the delay.
        online: () => this._timer !== null && this._connect(),
        // The page was left, and the browser keeps it for the button Back. It would keep the socket, too.
        pagehide: (event) => event.persisted && this._leave(),
        pageshow: (event) => event.persisted && this._connect(),
      };
      if (root.addEventListener) {
        for (const type of Object.keys(this._pageListeners)) {
          root.addEventListener(type, this._pageListeners[type]);
        }
      }
      this._connect();
    }

    get url() {
      return this._socket ? this._socket.url : this._url;
    }

    get protocol() {
      return this._socket ? this._socket.protocol : "";
    }

    get extensions() {
      return this._socket ? this._socket.extensions : "";
    }

    /* CONNECTING also between two attempts. */
    get readyState() {
      if (this._stopped) {
        return this._socket ? CLOSING : CLOSED;
      }
      return this._socket && this._socket.readyState === OPEN ? OPEN : CONNECTING;
    }

    /* The bytes that wait to be sent; text that waits for a connection counts by its length. */
    get bufferedAmount() {
      const queued = this._queue.reduce((sum, data) => sum + (data.length || data.byteLength || data.size || 0), 0);
      return queued + (this._socket ? this._socket.bufferedAmount || 0 : 0);
    }

    get binaryType() {
      return this._binaryType;
    }

    set binaryType(value) {
      this._binaryType = value;
      if (this._socket) {
        this._socket.binaryType = value;
      }
    }

    addEventListener(type, listener) {
      if (!(type in this._listeners)) {
        throw new TypeError("A socket has the events open, close, message and error, and not " + type + ".");
      }
      if (!this._listeners[type].includes(listener)) {
        this._listeners[type].push(listener);
      }
    }

    removeEventListener(type, listener) {
      this._listeners[type] = (this._listeners[type] || []).filter((other) => other !== listener);
    }

    /* Send data, or keep it until the socket is open. Throws if too much is waiting, or after close(). */
    send(data) {
      if (this.readyState === OPEN) {
        this._socket.send(data);
        return;
      }
      if (this._stopped) {
        throw new Error("The socket is closed, so nothing can be sent. Call connect() first.");
      }
      if (this._queue.length >= this._options.maxEnqueuedMessages) {
        throw new Error("The socket is not connected, and " + this._queue.length + " messages wait already.");
      }
      this._queue.push(data);
    }

    /* Close the socket for good. Messages that wait for a connection are dropped. */
    close(code, reason) {
      if (this._stopped) {
        return;
      }
      this._stop();
      if (this._socket) {
        this._socket.close(code === undefined ? 1000 : code, reason === undefined ? "" : reason);
      }
    }

    _stop() {
      this._stopped = true;
      this._queue = [];
      root.clearTimeout(this._timer);
      this._timer = null;
      if (root.removeEventListener) {
        for (const type of Object.keys(this._pageListeners)) {
          root.removeEventListener(type, this._pageListeners[type]);
        }
      }
    }

    /* End the connection until the page is shown again. */
    _leave() {
      root.clearTimeout(this._timer);
      this._timer = null;
      const socket = this._socket;
      if (socket) {
        // Its own event would come when the page is back, and has another socket.
        socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
        this._socket = null;
        socket.close();
        this._dispatch("close", { type: "close", code: 1001, reason: "", wasClean: true });
      }
    }

    _connect() {
      root.clearTimeout(this._timer);
      this._timer = null;
      const Socket = this._options.WebSocket || root.WebSocket;
      const socket = this._protocols ? new Socket(this._url, this._protocols) : new Socket(this._url);
      socket.binaryType = this._binaryType;
      this._socket = socket;
      const timeout = root.setTimeout(() => socket.close(), this._options.connectionTimeout);
      socket.onopen = (event) => {
        root.clearTimeout(timeout);
        this._failures = 0;
        for (const data of this._queue.splice(0)) {
          socket.send(data);
        }
        this._dispatch("open", event);
      };
      socket.onmessage = (event) => this._dispatch("message", event);
      socket.onerror = (event) => this._dispatch("error", event);
      socket.onclose = (event) => {
        root.clearTimeout(timeout);
        this._socket = null;
        this._afterClose(event);
        this._dispatch("close", event);
      };
    }

    /* Decide before the site's listeners run, so that they see the right readyState and may call close(). */
    _afterClose(event) {
      if (this._stopped) {
        return;
      }
      const options = this._options;
      if (!options.shouldReconnect(event) || this._failures >= options.maxRetries) {
        this._stop();
        return;
      }
      const longest = Math.min(
        options.maxReconnectionDelay,
        2 * options.minReconnectionDelay * Math.pow(options.reconnectionDelayGrowFactor, this._failures)
      );
      this._failures += 1;
      // A random part of the delay spreads the clients of a server that was restarted.
      this._timer = root.setTimeout(() => this._connect(), Math.random() * longest);
    }

    _dispatch(type, event) {
      const listeners = this._listeners[type].slice();
      if (typeof this["on" + type] === "function") {
        listeners.unshift(this["on" + type]);
      }
      for (const listener of listeners) {
        if (typeof listener === "function") {
          listener.call(this, event);
        } else {
          listener.handleEvent(event);
        }
      }
    }
  }
  Object.assign(ReconnectingSocket, { CONNECTING, OPEN, CLOSING, CLOSED });

  /* The absolute URL of a socket: "/path" is one of this page's host, and without an argument its root. */
  function absoluteUrl(url) {
    if (url && /^wss?:/i.test(url)) {
      return url;
    }
    if (url && /^https?:/i.test(url)) {
      return url.replace(/^http/i, "ws");
    }
    if (!root.location) {
      throw new Error("Outside a page, connect() needs the whole URL: ws://host/path.");
    }
    const scheme = root.location.protocol === "https:" ? "wss:" : "ws:";
    if (url && url.startsWith("//")) {
      return scheme + url;
    }
    if (!url || url.startsWith("/")) {
      return scheme + "//" + root.location.host + (url || "");
    }
    const host = url.split(/[/?#]/)[0];
    if (!/[.:]/.test(host) && host !== "localhost") {
      // "live/1/" would be the path /1/ on a host named "live".
      throw new Error(
        'connect("' + url + '"): begin a path of this page\'s host with a slash ("/' + url +
          '"), and give another host with its scheme ("' + scheme + "//" + url + '").'
      );
    }
    return scheme + "//" + url;
  }

  function requireFunction(callback, call) {
    if (typeof callback !== "function") {
      throw new TypeError(call + " needs a function that takes (message, stream), and got " + typeof callback + ".");
    }
  }

  /* The message as JSON. JSON.stringify returns no text for undefined and functions. */
  function encoded(message, call) {
    const text = JSON.stringify(message);
    if (text === undefined) {
      throw new TypeError(call + " needs a value that JSON has, such as an object or null, and got " + typeof message + ".");
    }
    return text;
  }

  class WebSocketBridge {
    constructor(options) {
      this.options = Object.assign({}, options);
      this.socket = null;
      this.streams = {};
      this.default_cb = null;
      this._listening = false;
    }

    /* Connect to `url`. The arguments are those of a WebSocket; `options` replaces values of DEFAULTS. */
    connect(url, protocols, options) {
      if (this.socket) {
        this.socket.close();
      }
      this.socket = new ReconnectingSocket(
        absoluteUrl(url),
        protocols,
        Object.assign({}, this.options, options)
      );
      if (this._listening) {
        this.listen(this.default_cb);
      }
    }

    /* Call `callback(payload, stream)` for each message for which no stream's callback is there. `stream`
     * is null if the message isn't multiplexed. Call it after connect(); streams need it too. */
    listen(callback) {
      if (!this.socket) {
        throw new Error("Call connect() before listen().");
      }
      if (callback !== undefined && callback !== null) {
        requireFunction(callback, "listen()");
      }
      this._listening = true;
      this.default_cb = callback || null;
      this.socket.onmessage = (event) => this._receive(event);
    }

    /* Call `callback(payload, stream)` for each message of that stream. */
    demultiplex(stream, callback) {
      requireFunction(callback, "demultiplex()");
      this.streams[stream] = callback;
    }

    /* Send a message as JSON. */
    send(message) {
      if (!this.socket) {
        throw new Error("Call connect() before send().");
      }
      this.socket.send(encoded(message, "send()"));
    }

    /* An object whose `send` sends a message on that stream. */
    stream(stream) {
      return {
        send: (payload) => {
          encoded(payload, "stream().send()"); // as a part of a message, undefined would just be missing
          this.send({ stream: stream, payload: payload });
        },
      };
    }

    _receive(event) {
      if (typeof event.data !== "string") {
        return; // bytes are no message of a bridge: listen to the socket's "message" for them
      }
      const message = JSON.parse(event.data);
      const multiplexed = message !== null && typeof message === "object" && message.stream !== undefined;
      const stream = multiplexed ? message.stream : null;
      const payload = multiplexed ? message.payload : message;
      const own = multiplexed && Object.prototype.hasOwnProperty.call(this.streams, stream);
      const callback = own ? this.streams[stream] : this.default_cb;
      if (callback) {
        callback(payload, stream);
      }
    }
  }

  return { WebSocketBridge: WebSocketBridge, ReconnectingSocket: ReconnectingSocket };
});
