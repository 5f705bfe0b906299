import { describe, expect, test } from "bun:test"
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { until } from "../scripted-member.ts"
import { able, setting } from "./guests.ts"

describe("memory of a pair", () => {
  test("is a power of two with room for probes, plugged into both, and used again by the same pair alone", async () => {
    const { dedicated, guests, vm, files } = await setting()
    able(dedicated)
    const [a, b, c] = [vm("a"), vm("b"), vm("c")]
    const first = dedicated.reserve(a, b)
    expect(guests.of(a.uuid)).toEqual([])
    await first.attach()
    expect(guests.sizes).toEqual([1 << 20, 1 << 20])
    const [device] = guests.of(a.uuid)
    expect([guests.of(a.uuid), guests.of(b.uuid)]).toEqual([[device!], [device!]])
    expect(first.place(a.uuid).path).toBe("")
    expect(first.place(a.uuid).tag).toEqual(first.place(b.uuid).tag)
    first.free()
    const other = dedicated.reserve(a, c)
    await other.attach()
    expect(other.place(a.uuid).tag).not.toEqual(first.place(a.uuid).tag)
    expect(guests.of(c.uuid)).not.toContain(device!)
    const again = dedicated.reserve(b, a)
    await again.attach()
    expect(again.place(a.uuid).tag).toEqual(first.place(a.uuid).tag)
    expect(files().length).toBe(2)
  })

  test("is zero between two channels, whatever an end wrote", async () => {
    const { dedicated, vm, folder, files } = await setting()
    able(dedicated)
    const [a, b] = [vm("a"), vm("b")]
    const memory = dedicated.reserve(a, b)
    await memory.attach()
    const path = join(folder, files()[0]!)
    writeFileSync(path, new Uint8Array(1 << 20).fill(7), { flag: "r+" })
    memory.free()
    expect((await Bun.file(path).bytes()).every((byte) => byte === 0)).toBe(true)
    writeFileSync(path, new Uint8Array(1 << 20).fill(7), { flag: "r+" })
    dedicated.reserve(a, b)
    expect((await Bun.file(path).bytes()).subarray(4096).every((byte) => byte === 0)).toBe(true)
  })

  test("goes when nobody used it for a while, at once where none is kept, and when it is drained", async () => {
    for (const [pool, drain] of [
      [{ size: 1, idleMs: 5 }, false],
      [{ size: 0, idleMs: 60_000 }, false],
      [{ size: 1, idleMs: 60_000 }, true],
    ] as const) {
      const { dedicated, guests, vm, files } = await setting({ pool })
      able(dedicated)
      const [a, b] = [vm("a"), vm("b")]
      const memory = dedicated.reserve(a, b)
      await memory.attach()
      memory.free()
      if (drain) dedicated.drain(b.uuid)
      await until(() => guests.of(a.uuid).length + guests.of(b.uuid).length === 0)
      expect([files(), dedicated.view.usedBytes]).toEqual([[], 0])
    }
  })

  test("that is drained while a channel has it goes with the channel", async () => {
    const { dedicated, guests, vm } = await setting()
    able(dedicated)
    const [a, b] = [vm("a"), vm("b")]
    const memory = dedicated.reserve(a, b)
    await memory.attach()
    dedicated.drain()
    await Bun.sleep(10)
    expect(guests.of(a.uuid).length).toBe(1)
    memory.free()
    await until(() => guests.of(a.uuid).length === 0)
  })

  test("that was revoked loses its name and its VMs though no end let go, and is not used again", async () => {
    const { dedicated, guests, vm, files } = await setting()
    able(dedicated)
    const [a, b] = [vm("a"), vm("b")]
    const memory = dedicated.reserve(a, b)
    await memory.attach()
    memory.revoke()
    await until(() => guests.of(a.uuid).length + guests.of(b.uuid).length === 0)
    expect(files()).toEqual([])
    memory.free()
    expect(dedicated.view).toMatchObject({ used: 0, idle: 0, usedBytes: 0 })
  })

  test("that was never attached leaves nothing", async () => {
    const { dedicated, vm, files, folder } = await setting()
    able(dedicated)
    dedicated.reserve(vm("a"), vm("b")).free()
    expect([files(), readdirSync(join(folder, "memory"))]).toEqual([[], []])
  })

  test("that a guest lets go of by itself ends the channel", async () => {
    const { dedicated, guests, vm, lost, files } = await setting()
    able(dedicated)
    const [a, b] = [vm("a"), vm("b")]
    const memory = dedicated.reserve(a, b)
    await memory.attach()
    guests.letGo(b.uuid, guests.of(b.uuid)[0]!)
    expect(lost).toEqual(["b let go of the memory"])
    memory.free()
    await until(() => guests.of(a.uuid).length === 0)
    expect(files()).toEqual([])
  })

  test("goes from the other VM when one ends", async () => {
    const { dedicated, guests, vm, files } = await setting()
    able(dedicated)
    const [a, b] = [vm("a"), vm("b")]
    const memory = dedicated.reserve(a, b)
    await memory.attach()
    memory.free()
    guests.held.delete(b.uuid)
    dedicated.stopped(b.uuid)
    await until(() => guests.of(a.uuid).length === 0)
    expect([files(), dedicated.view.idle]).toEqual([[], 0])
  })
})

