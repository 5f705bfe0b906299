import { describe, expect, test } from "bun:test"
import { generateKeyPairSync, sign } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { utf8 } from "../../../src/lib/bytes.ts"
import { parseSigningKey, verifySignedReference } from "../../../src/mvm/reference/signature.ts"
import { codeOf } from "../../tcb/measurement/measured-boots.ts"

const FILE = utf8(`# mvm reference 1\n# measurement: kernel\n${"aa".repeat(32)}  /init\n`)

function signer() {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519")
  const key = parseSigningKey(publicKey.export({ format: "pem", type: "spki" }) as string)
  return { key, privateKey, signature: new Uint8Array(sign(null, FILE, privateKey)) }
}

describe("a signed reference file", () => {
  const { key, signature, privateKey } = signer()
  const other = signer()

  test("is accepted from any configured key, raw, as hex or as base64", () => {
    for (const form of [signature, utf8(`${signature.toHex()}\n`), utf8(`${signature.toBase64()}\n`)]) {
      const { table, keyId } = verifySignedReference(FILE, form, [other.key, key])
      expect([...table.files.keys()]).toEqual(["/init"])
      expect(keyId).toMatch(/^[0-9a-f]{64}$/)
    }
  })

  test("is refused with any byte of file or signature changed, another key, or no key", () => {
    for (let at = 0; at < FILE.length; at += 1) {
      const changed = FILE.with(at, FILE[at]! ^ 1)
      expect(codeOf(() => verifySignedReference(changed, signature, [key]))).toBe("signature")
    }
    for (let at = 0; at < signature.length; at += 1) {
      const changed = signature.with(at, signature[at]! ^ 1)
      expect(codeOf(() => verifySignedReference(FILE, changed, [key]))).toBe("signature")
    }
    expect(codeOf(() => verifySignedReference(FILE, signature, [other.key]))).toBe("signature")
    expect(codeOf(() => verifySignedReference(FILE, signature, []))).toBe("signature")
    expect(codeOf(() => verifySignedReference(FILE, signature, [new Uint8Array(31)]))).toBe("signature")
    expect(codeOf(() => verifySignedReference(FILE, signature.subarray(1), [key]))).toBe("signature")
    expect(codeOf(() => verifySignedReference(FILE, utf8("not a signature"), [key]))).toBe("signature")
  })

  test("that is malformed is refused after its signature held", () => {
    const junk = utf8("junk")
    const signed = new Uint8Array(sign(null, junk, privateKey))
    expect(codeOf(() => verifySignedReference(junk, signed, [key]))).toBe("config")
    expect(codeOf(() => verifySignedReference(junk, signature, [key]))).toBe("signature")
  })

  test("made by openssl is accepted", async () => {
    const dir = mkdtempSync(join(tmpdir(), "mvm-signed-"))
    try {
      const path = (name: string): string => join(dir, name)
      const openssl = (...args: string[]): Promise<number> =>
        Bun.spawn(["openssl", ...args], { stderr: "ignore" }).exited
      writeFileSync(path("file"), FILE)
      expect(await openssl("genpkey", "-algorithm", "ed25519", "-out", path("key"))).toBe(0)
      expect(await openssl("pkey", "-in", path("key"), "-pubout", "-out", path("pub"))).toBe(0)
      expect(
        await openssl(
          "pkeyutl",
          "-sign",
          "-rawin",
          "-inkey",
          path("key"),
          "-in",
          path("file"),
          "-out",
          path("sig"),
        ),
      ).toBe(0)
      const published = parseSigningKey(readFileSync(path("pub"), "utf8"))
      expect(
        verifySignedReference(FILE, new Uint8Array(readFileSync(path("sig"))), [published]).table.files.size,
      ).toBe(1)
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })
})

describe("a signing key", () => {
  test("is hex or pem, and of ed25519", () => {
    expect(parseSigningKey(`${"ab".repeat(32)}\n`)).toEqual(new Uint8Array(32).fill(0xab))
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
    expect(codeOf(() => parseSigningKey(publicKey.export({ format: "pem", type: "spki" }) as string))).toBe(
      "config",
    )
    expect(codeOf(() => parseSigningKey("ab"))).toBe("config")
  })

  test("of small order, for which anybody can sign, is refused, and so is what it signed", () => {
    const identity = new Uint8Array(32).with(0, 1)
    expect(codeOf(() => parseSigningKey(identity.toHex()))).toBe("config")
    const forged = new Uint8Array(64).with(0, 1)
    expect(codeOf(() => verifySignedReference(FILE, forged, [identity]))).toBe("signature")
  })
})
