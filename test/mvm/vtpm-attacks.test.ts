/**
 * What root of a guest can try against its own vTPM with a stock tool set (tpm2-tools), one attempt a test. The
 * vTPM is in the state a guest finds it in: hierarchies locked at provisioning, platformAuth set since Startup.
 */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { concat, equalBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { p256Generate, p256Verify, random, sha256 } from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { withVtpm } from "../../src/mvm/vtpm/session.ts"
import { type ProvisionedVtpm, provisionVtpm } from "../../src/mvm/vtpm/provision.ts"
import { type RunningVtpm, startVtpmLocal } from "../../src/mvm/vtpm/start.ts"
import { parseQuote } from "../../src/tpm/attest.ts"
import { TPMA_NV } from "../../src/tpm/constants.ts"
import { KEY_HANDLES, MVM_KEY_NV_INDEX } from "../../src/tpm/handles.ts"
import { decodeSignature } from "../../src/tpm/signature.ts"
import { connectSwtpm } from "../../src/tpm/swtpm-transport.ts"
import { Tpm } from "../../src/tpm/tpm.ts"
import { scratchDir, tpm2 } from "../tpm/scratch-swtpm.ts"

const NV = "0x01c10100"
const IDENTITY = "0x81800010"
const ATTESTATION = "0x81800002"

const AUTH_REFUSED = "authorization failure without DA implications"
const LOCKED_OUT = /HMAC check failed and DA counter incremented|DA lockout mode/
const BAD_LOCALITY = "bad locality"

const mvmPublicKey = p256Generate().publicKey
const dir = scratchDir()
const place = { stateDir: join(dir.path, "state"), runDir: join(dir.path, "run"), stateKey: random(32) }
// tpm2-tools find the control socket at the data socket's name with .ctrl.
const dataSocket = join(place.runDir, "vtpm-local")
const file = (name: string): string => join(dir.path, name)

let vtpm: ProvisionedVtpm
let running: RunningVtpm

const start = (): Promise<RunningVtpm> =>
  startVtpmLocal({ ...place, mvmPublicKey, names: vtpm.names, dataSocket })

const attempt = (...args: string[]) => tpm2(dataSocket, ...args)

async function withTpm<T>(use: (tpm: Tpm) => Promise<T>): Promise<T> {
  const tpm = new Tpm(await connectSwtpm(dataSocket))
  try {
    return await use(tpm)
  } finally {
    tpm.close()
  }
}

beforeAll(async () => {
  vtpm = await provisionVtpm({ ...place, mvmPublicKey })
  running = await start()
})

afterAll(async () => {
  await running?.stop()
  dir.remove()
})

interface Attempt {
  title: string
  command: string[]
  refusal: string | RegExp
}

const REFUSED: Attempt[] = [
  { title: "clear with the platform", command: ["tpm2_clear", "-c", "p"], refusal: AUTH_REFUSED },
  { title: "clear with lockout", command: ["tpm2_clear", "-c", "l"], refusal: LOCKED_OUT },
  { title: "allow clear again", command: ["tpm2_clearcontrol", "-C", "p", "c"], refusal: AUTH_REFUSED },
  {
    title: "evict the identity key as owner",
    command: ["tpm2_evictcontrol", "-C", "o", "-c", IDENTITY],
    refusal: AUTH_REFUSED,
  },
  {
    title: "evict the identity key as platform",
    command: ["tpm2_evictcontrol", "-C", "p", "-c", IDENTITY],
    refusal: AUTH_REFUSED,
  },
  {
    title: "undefine the pinned key as owner",
    command: ["tpm2_nvundefine", "-C", "o", NV],
    refusal: AUTH_REFUSED,
  },
  {
    title: "undefine the pinned key as platform",
    command: ["tpm2_nvundefine", "-C", "p", NV],
    refusal: AUTH_REFUSED,
  },
  {
    title: "rewrite the pinned key by its own auth value",
    command: ["tpm2_nvwrite", "-C", NV, "-i", file("other-key"), NV],
    refusal: "authValue or authPolicy is not available",
  },
  {
    title: "rewrite the pinned key as owner",
    command: ["tpm2_nvwrite", "-C", "o", "-i", file("other-key"), NV],
    refusal: AUTH_REFUSED,
  },
  {
    title: "rewrite the pinned key as platform",
    command: ["tpm2_nvwrite", "-C", "p", "-i", file("other-key"), NV],
    refusal: AUTH_REFUSED,
  },
  {
    title: "define an NV index as owner",
    command: ["tpm2_nvdefine", "-C", "o", "-s", "8", "0x01800001"],
    refusal: AUTH_REFUSED,
  },
  {
    title: "define an NV index as platform",
    command: ["tpm2_nvdefine", "-C", "p", "-s", "8", "0x01c10101"],
    refusal: AUTH_REFUSED,
  },
  { title: "reset PCR 10", command: ["tpm2_pcrreset", "10"], refusal: BAD_LOCALITY },
  { title: "reset PCR 0", command: ["tpm2_pcrreset", "0"], refusal: BAD_LOCALITY },
  {
    title: "make a primary key as owner",
    command: ["tpm2_createprimary", "-C", "o", "-G", "ecc"],
    refusal: AUTH_REFUSED,
  },
  {
    title: "make a primary key as endorsement",
    command: ["tpm2_createprimary", "-C", "e", "-G", "ecc"],
    refusal: AUTH_REFUSED,
  },
  {
    title: "make a primary key as platform",
    command: ["tpm2_createprimary", "-C", "p", "-G", "ecc"],
    refusal: AUTH_REFUSED,
  },
  { title: "take ownership", command: ["tpm2_changeauth", "-c", "o", "mine"], refusal: AUTH_REFUSED },
  { title: "take endorsement", command: ["tpm2_changeauth", "-c", "e", "mine"], refusal: AUTH_REFUSED },
  { title: "take the platform", command: ["tpm2_changeauth", "-c", "p", "mine"], refusal: AUTH_REFUSED },
  { title: "take lockout", command: ["tpm2_changeauth", "-c", "l", "mine"], refusal: LOCKED_OUT },
  { title: "allocate a SHA-1 bank", command: ["tpm2_pcrallocate", "sha1:all"], refusal: AUTH_REFUSED },
  {
    title: "switch the platform hierarchy off",
    command: ["tpm2_hierarchycontrol", "-C", "p", "phEnable", "clear"],
    refusal: AUTH_REFUSED,
  },
  {
    title: "give the platform a policy",
    command: ["tpm2_setprimarypolicy", "-C", "p"],
    refusal: AUTH_REFUSED,
  },
  { title: "replace the platform seed", command: ["tpm2_changepps"], refusal: AUTH_REFUSED },
  { title: "replace the endorsement seed", command: ["tpm2_changeeps"], refusal: AUTH_REFUSED },
  {
    title: "set the clock forward",
    command: ["tpm2_setclock", "-c", "o", "99999999999"],
    refusal: AUTH_REFUSED,
  },
  {
    title: "change the dictionary attack parameters",
    command: ["tpm2_dictionarylockout", "-s", "-n", "1"],
    refusal: LOCKED_OUT,
  },
  {
    title: "reset the dictionary attack lockout",
    command: ["tpm2_dictionarylockout", "-c"],
    refusal: LOCKED_OUT,
  },
]

describe("guest root fails to", () => {
  beforeAll(() => writeFileSync(file("other-key"), p256Generate().publicKey))

  for (const { title, command, refusal } of REFUSED) {
    test(title, async () => {
      const { status, output } = await attempt(...command)
      expect(status).not.toBe(0)
      expect(output).toMatch(refusal)
    })
  }

  test("duplicate the identity key out of the vTPM, with a password or a policy session", async () => {
    const duplicate = ["tpm2_duplicate", "-C", "null", "-c", IDENTITY, "-G", "null"]
    const outputs = ["-r", file("private"), "-s", file("seed")]
    const password = await attempt(...duplicate, ...outputs)
    expect(password.status).not.toBe(0)
    expect(password.output).toContain("authorization handle is not correct for command")
    const session = file("session")
    expect((await attempt("tpm2_startauthsession", "--policy-session", "-S", session)).status).toBe(0)
    expect((await attempt("tpm2_policycommandcode", "-S", session, "0x14b")).status).toBe(0)
    const policy = await attempt(...duplicate, ...outputs, "-p", `session:${session}`)
    expect(policy.status).not.toBe(0)
    expect(policy.output).toContain("a policy check failed")
    await attempt("tpm2_flushcontext", session)
  })

  test("have the attestation key sign a digest of an attest made up in software", async () => {
    writeFileSync(file("forged"), concat(Uint8Array.of(0xff, 0x54, 0x43, 0x47, 0x80, 0x18), random(100)))
    const hash = ["tpm2_hash", "-C", "o", "-g", "sha256", "-o", file("digest"), "-t", file("ticket")]
    expect((await attempt(...hash, file("forged"))).status).toBe(0)
    const sign = ["tpm2_sign", "-c", ATTESTATION, "-g", "sha256", "-d", "-t", file("ticket")]
    const { status, output } = await attempt(...sign, "-o", file("signature"), file("digest"))
    expect(status).not.toBe(0)
    expect(output).toContain("ticket")
  })

  test("start the TPM again and so get PCRs without a boot", async () => {
    await withTpm((tpm) => tpm.pcrExtend(10, sha256(utf8("entry"))))
    const before = await withTpm((tpm) => tpm.pcrRead([10]))
    const clock = await withTpm((tpm) => tpm.readClock())
    // The tool takes TPM_RC_INITIALIZE for success; what counts is that nothing moved.
    await attempt("tpm2_shutdown", "-c")
    await attempt("tpm2_startup", "-c")
    expect(toHex((await withTpm((tpm) => tpm.pcrRead([10])))[0]!)).toBe(toHex(before[0]!))
    const after = await withTpm((tpm) => tpm.readClock())
    expect([after.resetCount, after.restartCount]).toEqual([clock.resetCount, clock.restartCount])
  })
})

describe("guest root succeeds, and the verifier sees it", () => {
  const forge = (real: Uint8Array): Uint8Array => {
    const forged = real.slice()
    forged[forged.length - 1]! ^= 1
    return forged
  }

  test("an attest forged with the identity key does not verify under the attestation key", async () => {
    await withTpm(async (tpm) => {
      const real = await tpm.quote(KEY_HANDLES.attestation, utf8("nonce"), [0, 10])
      const forged = forge(real.attest)
      const signature = await tpm.sign(KEY_HANDLES.identity, sha256(forged))
      expect(p256Verify(vtpm.keys.identity, forged, signature)).toBe(true)
      expect(p256Verify(vtpm.keys.attestation, forged, signature)).toBe(false)
      expect(p256Verify(vtpm.keys.attestation, real.attest, real.signature)).toBe(true)
    })
  })

  test("a message the attestation key does sign is no quote, by its magic", async () => {
    writeFileSync(file("message"), "not made by a tpm, but signed by the attestation key")
    const hash = ["tpm2_hash", "-C", "o", "-g", "sha256", "-o", file("digest"), "-t", file("ticket")]
    expect((await attempt(...hash, file("message"))).status).toBe(0)
    const sign = ["tpm2_sign", "-c", ATTESTATION, "-g", "sha256", "-d", "-t", file("ticket")]
    expect(await attempt(...sign, "-o", file("signature"), file("digest"))).toMatchObject({ status: 0 })
    const message = new Uint8Array(readFileSync(file("message")))
    const signature = decodeSignature(new Uint8Array(readFileSync(file("signature"))))
    expect(p256Verify(vtpm.keys.attestation, message, signature)).toBe(true)
    let error: unknown
    try {
      parseQuote(message)
    } catch (thrown) {
      error = thrown
    }
    expect((error as MvmError).code).toBe("evidence_quote_magic")
  })

  test("a quote over another selection shows that selection", async () => {
    await withTpm(async (tpm) => {
      const { attest } = await tpm.quote(KEY_HANDLES.attestation, utf8("nonce"), [16, 23])
      expect(parseQuote(attest).pcrSelection).toEqual([16, 23])
    })
  })

  test("a quote over a second bank is refused", async () => {
    const quote = ["tpm2_quote", "-c", ATTESTATION, "-l", "sha1:0+sha256:0", "-m", file("attest")]
    expect((await attempt(...quote, "-s", file("signature"))).status).toBe(0)
    let error: unknown
    try {
      parseQuote(new Uint8Array(readFileSync(file("attest"))))
    } catch (thrown) {
      error = thrown
    }
    expect((error as MvmError).code).toBe("evidence_pcr_bank")
  })

  test("PCR 16 can be reset, so no quote of ours covers it; PCR 10 keeps its value", async () => {
    const [before] = await withTpm((tpm) => tpm.pcrRead([10]))
    expect((await attempt("tpm2_pcrreset", "16")).status).toBe(0)
    const [after] = await withTpm((tpm) => tpm.pcrRead([10]))
    expect(toHex(after!)).toBe(toHex(before!))
  })
})

describe("after every attempt", () => {
  test("the keys still work, for they are exempt from the dictionary attack lockout", async () => {
    await withTpm(async (tpm) => {
      const message = utf8("request")
      const signature = await tpm.sign(KEY_HANDLES.identity, sha256(message))
      expect(p256Verify(vtpm.keys.identity, message, signature)).toBe(true)
      const peer = p256Generate()
      expect((await tpm.ecdhZGen(KEY_HANDLES.sealing, peer.publicKey)).length).toBe(32)
      expect(equalBytes(await tpm.nvRead(MVM_KEY_NV_INDEX), mvmPublicKey)).toBe(true)
    })
  })

  test("the vTPM starts again and passes the checks", async () => {
    await running.stop()
    running = await start()
  })
})

describe("somebody who did get at the platform hierarchy (a reset nobody saw) is found at the next start", () => {
  afterEach(async () => {
    // The state is spoilt: a new one for whatever follows.
    dir.remove()
    vtpm = await provisionVtpm({ ...place, mvmPublicKey })
  })

  const changed = [
    { title: "as it was but writable by its auth value", extra: TPMA_NV.AUTHWRITE, sizeBytes: 65 },
    { title: "with another size", extra: 0, sizeBytes: 66 },
  ]
  for (const { title, extra, sizeBytes } of changed) {
    test(`the pinned key's index defined anew, ${title}`, async () => {
      await running.stop()
      await withVtpm(place, async ({ tpm }) => {
        const nv = await tpm.nvReadPublic(MVM_KEY_NV_INDEX)
        await tpm.execute({
          name: "TPM2_NV_UndefineSpace",
          code: 0x122,
          handles: [0x4000000c, MVM_KEY_NV_INDEX],
          auths: [new Uint8Array(0)],
          decode: () => {},
        })
        const attributes = (nv.attributes & ~TPMA_NV.WRITTEN) | extra
        await tpm.nvDefine({ ...nv, attributes, dataSizeBytes: sizeBytes })
      })
      const error = await start().then(
        () => undefined,
        (thrown: unknown) => thrown as MvmError,
      )
      expect(error?.code).toBe("state")
      expect(error?.message).toBe("vtpm pinned mvm key: its nv index is not as the mvm defined it")
    })
  }
})
