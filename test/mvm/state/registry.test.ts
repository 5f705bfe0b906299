/** @module test/mvm/registry */

import { describe, expect, test } from "bun:test"
import { Database } from "bun:sqlite"
import { closeSync, openSync, readFileSync, statSync, truncateSync, writeFileSync, writeSync } from "node:fs"
import fc from "fast-check"
import { random } from "../../../src/lib/crypto.ts"
import type { ReferenceEntry } from "../../../src/mvm/state/registry-reference.ts"
import { openRegistry, type Registry, type VmRecord } from "../../../src/mvm/state/registry.ts"
import type { StateDir } from "../../../src/mvm/state/state-dir.ts"
import { closeLater, failure, sampleVm, scratchState } from "../scratch-state.ts"

async function scratchRegistry(): Promise<{ state: StateDir; registry: Registry }> {
  const state = await scratchState()
  const registry = openRegistry(state)
  closeLater(() => registry.close())
  return { state, registry }
}

function reference(path: string, change: Partial<ReferenceEntry> = {}): ReferenceEntry {
  return { path, digest: random(32), source: "learn", reason: "", required: false, addedMs: 1, ...change }
}

describe("VMs in the registry", () => {
  test("come back as they were, by name and by uuid, also after it was closed", async () => {
    const state = await scratchState()
    const first = openRegistry(state)
    const local = sampleVm("host", {
      kind: "local",
      tags: ["b", "a", "b"],
      config: { ...sampleVm("x").config, kernel: undefined, uid: 1000, net: "user" },
    })
    const vms = [sampleVm("web"), local, sampleVm("Db_1.x")]
    for (const vm of vms) first.insertVm(vm)
    first.close()
    const registry = openRegistry(state)
    closeLater(() => registry.close())
    for (const vm of vms) {
      const expected = JSON.parse(JSON.stringify({ config: vm.config })) as { config: VmRecord["config"] }
      const found = registry.getVm(vm.name)!
      expect(found).toEqual({ ...vm, ...expected, tags: [...new Set(vm.tags)].sort() })
      expect(registry.getVm(vm.uuid.toUpperCase())).toEqual(found)
    }
    expect(registry.listVms().map((vm) => vm.name)).toEqual(["Db_1.x", "host", "web"])
    expect(registry.getVm("nobody")).toBeUndefined()
  })

  test("give their name back and never their uuid when they are removed", async () => {
    const { registry } = await scratchRegistry()
    const vm = sampleVm("web")
    registry.insertVm(vm)
    expect((await failure(() => registry.insertVm(sampleVm("web")))).code).toBe("exists")
    expect((await failure(() => registry.insertVm({ ...vm, name: "other" }))).code).toBe("exists")
    registry.removeVm(vm.uuid)
    expect(registry.getVm("web")).toBeUndefined()
    expect((await failure(() => registry.removeVm(vm.uuid))).code).toBe("not_found")
    const again = await failure(() => registry.insertVm(vm))
    expect([again.code, again.message]).toEqual(["exists", `uuid ${vm.uuid} was used before`])
    registry.insertVm(sampleVm("web"))
  })

  test("take nothing of a removed one with them", async () => {
    const { registry } = await scratchRegistry()
    const vm = sampleVm("web")
    registry.insertVm(vm)
    registry.trust.setClock(vm.uuid, { resetCount: 1, restartCount: 0, clock: 5n })
    registry.trust.setTrust(vm.uuid, {
      verdict: "trusted",
      bootId: "",
      reason: "",
      details: null,
      sinceMs: 1,
    })
    registry.trust.recordLaunch(vm.uuid, { kernel: "aa" }, 1)
    registry.reference.addReference(vm.uuid, [reference("/bin/x")])
    registry.reference.addReference("group:web", [reference("/bin/y")])
    registry.removeVm(vm.uuid)
    expect(registry.trust.getClock(vm.uuid)).toBeUndefined()
    expect(registry.trust.getTrust(vm.uuid)).toBeUndefined()
    expect(registry.trust.lastLaunch(vm.uuid)).toBeUndefined()
    expect(registry.reference.listScopes()).toEqual(["group:web"])
  })

  test("are refused with the field that is wrong", async () => {
    const { registry } = await scratchRegistry()
    const vm = sampleVm("web")
    const { config } = vm
    const bad: [string, unknown][] = [
      ["vm.uuid", { ...vm, uuid: vm.uuid.toUpperCase() }],
      ["vm.name", { ...vm, name: "a b" }],
      ["vm.name", { ...vm, name: crypto.randomUUID() }],
      ["vm.keys.sealing", { ...vm, keys: { ...vm.keys, sealing: random(64) } }],
      ["vm.auths.lockout", { ...vm, auths: { ...vm.auths, lockout: random(31) } }],
      ["vm.kind", { ...vm, kind: "xen" }],
      ["vm.tags.0", { ...vm, tags: ["tag:x"] }],
      ["vm.config.memoryMiB", { ...vm, config: { ...config, memoryMiB: 0 } }],
      ["vm.config.cpus", { ...vm, config: { ...config, cpus: 1.5 } }],
      ["vm.config.net", { ...vm, config: { ...config, net: "bridge" } }],
      ["vm.config.extra", { ...vm, config: { ...config, extra: 1 } }],
    ]
    for (const [field, value] of bad) {
      const error = await failure(() => registry.insertVm(value as VmRecord))
      expect([error.code, error.message.split(":")[0]]).toEqual(["config", field])
    }
    expect(registry.listVms()).toEqual([])
  })

  test("change their configuration and tags", async () => {
    const { registry } = await scratchRegistry()
    const vm = sampleVm("web")
    registry.insertVm(vm)
    registry.updateConfig(vm.uuid, { ...vm.config, cpus: 2 })
    registry.setTags(vm.uuid, ["red"])
    expect(registry.getVm("web")!.config.cpus).toBe(2)
    expect(registry.getVm("web")!.tags).toEqual(["red"])
    const nobody = crypto.randomUUID()
    expect((await failure(() => registry.updateConfig(nobody, vm.config))).code).toBe("not_found")
    expect((await failure(() => registry.setTags(nobody, []))).code).toBe("not_found")
  })

  test("keep their secrets sealed, each for its own VM", async () => {
    const { state, registry } = await scratchRegistry()
    const [one, two] = [sampleVm("one"), sampleVm("two")]
    registry.insertVm(one)
    registry.insertVm(two)
    registry.database.prepare("PRAGMA wal_checkpoint(TRUNCATE)").all()
    const stored = readFileSync(state.databaseFile)
    expect(stored.includes(one.keys.identity)).toBe(true)
    for (const secret of Object.values(one.auths)) expect(stored.includes(secret)).toBe(false)
    registry.database
      .prepare("UPDATE vm SET auths = (SELECT auths FROM vm WHERE name = 'two') WHERE name = 'one'")
      .run()
    expect((await failure(() => registry.getVm("one"))).code).toBe("state_key")
    expect(registry.getVm("two")!.auths).toEqual(two.auths)
  })
})