test("memory of VMs whose monitors take no request is asked back until they do, and nobody ignored it", async () => {
  const { dedicated, guests, vm } = await setting({ requestMs: 1, askAgainMs: 5 })
  able(dedicated)
  const [a, b] = [vm("a"), vm("b")]
  const memory = dedicated.reserve(a, b)
  await memory.attach()
  guests.isAnswering = false
  dedicated.drain()
  memory.free()
  await Bun.sleep(30)
  expect([guests.of(a.uuid).length, dedicated.view.ignored]).toEqual([1, 0])
  guests.isAnswering = true
  await until(() => guests.of(a.uuid).length + guests.of(b.uuid).length === 0)
  expect(dedicated.view).toMatchObject({ used: 0, ignored: 0, usedBytes: 0 })
})

test("a device that cannot be written down is not plugged in, and takes no place", async () => {
  const { dedicated, guests, vm, folder } = await setting()
  able(dedicated)
  const [a, b] = [vm("a"), vm("b")]
  const memory = dedicated.reserve(a, b)
  rmSync(join(folder, "memory"), { recursive: true })
  expect(await memory.attach().catch((error: NodeJS.ErrnoException) => error.code)).toBe("ENOENT")
  expect(guests.of(a.uuid)).toEqual([])
  expect(dedicated.holdings.places(a.uuid)).toMatchObject({ free: 2, all: 2 })
  mkdirSync(join(folder, "memory"))
  memory.free()
  const next = dedicated.reserve(a, b)
  await next.attach()
  expect(guests.of(a.uuid).length).toBe(1)
})

describe("places", () => {
  test("of a VM are bounded; one that is only kept makes room", async () => {
    const { dedicated, guests, vm } = await setting()
    able(dedicated)
    const [a, b, c, d] = [vm("a"), vm("b"), vm("c"), vm("d")]
    const kept = dedicated.reserve(a, b)
    await kept.attach()
    kept.free()
    const one = dedicated.reserve(a, c)
    await one.attach()
    const two = dedicated.reserve(a, d)
    await two.attach()
    expect(guests.of(a.uuid).length).toBe(2)
    await until(() => guests.of(b.uuid).length === 0)
    expect(() => dedicated.reserve(a, b)).toThrow("a has all 2 devices of shared memory it can have")
  })

  test("are none where no monitor answers, or the guest takes no devices", async () => {
    const { dedicated, guests, vm } = await setting()
    guests.isReachable = false
    expect(() => dedicated.reserve(vm("a"), vm("b"))).toThrow("the monitor of a cannot be reached")
    guests.isReachable = true
    guests.slots = 0
    expect(() => dedicated.reserve(vm("a"), vm("b"))).toThrow("the machine of a has no hot-plug places")
    guests.slots = 1
    expect(() => dedicated.reserve(vm("a"), vm("b"))).toThrow("it was not yet tried to plug memory into a")
  })

  test("with little room get a device that fits, with smaller rings", async () => {
    const { dedicated, guests, vm } = await setting({ ringBytes: 8 << 20, limitBytes: 2 ** 30 })
    able(dedicated)
    const [a, b, c] = [vm("a"), vm("b"), vm("c")]
    guests.rooms.set(b.uuid, 1 << 20)
    const small = dedicated.reserve(a, b)
    await small.attach()
    expect([small.ringBytes, guests.sizes]).toEqual([256 << 10, [1 << 20, 1 << 20]])
    expect(dedicated.reserve(a, c).ringBytes).toBe(8 << 20)
  })

  test("are bounded by the memory there is", async () => {
    const { dedicated, vm } = await setting({ limitBytes: 1 << 20 })
    able(dedicated)
    dedicated.reserve(vm("a"), vm("b"))
    expect(() => dedicated.reserve(vm("c"), vm("d"))).toThrow(
      "no room for another channel in dedicated memory",
    )
  })
})

