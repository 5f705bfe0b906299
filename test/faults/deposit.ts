/**
 * @module test/faults/deposit
 *
 * A transfer by way of what the MVM keeps: `a` leaves it, `b` collects it. Whatever falls into that, the deposit is
 * there whole or not at all, and it is given out once or nobody claims to know.
 */

import { readFileSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Running, TestHost } from "../integration/host.ts"

export interface Deposited {
  readonly sender: number
  readonly receiver: number
  readonly delivered: Uint8Array
  readonly said: string
}

/** @param ends gets the commands as they are there */
export async function passDeposit(
  host: TestHost,
  content: Uint8Array,
  ends: { sender?: Running; receiver?: Running },
): Promise<Deposited> {
  const out = join(host.folder, "delivered")
  writeFileSync(out, "")
  ends.sender = host.spawn(["guest", "deposit", "--local", "a", "b", host.file("deposited", content)])
  const sender = await ends.sender.over()
  ends.receiver = host.spawn(["guest", "recv", "--deposited", "--local", "b"], { stdout: out })
  const receiver = await ends.receiver.over()
  const said = `depositor: ${ends.sender.stderr().trim()}; collector: ${ends.receiver.stderr().trim()}`
  return { sender, receiver, delivered: new Uint8Array(readFileSync(out)), said }
}

/**
 * Takes what is left of it, once everything runs again.
 *
 * @throws Error when what was said to be kept is gone, when a part of one is, or when it comes twice
 */
export async function settleDeposit(
  host: TestHost,
  content: Uint8Array,
  { sender, receiver, delivered, said }: Deposited,
): Promise<void> {
  const kept = (): Promise<{ id: string; bytes: number }[]> => host.ask("deposit.list")
  await host.until("only whole deposits", async () => {
    const names = (await kept()).map(({ id }) => id)
    return readdirSync(join(host.state, "deposits")).toSorted().join() === names.toSorted().join()
  })
  const [deposit] = await kept()
  const isDelivered = delivered.length === content.length
  if (!deposit) {
    if (sender === 0 && !isDelivered) throw new Error(`a deposit that was kept is gone: ${said}`)
    return
  }
  if (deposit.bytes !== content.length) throw new Error(`${deposit.bytes} bytes of a deposit are kept`)
  if (receiver === 0) throw new Error(`a deposit that was collected is still kept: ${said}`)
  const out = join(host.folder, "collected")
  const next = await host.run("guest", "recv", "--deposited", "--local", "b", "--output", out)
  if (next.status === 0) {
    if (delivered.length > 0) throw new Error(`a deposit that was begun came again: ${said}`)
    if (!readFileSync(out).equals(Buffer.from(content))) throw new Error("a deposit came out as another")
  } else {
    if (!next.stderr.includes("nobody knows more"))
      throw new Error(`a deposit is not given out: ${next.stderr}`)
    await host.must("deposit", "rm", deposit.id)
  }
}
