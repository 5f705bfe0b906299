import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash, createPublicKey, verify } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { p256 } from "@noble/curves/nist.js"
import { concat, toHex, utf8 } from "../../src/lib/bytes.ts"
import { parseQuote } from "../../src/tpm/attest.ts"
import { TPMA_NV } from "../../src/tpm/constants.ts"
import { TpmResponseError } from "../../src/tpm/response-code.ts"
import { encodeSignature } from "../../src/tpm/signature.ts"
import { initTpm } from "../../src/platform/swtpm-control.ts"
import { connectSwtpm } from "../../src/tpm/swtpm-transport.ts"
import { keyTemplate, matchesTemplate } from "../../src/tpm/templates.ts"
import { Tpm } from "../../src/tpm/tpm.ts"
import type { KeyName } from "../../src/tpm/handles.ts"
import { type ScratchSwtpm, startScratchSwtpm, tpm2 } from "./scratch-swtpm.ts"

const NV_INDEX = 0x01c10200

let swtpm: ScratchSwtpm
let tpm: Tpm

const sha256 = (bytes: Uint8Array): Uint8Array => new Uint8Array(createHash("sha256").update(bytes).digest())

function verifies(point: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  const x = Buffer.from(point.subarray(1, 33)).toString("base64url")
  const y = Buffer.from(point.subarray(33)).toString("base64url")
  const key = createPublicKey({ format: "jwk", key: { kty: "EC", crv: "P-256", x, y } })
  return verify("sha256", message, { key, dsaEncoding: "ieee-p1363" }, signature)
}

async function rejection(promise: Promise<unknown>): Promise<TpmResponseError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(TpmResponseError)
  return error as TpmResponseError
}

/** Makes a key, runs `use`, flushes it. */
async function withKey<T>(
  name: KeyName,
  use: (key: Awaited<ReturnType<Tpm["createPrimary"]>>) => Promise<T>,
): Promise<T> {
  const key = await tpm.createPrimary("platform", keyTemplate(name, await tpm.getRandom(32)))
  try {
    return await use(key)
  } finally {
    await tpm.flushContext(key.handle)
  }
}

beforeAll(async () => {
  swtpm = await startScratchSwtpm()
  tpm = new Tpm(await connectSwtpm(swtpm.dataSocket))
  await tpm.startup()
})

afterAll(async () => {
  tpm?.close()
  await swtpm?.stop()
})