describe("what was seen of a VM", () => {
  test("keeps every clock value, and the verdict over a restart", async () => {
    const state = await scratchState()
    const first = openRegistry(state)
    const vm = sampleVm("web")
    first.insertVm(vm)
    expect(first.trust.getClock(vm.uuid)).toBeUndefined()
    for (const clock of [0n, 1n, 2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]) {
      const seen = { resetCount: 0xffff_ffff, restartCount: 7, clock }
      first.trust.setClock(vm.uuid, seen)
      expect(first.trust.getClock(vm.uuid)).toEqual(seen)
    }
    const distrust = {
      verdict: "untrusted",
      bootId: "ab".repeat(16),
      reason: "/bin/x: expected a, seen b",
      details: { file: "/bin/x", seen: ["b"] },
      sinceMs: 1_700_000_000_000,
    } as const
    first.trust.setTrust(vm.uuid, distrust)
    first.close()
    const registry = openRegistry(state)
    closeLater(() => registry.close())
    expect(registry.trust.getTrust(vm.uuid)).toEqual(distrust)
    expect(registry.trust.getClock(vm.uuid)!.clock).toBe(2n ** 64n - 1n)
  })

  test("is not kept for unknown VMs", async () => {
    const { registry } = await scratchRegistry()
    const uuid = crypto.randomUUID()
    const { trust } = registry
    const clock = { resetCount: 1, restartCount: 1, clock: 1n }
    expect((await failure(() => trust.setClock(uuid, clock))).code).toBe("not_found")
    expect((await failure(() => trust.recordLaunch(uuid, {}, 1))).code).toBe("not_found")
  })

  test("has the last launch, and a bounded number before it", async () => {
    const { registry } = await scratchRegistry()
    const vm = sampleVm("web")
    registry.insertVm(vm)
    for (let time = 1; time <= 40; time++) registry.trust.recordLaunch(vm.uuid, { kernel: `${time}` }, time)
    expect(registry.trust.lastLaunch(vm.uuid)).toEqual({ digests: { kernel: "40" }, timeMs: 40 })
    const count = registry.database.prepare<{ n: bigint }>("SELECT count(*) AS n FROM launch").get()!.n
    expect(count).toBe(16n)
  })
})

