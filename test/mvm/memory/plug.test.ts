import { describe, expect, test } from "bun:test"
import { MvmError } from "../../../src/lib/errors.ts"
import { Log } from "../../../src/lib/log.ts"
import { PLUG_STATES, Plug, step, type PlugState } from "../../../src/mvm/memory/plug.ts"
import type { Plugger } from "../../../src/mvm/memory/plugger.ts"

describe("a plug's state", () => {
  test("follows the table and nothing else", () => {
    const events = ["plug", "done", "failed", "unplug", "undelivered", "limit", "gone"] as const
    const table = PLUG_STATES.map((state) => events.map((event) => step(state, event) ?? "-").join(" "))
    expect(table).toEqual([
      "plugging - - - - - absent",
      "- plugged absent - - - absent",
      "- - - unplugging - - absent",
      "- - - - plugged ignored absent",
      "- - - unplugging - - absent",
    ])
  })
})

describe("a plug", () => {
  const log = new Log({ level: "error", format: "text" })

  function plugOf(change: Partial<Plugger>, bus?: string) {
    const said: string[] = []
    const seen: PlugState[] = []
    const plugger: Plugger = {
      buses: () => ["pci.0"],
      maxBytes: () => 1 << 30,
      plug: async (_, { bus: at }) => void said.push(`plug ${at}`),
      askBack: async () => said.push("ask") > 0,
      forget: async () => void said.push("forget"),
      plugged: async () => new Set(),
      ...change,
    }
    const device = { id: "mvm-1", path: "/dev/shm/x", sizeBytes: 1 << 20 }
    const vm = { uuid: "u", name: "web" }
    const onChange = ({ state }: Plug): void => void seen.push(state)
    const plug = new Plug({ vm, device, plugger, log, requestMs: 1, onChange }, bus)
    return { plug, plugger, said, seen }
  }

  test("goes from absent to plugged and back when the guest lets go", async () => {
    const { plug, said, seen } = plugOf({})
    await plug.plug("pci.0")
    const unplugged = plug.unplug()
    while (!said.includes("ask")) await Bun.sleep(1)
    plug.gone("unplugged")
    await unplugged
    expect([said, seen]).toEqual([
      ["plug pci.0", "ask", "forget"],
      ["plugging", "plugged", "unplugging", "absent"],
    ])
    expect(plug.bus).toBeUndefined()
  })

  test("is absent again when qemu refuses it", async () => {
    const { plug } = plugOf({ plug: () => Promise.reject(new MvmError("qemu", "no")) })
    expect(await plug.plug("pci.0").catch((error: MvmError) => error.code)).toBe("qemu")
    expect([plug.state, plug.bus]).toEqual(["absent", undefined])
  })

  test("is gone at once when qemu knows no such device", async () => {
    const { plug, said } = plugOf({ askBack: async () => false }, "pci.0")
    await plug.unplug()
    expect([plug.state, said]).toEqual(["absent", ["forget"]])
  })

  test("is gone when its VM ends, whatever was under way", async () => {
    for (const begin of ["plug", "unplug", "nothing"] as const) {
      const never = new Promise<never>(() => {})
      const { plug, said } = plugOf({ plug: () => never }, begin === "plug" ? undefined : "pci.0")
      if (begin === "plug") void plug.plug("pci.0")
      const over = begin === "unplug" ? plug.unplug() : undefined
      await Bun.sleep(1)
      plug.gone("vm ended")
      await over
      expect([plug.state, said.includes("forget")]).toEqual(["absent", false])
    }
  })

  test("does not come to be after the guest threw the device out while it was plugged in", async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const { plug } = plugOf({ plug: () => promise })
    const plugging = plug.plug("pci.0").catch((error: MvmError) => error.code)
    plug.gone("unplugged")
    resolve()
    expect([await plugging, plug.state]).toEqual(["aborted", "absent"])
  })

  test("ignores what reached its guest alone: a monitor that took nothing is asked again", async () => {
    let isAnswering = false
    const askBack = async (): Promise<boolean> => {
      if (!isAnswering) throw new MvmError("unreachable", "libvirt does not answer")
      return true
    }
    const { plug, seen } = plugOf({ askBack }, "pci.0")
    await plug.unplug()
    expect([plug.state, plug.bus]).toEqual(["plugged", "pci.0"])
    isAnswering = true
    await plug.unplug()
    expect(seen).toEqual(["unplugging", "plugged", "unplugging", "ignored"])
  })

  test("is absent, and its place free, where it cannot be written down that it is being plugged", async () => {
    const { plugger, said } = plugOf({})
    const device = { id: "mvm-1", path: "/dev/shm/x", sizeBytes: 1 << 20 }
    const onChange = (): void => {
      throw new MvmError("io", "no space")
    }
    const plug = new Plug({ vm: { uuid: "u", name: "web" }, device, plugger, log, onChange })
    expect(() => plug.plug("pci.0")).toThrow("no space")
    expect([plug.state, plug.bus, said]).toEqual(["absent", undefined, []])
  })
})
