import { describe, expect, test } from "bun:test"
import { p256Ecdh, p256Generate, random } from "../../src/lib/crypto.ts"
import { encodeFields, type Field } from "../../src/lib/encoding.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { decodeGrant, GrantOpener, GrantSealer, type Grant } from "../../src/tcb/grant.ts"

const DEDICATED: Grant = {
  laddress: random(16),
  tag: random(16),
  path: "/dev/shm/mvm-1-2",
  offset: 0,
  lengthBytes: 12288,
  ringBytes: 4096,
}
const ARENA: Grant = { ...DEDICATED, tag: new Uint8Array(0), path: "", offset: 4096 }
const about = { channelId: random(16), context: random(32) }
const RECIPIENT = { recipientUuid: random(16), epoch: random(16) }

async function ends() {
  const { privateKey, publicKey } = p256Generate()
  const key = {
    zgen: async (point: Uint8Array) => p256Ecdh(privateKey, point),
    recipientPublic65: publicKey,
  }
  const sealer = new GrantSealer(publicKey, RECIPIENT)
  return { sealer, key, opener: await GrantOpener.begin(key, RECIPIENT, sealer.enc) }
}

function refusal(work: () => unknown): string {
  try {
    work()
  } catch (error) {
    if (error instanceof MvmError) return `${error.code}: ${error.message}`
  }
  return "taken"
}

describe("a grant", () => {
  test.each([
    ["of dedicated memory", DEDICATED],
    ["in the arena", ARENA],
  ])("%s opens for its recipient as it was sealed", async (_, grant) => {
    const { sealer, opener } = await ends()
    const first = sealer.seal(about, grant)
    const second = sealer.seal(about, grant)
    expect(second).not.toEqual(first)
    expect(opener.open(about, second)).toEqual(grant)
    expect(opener.open(about, first)).toEqual(grant)
  })

  test("opens for no other channel, decision, recipient or epoch, and not once a byte of it changed", async () => {
    const { sealer, opener, key } = await ends()
    const sealed = sealer.seal(about, ARENA)
    for (const other of [{ channelId: random(16) }, { context: random(32) }]) {
      expect(refusal(() => opener.open({ ...about, ...other }, sealed))).toStartWith("integrity")
    }
    for (const other of [{ recipientUuid: random(16) }, { epoch: random(16) }]) {
      const stranger = await GrantOpener.begin(key, { ...RECIPIENT, ...other }, sealer.enc)
      expect(refusal(() => stranger.open(about, sealed))).toStartWith("integrity")
    }
    for (let at = 0; at < sealed.length; at += 1) {
      const changed = sealed.slice()
      changed[at]! ^= 0x10
      expect(refusal(() => opener.open(about, changed))).toStartWith("integrity")
      expect(refusal(() => opener.open(about, sealed.subarray(0, at)))).toStartWith("integrity")
    }
  })

  test("is neither sealed nor opened once its epoch is over", async () => {
    const { sealer, opener } = await ends()
    const sealed = sealer.seal(about, ARENA)
    sealer.wipe()
    opener.wipe()
    expect(refusal(() => sealer.seal(about, ARENA))).toStartWith("aborted")
    expect(refusal(() => opener.open(about, sealed))).toStartWith("aborted")
  })

  const fields = (change: Partial<Record<keyof Grant, Field>> = {}): Field[] =>
    Object.values({ ...DEDICATED, ...change })

  test.each([
    ["laddress", { laddress: random(15) }, "not 16 bytes"],
    ["tag", { tag: random(15) }, "neither empty nor 16 bytes"],
    ["path", { path: "dev/shm" }, "not absolute"],
    ["path", { path: "/dev\0shm" }, "not absolute"],
    ["path", { path: `/${"x".repeat(512)}` }, "513 bytes, at most 512"],
    ["path", { path: new Uint8Array([0x2f, 0xff]) }, "not UTF-8"],
    ["offset", { offset: 2n ** 60n }, "too large"],
    ["ringBytes", { ringBytes: new Uint8Array(3) }, "needs 8 bytes, 3 left"],
  ])("with a bad %s is refused", (field, change, problem) => {
    const said = refusal(() => decodeGrant(encodeFields("mvm region v2", fields(change))))
    expect(said).toStartWith("protocol: grant.")
    expect(said).toContain(field)
    expect(said).toContain(problem)
  })

  test("is refused with anything missing, trailing or cut off", () => {
    const whole = encodeFields("mvm region v2", fields())
    expect(refusal(() => decodeGrant(whole))).toBe("taken")
    expect(refusal(() => decodeGrant(encodeFields("mvm region v2", fields().slice(1))))).toContain("protocol")
    expect(refusal(() => decodeGrant(Buffer.concat([whole, new Uint8Array(1)])))).toContain("protocol")
    for (let length = 0; length < whole.length; length += 1) {
      expect(refusal(() => decodeGrant(whole.subarray(0, length)))).toContain("protocol")
    }
  })
})
