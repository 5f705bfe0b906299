/**
 * @module test/guest/copy/hostile
 *
 * Peers that say what no honest one does, one message after another.
 */

import { afterAll, describe, expect, test } from "bun:test"
import { mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ContentDigest } from "../../../src/guest/copy/blocks.ts"
import { Receiver } from "../../../src/guest/copy/receiver.ts"
import { MAX_FILE_BYTES, NO_LIMITS } from "../../../src/guest/copy/limits.ts"
import { Sender } from "../../../src/guest/copy/sender.ts"
import { CopyWire } from "../../../src/guest/copy/wire.ts"
import { serveCopy } from "../../../src/guest/copy/service.ts"
import {
  COPY_VERSION,
  MAX_DATA_BYTES,
  type CopyFields,
  type CopyName,
} from "../../../src/guest/copy/messages.ts"
import { localSources } from "../../../src/guest/copy/client.ts"
import { Folder } from "../../../src/platform/folder.ts"
import { asMvmError, MvmError } from "../../../src/lib/errors.ts"
import { sha256 } from "../../../src/lib/crypto.ts"
import { Scratch, noise } from "./trees.ts"
import { streamPair } from "./stream-pair.ts"

const scratch = new Scratch()
afterAll(() => scratch.remove())

const MIB = 1 << 20
const NOW = { secondsBiased: 2 ** 40 + 1, nanoseconds: 0 }
const name = (text: string): Uint8Array => Buffer.from(text)

/** A message, or bytes as they are. */
type Said<S extends "sender" | "receiver"> =
  { [N in CopyName<S>]: readonly [N, CopyFields<N>] }[CopyName<S>] | Uint8Array

let count = 0

/** What a receiver makes of a sender that says this and ends. */
async function toReceiver(said: readonly Said<"sender">[]): Promise<{ error: MvmError; left: string[] }> {
  count += 1
  const target = scratch.folder(`r${count}/target`)
  writeFileSync(join(scratch.folder(`r${count}/outside`), "secret"), "secret")
  const { a, b } = streamPair()
  const wire = new CopyWire(a, "sender")
  const receiver = new Receiver(b, Folder.open(target), {
    limits: NO_LIMITS,
    links: "inside",
    checksum: false,
    reveals: true,
    observer: {},
  })
  const ended = receiver.run().then(
    () => new MvmError("internal", "it was taken"),
    (error: unknown) => asMvmError(error),
  )
  void answersOf(wire)
  for (const message of said) {
    if (message instanceof Uint8Array) {
      await wire.flush()
      await a.write(message).catch(() => {})
    } else {
      wire.send(...(message as readonly ["LEAVE", {}]))
    }
    // As one that waits for what it is told.
    await Bun.sleep(1)
  }
  await wire.end().catch(() => {})
  const error = await ended
  expect(readdirSync(join(scratch.path, `r${count}`)).sort()).toEqual(["outside", "target"])
  expect(readdirSync(join(scratch.path, `r${count}/outside`))).toEqual(["secret"])
  return { error, left: readdirSync(target) }
}

async function answersOf(wire: CopyWire<"sender">): Promise<void> {
  try {
    while (await wire.receive());
  } catch {
    // It was broken off, as it should be.
  }
}

const file = (text: string, lengthBytes: number): Said<"sender"> => [
  "FILE",
  { name: name(text), mode: 0o644, time: NOW, lengthBytes, allocatedBytes: 0 },
]
const begin = (index: number, lengthBytes: number): Said<"sender"> => [
  "BEGIN",
  { index, mode: 0o644, time: NOW, lengthBytes },
]
const folder = (text: string): Said<"sender"> => ["DIRECTORY", { name: name(text), mode: 0o755, time: NOW }]
const end = (digest = sha256(new Uint8Array(8))): Said<"sender"> => ["END", { digest }]

