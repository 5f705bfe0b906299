/**
 * @module mvm/vtpm/certificate
 *
 * The optional step before provisioning: a TPM with endorsement keys (RSA-2048 at 0x81010001, P-384 at 0x81010016)
 * and certificates for them under the MVM's local CA, so that somebody outside can check that an endorsement key
 * belongs to a vTPM of this MVM. It does not certify the attestation key itself.
 *
 * @spec TCG EK Credential Profile for TPM Family 2.0
 */

import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { MvmError } from "../../lib/errors.ts"
import { CA_FILES, runSwtpmSetup } from "../../platform/swtpm-setup.ts"
import { type VtpmPlace, prepareVtpmDirectories } from "./session.ts"

export interface CertificateOptions extends VtpmPlace {
  /** Absolute directory of the CA; made at the first use, closed to others. */
  caDir: string
  /** The VM's UUID: subject of the certificates. */
  vmId: string
}

export interface VtpmCertificates {
  /** X.509 DER by kind: "rsa2048", "secp384r1". */
  endorsement: { kind: string; der: Uint8Array }[]
  /** PEM of the CA that signed them. */
  issuerPem: string
  /** PEM of the root that signed the CA. */
  rootPem: string
}

/**
 * Makes the vTPM's state, which must not exist yet; {@link provisionVtpm} comes next.
 *
 * @throws MvmError `exists`, `setup`, `config`, `swtpm`. Neither state nor process is left then.
 */
export async function createWithCertificate(options: CertificateOptions): Promise<VtpmCertificates> {
  prepareVtpmDirectories(options)
  if (readdirSync(options.stateDir).length > 0) {
    throw new MvmError("exists", `${options.stateDir} is not empty`)
  }
  mkdirSync(options.caDir, { recursive: true, mode: 0o700 })
  chmodSync(options.caDir, 0o700)
  const workDir = mkdtempSync(join(options.runDir, "setup-"))
  try {
    const { stateDir, stateKey, caDir, vmId } = options
    await runSwtpmSetup({ stateDir, stateKey, caDir, vmId, workDir })
    for (const name of readdirSync(stateDir)) chmodSync(join(stateDir, name), 0o600)
    return readCertificates(workDir, caDir)
  } catch (error) {
    for (const name of readdirSync(options.stateDir)) rmSync(join(options.stateDir, name), { force: true })
    throw error
  } finally {
    rmSync(workDir, { recursive: true, force: true })
  }
}

function readCertificates(workDir: string, caDir: string): VtpmCertificates {
  const endorsement = readdirSync(workDir)
    .map((name) => ({ name, kind: /^ek-(\w+)\.crt$/.exec(name)?.[1] }))
    .filter((file): file is { name: string; kind: string } => file.kind !== undefined)
    .map(({ name, kind }) => ({ kind, der: new Uint8Array(readFileSync(join(workDir, name))) }))
  if (endorsement.length === 0) throw new MvmError("swtpm", "swtpm_setup made no certificate")
  const pem = (name: string) => readFileSync(join(caDir, name), "utf8")
  return { endorsement, issuerPem: pem(CA_FILES.issuer), rootPem: pem(CA_FILES.root) }
}
