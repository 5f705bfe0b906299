/**
 * @module test/mvm/vm/unseen-reset
 *
 * A whole MVM, a real vTPM and a real agent in this process; the vTPM is started again behind the MVM's back.
 */

import { describe, expect, test } from "bun:test"
import { join } from "node:path"
import { Log } from "../../../src/lib/log.ts"
import { Agent } from "../../../src/guest/agent.ts"
import { localEnvironment } from "../../../src/guest/environment.ts"
import { serve, type RunningMvm } from "../../../src/mvm/serve.ts"
import { DEFAULT_LIMITS } from "../../../src/mvm/deposits/quota.ts"
import { isRunning } from "../../../src/platform/process.ts"
import { initTpm } from "../../../src/platform/swtpm-control.ts"
import { Tpm } from "../../../src/tpm/tpm.ts"
import type { TpmTransport } from "../../../src/tpm/transport.ts"
import { failure, sampleVm, scratchFolder } from "../scratch-state.ts"

const log = new Log({ level: (process.env["MVM_TEST_LOG"] as "debug") ?? "error", format: "text" })

function served(folder: string): Promise<RunningMvm> {
  return serve({
    state: join(folder, "s"),
    arenaBytes: 1 << 20,
    arenaPath: join(folder, "arena"),
    dedicatedBytes: 1 << 20,
    pool: { size: 0, idleMs: 1000 },
    ringBytes: 8192,
    leaseMs: 90_000,
    deposits: DEFAULT_LIMITS,
    log,
  })
}

describe("a local endpoint whose vTPM starts again by itself", () => {
  test("is stopped at its next measurement, with the reason in the audit, until its agent starts anew", async () => {
    const folder = scratchFolder()
    const { mvm, stop } = await served(folder)
    const { vms, context } = mvm
    const config = { ...sampleVm("a").config, kernel: undefined, remeasureSeconds: 3600 }
    const record = await vms.create({ name: "a", kind: "local", tags: [], config })
    const environment = localEnvironment(join(folder, "s"), "a")
    let transport: TpmTransport | undefined
    const start = (): Promise<Agent> =>
      Agent.start({
        environment: {
          ...environment,
          openTpm: async (life) => (transport = await environment.openTpm(life)),
        },
        log,
        gid: undefined,
        stopping: new AbortController().signal,
        onVtpmLost: () => {},
        onStopped: () => {},
      })
    const member = context.hub.byUuid(record.uuid)!
    const measured = async (): Promise<string> => {
      while (!member.session?.isReady) await Bun.sleep(5)
      // The agent, too, is to know that it is linked.
      await member.link.request("PING", {}, "DONE", { timeoutMs: 5000 })
      return (await failure(() => mvm.measure(member))).code
    }
    let agent = await start()
    try {
      expect(await measured()).toBe("no_reference")
      const { vtpm } = vms.runState(record.uuid)!

      await initTpm(join(folder, "s/run/a/vtpm-local.ctrl"))
      await new Tpm(transport!).startup()
      expect(await measured()).toBe("evidence_reset")
      while (vms.isRunning(record.uuid)) await Bun.sleep(5)

      expect([isRunning(vtpm), member.verifier.opinion.code]).toEqual([false, "evidence_reset"])
      context.audit.flush()
      const [row] = context.audit.log.list({ kind: "vm_halt", limit: 9 })
      expect(row?.subject).toMatchObject({
        vm: "a",
        reason: expect.stringContaining("no reset of the vm was seen"),
      })

      agent.stop()
      agent = await start()
      expect(await measured()).toBe("no_reference")
      await vms.stop(record, true)
    } finally {
      agent.stop()
      await stop()
    }
  }, 30_000)
})
