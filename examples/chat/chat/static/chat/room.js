// One room: the socket and its way back after a break, the lines, the people, the composer.
//
// To the server:   {text, token}   a line; the token, which comes back with it, is how we know it got there
//                  {after}         more of what was missed, from the line with this id on
//                  {typing: true}
// From the server: {lines: [{id, person, nickname, text, token, at}]}, as history with {history, more}
//                  {people: [[person, nickname]], revision}
//                  {typing: person}
(() => {
  "use strict";

  const NO_NICKNAME = 4401; // close code
  const FIRST_WAIT = 300; // ms before the first try to come back; doubles up to LONGEST_WAIT
  const LONGEST_WAIT = 8000;
  const PATIENCE = 10000; // ms for a socket to be ready
  const OVERLAP = 20; // lines asked for again on return: neighbours may have been stored out of turn
  const GRACE = 2500; // ms in which who reloads a page has not left
  const LONG_GRACE = 2 * LONGEST_WAIT; // the same after a break of our own: others had it, too

  const me = document.body.dataset;
  const room = document.querySelector(".room").dataset.room;
  const element = (id) => document.getElementById(id);
  const lines = element("lines");
  const scroller = element("scroller");
  const text = element("text");

  function make(tag, className, content) {
    const made = document.createElement(tag);
    made.className = className;
    if (content) made.textContent = content; // never HTML: people write what they like
    return made;
  }

  // The socket.

  let socket = null;
  let ready = false; // connected, and nothing missed any more
  let tries = 0;
  let retry = null;
  let left = false; // the page was left, and the browser keeps it for the button "back"
  let seen = null; // we have every line up to this id; null before the first history

  function connect() {
    clearTimeout(retry);
    if (!me.nickname) {
      status("waiting", "Not connected");
      document.dispatchEvent(new Event("ask-nickname"));
      return;
    }
    if (socket || left) return;
    status("connecting", tries ? "Reconnecting" : "Connecting");
    const after = seen === null ? "" : Math.max(0, seen - OVERLAP);
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const ours = new WebSocket(`${scheme}//${location.host}/chat/${encodeURIComponent(room)}/${after}`);
    const impatience = setTimeout(() => lost({code: 0}), PATIENCE);
    socket = ours;
    firstList = true;

    function lost({code}) {
      clearTimeout(impatience);
      if (socket !== ours) return;
      ours.close();
      socket = null;
      ready = false;
      if (left) return;
      if (code === NO_NICKNAME) {
        me.nickname = "";
        connect();
        return;
      }
      status("lost", "Reconnecting");
      const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** tries++);
      retry = setTimeout(connect, wait * (0.5 + Math.random() / 2)); // not all at the same moment
    }

    ours.onclose = lost;
    ours.onmessage = ({data}) => {
      if (socket !== ours) return;
      const content = JSON.parse(data);
      if (content.people) showPeople(new Map(content.people), content.revision);
      if (content.typing) showTyping(content.typing);
      if (content.lines) hear(content);
      if (ready) clearTimeout(impatience);
    };
  }

  function send(content) {
    socket.send(JSON.stringify(content));
  }

  function status(state, words) {
    element("status").dataset.state = state;
    element("status").textContent = words;
  }

  function comeBack() {
    if (retry !== null && !socket && !document.hidden) connect();
  }
  addEventListener("online", comeBack);
  addEventListener("beforeunload", () => socket && socket.close()); // gone before the next page counts us
  // A page that waits for the next one may have connected again. Kept by the browser, it would stay here.
  addEventListener("pagehide", () => {
    left = true;
    clearTimeout(retry);
    if (socket) socket.close();
  });
  addEventListener("pageshow", () => {
    if (!left) return;
    left = false;
    connect();
  });
  document.addEventListener("visibilitychange", comeBack);
  document.addEventListener("nickname", connect);

  // The lines.

  const shown = new Set(); // ids
  let unread = 0;

  function hear({lines: news, history, more}) {
    const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
    const fresh = news.filter((line) => !shown.has(line.id));
    fresh.forEach(showLine);
    const last = news.length ? news[news.length - 1].id : 0;
    if (history || ready) seen = Math.max(seen || 0, last);
    if (history && more) send({after: last});
    if (history && !more) arrived();

    const others = fresh.filter((line) => line.person !== me.person);
    if (atEnd || others.length < fresh.length) toEnd();
    else if (fresh.length) element("newer").hidden = false;
    if (document.hidden && ready && !history) unread += others.length;
    showTitle();
  }

  function arrived() {
    seen = seen || 0;
    ready = true;
    tries = 0;
    status("connected", "Connected");
    outbox.forEach((content, token) => send({token, text: content})); // only now: what got there is gone
  }

  function showLine(line) {
    shown.add(line.id);
    forgetTyping(line.person);
    let item = waiting.get(line.token);
    if (item) {
      waiting.delete(line.token);
      outbox.delete(line.token);
      keepOutbox();
      item.classList.remove("waiting");
      item.querySelector("time").replaceWith(clock(line.at));
    } else {
      item = lineItem(line);
    }
    item.dataset.id = line.id;
    item.dataset.at = line.at;
    place(item);
  }

  function lineItem({person, nickname, text: words, at}) {
    const item = make("li", person === me.person ? "line mine" : "line");
    item.dataset.person = person;
    item.dataset.at = at;
    const bubble = make("div", "bubble");
    const by = make("p", "by");
    by.append(make("b", "", nickname), " ", clock(at));
    bubble.append(by, make("p", "words", words));
    item.append(avatar(person, nickname), bubble);
    return item;
  }

  function clock(at) {
    const date = new Date(at * 1000);
    const time = make("time", "", date.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"}));
    time.dateTime = date.toISOString();
    time.title = date.toLocaleString();
    return time;
  }

  // Puts a line where its id says, before lines that have none yet.
  function place(item) {
    let next = null;
    let other = lines.lastElementChild;
    for (; other; other = other.previousElementSibling) {
      if (other === item) continue;
      if (Number(other.dataset.id) < Number(item.dataset.id)) break;
      if (other.dataset.id || other.classList.contains("waiting")) next = other;
    }
    if (item.parentNode !== lines || item.nextElementSibling !== next) lines.insertBefore(item, next);
    dress(item);
    if (item.nextElementSibling) dress(item.nextElementSibling);
  }

  // A line that follows another one of the same person closely needs no name; a new day is announced.
  function dress(item) {
    if (!item.classList.contains("line")) return;
    let before = item.previousElementSibling;
    const close = before && before.dataset.person === item.dataset.person
      && item.dataset.at - before.dataset.at < 300;
    while (before && !before.dataset.at) before = before.previousElementSibling;
    const day = dayOf(item);
    const newDay = before ? dayOf(before) !== day : day !== new Date().toDateString();
    item.classList.toggle("same", Boolean(close) && !newDay);
    if (newDay) {
      item.dataset.day = new Date(item.dataset.at * 1000).toLocaleDateString([], {
        weekday: "long", day: "numeric", month: "long",
      });
    } else {
      delete item.dataset.day;
    }
  }

  function dayOf(item) {
    return new Date(item.dataset.at * 1000).toDateString();
  }

  function notice(words) {
    const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
    lines.append(make("li", "notice", words));
    if (atEnd) toEnd();
  }

  function toEnd() {
    scroller.scrollTop = scroller.scrollHeight;
    element("newer").hidden = true;
  }

  element("newer").addEventListener("click", toEnd);
  scroller.addEventListener("scroll", () => {
    if (scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 8) element("newer").hidden = true;
  });

  function showTitle() {
    document.title = `${unread ? `(${unread}) ` : ""}${room} · Chat`;
  }
  document.addEventListener("visibilitychange", () => {
    unread = 0;
    showTitle();
  });

  // What we said: in the outbox until it comes back from the server, also over a reload of the page.

  const kept = `outbox ${room}`;
  const outbox = new Map(JSON.parse(sessionStorage.getItem(kept) || "[]")); // token: text
  const waiting = new Map(); // token: list item

  function keepOutbox() {
    sessionStorage.setItem(kept, JSON.stringify([...outbox]));
  }

  function showWaiting(words, token) {
    const item = lineItem({person: me.person, nickname: me.nickname, text: words, at: Date.now() / 1000});
    item.classList.add("waiting");
    waiting.set(token, item);
    lines.append(item);
    dress(item);
  }

  function say() {
    const words = text.value.trim().replace(/[\ud800-\udfff]/gu, "\ufffd"); // halves of characters
    if (!words || !me.nickname) return;
    const token = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
      byte.toString(16).padStart(2, "0")).join("");
    outbox.set(token, words);
    keepOutbox();
    showWaiting(words, token);
    if (ready) send({token, text: words});
    text.value = "";
    lastTyping = 0;
    fit();
    toEnd();
  }

  element("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    say();
    text.focus();
  });

  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    if (matchMedia("(pointer: coarse)").matches) return; // on a telephone, Enter is a new line
    event.preventDefault();
    say();
  });

  function fit() {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`;
  }

  // Who is typing.

  const typing = new Map(); // person: timer
  let lastTyping = 0;

  text.addEventListener("input", () => {
    fit();
    if (!ready || !text.value.trim() || Date.now() - lastTyping < 2000) return;
    lastTyping = Date.now();
    send({typing: true});
  });

  function showTyping(person) {
    if (person === me.person) return;
    clearTimeout(typing.get(person));
    typing.set(person, setTimeout(forgetTyping, 4000, person));
    describeTyping();
  }

  function forgetTyping(person) {
    clearTimeout(typing.get(person));
    typing.delete(person);
    describeTyping();
  }

  function describeTyping() {
    const names = [...typing.keys()].map((person) => known.get(person)).filter(Boolean);
    element("typing").textContent = names.length === 0 ? ""
      : names.length === 1 ? `${names[0]} is typing`
      : names.length === 2 ? `${names[0]} and ${names[1]} are typing`
      : "Several people are typing";
  }

  // Who is here. The server sends whole lists; who came and who went is their difference.

  const known = new Map(); // person: nickname, of those who are here or have only just gone
  const leaving = new Map(); // person: timer
  let revision = -1;
  let firstList = true; // of this connection

  function showPeople(here, newRevision) {
    if (!firstList && newRevision < revision) return; // an older list, late
    revision = newRevision;
    const grace = firstList && known.size ? LONG_GRACE : GRACE;
    const firstEver = known.size === 0;
    firstList = false;

    here.forEach((nickname, person) => {
      if (!known.has(person) && !firstEver) notice(`${nickname} joined`);
      else if (known.has(person) && known.get(person) !== nickname) {
        notice(`${known.get(person)} is now ${nickname}`);
      }
      known.set(person, nickname);
      clearTimeout(leaving.get(person));
      leaving.delete(person);
    });
    known.forEach((nickname, person) => {
      if (here.has(person) || leaving.has(person)) return;
      forgetTyping(person);
      leaving.set(person, setTimeout(() => {
        leaving.delete(person);
        known.delete(person);
        notice(`${nickname} left`);
      }, grace));
    });

    element("count").textContent = here.size;
    element("people").replaceChildren(...[...here].map(([person, nickname]) => {
      const item = make("li", "");
      item.append(avatar(person, nickname), make("span", "", nickname));
      if (person === me.person) item.append(" ", make("small", "", "you"));
      return item;
    }));
  }

  function avatar(person, nickname) {
    const made = make("span", "avatar", nickname.split(" ").map((word) => [...word][0]).slice(0, 2).join(""));
    made.style.setProperty("--hue", parseInt(person.slice(0, 4), 16) % 360);
    made.setAttribute("aria-hidden", "true");
    return made;
  }

  outbox.forEach(showWaiting);
  connect();
  if (me.nickname) text.focus();
})();
