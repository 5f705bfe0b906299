import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { fromHex, toHex } from "../../src/lib/bytes.ts"
import { type ErrorCode, MvmError } from "../../src/lib/errors.ts"
import { sha256 } from "../../src/lib/crypto.ts"
import { encodeCommand } from "../../src/tpm/command.ts"
import { pcrExtendCommand } from "../../src/tpm/commands-pcr.ts"
import { getRandomCommand } from "../../src/tpm/commands-state.ts"
import { openTpmDevice } from "../../src/tpm/device-transport.ts"
import { TpmResponseError } from "../../src/tpm/response-code.ts"
import { connectSwtpm } from "../../src/tpm/swtpm-transport.ts"
import { Tpm } from "../../src/tpm/tpm.ts"
import type { TpmTransport } from "../../src/tpm/transport.ts"
import { type ScratchSwtpm, scratchDir, startScratchSwtpm } from "./scratch-swtpm.ts"

const RETRY = fromHex("80010000000a00000922")
const COMMAND = encodeCommand(getRandomCommand(4))
const EXTEND = encodeCommand(pcrExtendCommand(10, sha256(new Uint8Array(1))))
const ANSWER = fromHex("80010000001000000000000401020304")

const dir = scratchDir()
let swtpm: ScratchSwtpm

beforeAll(async () => {
  swtpm = await startScratchSwtpm()
})

afterAll(async () => {
  await swtpm?.stop()
  dir.remove()
})

async function failure(promise: Promise<unknown>, code: ErrorCode): Promise<MvmError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(MvmError)
  expect((error as MvmError).code).toBe(code)
  return error as MvmError
}

describe("connectSwtpm, at a process that speaks the protocol badly", () => {
  let server: { stop(closeActive?: boolean): void } | undefined
  let transport: TpmTransport | undefined

  afterEach(() => {
    transport?.close()
    server?.stop(true)
  })

  type Peer = { write(bytes: Uint8Array): number; end(): void }

  async function peer(
    answer: (socket: Peer) => void | Promise<void>,
    onLost: (error: MvmError) => void = () => {},
  ): Promise<TpmTransport> {
    server?.stop(true)
    const path = join(dir.path, `peer-${crypto.randomUUID().slice(0, 8)}`)
    server = Bun.listen({
      unix: path,
      socket: { data: (socket) => void answer(socket as Peer) },
    })
    return (transport = await connectSwtpm(path, onLost))
  }

  test("takes a response that comes byte by byte", async () => {
    const tpm = await peer(async (socket) => {
      for (const byte of ANSWER) {
        socket.write(Uint8Array.of(byte))
        await Bun.sleep(1)
      }
    })
    expect(toHex(await tpm.send(COMMAND))).toBe(toHex(ANSWER))
  })

  test.each([
    ["over 4096 bytes", "800100001001", "responseSize"],
    ["of 4 GiB", "8001ffffffff", "responseSize"],
    ["shorter than a header", "800100000009", "responseSize"],
    ["with bytes after its end", `${toHex(ANSWER)}00`, "after its end"],
  ])("refuses a response %s and ends the connection", async (_title, hex, field) => {
    const tpm = await peer((socket) => void socket.write(fromHex(hex)))
    expect((await failure(tpm.send(COMMAND), "tpm")).message).toContain(field)
    await failure(tpm.send(COMMAND), "tpm")
  })

  test("reports a connection closed in the middle of a response", async () => {
    const tpm = await peer((socket) => {
      socket.write(ANSWER.subarray(0, 12))
      socket.end()
    })
    expect((await failure(tpm.send(COMMAND), "swtpm")).message).toContain("closed")
  })

  test("tells once that the connection is over, whoever noticed it first, and not after close", async () => {
    const lost: string[] = []
    const onLost = (error: MvmError): void => void lost.push(error.message)
    const garbage = await peer((socket) => void socket.write(fromHex("8001ffffffff")), onLost)
    await failure(garbage.send(COMMAND), "tpm")
    server?.stop(true)
    expect(lost).toEqual([expect.stringContaining("responseSize")])
    const ended = await peer((socket) => socket.end(), onLost)
    await failure(ended.send(COMMAND), "swtpm")
    expect(lost).toHaveLength(2)
    const closed = await peer(() => {}, onLost)
    closed.close()
    await failure(closed.send(COMMAND), "tpm")
    expect(lost).toHaveLength(2)
  })

  test("refuses a second command while one is outstanding", async () => {
    const tpm = await peer(() => {})
    const first = tpm.send(COMMAND)
    await failure(tpm.send(COMMAND), "tpm")
    tpm.close()
    await failure(first, "tpm")
  })
})

