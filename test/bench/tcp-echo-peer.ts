/** An echo over TCP on loopback in the same runtime; prints its port. */

const server = Bun.listen({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    open: (socket) => void socket.setNoDelay(true),
    data: (socket, bytes) => void socket.write(bytes),
  },
})
console.log(server.port)
