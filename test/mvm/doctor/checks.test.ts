import { expect, test } from "bun:test"
import { HOST_CHECKS } from "../../../src/mvm/doctor/checks.ts"
import type { HostFacts } from "../../../src/mvm/doctor/facts.ts"

test.each([
  { lacks: undefined, said: undefined },
  { lacks: [], said: { level: "ok" } },
  {
    lacks: ['"/dev/shm/mvm-1-*" rw,'],
    said: { level: "warn", remedy: expect.stringContaining("mvm-1-*") as string },
  },
])("where AppArmor keeps libvirt's QEMUs from the MVM's files, that is said: $lacks", ({ lacks, said }) => {
  const check = HOST_CHECKS.find(({ name }) => name === "apparmor")!
  const judged = check.judge({ apparmor: lacks } as unknown as HostFacts)
  expect(judged).toEqual(said && (expect.objectContaining(said) as never))
})

test("a VM without places for memory is told from one whose monitor does not answer", () => {
  const check = HOST_CHECKS.find(({ name }) => name === "hot-plug")!
  const said = (hotplug: { free: number; all: number; known: boolean }): string => {
    const vms = [{ name: "web", kind: "libvirt", state: "running", hotplug }]
    return JSON.stringify(check.judge({ daemon: { vms, dedicated: { ignored: 0 } } } as unknown as HostFacts))
  }
  expect(said({ free: 0, all: 0, known: false })).toContain("its monitor does not answer")
  expect(said({ free: 0, all: 0, known: true })).toContain("its machine has no places for memory")
  expect(said({ free: 0, all: 4, known: true })).toContain("no place is free")
  expect(said({ free: 1, all: 4, known: true })).toContain("1 of 4 places")
})

test("an accelerator that was asked for is judged by whether it is there", () => {
  const check = HOST_CHECKS.find(({ name }) => name === "kvm")!
  const level = (chosen: string, { opens, runs }: { opens: boolean; runs: boolean }): unknown => {
    const host = {
      arch: "x64",
      override: chosen,
      modules: runs ? "kvm_amd 1 0 - Live 0x0\n" : "",
      exists: () => false,
    }
    const accel = { chosen, host, kvm: opens ? "open" : "denied" }
    return (check.judge({ accel, actor: { uid: 1 } } as unknown as HostFacts) as { level: string }).level
  }
  expect(level("kvm", { opens: true, runs: true })).toBe("ok")
  expect(level("kvm", { opens: true, runs: false })).toBe("warn")
  expect(level("kvm", { opens: false, runs: true })).toBe("fail")
  expect(level("tcg", { opens: true, runs: true })).toBe("warn")
  expect(level("tcg", { opens: true, runs: false })).toBe("ok")
})