describe("Tpm over swtpm", () => {
  test("names the response code when a started tpm is started again", async () => {
    const error = await rejection(tpm.startup())
    expect(error.message).toBe("TPM2_Startup: TPM_RC_INITIALIZE (0x100)")
    expect(error.code).toBe("tpm")
  })

  test("getRandom gives any length, and other bytes each time", async () => {
    const [a, b] = [await tpm.getRandom(100), await tpm.getRandom(100)]
    expect(a.length).toBe(100)
    expect(toHex(a)).not.toBe(toHex(b))
  })

  test("commands asked for at once run one after another", async () => {
    const results = await Promise.all(Array.from({ length: 20 }, () => tpm.getRandom(16)))
    expect(new Set(results.map(toHex)).size).toBe(20)
  })

  test("a failing command does not hold up those behind it", async () => {
    const [failed, random] = await Promise.allSettled([tpm.readPublic(0x81800077), tpm.getRandom(8)])
    expect(failed.status).toBe("rejected")
    expect(random.status).toBe("fulfilled")
  })

  test("readClock gives counters that grow with a power cycle", async () => {
    const before = await tpm.readClock()
    await tpm.shutdown()
    await initTpm(swtpm.controlSocket)
    await tpm.startup()
    const after = await tpm.readClock()
    expect(after.resetCount).toBe(before.resetCount + 1)
    expect(after.clock).toBeGreaterThanOrEqual(before.clock)
    expect(after.safe).toBe(true)
  })

  test("each key template makes a key with its own attributes and a name that matches", async () => {
    for (const name of ["storage", "attestation", "identity", "sealing"] as const) {
      await withKey(name, async (key) => {
        expect(matchesTemplate(name, key.key)).toBe(true)
        const shown = await tpm.readPublic(key.handle)
        expect(toHex(shown.name)).toBe(toHex(key.name))
        expect(toHex(shown.point)).toBe(toHex(key.point))
        expect(() => p256.Point.fromBytes(shown.point)).not.toThrow()
      })
    }
  })

  test("the same template with another unique value makes another key", async () => {
    const points = [
      await withKey("identity", async (k) => k.point),
      await withKey("identity", async (k) => k.point),
    ]
    expect(toHex(points[0]!)).not.toBe(toHex(points[1]!))
  })

  test("sign makes an ECDSA signature that an independent implementation verifies", async () => {
    await withKey("identity", async (key) => {
      const message = utf8("a message")
      const signature = await tpm.sign(key.handle, sha256(message))
      expect(signature.length).toBe(64)
      expect(verifies(key.point, message, signature)).toBe(true)
      expect(verifies(key.point, utf8("another"), signature)).toBe(false)
    })
  })

  test("the restricted attestation key refuses to sign a digest the tpm did not make", async () => {
    await withKey("attestation", async (key) => {
      const error = await rejection(tpm.sign(key.handle, sha256(utf8("forged"))))
      expect(error.responseCode.name).toBe("TPM_RC_TICKET")
    })
  })

  test("the sealing key refuses to sign and the identity key refuses ECDH", async () => {
    const peer = p256.getPublicKey(p256.utils.randomSecretKey(), false)
    await withKey("sealing", async (k) => void (await rejection(tpm.sign(k.handle, new Uint8Array(32)))))
    await withKey("identity", async (k) => void (await rejection(tpm.ecdhZGen(k.handle, peer))))
  })

  test("ecdhZGen agrees with an independent P-256", async () => {
    await withKey("sealing", async (key) => {
      const secret = p256.utils.randomSecretKey()
      const x = await tpm.ecdhZGen(key.handle, p256.getPublicKey(secret, false))
      expect(toHex(x)).toBe(toHex(p256.getSharedSecret(secret, key.point).slice(1)))
    })
  })

  test("ecdhZGen refuses a point off the curve", async () => {
    await withKey("sealing", async (key) => {
      const off = concat(Uint8Array.of(4), new Uint8Array(64).fill(1))
      expect((await rejection(tpm.ecdhZGen(key.handle, off))).responseCode.name).toBe("TPM_RC_ECC_POINT")
    })
  })

  test("pcrExtend and pcrRead agree with SHA-256, for more PCRs than one command returns", async () => {
    const indices = [16, 0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 23]
    const before = await tpm.pcrRead(indices)
    expect(before.length).toBe(12)
    const digest = sha256(utf8("entry"))
    await tpm.pcrExtend(10, digest)
    const after = await tpm.pcrRead(indices)
    expect(toHex(after[10]!)).toBe(toHex(sha256(concat(before[10]!, digest))))
    after.forEach((value, i) => i === 10 || expect(toHex(value)).toBe(toHex(before[i]!)))
  })

  test("quote carries nonce, selection, PCR digest and clock, and its signature verifies", async () => {
    await withKey("attestation", async (key) => {
      const pcrs = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10]
      const nonce = await tpm.getRandom(32)
      const { attest, signature } = await tpm.quote(key.handle, nonce, pcrs)
      expect(verifies(key.point, attest, signature)).toBe(true)
      const quote = parseQuote(attest)
      expect(toHex(quote.extraData)).toBe(toHex(nonce))
      expect(quote.pcrSelection).toEqual(pcrs)
      expect(toHex(quote.pcrDigest)).toBe(toHex(sha256(concat(...(await tpm.pcrRead(pcrs))))))
      const clock = await tpm.readClock()
      expect(quote.resetCount).toBe(clock.resetCount)
      expect(quote.restartCount).toBe(clock.restartCount)
      expect(quote.clock).toBeLessThanOrEqual(clock.clock)
    })
  })

  test("NV: define, write, read back more than one chunk", async () => {
    const attributes =
      TPMA_NV.PPWRITE | TPMA_NV.PPREAD | TPMA_NV.AUTHREAD | TPMA_NV.NO_DA | TPMA_NV.PLATFORMCREATE
    await tpm.nvDefine({ nvIndex: NV_INDEX, attributes, authPolicy: new Uint8Array(0), dataSizeBytes: 1300 })
    const data = await tpm.getRandom(1300)
    await tpm.nvWrite(NV_INDEX, data)
    expect(toHex(await tpm.nvRead(NV_INDEX))).toBe(toHex(data))
    const shown = await tpm.nvReadPublic(NV_INDEX)
    expect(shown.attributes).toBe((attributes | TPMA_NV.WRITTEN) >>> 0)
    expect(shown.dataSizeBytes).toBe(1300)
  })

  test("evictControl makes a key persistent and removes it again", async () => {
    await withKey("identity", async (key) => {
      await tpm.evictControl("platform", { object: key.handle, persistent: 0x81800055 })
      expect(await tpm.getHandles(0x81800000)).toEqual([0x81800055])
      expect(toHex((await tpm.readPublic(0x81800055)).name)).toBe(toHex(key.name))
      await tpm.evictControl("platform", { object: 0x81800055, persistent: 0x81800055 })
      expect(await tpm.getHandles(0x81800000)).toEqual([])
    })
  })

  test("transient slots run out and flushContext frees them", async () => {
    const keys: number[] = []
    for (let i = 0; i < 3; i++) {
      keys.push((await tpm.createPrimary("platform", keyTemplate("identity", new Uint8Array(32)))).handle)
    }
    const template = keyTemplate("identity", new Uint8Array(32))
    const error = await rejection(tpm.createPrimary("platform", template))
    expect(error.responseCode.name).toBe("TPM_RC_OBJECT_MEMORY")
    for (const handle of keys) await tpm.flushContext(handle)
    await tpm.flushContext((await tpm.createPrimary("platform", template)).handle)
  })

  test("getProperty gives the manufacturer, and nothing for a property the tpm does not have", async () => {
    expect(await tpm.getProperty(0x105)).toBe(0x49424d00)
    expect(await tpm.getProperty(0x1ff)).toBeUndefined()
  })
})