describe("a receiver", () => {
  test.each<[string, readonly Said<"sender">[]]>([
    ["a name with a slash", [file("a/b", 1)]],
    ["a name that climbs", [file("..", 1)]],
    ["a folder that climbs", [folder(".."), file("outside", 1)]],
    ["the folder itself", [folder(".")]],
    ["no name", [file("", 1)]],
    ["a name with a NUL", [file("a\0b", 1)]],
    ["a link text with a NUL", [["SYMLINK", { name: name("l"), time: NOW, text: name("a\0b") }]]],
    [
      "a time of more than a second's nanoseconds",
      [["DIRECTORY", { name: name("d"), mode: 0, time: { secondsBiased: 0, nanoseconds: 1_000_000_000 } }]],
    ],
    [
      "a time beyond all",
      [["DIRECTORY", { name: name("d"), mode: 0, time: { secondsBiased: 2 ** 53 - 1, nanoseconds: 0 } }]],
    ],
    ["a folder that is left and was not entered", [["LEAVE", {}]]],
    ["the end inside a folder", [folder("d"), ["FINISH", {}]]],
    ["the end before a wanted file", [file("f", 5), ["FINISH", {}]]],
    ["content of no file", [["DATA", { lengthBytes: 1 }], name("x")]],
    ["a hole of no file", [["HOLE", { lengthBytes: 1 }]]],
    ["the content of what was not announced", [begin(1, 0)]],
    ["the content of a folder", [folder("d"), begin(1, 0)]],
    ["the content of another file in between", [file("f", 1), file("g", 1), begin(1, 1), begin(2, 1)]],
    ["an entry within content", [file("f", 5), begin(1, 5), file("g", 1)]],
    ["more content than announced", [file("f", 2), begin(1, 2), ["DATA", { lengthBytes: 3 }], name("xyz")]],
    ["a hole beyond the file", [file("f", 2), begin(1, 2), ["HOLE", { lengthBytes: 2 ** 53 - 1 }]]],
    [
      "less content than announced",
      [file("f", 2), begin(1, 2), ["DATA", { lengthBytes: 1 }], name("x"), end()],
    ],
    ["a piece of no length", [file("f", 2), begin(1, 2), ["DATA", { lengthBytes: 0 }]]],
    [
      "a piece that is too long",
      [file("f", 2 ** 40), begin(1, 2 ** 40), ["DATA", { lengthBytes: MAX_DATA_BYTES + 1 }]],
    ],
    ["to keep what was not offered", [file("f", 5 * MIB), begin(1, 5 * MIB), ["KEEP", { blocks: 1 }]]],
    ["to keep nothing", [file("f", 5 * MIB), begin(1, 5 * MIB), ["KEEP", { blocks: 0 }]]],
    ["more than a file may have", [file("f", 1), begin(1, 2 ** 53 - 1)]],
    ["the end of a file twice", [file("d", 0), begin(1, 0), end(), end()]],
    ["to drop what was not announced", [["DROP", { index: 7, code: "io", message: "x" }]]],
    [
      "a request in the middle",
      [
        [
          "REQUEST",
          { version: 1, direction: "push", paths: [], recursive: true, checksum: false, totals: false },
        ],
      ],
    ],
    ["folders without end", Array.from({ length: 201 }, () => folder("d"))],
    ["a message of the other side", [Buffer.from([0, 0, 0, 5, 0x93, 37, 0, 0x81, 0xa0])]],
    ["bytes that are no message", [noise(100)]],
    ["a frame without end", [Buffer.from([0xff, 0xff, 0xff, 0xff])]],
  ])("told %s ends the copy with status 5 and keeps nothing of it", async (_, said) => {
    const { error, left } = await toReceiver(said)
    expect([error.code, error.status]).toEqual(["protocol", 5])
    expect(left.filter((found) => found !== "d")).toEqual([])
  })

  test("does not store content that has another digest than its sender says", async () => {
    const said: Said<"sender">[] = [file("f", 1), begin(1, 1), ["DATA", { lengthBytes: 1 }], name("x"), end()]
    const { error, left } = await toReceiver(said)
    expect([error.code, left]).toEqual(["digest_mismatch", []])
  })

  test.each([
    ["in a file", [file("f", 5), begin(1, 5), ["DATA", { lengthBytes: 5 }], name("x")] as Said<"sender">[]],
    ["between entries", [folder("d")]],
    ["at once", []],
  ])("whose sender ends %s keeps no part of a file", async (_, said) => {
    const { error, left } = await toReceiver(said)
    expect([error.code, left.filter((found) => found !== "d")]).toEqual(["truncated", []])
  })

  test("is not filled by entries whose answers nobody reads", async () => {
    const target = scratch.folder("flood")
    const { a, b } = streamPair()
    const wire = new CopyWire(a, "sender")
    const options = {
      limits: NO_LIMITS,
      links: "inside",
      checksum: false,
      reveals: true,
      observer: {},
    } as const
    const ended = new Receiver(b, Folder.open(target), options).run().catch(asMvmError)
    for (let index = 0; index < 20_000; index += 1) {
      wire.send("FILE", { name: name(`f${index}`), mode: 0, time: NOW, lengthBytes: 1, allocatedBytes: 0 })
      if (wire.isFull) await wire.flush().catch(() => {})
    }
    expect(await ended).toMatchObject({ code: "protocol", message: "more entries than the window admits" })
    expect(readdirSync(target)).toEqual([])
  })

  test("goes through the longest hole at once", async () => {
    const lengthBytes = MAX_FILE_BYTES
    const digest = new ContentDigest()
    digest.updateZeros(lengthBytes)
    const said: Said<"sender">[] = [file("f", lengthBytes), begin(1, lengthBytes), ["HOLE", { lengthBytes }]]
    const { error, left } = await toReceiver([...said, end(digest.digest())])
    // Some file systems hold such a file.
    expect([error.code, left.filter((found) => found !== "f")]).toEqual(["truncated", []])
  })

  test("answers anything at all with an end of the copy, and is none the worse", async () => {
    let seed = 7
    const next = (below: number): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
      return seed % below
    }
    const honest: Said<"sender">[] = [
      folder("d"),
      file("f", 3),
      ["LEAVE", {}],
      ["SYMLINK", { name: name("l"), time: NOW, text: name("d/f") }],
      begin(2, 3),
      ["DATA", { lengthBytes: 3 }],
      name("abc"),
      ["HOLE", { lengthBytes: 3 }],
      ["KEEP", { blocks: 1 }],
      end(),
      ["DROP", { index: 2, code: "io", message: "x" }],
      ["FINISH", {}],
    ]
    for (let round = 0; round < 150; round += 1) {
      const said = Array.from({ length: 1 + next(12) }, () => honest[next(honest.length)] as Said<"sender">)
      const { error } = await toReceiver(said)
      // Truncated where it said nothing wrong but stopped.
      expect(["protocol", "truncated", "digest_mismatch", "internal"]).toContain(error.code)
    }
  }, 60_000)
})

