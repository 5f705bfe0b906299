/**
 * @module test/integration/watching
 *
 * What an operator sees of channels: while they run, and of what is over.
 */

import { describe, expect, test } from "bun:test"
import { MIB, hostForFile, type Running } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })

interface ChannelView {
  id: string
  asker: string
  answerer: string
  ageSeconds: number
  traffic: { bytes: number; bytesPerSecond: number }[] | null
  sent: (number | null)[]
}

/** A channel through which `bytes` went, and which stays open. */
async function openWith(bytes: number): Promise<{ sender: Running; receiver: Running }> {
  const receiver = await host().recv("b", undefined)
  const sender = host().send("a", "b", "pipe")
  const input = sender.process.stdin as Bun.FileSink
  input.write(new Uint8Array(bytes))
  await input.flush()
  return { sender, receiver }
}

async function end({ sender, receiver }: { sender: Running; receiver: Running }): Promise<void> {
  await (sender.process.stdin as Bun.FileSink).end()
  expect(await sender.over()).toBe(0)
  expect(await receiver.over()).toBe(0)
}

describe("a channel that runs", () => {
  test("is listed with what went through it, about, and how fast", async () => {
    const ends = await openWith(8 * MIB)
    let view: ChannelView | undefined
    await host().until("the traffic", async () => {
      ;[view] = await host().json<ChannelView[]>("channel", "list")
      return (view?.traffic?.[0]?.bytes ?? 0) >= 8 * MIB
    })
    expect(view).toMatchObject({ asker: "a", answerer: "b", sent: [null, null] })
    // Record headers and padding count too, content does not count twice.
    expect(view?.traffic?.[0]?.bytes).toBeLessThan(9 * MIB)
    expect(view?.traffic?.[1]?.bytes).toBeLessThan(4096)
    const table = await host().must("channel", "list")
    expect(table).toMatch(/^ID +STATE +FROM +TO +SERVICE +TRANSPORT +AGE +THERE +BACK +RATE +RULE\n/)
    expect(table).toMatch(
      new RegExp(
        `\n${view!.id.slice(0, 12)} +open +a +b +default +dedicated +\\d+s +~8\\.\\d+ MiB +~\\d+ B +[\\d.]+ \\w+/s +policy`,
      ),
    )
    const { open, vms } = await host().json<{ open: ChannelView[]; vms: unknown[] }>("status")
    expect([open.length, vms.length]).toEqual([1, 2])
    expect(await host().must("status")).toContain(view!.id.slice(0, 12))
    await end(ends)
  })
})

describe("mvm status --watch", () => {
  test("writes one block after another where there is no terminal, and ends with status 130", async () => {
    const watching = host().spawn(["status", "--watch", "100ms"], { stdout: "pipe" })
    const text = await upTo(watching, (said) => (said.match(/^mvm serve, pid/gm)?.length ?? 0) >= 3)
    watching.kill("SIGINT")
    expect(await watching.over()).toBe(130)
    expect(text).toMatch(/^mvm serve, pid[^\u001b]*\n\nmvm serve, pid/)
  })

  test("writes one line of JSON after another", async () => {
    const watching = host().spawn(["status", "--watch=100ms", "--json"], { stdout: "pipe" })
    const text = await upTo(watching, (said) => said.split("\n").length > 3)
    watching.kill("SIGTERM")
    expect(await watching.over()).toBe(130)
    for (const line of text.split("\n").slice(0, 3)) {
      expect(JSON.parse(line)).toMatchObject({ vms: [{ name: "a" }, { name: "b" }], open: [] })
    }
  })

  test("refuses what is too often, and what is no time", async () => {
    for (const [time, message] of [
      ["1ms", "at least 100 ms"],
      ["often", "is not a time"],
    ] as const) {
      const { status, stderr } = await host().run("status", "--watch", time)
      expect([status, stderr]).toEqual([2, expect.stringContaining(message)])
    }
  })
})

/** What a command wrote until `ready`; it goes on. */
async function upTo(running: Running, ready: (text: string) => boolean): Promise<string> {
  const reader = (running.process.stdout as ReadableStream<Uint8Array>).getReader()
  let text = ""
  while (!ready(text)) {
    const { value, done } = await reader.read()
    if (done) throw new Error(`it ended: ${text}`)
    text += new TextDecoder().decode(value)
  }
  await reader.cancel()
  return text
}
