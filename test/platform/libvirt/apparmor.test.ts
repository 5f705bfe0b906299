import { rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, test } from "bun:test"
import { apparmorRules, isConfined, missingRules } from "../../../src/platform/libvirt/apparmor.ts"
import { Domain } from "../../../src/platform/libvirt/domain.ts"

const PARTS = {
  arena: "/dev/shm/mvm-1",
  vtpmSocket: "/var/lib/mvm/run/web/tpm.ctrl",
  linkSocket: "/var/lib/mvm/run/web/link.sock",
}

const RULES = [
  `"/var/lib/mvm/run/*/tpm.ctrl" rw,`,
  `"/var/lib/mvm/run/*/link.sock" rw,`,
  `"/dev/shm/mvm-1" rw,`,
  `"/dev/shm/mvm-1-*" rw,`,
]

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
  expect(apparmorRules(PARTS)).toEqual(RULES)
  expect(apparmorRules({ ...PARTS, arena: undefined })).toEqual(RULES.slice(0, 2))
})

test("what the administrator's file has already is not asked for again", () => {
  const file = join(tmpdir(), `mvm-apparmor-${process.pid}`)
  expect(missingRules(RULES, file)).toEqual(RULES)
  writeFileSync(file, `# ours\n${RULES[0]}\n  ${RULES[2]}\n#${RULES[3]}\n`)
  try {
    expect(missingRules(RULES, file)).toEqual([RULES[1]!, RULES[3]!])
  } finally {
    rmSync(file)
  }
})