/** What a sender of one file and one folder makes of a receiver that says this. */
async function toSender(said: readonly Said<"receiver">[]): Promise<MvmError> {
  count += 1
  const source = scratch.folder(`s${count}`)
  mkdirSync(join(source, "d"))
  writeFileSync(join(source, "f"), noise(3 * MIB))
  const { a, b } = streamPair()
  const sources = localSources([join(source, "d"), join(source, "f")])
  const sender = new Sender(a, sources.sources, { recursive: true, totals: false, observer: {} })
  const ended = sender.run().then(
    () => new MvmError("internal", "it was taken"),
    (error: unknown) => asMvmError(error),
  )
  const wire = new CopyWire(b, "receiver")
  void (async () => {
    try {
      while (await b.read());
    } catch {
      // It was broken off.
    }
  })()
  for (const message of said) {
    if (message instanceof Uint8Array) await b.write(message).catch(() => {})
    else wire.send(...(message as readonly ["DONE", {}]))
    await Bun.sleep(2)
  }
  await wire.end().catch(() => {})
  const error = await ended
  sources.close()
  return error
}

describe("a sender", () => {
  test.each<[string, readonly Said<"receiver">[]]>([
    ["wants what was not announced", [["WANT", { index: 9 }]]],
    ["wants a folder", [["WANT", { index: 1 }]]],
    [
      "wants a file twice",
      [
        ["WANT", { index: 2 }],
        ["WANT", { index: 2 }],
      ],
    ],
    ["has made a file", [["MADE", { index: 2 }]]],
    ["has stored what was not sent", [["STORED", { index: 2 }]]],
    ["has what was not announced", [["SAME", { index: 0 }]]],
    ["is done before it has answered", [["DONE", {}]]],
    ["offers no blocks", [["RESUME", { index: 2, blocks: 0 }]]],
    ["offers digests of no file", [["HASHES", { digests: new Uint8Array(32) }]]],
    [
      "offers more digests than it said",
      [
        ["RESUME", { index: 2, blocks: 1 }],
        ["HASHES", { digests: new Uint8Array(64) }],
      ],
    ],
    [
      "offers half a digest",
      [
        ["RESUME", { index: 2, blocks: 1 }],
        ["HASHES", { digests: new Uint8Array(16) }],
      ],
    ],
    ["refuses what was not announced", [["REFUSED", { index: 3, code: "io", message: "x" }]]],
    [
      "asks for something in the middle",
      [
        [
          "REQUEST",
          { version: 1, direction: "pull", paths: [], recursive: true, checksum: false, totals: false },
        ],
      ],
    ],
    ["says what a sender says", [Buffer.from([0, 0, 0, 4, 0x93, 22, 0, 0x80])]],
    ["says nothing that is a message", [noise(64)]],
  ])("whose receiver %s ends the copy with status 5", async (_, said) => {
    const error = await toSender(said)
    expect([error.code, error.status]).toEqual(["protocol", 5])
  })

  test.each<[string, readonly Said<"receiver">[]]>([
    ["at once", []],
    ["in the middle", [["WANT", { index: 2 }]]],
    [
      "in the middle of digests",
      [
        ["RESUME", { index: 2, blocks: 3 }],
        ["HASHES", { digests: new Uint8Array(32) }],
      ],
    ],
  ])("whose receiver ends %s says so", async (_, said) => {
    expect((await toSender(said)).code).toBe("truncated")
  })
})

