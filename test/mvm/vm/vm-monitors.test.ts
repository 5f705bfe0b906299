import { expect, test } from "bun:test"
import { Log } from "../../../src/lib/log.ts"
import { VmMonitors } from "../../../src/mvm/vm/vm-monitors.ts"
import type { Monitor, QmpEvent } from "../../../src/platform/monitor.ts"
import { parseEventLine } from "../../../src/platform/libvirt/events.ts"

/** What is said of a machine that is in `status`, when its monitor tells of `events`. */
async function heard(status: string, events: QmpEvent[]): Promise<string[]> {
  const said: string[] = []
  const closed = Promise.withResolvers<void>()
  const monitor: Monitor = {
    execute: async () => ({ status }),
    onEvent: (handler) => {
      for (const event of events) handler(event)
      return () => {}
    },
    closed: closed.promise,
    close: () => closed.resolve(),
  }
  const monitors = new VmMonitors(new Log({ level: "error", format: "text" }), {
    onMonitor: () => {},
    onUnplugged: () => {},
  })
  const watching = monitors.watch(
    { uuid: "u", name: "web" },
    { portId: "link0", connect: async () => monitor },
    {
      onReset: () => said.push("reset"),
      onGuestReset: () => said.push("guest reset"),
      onPort: (isOpen) => said.push(`port ${isOpen}`),
      onSuspend: (what) => said.push(`suspend ${what}`),
    },
  )
  await Bun.sleep(1)
  monitors.close()
  await watching
  return said
}

test("a suspend to memory or disk, and a wake-up, are told apart from all else that a machine does", async () => {
  const names = ["STOP", "SUSPEND", "RESUME", "SUSPEND_DISK", "WAKEUP", "RTC_CHANGE"]
  const events = names.map((name) => ({ name, data: {} }))
  expect(await heard("running", events)).toEqual([
    "suspend SUSPEND",
    "suspend SUSPEND_DISK",
    "suspend WAKEUP",
  ])
})

test("as libvirt prints them, too", async () => {
  const lines = ["event SUSPEND at 1700000000.000001 for domain 'web': <null>"]
  lines.push("event WAKEUP at 1700000002.000001 for domain 'web': <null>")
  const events = lines.map((line) => parseEventLine(line, ["web"])!.event)
  expect(await heard("running", events)).toEqual(["suspend SUSPEND", "suspend WAKEUP"])
})

test("a machine that is suspended already when its monitor is reached counts as well", async () => {
  expect(await heard("suspended", [])).toEqual(["suspend suspended"])
  expect(await heard("paused", [])).toEqual([])
})
