/**
 * @module test/mvm/event-log
 *
 * A VM asked for its firmware's event log says what it likes: of where a piece begins, of how long the whole is, of
 * what is in it, and for how long.
 */

import { beforeEach, describe, expect, test } from "bun:test"
import { random } from "../../src/lib/crypto.ts"
import type { Fields } from "../../src/wire/link.ts"
import { openBetween, type ScriptedMember } from "./scripted-member.ts"
import { ScriptedMvm } from "./scripted.ts"

type EventLog = Fields<"EVENT_LOG">

const EVERY = 'service = "@any"\nfrom = "@any"\nto = "@any"\naction = "allow"\n'
const POLICY = `[[rule]]\n${EVERY}measurement = ["kernel", "agent"]\nisolation = "arena"\n`

let mvm: ScriptedMvm
let liar: ScriptedMember

beforeEach(async () => {
  mvm = await ScriptedMvm.start({ policy: POLICY })
  liar = await mvm.member("liar", "external")
})

/** A measurement after which each EVENTS is answered by `answer`; how often it was asked. */
async function asked(answer: (fields: Fields<"EVENTS">, round: number) => EventLog): Promise<number> {
  const measured = mvm.watch.measure(liar.member).catch(() => {})
  await liar.measured()
  let isOver = false
  void measured.then(() => (isOver = true))
  let rounds = 0
  while (!isOver) {
    const at = liar.heard.findIndex(({ name }) => name === "EVENTS")
    const [message] = at < 0 ? [] : liar.heard.splice(at, 1)
    if (message?.name !== "EVENTS") await Bun.sleep(1)
    else liar.send("EVENT_LOG", answer(message.fields, rounds++), message.requestId)
  }
  return rounds
}

/** It is not asked again in this boot. */
async function isNotAskedAgain(): Promise<void> {
  const measured = mvm.watch.measure(liar.member).catch(() => {})
  await liar.measured()
  await measured
  await liar.settled()
  expect(liar.heard.filter(({ name }) => name === "EVENTS")).toEqual([])
}

describe("an event log that", () => {
  const IGNORED: [what: string, rounds: number, answer: (fields: Fields<"EVENTS">) => EventLog][] = [
    ["begins elsewhere", 1, () => ({ totalBytes: 10, offset: 2 ** 52, events: random(10) })],
    ["says it is longer than any", 1, () => ({ totalBytes: 2 ** 52, offset: 0, events: random(100) })],
    ["comes byte by byte", 256, ({ offset }) => ({ totalBytes: 2 ** 20, offset, events: random(1) })],
    ["is empty, whatever it says of its length", 1, () => ({ totalBytes: 9, offset: 0, events: random(0) })],
  ]
  test.each(IGNORED)(
    "%s is not taken: the VM is judged without it, and the MVM goes on",
    async (_, rounds, answer) => {
      expect(await asked(answer)).toBe(rounds)
      expect(liar.member.verifier.opinion.verdict).toBe("trusted")
      await isNotAskedAgain()
      await openBetween(liar, await mvm.member("other"))
    },
  )

  const BELIEVED: [what: string, answer: (fields: Fields<"EVENTS">, round: number) => EventLog][] = [
    ["is noise", () => ({ totalBytes: 500, offset: 0, events: random(500) })],
    [
      "is shorter than it says",
      ({ offset }, round) => {
        return { totalBytes: 500, offset, events: random(round === 0 ? 100 : 0) }
      },
    ],
    [
      "changes its length",
      ({ offset }, round) => ({ totalBytes: 900 - 400 * round, offset, events: random(400) }),
    ],
  ]
  test.each(BELIEVED)("%s is broken evidence, until the next boot", async (_, answer) => {
    await asked(answer)
    expect(liar.member.verifier.opinion).toMatchObject({
      verdict: "untrusted",
      code: expect.stringMatching(/^evidence_/) as string,
    })
    await isNotAskedAgain()
  })
})