describe("reference values", () => {
  test("are pairs of path and digest, listed in order and removed one by one", async () => {
    const { registry } = await scratchRegistry()
    const { reference: table } = registry
    const [a, b] = [reference("/bin/a", { required: true }), reference("/bin/b")]
    const other = reference("/bin/b", { source: "import", reason: "upgrade" })
    expect(table.addReference("group:g", [b, a])).toBe(2)
    expect(table.addReference("group:g", [other, { ...a, source: "again" }])).toBe(1)
    const listed = table.listReference("group:g")
    expect(listed.map((entry) => entry.path)).toEqual(["/bin/a", "/bin/b", "/bin/b"])
    expect(listed[0]).toEqual({ ...a, source: "again" })
    expect(table.removeReference("group:g", "/bin/b", b.digest)).toBe(1)
    expect(table.listReference("group:g")[1]).toEqual(other)
    expect(table.removeReference("group:g", "/bin/b")).toBe(1)
    expect(table.removeReference("group:g", "/bin/b")).toBe(0)
    expect(table.clearReference("group:g")).toBe(1)
    expect(table.listReference("group:g")).toEqual([])
  })

  test("hold several values of a PCR", async () => {
    const { reference: table } = (await scratchRegistry()).registry
    const value = () => ({ digest: random(32), source: "learn", reason: "", addedMs: 1 })
    table.setPcr("group:g", 4, [value(), value()])
    table.setPcr("group:g", 0, [value()])
    expect(table.listPcrs("group:g").map((pcr) => pcr.index)).toEqual([0, 4, 4])
    table.setPcr("group:g", 4, [value()])
    expect(table.listPcrs("group:g").map((pcr) => pcr.index)).toEqual([0, 4])
    expect(table.removePcr("group:g", 4)).toBe(1)
    expect((await failure(() => table.setPcr("group:g", 24, []))).code).toBe("config")
  })

  test("are added all or none", async () => {
    const { reference: table } = (await scratchRegistry()).registry
    const bad = { ...reference("/bin/b"), digest: random(20) }
    expect((await failure(() => table.addReference("group:g", [reference("/bin/a"), bad]))).code).toBe(
      "config",
    )
    expect((await failure(() => table.addReference("group:a b", []))).code).toBe("config")
    expect((await failure(() => table.addReference("web", []))).code).toBe("config")
    expect(table.listScopes()).toEqual([])
  })
})

describe("the database file", () => {
  test("is private, and so are the files beside it", async () => {
    const { state } = await scratchRegistry()
    for (const suffix of ["", "-wal", "-shm"]) {
      expect(statSync(state.databaseFile + suffix).mode & 0o777).toBe(0o600)
    }
  })

  test("is refused when a newer mvm made it, and left as it is", async () => {
    const state = await scratchState()
    openRegistry(state).close()
    const raw = new Database(state.databaseFile)
    raw.run("PRAGMA user_version = 99")
    raw.close()
    const error = await failure(() => openRegistry(state))
    expect([error.code, error.message.includes("schema 99")]).toEqual(["state", true])
    expect(error.hint).toContain("backup")
  })

  test("is refused when it is another program's", async () => {
    const state = await scratchState()
    const raw = new Database(state.databaseFile)
    raw.run("PRAGMA application_id = 77")
    raw.close()
    expect((await failure(() => openRegistry(state))).message).toContain("not a database of mvm")
  })

  test("is refused with a remedy when it is damaged", async () => {
    const state = await scratchState()
    writeFileSync(state.databaseFile, "this is no database at all, not even nearly".repeat(100))
    const error = await failure(() => openRegistry(state))
    expect([error.code, error.message.includes("damaged")]).toEqual(["state", true])
    expect(error.hint).toContain("backup")
  })

  test("never crashes the MVM, whatever bytes of it were changed", async () => {
    const state = await scratchState()
    const registry = openRegistry(state)
    for (let index = 0; index < 20; index++) registry.insertVm(sampleVm(`vm${index}`))
    registry.close()
    const good = readFileSync(state.databaseFile)
    const property = fc.property(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 40 }),
      fc.option(fc.nat(good.length), { nil: undefined }),
      (changes, length) => {
        writeFileSync(state.databaseFile, good)
        const fd = openSync(state.databaseFile, "r+")
        for (const [at, value] of changes) writeSync(fd, Uint8Array.of(value), 0, 1, at)
        closeSync(fd)
        if (length !== undefined) truncateSync(state.databaseFile, length)
        let opened: Registry | undefined
        try {
          opened = openRegistry(state)
          for (const vm of opened.listVms()) opened.removeVm(vm.uuid)
        } catch (error) {
          expect((error as Error).name).toBe("MvmError")
        } finally {
          opened?.close()
        }
      },
    )
    fc.assert(property, { numRuns: 400 })
  })
})
