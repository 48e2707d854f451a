// The npm package `ws`: echo at /echo/, broadcast to all at /broadcast/. PORT is in the environment.
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ port: Number(process.env.PORT), host: "127.0.0.1", perMessageDeflate: false });
const everybody = new Set();

server.on("connection", (socket, request) => {
  const broadcasts = request.url.startsWith("/broadcast/");
  if (broadcasts) {
    everybody.add(socket);
    socket.on("close", () => everybody.delete(socket));
  }
  socket.on("message", (data) => {
    const text = data.toString();
    if (broadcasts) for (const each of everybody) each.send(text);
    else socket.send(text);
  });
});