describe("the next life of the MVM", () => {
  test("gives a channel its memory back, keeps what is kept, and removes files that nobody knows", async () => {
    const { dedicated, make, guests, vm, folder, files } = await setting({
      pool: { size: 2, idleMs: 60_000 },
    })
    able(dedicated)
    const [a, b] = [vm("a"), vm("b")]
    const used = dedicated.reserve(a, b)
    const kept = dedicated.reserve(a, b)
    await Promise.all([used.attach(), kept.attach()])
    const before = [...files()]
    kept.free()
    const [orphan, other] = [join(folder, "m-0123456789abcdef"), join(folder, "m-of-somebody-else")]
    for (const path of [orphan, other]) writeFileSync(path, "x")
    dedicated.close(false)
    const next = make()
    next.holdings.restore()
    const reclaimed = next.reclaim(used.stored as never)
    next.settle(() => true)
    await next.holdings.reconcile(a.uuid)
    await next.holdings.reconcile(b.uuid)
    expect(reclaimed.place(a.uuid)).toEqual(used.place(a.uuid))
    expect(next.view).toMatchObject({ used: 1, idle: 1 })
    expect([existsSync(orphan), existsSync(other)]).toEqual([false, true])
    rmSync(other)
    expect(files()).toEqual(before)
    expect(() => next.reclaim(used.stored as never)).toThrow("is gone")
    reclaimed.revoke()
    next.drain()
    await until(() => guests.of(a.uuid).length + guests.of(b.uuid).length === 0)
    expect([files(), readdirSync(join(folder, "memory"))]).toEqual([[], []])
  })

  test("takes back what was being taken back, and forgets what VMs no longer have", async () => {
    const { dedicated, make, guests, vm, files, folder } = await setting()
    able(dedicated)
    const [a, b] = [vm("a"), vm("b")]
    const memory = dedicated.reserve(a, b)
    await memory.attach()
    guests.isObedient = false
    memory.revoke()
    await until(() => files().length === 0)
    dedicated.close(false)
    guests.isObedient = true
    guests.held.delete(b.uuid)
    const next = make()
    next.holdings.restore()
    next.settle((uuid) => uuid !== b.uuid)
    await next.holdings.reconcile(a.uuid)
    await until(() => guests.of(a.uuid).length === 0)
    expect(readdirSync(join(folder, "memory"))).toEqual([])
  })

  test("asks a VM for devices back that no file tells of", async () => {
    const { dedicated, guests, vm } = await setting()
    const a = vm("a")
    await guests.plug(a.uuid, { id: "mvm-0123456789abcdef", sizeBytes: 1 << 20 })
    await dedicated.holdings.reconcile(a.uuid)
    await until(() => guests.of(a.uuid).length === 0)
  })
})

test("two local endpoints have a private file as long as the region, and no device", async () => {
  const { dedicated, vm, folder, files } = await setting()
  const local = (name: string) => ({ ...vm(name), kind: "local" as const })
  const memory = dedicated.reserve(local("a"), local("b"))
  await memory.attach()
  const [file] = files()
  expect(memory.place("")).toMatchObject({ path: join(folder, file!), offset: 0 })
  const { mode, size } = statSync(join(folder, file!))
  expect([mode & 0o777, size]).toEqual([0o600, memory.lengthBytes])
  memory.free()
  expect(files()).toEqual([])
})
