import { describe, expect, test } from "bun:test"
import { until } from "../scripted-member.ts"
import { able, setting } from "./guests.ts"

/** Three VMs with one place each; a and c have memory that is kept for their next channel. */
async function withKept() {
  const { dedicated, guests, vm } = await setting({ requestMs: 60_000 })
  able(dedicated)
  guests.slots = 1
  const [a, b, c] = [vm("a"), vm("b"), vm("c")]
  const kept = dedicated.reserve(a, c)
  await kept.attach()
  kept.free()
  return { dedicated, guests, a, b, c }
}

describe("memory that was given back", () => {
  test("is not plugged in any more: its file has no name, and QEMU would make another", async () => {
    const { dedicated, guests, vm, files } = await setting()
    able(dedicated)
    const [a, b] = [vm("a"), vm("b")]
    const memory = dedicated.reserve(a, b)
    memory.free()
    const error: unknown = await memory.attach().catch((one: unknown) => one)
    expect(error).toMatchObject({ code: "aborted" })
    expect([guests.of(a.uuid), guests.of(b.uuid), files()]).toEqual([[], [], []])
  })

  test("while another made room for it is not plugged in either", async () => {
    const { dedicated, guests, a, b, c } = await withKept()
    guests.stubborn.add(a.uuid)
    const memory = dedicated.reserve(a, b)
    const attached = memory.attach().catch((one: unknown) => one)
    await until(() => guests.of(b.uuid).length === 1 && guests.of(c.uuid).length === 0)
    memory.free()
    guests.letGo(a.uuid, guests.of(a.uuid)[0]!)
    expect(await attached).toMatchObject({ code: "aborted" })
    await until(() => guests.of(b.uuid).length === 0)
    expect([guests.of(a.uuid), dedicated.view]).toEqual([
      [],
      expect.objectContaining({ usedBytes: 0 }) as never,
    ])
  })

  test("is taken after a while where an end of a channel that is over keeps it, and its places are free", async () => {
    const { dedicated, guests, vm, files } = await setting({ endGraceMs: 20 })
    able(dedicated)
    guests.slots = 1
    const [a, b, c] = [vm("a"), vm("b"), vm("c")]
    const memory = dedicated.reserve(a, b)
    await memory.attach()
    memory.expire()
    expect(() => dedicated.reserve(a, c)).toThrow("all 1 devices")
    await until(() => guests.of(a.uuid).length + guests.of(b.uuid).length === 0)
    expect(files()).toEqual([])
    await dedicated.reserve(a, c).attach()
  })

  test("in time by both ends of a channel that is over is kept for their next one", async () => {
    const { dedicated, guests, vm } = await setting({ endGraceMs: 20 })
    able(dedicated)
    const [a, b] = [vm("a"), vm("b")]
    const memory = dedicated.reserve(a, b)
    await memory.attach()
    memory.expire()
    memory.free()
    await Bun.sleep(60)
    expect([guests.of(a.uuid).length, dedicated.view.idle]).toEqual([1, 1])
  })
})

describe("places", () => {
  test("are made in one VM, however long the other one that has the memory takes to let go", async () => {
    const { dedicated, guests, a, b, c } = await withKept()
    guests.stubborn.add(c.uuid)
    await dedicated.reserve(a, b).attach()
    expect([guests.of(b.uuid).length, guests.of(c.uuid).length]).toEqual([1, 1])
    guests.letGo(c.uuid, guests.of(c.uuid)[0]!)
  })

  test("are not made one after another in a guest that lets go of none", async () => {
    const { dedicated, guests, vm } = await setting({ requestMs: 10, pool: { size: 2, idleMs: 60_000 } })
    able(dedicated)
    const [a, b, c] = [vm("a"), vm("b"), vm("c")]
    const [one, two] = [dedicated.reserve(a, c), dedicated.reserve(a, c)]
    await Promise.all([one.attach(), two.attach()])
    for (const memory of [one, two]) memory.free()
    guests.stubborn.add(a.uuid)
    const error: unknown = await dedicated
      .reserve(a, b)
      .attach()
      .catch((one: unknown) => one)
    expect(error).toMatchObject({ code: "busy" })
    expect(dedicated.view).toMatchObject({ idle: 1, ignored: 1 })
  })
})