describe("a service", () => {
  test.each([
    ["another version", { version: COPY_VERSION + 1, direction: "pull", paths: [name("a")] }, 5],
    ["no target", { version: COPY_VERSION, direction: "push", paths: [] }, 5],
    ["two targets", { version: COPY_VERSION, direction: "push", paths: [name("a"), name("b")] }, 5],
  ] as const)("asked for %s refuses", async (_, fields, status) => {
    const { a, b } = streamPair()
    new CopyWire(a, "sender").send("REQUEST", { recursive: true, checksum: false, totals: false, ...fields })
    const service = {
      folder: scratch.path,
      mayRead: true,
      mayWrite: true,
      limits: NO_LIMITS,
      links: "inside",
    } as const
    const error = await serveCopy(b, service).catch(asMvmError)
    expect(error).toMatchObject({ status })
    await expect(a.read()).rejects.toMatchObject({ status })
  })

  test("whose folder is gone tells its peer no path of this machine", async () => {
    const { a, b } = streamPair()
    const request = { version: COPY_VERSION, direction: "push", paths: [name("")], recursive: true } as const
    new CopyWire(a, "sender").send("REQUEST", { ...request, checksum: false, totals: false })
    const gone = join(scratch.path, "no-such")
    const service = {
      folder: gone,
      mayRead: true,
      mayWrite: true,
      limits: NO_LIMITS,
      links: "inside",
    } as const
    const error = asMvmError(await serveCopy(b, service).catch(asMvmError))
    expect(error.message).toBe("the folder that is served cannot be opened")
  })
})
