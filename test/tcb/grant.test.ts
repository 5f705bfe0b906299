import { describe, expect, test } from "bun:test"
import { p256Ecdh, p256Generate, random } from "../../src/lib/crypto.ts"
import { encodeFields, type Field } from "../../src/lib/encoding.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { decodeGrant, openGrant, sealGrant, type Grant } from "../../src/tcb/grant.ts"

const DEDICATED: Grant = {
  laddress: random(16),
  tag: random(16),
  path: "/dev/shm/mvm-1-2",
  offset: 0,
  lengthBytes: 12288,
  ringBytes: 4096,
}
const ARENA: Grant = { ...DEDICATED, tag: new Uint8Array(0), path: "", offset: 4096 }
const about = { channelId: random(16), recipientUuid: random(16), context: random(32) }

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
    const { privateKey, publicKey } = p256Generate()
    const sealed = await sealGrant({ ...about, recipientKey: publicKey, grant })
    const recipient = {
      zgen: async (point: Uint8Array) => p256Ecdh(privateKey, point),
      recipientPublic65: publicKey,
    }
    expect(await openGrant(recipient, about, sealed)).toEqual(grant)
    const elsewhere = openGrant(recipient, { ...about, channelId: random(16) }, sealed)
    expect(await elsewhere.catch((error: MvmError) => error.status)).toBe(5)
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
