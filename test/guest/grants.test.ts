/** @module test/guest/grants */

import { expect, test } from "bun:test"
import { Grants } from "../../src/guest/grants.ts"
import type { Membership } from "../../src/guest/link-client.ts"
import type { GuestVtpm } from "../../src/guest/vtpm.ts"
import { p256Ecdh, p256Generate, random } from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { GrantSealer, type Grant } from "../../src/tcb/grant.ts"

const GRANT: Grant = {
  laddress: random(16),
  tag: new Uint8Array(0),
  path: "",
  offset: 4096,
  lengthBytes: 12288,
  ringBytes: 4096,
}
const about = { channelId: random(16), context: random(32) }

/** @param answers of its vTPM, one for each time that it is asked: whether it does what was asked */
function member(answers: readonly boolean[]) {
  const { privateKey, publicKey } = p256Generate()
  let asked = 0
  const zgen = async (point: Uint8Array): Promise<Uint8Array> => {
    if (!answers[asked++]) throw new MvmError("tpm", "busy")
    return p256Ecdh(privateKey, point)
  }
  const vtpm = { recipient: { zgen, recipientPublic65: publicKey } } as unknown as GuestVtpm
  const epoch = (): { sealer: GrantSealer; membership: Membership } => {
    const who = { recipientUuid: random(16), epoch: random(16) }
    const sealer = new GrantSealer(publicKey, who)
    const membership = { vmUuid: who.recipientUuid, epoch: who.epoch, enc: sealer.enc } as Membership
    return { sealer, membership }
  }
  return { grants: new Grants(vtpm), epoch, asked: () => asked }
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "none",
    (error: unknown) => (error instanceof MvmError ? error.code : String(error)),
  )
}

test("the vTPM is asked once in an epoch, for any number of grants", async () => {
  const { grants, epoch, asked } = member([true, true])
  for (const round of [1, 2]) {
    const { sealer, membership } = epoch()
    grants.begin(membership)
    for (let count = 0; count < 3; count += 1) {
      expect(await grants.open(membership, about, sealer.seal(about, GRANT))).toEqual(GRANT)
    }
    expect(asked()).toBe(round)
  }
})

test("a vTPM that failed is asked again for the next grant", async () => {
  const { grants, epoch, asked } = member([false, false, true])
  const { sealer, membership } = epoch()
  grants.begin(membership)
  await Bun.sleep(0)
  expect(await codeOf(grants.open(membership, about, sealer.seal(about, GRANT)))).toBe("tpm")
  expect(await grants.open(membership, about, sealer.seal(about, GRANT))).toEqual(GRANT)
  expect(asked()).toBe(3)
})

test("no grant of an epoch is opened after it", async () => {
  const { grants, epoch } = member([true, true])
  const [first, second] = [epoch(), epoch()]
  const sealed = first.sealer.seal(about, GRANT)
  grants.begin(first.membership)
  grants.begin(second.membership)
  expect(await codeOf(grants.open(first.membership, about, sealed))).toBe("aborted")
  expect(await codeOf(grants.open(second.membership, about, sealed))).toBe("integrity")
  grants.end()
  expect(await codeOf(grants.open(second.membership, about, sealed))).toBe("aborted")
})
