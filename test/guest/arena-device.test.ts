import { describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { ArenaDevice } from "../../src/guest/arena-device.ts"
import type { SharedMemoryDevice } from "../../src/platform/ivshmem.ts"
import { scratchFolder } from "../mvm/scratch-state.ts"

function device(slot: number): SharedMemoryDevice {
  const address = `0000:00:0${slot}.0`
  return { address, folder: `/sys/bus/pci/devices/${address}`, baseAddress: 2 ** 32, lengthBytes: 1 << 20 }
}

function setting() {
  const there = [device(5)]
  const note = join(scratchFolder(), "run/arena-device")
  const devices = () => there.toSorted((a, b) => (a.address < b.address ? -1 : 1))
  const addresses = (agent: ArenaDevice) => ({
    arena: agent.find()?.address,
    plugged: agent.plugged().map(({ address }) => address),
  })
  return { there, note, agent: () => new ArenaDevice(devices, note), addresses }
}

describe("the arena among a VM's shared memory devices", () => {
  test("is what was there first, whatever slots others are plugged into", () => {
    const { there, agent, addresses } = setting()
    const first = agent()
    expect(addresses(first)).toEqual({ arena: "0000:00:05.0", plugged: [] })
    there.push(device(3), device(7))
    const found = { arena: "0000:00:05.0", plugged: ["0000:00:03.0", "0000:00:07.0"] }
    expect(addresses(first)).toEqual(found)
    // An agent that starts while they are there.
    expect(addresses(agent())).toEqual(found)
  })

  test("is found anew in another boot", () => {
    const { there, note, agent, addresses } = setting()
    agent().find()
    writeFileSync(note, `${crypto.randomUUID()} 0000:00:05.0\n`)
    there.push(device(3))
    expect(addresses(agent()).arena).toBe("0000:00:03.0")
  })

  test("is none where there is no device, until one is there", () => {
    const { there, agent, addresses } = setting()
    there.pop()
    const first = agent()
    expect(addresses(first)).toEqual({ arena: undefined, plugged: [] })
    there.push(device(4))
    expect(addresses(first).arena).toBe("0000:00:04.0")
  })
})
