import { expect, test } from "bun:test"
import { confinementNotes } from "../../../src/cli/vm/create.ts"

test("what confines an adopted domain is said in the words that mend it, and nothing where nothing does", () => {
  expect(confinementNotes({ domain: "web", apparmor: [], selinux: false })).toEqual([])
  const [apparmor, line] = confinementNotes({ domain: "web", apparmor: [`"/dev/shm/x" rw,`], selinux: false })
  expect([apparmor, line]).toEqual([expect.stringContaining("AppArmor confines web"), `  "/dev/shm/x" rw,`])
  expect(confinementNotes({ domain: "web", apparmor: [], selinux: true })).toEqual([
    "SELinux confines web, and mvm ships no rules for it: <seclabel type='none' model='selinux'/> in the domain exempts it",
  ])
})
