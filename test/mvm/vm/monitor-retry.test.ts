/**
 * @module test/mvm/vm/monitor-retry
 *
 * A real QEMU whose monitor is somebody else's for a while: it takes one client at a time.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { Log } from "../../../src/lib/log.ts"
import { LINK_PORT_ID } from "../../../src/platform/qemu-args.ts"
import { launchQemu, type QemuProcess } from "../../../src/platform/qemu.ts"
import { Qmp } from "../../../src/platform/qmp.ts"
import { startSwtpm, type SwtpmProcess } from "../../../src/platform/swtpm.ts"
import { VmMonitors } from "../../../src/mvm/vm/vm-monitors.ts"
import { qemuFixture } from "../../platform/qemu-fixture.ts"

const { folder, options, remove } = qemuFixture()
const VM = { uuid: options.uuid, name: options.name }

let vtpm: SwtpmProcess
let qemu: QemuProcess
beforeAll(async () => {
  const stateDir = join(folder, "tpm")
  mkdirSync(stateDir)
  const stateKey = crypto.getRandomValues(new Uint8Array(32))
  const logFile = join(folder, "swtpm.log")
  vtpm = await startSwtpm({ stateDir, stateKey, controlSocket: options.vtpmControlSocket, logFile })
  qemu = await launchQemu(options, join(folder, "qemu.log"))
})
afterAll(async () => {
  await qemu?.kill()
  await vtpm?.stop()
  remove()
})

function watched() {
  const heard: string[] = []
  const monitors = new VmMonitors(new Log({ level: "error", format: "text" }), {
    onMonitor: () => heard.push("monitor"),
    onUnplugged: () => {},
  })
  const watching = monitors.watch(
    VM,
    {
      portId: LINK_PORT_ID,
      connect: (ended) => {
        heard.push("try")
        return Qmp.connect(options.qmpSocket, { timeoutMs: 100, ended })
      },
    },
    {
      onReset: () => {},
      onGuestReset: () => heard.push("reset"),
      onPort: () => {},
      onSuspend: () => {},
    },
  )
  return { heard, monitors, watching }
}

test("a monitor that is not to be had is not asked without pause, and no more when its VM ended", async () => {
  const other = await Qmp.connect(options.qmpSocket)
  const { heard, monitors, watching } = watched()
  await Bun.sleep(2000)
  // At 0, 0.6 and 1.7 s.
  expect(heard).toEqual(["try", "try", "try"])
  monitors.drop(VM.uuid)
  await watching
  await Bun.sleep(100)
  expect(heard).toHaveLength(3)
  other.close()
}, 20_000)

test("nor after the MVM was closed", async () => {
  const other = await Qmp.connect(options.qmpSocket)
  const { monitors, watching } = watched()
  monitors.close()
  await watching
  other.close()
}, 20_000)

test("a monitor that can be had later is, and its events are heard; so is one that was lost", async () => {
  const other = await Qmp.connect(options.qmpSocket)
  const { heard, monitors, watching } = watched()
  await Bun.sleep(300)
  expect(monitors.of(VM.uuid)).toBeUndefined()
  other.close()
  while (!monitors.of(VM.uuid)) await Bun.sleep(10)
  const first = monitors.of(VM.uuid)!
  first.close()
  while (!monitors.of(VM.uuid) || monitors.of(VM.uuid) === first) await Bun.sleep(10)
  await monitors.of(VM.uuid)!.execute("system_reset")
  while (!heard.includes("reset")) await Bun.sleep(10)
  expect(heard.filter((one) => one !== "try")).toEqual(["monitor", "monitor", "reset"])
  monitors.drop(VM.uuid)
  await watching
}, 20_000)
