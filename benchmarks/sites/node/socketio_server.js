// Socket.IO: the event "m" is echoed, "b" is sent to everybody. PORT, and BENCH_REDIS for its Redis adapter.
const { Server } = require("socket.io");

async function main() {
  const server = new Server({ transports: ["websocket"], perMessageDeflate: false });
  if (process.env.BENCH_REDIS) {
    const { createClient } = require("redis");
    const { createAdapter } = require("@socket.io/redis-adapter");
    const sender = createClient({ url: process.env.BENCH_REDIS });
    const receiver = sender.duplicate();
    await Promise.all([sender.connect(), receiver.connect()]);
    server.adapter(createAdapter(sender, receiver));
  }
  server.on("connection", (socket) => {
    socket.join("everybody");
    socket.on("m", (text) => socket.emit("m", text));
    socket.on("b", (text) => server.to("everybody").emit("b", text));
  });
  server.listen(Number(process.env.PORT));
}

main();
