/**
 * @module test/mvm/vm/unseen-reset
 *
 * A real vTPM that is started again behind the MVM's back.
 */

import { expect, test } from "bun:test"
import { join } from "node:path"
import { isRunning } from "../../../src/platform/process.ts"
import { initTpm } from "../../../src/platform/swtpm-control.ts"
import { Tpm } from "../../../src/tpm/tpm.ts"
import { InProcess } from "../in-process.ts"
import { failure } from "../scratch-state.ts"

test("a local endpoint whose vTPM started again by itself is stopped when it is measured, until its agent starts anew", async () => {
  const host = await InProcess.start()
  try {
    const { mvm } = host.running
    const record = await host.create("a")
    const { agent, tpm } = await host.agent(record)
    const member = host.member(record)
    const measured = async (): Promise<string> => (await failure(() => mvm.measure(member))).code
    expect(await measured()).toBe("no_reference")
    const { vtpm } = mvm.vms.runState(record.uuid)!

    await initTpm(join(host.state, "run/a/vtpm-local.ctrl"))
    await new Tpm(tpm).startup()
    expect(await measured()).toBe("evidence_reset")
    while (mvm.vms.isRunning(record.uuid)) await Bun.sleep(5)

    expect([isRunning(vtpm), member.verifier.opinion.code]).toEqual([false, "evidence_reset"])
    mvm.context.audit.flush()
    const [row] = mvm.context.audit.log.list({ kind: "vm_halt", limit: 9 })
    expect(row?.subject).toMatchObject({
      vm: "a",
      reason: expect.stringContaining("no reset of the vm was seen"),
    })

    agent.stop()
    await host.agent(record)
    expect(await measured()).toBe("no_reference")
  } finally {
    await host.stop()
  }
}, 30_000)
