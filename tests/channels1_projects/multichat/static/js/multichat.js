(function () {
  var webSocketBridge = new channels.WebSocketBridge();
  webSocketBridge.connect("/chat/stream/");

  function status(text) {
    document.getElementById("status").textContent = text;
  }

  function element(tag, name, text) {
    var made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    return made;
  }

  function enter(id, title) {
    var room = element("div", "room", "");
    room.id = "room-" + id;
    var form = document.createElement("form");
    var input = document.createElement("input");
    var leave = element("button", "leave", "Leave");
    leave.type = "button";
    form.appendChild(input);
    form.addEventListener("submit", function (event) {
      event.preventDefault();
      webSocketBridge.send({command: "send", room: id, message: input.value});
      input.value = "";
    });
    leave.addEventListener("click", function () {
      webSocketBridge.send({command: "leave", room: id});
    });
    [element("h2", "title", title), element("div", "lines", ""), form, leave].forEach(function (each) {
      room.appendChild(each);
    });
    document.getElementById("chats").appendChild(room);
  }

  webSocketBridge.listen(function (data) {
    var room = document.getElementById("room-" + (data.leave || data.room));
    if (data.error) {
      document.getElementById("error").textContent = data.error;
    } else if (data.join) {
      enter(data.join, data.title);
    } else if (data.leave) {
      room.parentNode.removeChild(room);
    } else if (room) {
      var text = data.action ? data.username + " " + data.action : data.username + ": " + data.message;
      room.querySelector(".lines").appendChild(element("p", "line", text));
    }
  });

  webSocketBridge.socket.addEventListener("open", function () {
    status("connected");
  });
  webSocketBridge.socket.addEventListener("close", function () {
    status("disconnected");
  });

  Array.prototype.forEach.call(document.querySelectorAll(".join"), function (button) {
    button.addEventListener("click", function () {
      webSocketBridge.send({command: "join", room: button.dataset.room});
    });
  });
})();
