/**
 * @module test/soak/flooder
 *
 * A local endpoint whose agent is hostile: it has the endpoint's link to itself and fills it as fast as the MVM reads.
 *
 *   flooder.ts STATE NAME garbage|hello|requests|log TARGET
 */

import { LinkClient } from "../../src/guest/link-client.ts"
import { concat, fromHex } from "../../src/lib/bytes.ts"
import { random } from "../../src/lib/crypto.ts"
import { Log } from "../../src/lib/log.ts"
import { localPaths } from "../../src/platform/local-paths.ts"
import { connectUnix, type ByteSocket } from "../../src/platform/unix-socket.ts"
import { connectSwtpm } from "../../src/tpm/swtpm-transport.ts"
import { GuestVtpm } from "../../src/guest/vtpm.ts"
import { encodeFrame } from "../../src/wire/frame.ts"
import { MESSAGES, PROTOCOL_VERSION } from "../../src/wire/messages.ts"
import { encodeMessage } from "../../src/wire/table.ts"

const PROGRAM = { path: "/usr/bin/mvm", digest: new Uint8Array(32), uid: 0 }
/** Enough on the way to keep the MVM reading without a pause. */
const BACKLOG_BYTES = 1 << 20
const BURST = 64

const [state = "", name = "", mode = "", target = ""] = process.argv.slice(2)
const paths = localPaths(state, name)

/** Writes `next()` for ever, as fast as it is taken. */
async function pour(socket: ByteSocket, next: () => Uint8Array): Promise<void> {
  while (!socket.closed) {
    while (socket.backlogBytes < BACKLOG_BYTES && !socket.closed) socket.write(next())
    await new Promise<void>((resolve) => {
      socket.handlers.onDrain = resolve
      setTimeout(resolve, 20)
    })
  }
}

async function raw(next: () => Uint8Array): Promise<void> {
  for (;;) {
    const socket = await connectUnix(paths.link, { onData: () => {}, onClose: () => {} }, 64 << 20)
    await pour(socket, next)
  }
}

function garbage(): () => Uint8Array {
  const noise = random(60_000)
  const lie = concat(fromHex("4d564d3101000000" + "0000fff0"), random(4))
  const pieces = [
    noise,
    concat(lie, noise.subarray(0, 500)),
    encodeFrame(noise),
    encodeFrame(noise, { auth: true }),
  ]
  let at = 0
  return () => pieces[at++ % pieces.length]!
}

function hello(): () => Uint8Array {
  const fields = {
    version: PROTOCOL_VERSION,
    guestNonce: random(32),
    guestShare: random(32),
    bootId: random(16),
  }
  const message = encodeMessage(MESSAGES, "HELLO", 0, { ...fields, kind: "agent", agent: "flood" })
  const frame = encodeFrame(message)
  const burst = concat(...Array.from({ length: BURST }, () => frame))
  return () => burst
}

/** An agent that proved who it is, and asks without end. */
async function authenticated(say: (client: LinkClient) => void): Promise<void> {
  const boot = await connectUnix(paths.link)
  boot.write(encodeFrame(encodeMessage(MESSAGES, "BOOT", 0, {})))
  await Bun.sleep(2000)
  boot.close()
  const vtpm = await GuestVtpm.open(await connectSwtpm(paths.tpm))
  let socket: ByteSocket | undefined
  const linked = Promise.withResolvers<void>()
  const client = new LinkClient({
    bootId: random(16),
    kind: "agent",
    agentVersion: "flood",
    mvmPublicKey: vtpm.mvmPublicKey,
    log: new Log({ level: "error", format: "text" }),
    openStream: async (handlers) => (socket = await connectUnix(paths.link, handlers, 64 << 20)),
    ready: () => ({ canMap: true, mapping: "flood", channels: [] }),
    onLinked: () => linked.resolve(),
    onLost: () => {},
    onMessage: () => {},
  })
  void client.run()
  await linked.promise
  for (;;) {
    for (let count = 0; count < BURST && (socket?.backlogBytes ?? Infinity) < BACKLOG_BYTES; count++) {
      try {
        say(client)
      } catch {
        // The link is just down.
      }
    }
    await new Promise((resolve) => setImmediate(resolve))
  }
}

let id = 1
const REQUEST = {
  target,
  service: "flood",
  role: "send",
  digest: "chain",
  waitMs: 0,
  program: PROGRAM,
} as const

switch (mode) {
  case "garbage":
    await raw(garbage())
    break
  case "hello":
    await raw(hello())
    break
  case "requests":
    await authenticated((client) => client.link.send("ALLOC", { ...REQUEST, share: random(32) }, id++))
    break
  default:
    await authenticated((client) => client.link.send("LOG", { offset: 0, entries: new Uint8Array(40_000) }))
}