describe("tpm2-tools check what the Tpm class made", () => {
  test("tpm2_checkquote and tpm2_verifysignature accept our quote and signature, and refuse changed ones", async () => {
    const dir = mkdtempSync(join(tmpdir(), "mvm-quote-"))
    const path = (name: string) => join(dir, name)
    try {
      await withKey("attestation", async (key) => {
        const { attest, signature } = await tpm.quote(key.handle, new Uint8Array(32).fill(0xab), [0, 10])
        const area = concat(
          Uint8Array.of(key.publicBytes.length >> 8, key.publicBytes.length & 255),
          key.publicBytes,
        )
        writeFileSync(path("ak.tss"), area)
        writeFileSync(path("attest"), attest)
        writeFileSync(path("signature"), encodeSignature(signature))
      })
      await withKey("identity", async (key) => {
        const area = concat(
          Uint8Array.of(key.publicBytes.length >> 8, key.publicBytes.length & 255),
          key.publicBytes,
        )
        writeFileSync(path("id.tss"), area)
        writeFileSync(path("message"), "a message")
        writeFileSync(
          path("id.signature"),
          encodeSignature(await tpm.sign(key.handle, sha256(utf8("a message")))),
        )
      })
      const other = await startScratchSwtpm()
      try {
        const scratch = new Tpm(await connectSwtpm(other.dataSocket))
        await scratch.startup()
        scratch.close()
        const run = (...args: string[]) => tpm2(other.dataSocket, ...args)
        const quote = ["tpm2_checkquote", "-u", path("ak.tss"), "-m", path("attest"), "-s", path("signature")]
        expect(await run(...quote, "-g", "sha256", "-q", "ab".repeat(32))).toMatchObject({ status: 0 })
        expect((await run(...quote, "-g", "sha256", "-q", "cd".repeat(32))).status).not.toBe(0)
        const loaded = await run("tpm2_loadexternal", "-C", "n", "-u", path("id.tss"), "-c", path("id.ctx"))
        expect(loaded).toMatchObject({ status: 0 })
        const signed = [
          "tpm2_verifysignature",
          "-c",
          path("id.ctx"),
          "-g",
          "sha256",
          "-s",
          path("id.signature"),
        ]
        expect(await run(...signed, "-m", path("message"))).toMatchObject({ status: 0 })
        writeFileSync(path("message"), "another message")
        expect((await run("tpm2_flushcontext", "-t")).status).toBe(0)
        expect((await run(...signed, "-m", path("message"))).status).not.toBe(0)
      } finally {
        await other.stop()
      }
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })
})
