import { rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "bun:test"
import { apparmorRules, missingRules } from "../../../src/platform/libvirt/apparmor.ts"

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