describe("connectSwtpm", () => {
  test("nobody listening: swtpm naming the path", async () => {
    const path = join(dir.path, "nobody")
    expect((await failure(connectSwtpm(path), "swtpm")).message).toContain(path)
  })

  test("a swtpm that is killed while connected: the next command fails", async () => {
    const doomed = await startScratchSwtpm()
    try {
      const tpm = new Tpm(await connectSwtpm(doomed.dataSocket))
      await tpm.startup()
      process.kill(doomed.process.pid, "SIGKILL")
      await doomed.process.exited
      await failure(tpm.getRandom(8), "swtpm")
    } finally {
      await doomed.stop()
    }
  })

  test("after close every command is refused", async () => {
    const transport = await connectSwtpm(swtpm.dataSocket)
    transport.close()
    await failure(transport.send(COMMAND), "tpm")
  })
})

describe("Tpm, at a TPM that asks for patience", () => {
  let open: Tpm | undefined
  let sent = 0

  afterEach(() => open?.close())

  /** A real TPM behind a transport that may answer or act before it; commands are counted from 0. */
  async function behind(before: (inner: TpmTransport, at: number) => Promise<Uint8Array | undefined>) {
    const inner = await connectSwtpm(swtpm.dataSocket)
    const preparing = new Tpm(inner)
    await preparing.startup().catch(() => {})
    sent = 0
    return (open = new Tpm({
      send: async (command) => (await before(inner, sent++)) ?? (await inner.send(command)),
      close: () => inner.close(),
    }))
  }

  test("TPM_RC_RETRY is tried again", async () => {
    const tpm = await behind(async (_inner, at) => (at < 3 ? RETRY : undefined))
    expect((await tpm.getRandom(8)).length).toBe(8)
    expect(sent).toBe(4)
  })

  test("TPM_RC_RETRY for ever is given up", async () => {
    const tpm = await behind(async () => RETRY)
    const error = await failure(tpm.getRandom(8), "tpm")
    expect((error as TpmResponseError).rc).toBe(0x922)
    expect(sent).toBeLessThan(200)
  }, 60_000)

  test("pcrRead starts over when a PCR changes between two of its commands", async () => {
    const tpm = await behind(async (inner, at) => {
      if (at === 1) await inner.send(EXTEND)
      return undefined
    })
    const values = await tpm.pcrRead([0, 1, 2, 3, 4, 5, 6, 7, 9, 10])
    expect(sent).toBe(4)
    const [alone] = await tpm.pcrRead([10])
    expect(toHex(values[9]!)).toBe(toHex(alone!))
  })

  test("pcrRead gives up with busy when PCRs never stop changing", async () => {
    const tpm = await behind(async (inner) => void (await inner.send(EXTEND)))
    await failure(tpm.pcrRead([0, 1, 2, 3, 4, 5, 6, 7, 9, 10]), "busy")
  })
})

describe("openTpmDevice", () => {
  test("a missing device: setup naming it", async () => {
    const path = join(dir.path, "tpmrm0")
    expect((await failure(openTpmDevice(path), "setup")).message).toContain(path)
  })

  test("a character device with a real TPM behind it", async () => {
    const tty = join(dir.path, "tty")
    const socat = Bun.spawn(["socat", `PTY,link=${tty},rawer`, `UNIX-CONNECT:${swtpm.dataSocket}`], {
      stdio: ["ignore", "ignore", "inherit"],
    })
    try {
      while (!existsSync(tty) && socat.exitCode === null) await Bun.sleep(5)
      const transport = await openTpmDevice(tty)
      const tpm = new Tpm(transport)
      await tpm.startup().catch(() => {})
      const results = await Promise.all([tpm.getRandom(32), tpm.getRandom(32), tpm.pcrRead([0, 10])])
      expect(results.map((result) => result.length)).toEqual([32, 32, 2])
      tpm.close()
      await failure(transport.send(COMMAND), "tpm")
    } finally {
      socat.kill()
      await socat.exited
    }
  })
})
