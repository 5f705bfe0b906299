/**
 * @module test/guest/command-session
 *
 * One connection at a real agent's local socket, and what the MVM has of it.
 */

import { describe, expect, test } from "bun:test"
import { random } from "../../src/lib/crypto.ts"
import type { Member } from "../../src/mvm/member.ts"
import { connectUnix, type ByteSocket } from "../../src/platform/unix-socket.ts"
import { LocalLink, type LocalFields, type LocalMessage } from "../../src/wire/local-link.ts"
import { InProcess } from "../mvm/in-process.ts"

let host: InProcess
let member: Member
let socketPath: string
/** Offers that the agent makes itself. */
let own: number

/** An agent that is linked, for one test. */
async function served(use: () => Promise<void>): Promise<void> {
  host = await InProcess.start()
  try {
    const record = await host.create("a")
    ;({ socketPath } = await host.agent(record))
    member = host.member(record)
    await until(() => member.offers.size > 0)
    await Bun.sleep(50)
    own = member.offers.size
    await use()
  } finally {
    await host.stop()
  }
}

class Command {
  readonly heard: LocalMessage<"agent">[] = []
  readonly link: LocalLink<"client">
  isClosed = false
  readonly #socket: ByteSocket

  constructor(socket: ByteSocket) {
    this.#socket = socket
    this.link = new LocalLink(
      "client",
      (bytes) => socket.write(bytes),
      (message) => void this.heard.push(message),
    )
    socket.handlers = {
      onData: (chunk) => this.link.receive(chunk),
      onClose: () => (this.isClosed = true),
    }
  }

  static async connect(): Promise<Command> {
    return new Command(await connectUnix(socketPath))
  }

  offer(service: string): void {
    this.link.send("OFFER", { service, source: undefined, role: "receive", share: random(32) })
  }

  async hear<N extends "OFFERED" | "FAILED">(name: N): Promise<LocalFields<N>> {
    await until(() => this.heard.some((message) => message.name === name))
    return this.heard.find((message) => message.name === name)!.fields as LocalFields<N>
  }

  close(): void {
    this.#socket.close()
  }
}

async function until(ready: () => boolean): Promise<void> {
  while (!ready()) await Bun.sleep(2)
}

describe("a connection that waits for a channel", () => {
  test(
    "cannot wait a second time: it is told so, ends, and leaves no offer behind",
    () =>
      served(async () => {
        const command = await Command.connect()
        command.offer("first")
        await command.hear("OFFERED")
        expect(member.offers.size).toBe(own + 1)
        command.offer("second")
        expect((await command.hear("FAILED")).code).toBe("protocol")
        await until(() => command.isClosed && member.offers.size === own)
        // The name is free, for anybody.
        const next = await Command.connect()
        next.offer("first")
        await next.hear("OFFERED")
        next.close()
        await until(() => member.offers.size === own)
      }),
    10_000,
  )

  test(
    "nor ask for one",
    () =>
      served(async () => {
        const command = await Command.connect()
        command.offer("first")
        await command.hear("OFFERED")
        const share = random(32)
        command.link.send("OPEN", {
          target: "a",
          service: "x",
          role: "send",
          digest: "chain",
          waitMs: 0,
          share,
        })
        expect((await command.hear("FAILED")).code).toBe("protocol")
        await until(() => command.isClosed && member.offers.size === own)
      }),
    10_000,
  )

  test(
    "and goes while the MVM still hears of it leaves nothing",
    () =>
      served(async () => {
        for (let count = 0; count < 50; count += 1) {
          const command = await Command.connect()
          command.offer(`brief${count}`)
          if (count % 2 === 0) await Bun.sleep(1)
          command.close()
        }
        const last = await Command.connect()
        last.offer("last")
        await last.hear("OFFERED")
        await until(() => member.offers.size === own + 1)
        last.close()
        await until(() => member.offers.size === own)
      }),
    10_000,
  )
})
