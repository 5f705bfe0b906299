import { describe, expect, test } from "bun:test"
import { BulkQueue, type BulkName, type BulkWriter } from "../../src/wire/bulk-queue.ts"

const CHANNEL = new Uint8Array(16)

/** A queue whose stream takes `room` frames at a time. */
function queue(mostUnread?: number) {
  const sent: { name: BulkName; text: string }[] = []
  const stream = { room: 0 }
  const writer: BulkWriter = {
    ready: () => stream.room > 0,
    send: (name, fields) => {
      stream.room -= 1
      sent.push({ name, text: text(name, fields as unknown as Record<string, unknown>) })
    },
  }
  const bulk = new BulkQueue(writer, mostUnread)
  const take = (room: number): string[] => {
    stream.room = room
    bulk.pump()
    stream.room = 0
    return sent.splice(0).map((one) => one.text)
  }
  return { bulk, take, sent, stream }
}

function text(name: BulkName, fields: Record<string, unknown>): string {
  if (name === "RECORD")
    return `${String.fromCharCode((fields["record"] as Uint8Array)[0]!)}${fields["offset"]}`
  return `${name} ${fields["taken"]}`
}

/** A record of line `line`, which its first byte names. */
function record(line: string, offset: number, lengthBytes = 1000) {
  return { channelId: CHANNEL, offset, record: new Uint8Array(lengthBytes).fill(line.charCodeAt(0)) }
}

describe("bulk", () => {
  test("goes out at once while the stream has little to write, and waits while it has much", () => {
    const { bulk, sent, stream, take } = queue()
    stream.room = 1
    bulk.record("a", record("a", 0))
    bulk.record("a", record("a", 1))
    expect(sent).toHaveLength(1)
    expect(bulk.heldBytes("a")).toBe(1000)
    expect(take(5)).toEqual(["a0", "a1"])
    expect(bulk.heldBytes("a")).toBe(0)
  })

  test("of one channel keeps its order, and lets another that comes later have its turn at once", () => {
    const { bulk, take } = queue()
    for (let count = 0; count < 10; count++) bulk.record("a", record("a", count))
    expect(take(4)).toEqual(["a0", "a1", "a2", "a3"])
    for (let count = 0; count < 3; count++) bulk.record("b", record("b", count))
    expect(take(6)).toEqual(["b0", "a4", "b1", "a5", "b2", "a6"])
  })

  test("shares by bytes: long records of one do not crowd out short ones of another", () => {
    const { bulk, take } = queue()
    for (let count = 0; count < 4; count++) bulk.record("a", record("a", count, 60_000))
    for (let count = 0; count < 60; count++) bulk.record("b", record("b", count, 500))
    const order = take(1000)
    // One of a's is worth sixty of b's, each with its frame.
    expect(order.slice(0, 2)).toEqual(["a0", "b0"])
    expect(order.indexOf("a1")).toBeGreaterThan(50)
    expect(order).toHaveLength(64)
  })

  test("of a channel that was idle gains no claim to the time before", () => {
    const { bulk, take } = queue()
    for (let count = 0; count < 100; count++) bulk.record("a", record("a", count))
    take(50)
    for (let count = 0; count < 100; count++) bulk.record("b", record("b", count))
    const next = take(20)
    expect(next.filter((one) => one.startsWith("b"))).toHaveLength(10)
  })

  test("is preceded by what steers it, of which only the newest counts", () => {
    const { bulk, take } = queue()
    bulk.record("a", record("a", 0))
    for (let taken = 1; taken <= 50; taken++) bulk.mark("a", "CREDIT", { channelId: CHANNEL, taken })
    bulk.mark("b", "RESUME", { channelId: CHANNEL, received: 0, taken: 7, answer: false })
    bulk.mark("b", "RESUME", { channelId: CHANNEL, received: 0, taken: 8, answer: true })
    expect(take(10)).toEqual(["CREDIT 50", "RESUME 8", "a0"])
  })

  test("is never further ahead of what the other end read than its limit; what steers it is not held up", () => {
    const { bulk, take } = queue(2500)
    for (let count = 0; count < 9; count++) bulk.record("a", record("a", count))
    expect(take(100)).toEqual(["a0", "a1", "a2"])
    bulk.mark("a", "CREDIT", { channelId: CHANNEL, taken: 1 })
    expect(take(100)).toEqual(["CREDIT 1"])
    bulk.read(1000)
    expect(take(100)).toEqual(["a3"])
    // Less than before says nothing, and more than was sent no more than that.
    bulk.read(0)
    expect(take(100)).toEqual([])
    bulk.read(Number.MAX_SAFE_INTEGER)
    expect(take(100)).toEqual(["a4", "a5", "a6"])
    bulk.clear()
    for (let count = 0; count < 9; count++) bulk.record("a", record("a", count))
    expect(take(100)).toEqual(["a0", "a1", "a2"])
  })

  test("that is dropped is not sent, alone or with what steers it", () => {
    const { bulk, take } = queue()
    bulk.record("a", record("a", 0))
    bulk.mark("a", "CREDIT", { channelId: CHANNEL, taken: 1 })
    bulk.record("b", record("b", 0))
    bulk.dropRecords("a")
    expect(bulk.heldBytes("a")).toBe(0)
    expect(take(10)).toEqual(["CREDIT 1", "b0"])
    bulk.record("a", record("a", 1))
    bulk.mark("b", "CREDIT", { channelId: CHANNEL, taken: 2 })
    bulk.drop("b")
    expect(take(10)).toEqual(["a1"])
    bulk.record("a", record("a", 2))
    bulk.clear()
    expect(take(10)).toEqual([])
  })
})
