import { describe, expect, test } from "bun:test"
import { apparmorRules, isConfined } from "../../../src/platform/libvirt/apparmor.ts"
import { Domain } from "../../../src/platform/libvirt/domain.ts"

const PARTS = {
  arena: { name: "mvm-1", sizeBytes: 2 ** 20 },
  vtpmSocket: "/var/lib/mvm/run/web/tpm.ctrl",
  linkSocket: "/var/lib/mvm/run/web/link.sock",
}

function domain(more = ""): Domain {
  return Domain.parse(`<domain type='kvm'><name>web</name>
    <uuid>b843666c-17da-4cb2-9cce-6764896b0267</uuid>${more}</domain>`)
}

describe("a domain's QEMU", () => {
  test("is confined where AppArmor is among libvirt's models", () => {
    expect(isConfined(["apparmor", "dac"], domain())).toBe(true)
    expect(isConfined(["dac"], domain())).toBe(false)
    expect(isConfined([], domain())).toBe(false)
  })

  test("is not where the domain itself says so of that model", () => {
    expect(isConfined(["apparmor", "dac"], domain("<seclabel type='none' model='apparmor'/>"))).toBe(false)
    expect(isConfined(["apparmor", "dac"], domain("<seclabel type='none'/>"))).toBe(false)
    expect(isConfined(["apparmor", "dac"], domain("<seclabel type='none' model='dac'/>"))).toBe(true)
  })
})

test("the lines let every VM's QEMU at its sockets, the arena and memory that is plugged in later", () => {
  expect(apparmorRules(PARTS, "/dev/shm")).toEqual([
    `"/var/lib/mvm/run/*/tpm.ctrl" rw,`,
    `"/var/lib/mvm/run/*/link.sock" rw,`,
    `"/dev/shm/mvm-1" rw,`,
    `"/dev/shm/mvm-1-*" rw,`,
  ])
  expect(apparmorRules({ ...PARTS, arena: undefined }, "/dev/shm")).toHaveLength(2)
})
