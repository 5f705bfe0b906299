/** @module test/platform/qmp */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { MvmError } from "../../src/lib/errors.ts"
import { launchQemu, type QemuProcess } from "../../src/platform/qemu.ts"
import type { QmpEvent } from "../../src/platform/monitor.ts"
import { Qmp } from "../../src/platform/qmp.ts"
import { startSwtpm, type SwtpmProcess } from "../../src/platform/swtpm.ts"
import { listenUnix, type ByteSocket, type UnixListener } from "../../src/platform/unix-socket.ts"
import { qemuFixture } from "./qemu-fixture.ts"

const fixture = qemuFixture()
const { folder, options } = fixture
afterAll(fixture.remove)

async function failure(promise: Promise<unknown>): Promise<MvmError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error instanceof MvmError) return error
  throw new Error(`not an MvmError: ${error}`)
}

describe("with a real qemu", () => {
  let vtpm: SwtpmProcess
  let qemu: QemuProcess
  let qmp: Qmp

  beforeAll(async () => {
    const stateDir = join(folder, "tpm")
    mkdirSync(stateDir)
    vtpm = await startSwtpm({
      stateDir,
      stateKey: crypto.getRandomValues(new Uint8Array(32)),
      controlSocket: options.vtpmControlSocket,
      logFile: join(folder, "swtpm.log"),
    })
    qemu = await launchQemu(options, join(folder, "qemu.log"))
    qmp = await Qmp.connect(options.qmpSocket)
  })
  afterAll(async () => {
    qmp?.close()
    await qemu?.kill()
    await vtpm?.stop()
  })

  test("answers a command", async () => {
    expect(await qmp.execute("query-status")).toMatchObject({ running: true })
    expect(await qmp.execute("query-uuid")).toEqual({ UUID: options.uuid })
  })

  test("matches answers of commands in flight together", async () => {
    const [name, uuid] = await Promise.all([qmp.execute("query-name"), qmp.execute("query-uuid")])
    expect(name).toEqual({ name: "alpha" })
    expect(uuid).toEqual({ UUID: options.uuid })
  })

  test("carries qemu's class and description in a failure", async () => {
    const error = await failure(qmp.execute("device_del", { id: "nothing" }))
    expect(error.code).toBe("qemu")
    expect(error.message).toMatch(/^device_del: DeviceNotFound: .*nothing/)
  })

  test("hot-plugs and unplugs shared memory", async () => {
    const backend = { "qom-type": "memory-backend-file", id: "extra", share: true, size: 1 << 20 }
    await qmp.execute("object-add", { ...backend, "mem-path": join(folder, "extra") })
    await qmp.execute("device_add", { driver: "ivshmem-plain", id: "extra0", memdev: "extra" })
    expect(JSON.stringify(await qmp.execute("query-pci"))).toContain('"extra0"')
  })

  test("reports events, and the end of qemu to those who wait", async () => {
    const events: QmpEvent[] = []
    const stop = qmp.onEvent((event) => events.push(event))
    await qmp.execute("stop")
    await qmp.execute("cont")
    expect(events.map(({ name }) => name)).toEqual(["STOP", "RESUME"])
    stop()
    await qmp.execute("stop")
    expect(events.length).toBe(2)
    await qmp.execute("quit").catch(() => {})
    expect((await qemu.exited).code).toBe(0)
    await qmp.closed
    expect((await failure(qmp.execute("query-status"))).code).toBe("qemu")
  })
})

describe("with a monitor that misbehaves", () => {
  const path = join(folder, "fake-monitor")
  let listener: UnixListener | undefined
  const serve = (onConnection: (socket: ByteSocket) => void): void => {
    listener = listenUnix(path, 0o600, onConnection)
  }
  const send = (socket: ByteSocket, text: string): void => socket.write(Buffer.from(text))
  const greeting = `{"QMP":{"version":{},"capabilities":[]}}\r\n`
  afterEach(() => {
    listener?.close()
    listener = undefined
  })

  test("says that nothing listens", async () => {
    expect((await failure(Qmp.connect(join(folder, "nobody"), { timeoutMs: 50 }))).code).toBe("unreachable")
  })

  test("gives up on one that does not greet", async () => {
    serve(() => {})
    expect((await failure(Qmp.connect(path, { timeoutMs: 50 }))).code).toBe("timeout")
  })

  test.each([
    ["not JSON", "nonsense\n"],
    ["not an object", "[]\n"],
  ])("refuses a line that is %s", async (_, line) => {
    serve((socket) => send(socket, line))
    expect((await failure(Qmp.connect(path, { timeoutMs: 5000 }))).code).toBe("qemu")
  })

  test("takes lines cut anywhere, and lets a late answer time out alone", async () => {
    serve((socket) => {
      for (const byte of greeting) send(socket, byte)
      socket.handlers = {
        onClose: () => {},
        onData: (chunk) => {
          const lines = Buffer.from(chunk).toString().trim().split("\n")
          for (const { id, execute } of lines.map((line) => JSON.parse(line))) {
            if (execute === "silent") continue
            for (const byte of `{"return":{"said":"${execute}"},"id":${id}}\r\n`) send(socket, byte)
          }
        },
      }
    })
    const qmp = await Qmp.connect(path)
    const silent = failure(qmp.execute("silent", {}, 50))
    expect(await qmp.execute("loud")).toEqual({ said: "loud" })
    expect((await silent).code).toBe("timeout")
    qmp.close()
  })

  test("fails what is in flight when it closes", async () => {
    serve((socket) => {
      send(socket, greeting)
      socket.handlers = {
        onClose: () => {},
        onData: (chunk) => {
          const { id, execute } = JSON.parse(Buffer.from(chunk).toString())
          if (execute === "qmp_capabilities") send(socket, `{"return":{},"id":${id}}\n`)
          else socket.close()
        },
      }
    })
    const qmp = await Qmp.connect(path)
    expect((await failure(qmp.execute("anything"))).message).toStartWith("anything: ")
  })
})
