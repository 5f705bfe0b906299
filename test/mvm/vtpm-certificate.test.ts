import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { X509Certificate } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { equalBytes } from "../../src/lib/bytes.ts"
import { p256Generate, random } from "../../src/lib/crypto.ts"
import { type ErrorCode, MvmError } from "../../src/lib/errors.ts"
import { type VtpmCertificates, createWithCertificate } from "../../src/mvm/vtpm/certificate.ts"
import { provisionVtpm } from "../../src/mvm/vtpm/provision.ts"
import { withVtpm } from "../../src/mvm/vtpm/session.ts"
import { startVtpmLocal } from "../../src/mvm/vtpm/start.ts"
import { scratchDir } from "../tpm/scratch-swtpm.ts"

const EK_CERTIFICATE_NV = { rsa2048: 0x01c00002, secp384r1: 0x01c00016 } as Record<string, number>
const vmId = crypto.randomUUID()

const dir = scratchDir()
const place = { stateDir: join(dir.path, "state"), runDir: join(dir.path, "run"), stateKey: random(32) }
const caDir = join(dir.path, "ca")
let certificates: VtpmCertificates

beforeAll(async () => {
  certificates = await createWithCertificate({ ...place, caDir, vmId })
}, 60_000)

afterAll(() => dir.remove())

async function failure(promise: Promise<unknown>, code: ErrorCode): Promise<MvmError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(MvmError)
  expect((error as MvmError).code).toBe(code)
  return error as MvmError
}

describe("createWithCertificate", () => {
  test("gives certificates for both endorsement keys that chain to the root and name the VM", () => {
    const root = new X509Certificate(certificates.rootPem)
    const issuer = new X509Certificate(certificates.issuerPem)
    expect(root.verify(root.publicKey)).toBe(true)
    expect(issuer.verify(root.publicKey)).toBe(true)
    expect(certificates.endorsement.map(({ kind }) => kind).sort()).toEqual(["rsa2048", "secp384r1"])
    for (const { der } of certificates.endorsement) {
      const certificate = new X509Certificate(der)
      expect(certificate.verify(issuer.publicKey)).toBe(true)
      expect(certificate.subject).toBe(`CN=${vmId}`)
    }
  })

  test("leaves CA and state closed to others and no working files", () => {
    expect(statSync(caDir).mode & 0o777).toBe(0o700)
    expect(statSync(join(place.stateDir, "tpm2-00.permall")).mode & 0o777).toBe(0o600)
    expect(readdirSync(place.runDir)).toEqual([])
  })

  test("refuses a directory with state in it, and leaves that", async () => {
    const before = readFileSync(join(place.stateDir, "tpm2-00.permall"))
    await failure(createWithCertificate({ ...place, caDir, vmId }), "exists")
    expect(equalBytes(readFileSync(join(place.stateDir, "tpm2-00.permall")), before)).toBe(true)
  })

  test("the TPM is provisioned after that like any other and still holds its certificates", async () => {
    const mvmPublicKey = p256Generate().publicKey
    const { names } = await provisionVtpm({ ...place, mvmPublicKey })
    await withVtpm(place, async ({ tpm }) => {
      for (const { kind, der } of certificates.endorsement) {
        expect(equalBytes(await tpm.nvRead(EK_CERTIFICATE_NV[kind]!), der)).toBe(true)
      }
    })
    const dataSocket = join(place.runDir, "tpm.sock")
    await (await startVtpmLocal({ ...place, mvmPublicKey, names, dataSocket })).stop()
  })

  test("a second vTPM is certified by the same CA with another serial number", async () => {
    const other = { ...place, stateDir: join(dir.path, "state2") }
    const second = await createWithCertificate({ ...other, caDir, vmId: crypto.randomUUID() })
    expect(second.rootPem).toBe(certificates.rootPem)
    const serials = [...certificates.endorsement, ...second.endorsement].map(
      ({ der }) => new X509Certificate(der).serialNumber,
    )
    expect(new Set(serials).size).toBe(4)
  }, 60_000)

  test("a CA that cannot sign: swtpm with the tool's words, and no state left", async () => {
    const broken = join(dir.path, "broken-ca")
    mkdirSync(broken)
    for (const name of ["signkey.pem", "issuercert.pem"]) writeFileSync(join(broken, name), "no key")
    const stateDir = join(dir.path, "state3")
    const error = await failure(createWithCertificate({ ...place, stateDir, caDir: broken, vmId }), "swtpm")
    expect(error.message).toMatch(/^swtpm_setup ended with status 1: \S/)
    expect(readdirSync(stateDir)).toEqual([])
    expect(readdirSync(place.runDir).filter((name) => name.startsWith("setup-"))).toEqual([])
  }, 60_000)

  test("a path or subject the tool's configuration cannot carry: config", async () => {
    const stateDir = join(dir.path, "state4")
    const odd = createWithCertificate({ ...place, stateDir, caDir: join(dir.path, "a ca"), vmId })
    expect((await failure(odd, "config")).message).toContain("caDir")
    await failure(createWithCertificate({ ...place, stateDir, caDir, vmId: "a,b" }), "config")
    expect(existsSync(join(stateDir, "tpm2-00.permall"))).toBe(false)
  })
})
