/**
 * @module test/fuzz/targets/wire
 *
 * What arrives on a port or a local socket: frames, MessagePack, every row of both message tables from the side
 * that may send it, sealed payloads, and both kinds of link whole.
 */

import { concat, equalBytes, fromHex } from "../../../src/lib/bytes.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { FrameReader, encodeFrame } from "../../../src/wire/frame.ts"
import { FrameAuthenticator } from "../../../src/wire/link-auth.ts"
import { Link } from "../../../src/wire/link.ts"
import { LocalLink } from "../../../src/wire/local-link.ts"
import { LOCAL_MESSAGES } from "../../../src/wire/local-messages.ts"
import { MESSAGES } from "../../../src/wire/messages.ts"
import { decodeStrict, encodeStrict } from "../../../src/wire/msgpack.ts"
import { decodeMessage, encodeMessage, type Table } from "../../../src/wire/table.ts"
import { messageBytes, packAnything } from "../grammar.ts"
import type { Random } from "../random.ts"
import { promise, type Target } from "../target.ts"

const KEYS = { send: new Uint8Array(32).fill(1), receive: new Uint8Array(32).fill(2) }
const EPOCH = new Uint8Array(16).fill(3)

const msgpack: Target = {
  name: "msgpack",
  seeds: () => [encodeStrict({ a: [1, "two", new Uint8Array(3), true, null, -5, 2 ** 40] })],
  generate: (random) => {
    const out: number[] = []
    packAnything(random, out, 10)
    return Uint8Array.from(out)
  },
  run: (input) => {
    const value = decodeStrict(input)
    promise(equalBytes(encodeStrict(value), input), "what was accepted has another encoding")
    return typeof value
  },
}

const frame: Target = {
  name: "frame",
  taken: /^[1-4]/,
  seeds: () => [
    encodeFrame(new Uint8Array(0)),
    concat(encodeFrame(new Uint8Array(20)), encodeFrame(new Uint8Array(300), { auth: true })),
  ],
  generate: (random) => frames(random, () => random.bytes(random.length(2000))),
  run: (input) => {
    const whole = new FrameReader()
    const frames = [...whole.push(input), ...whole.abandon()]
    promise(whole.pendingBytes === 0, "bytes are pending after all was given up")
    const taken = frames.reduce((sum, { payload }) => sum + 16 + payload.length, 0)
    promise(taken + whole.droppedBytes === input.length, "bytes were neither framed nor dropped")
    const pieces = new FrameReader()
    const step = 1 + (input.length % 61)
    let count = 0
    for (let at = 0; at < input.length; at += step) count += pieces.push(input.subarray(at, at + step)).length
    count += pieces.abandon().length
    promise(count === frames.length, "in pieces it has another number of frames")
    return `${Math.min(frames.length, 4)} frames`
  },
}

/** Good frames, with and without the flag, with garbage and false beginnings between them. */
function frames(random: Random, payload: () => Uint8Array): Uint8Array {
  const parts: Uint8Array[] = []
  for (let count = random.below(5); count >= 0; count--) {
    if (random.once(4)) parts.push(random.bytes(random.below(40)))
    if (random.once(8)) parts.push(fromHex("4d564d310100000000000010"))
    if (random.once(8)) parts.push(fromHex("4d564d"))
    parts.push(encodeFrame(payload().subarray(0, 65520), { auth: random.once(2) }))
  }
  return concat(...parts)
}

/** One target for each row, as its sender's messages arrive at the other side. */
export function rows(table: Table, prefix: string, sides: readonly [string, string]): Target[] {
  return Object.entries(table.rows).map(([rowName, row]) => ({
    name: `${prefix}.${rowName}`,
    generate: (random) => messageBytes(random, row),
    run: (input) => {
      const from = row.from === "both" ? sides[(input[2] ?? 0) & 1]! : row.from
      const { name, requestId, fields } = decodeMessage(table, input, from)
      promise(equalBytes(encodeMessage(table, name, requestId, fields), input), "another encoding")
      return name
    },
  }))
}

const sealed: Target = {
  name: "link-auth",
  seeds: () => [authenticator("guest").seal(new Uint8Array(40))],
  run: (input) => {
    const opened = authenticator("mvm").open(input)
    promise(equalBytes(authenticator("guest").seal(opened), input), "a payload nobody sealed was opened")
    return "opened"
  },
}

function authenticator(side: "guest" | "mvm"): FrameAuthenticator {
  const [sendKey, receiveKey] = side === "guest" ? [KEYS.send, KEYS.receive] : [KEYS.receive, KEYS.send]
  return new FrameAuthenticator({ sendKey, receiveKey, epoch: EPOCH })
}

/** A member's bytes at the MVM's end, or the MVM's at the agent's, under keys the sender knows. */
function link(side: "guest" | "mvm"): Target {
  const peer = side === "mvm" ? "guest" : "mvm"
  const rowsOfPeer = Object.values(MESSAGES.rows).filter(({ from }) => from === peer || from === "both")
  return {
    name: `link-of-${side}`,
    taken: /^3 heard/,
    generate: (random) => {
      const sealer = authenticator(peer)
      return frames(random, () => {
        const message = messageBytes(random, random.pick(rowsOfPeer))
        return random.once(4) ? message : sealer.seal(message.subarray(0, 65480))
      })
    },
    run: (input) => {
      let heard = 0
      const end = new Link(side, () => {}, {
        onMessage: ({ name, fields, requestId }) => {
          heard += 1
          encodeMessage(MESSAGES, name, requestId, fields as never)
        },
        onOpenMessage: () => {},
        onEpoch: () => {},
        onDesync: () => {},
      })
      const [sendKey, receiveKey] = side === "guest" ? [KEYS.send, KEYS.receive] : [KEYS.receive, KEYS.send]
      end.adoptKeys(EPOCH, sendKey, receiveKey)
      end.receive(input)
      return `${Math.min(heard, 3)} heard, ${Math.min(end.counters.refused, 3)} refused`
    },
  }
}

/** The agent's local socket, from either end. */
function localLink(side: "agent" | "client"): Target {
  const peer = side === "agent" ? "client" : "agent"
  const rowsOfPeer = Object.values(LOCAL_MESSAGES.rows).filter(({ from }) => from === peer || from === "both")
  return {
    name: `local-socket-of-${side}`,
    taken: /^3/,
    generate: (random) => {
      const count = 1 + random.below(4)
      const parts = Array.from({ length: count }, () =>
        encodeFrame(messageBytes(random, random.pick(rowsOfPeer)).subarray(0, 65520), {
          auth: random.once(20),
        }),
      )
      return concat(...parts)
    },
    run: (input) => {
      let heard = 0
      const end = new LocalLink(
        side,
        () => {},
        () => {
          heard += 1
        },
      )
      try {
        end.receive(input)
      } catch (error) {
        if (error instanceof MvmError)
          promise(["protocol", "frame"].includes(error.code), `code ${error.code}`)
        throw error
      }
      return `${Math.min(heard, 3)} heard`
    },
  }
}

export const WIRE_TARGETS: readonly Target[] = [
  frame,
  msgpack,
  sealed,
  link("mvm"),
  link("guest"),
  localLink("agent"),
  localLink("client"),
  ...rows(MESSAGES, "link", ["guest", "mvm"]),
  ...rows(LOCAL_MESSAGES, "local", ["client", "agent"]),
]
