/** @module test/mvm/health */

import { expect, test } from "bun:test"
import { join } from "node:path"
import { Log } from "../../src/lib/log.ts"
import type { Mvm } from "../../src/mvm/context.ts"
import { isHealthy } from "../../src/mvm/health.ts"
import { AuditCommitter } from "../../src/mvm/state/audit-committer.ts"
import { openAudit } from "../../src/mvm/state/audit.ts"
import { openRegistry } from "../../src/mvm/state/registry.ts"
import { scratchFolder, scratchState } from "./scratch-state.ts"

test("an MVM is healthy as long as its database answers, and no longer", async () => {
  const stateDir = await scratchState(join(scratchFolder(), "state"))
  const registry = openRegistry(stateDir)
  const audit = new AuditCommitter(openAudit(stateDir, registry), new Log({ level: "error", format: "text" }))
  const mvm = { context: { audit } } as unknown as Mvm
  expect(isHealthy(mvm)).toBe(true)
  const committed = audit.commit("vm_set", { vm: "a" })
  expect(audit.waitingMs).toBeGreaterThan(0)
  await committed
  expect([audit.waitingMs, isHealthy(mvm)]).toEqual([0, true])
  registry.close()
  expect(() => isHealthy(mvm)).toThrow()
})
