/**
 * @module mvm/vm/vm-certificates
 *
 * The endorsement certificates of a VM's vTPM and the chain above them, as PEM files beside its state: public, and
 * kept for whoever wants to check the vTPM.
 */

import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { MvmError } from "../../lib/errors.ts"
import type { VtpmCertificates } from "../vtpm/certificate.ts"

const ISSUER = "issuer.pem"
const ROOT = "root.pem"
const ENDORSEMENT = /^ek-(\w+)\.pem$/
const LINE = 64

/** PEM texts. */
export interface PemCertificates {
  /** By kind of key: "rsa2048", "secp384r1". */
  readonly endorsement: Readonly<Record<string, string>>
  readonly issuer: string
  readonly root: string
}

/** Where the CA of a state directory has its keys. */
export function caDirectory(stateDirectory: string): string {
  return join(stateDirectory, "ca")
}

export function keepCertificates(directory: string, certificates: VtpmCertificates): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const write = (name: string, pem: string): void =>
    writeFileSync(join(directory, name), pem, { mode: 0o600 })
  for (const { kind, der } of certificates.endorsement) write(`ek-${kind}.pem`, pemOf(der))
  write(ISSUER, certificates.issuerPem)
  write(ROOT, certificates.rootPem)
}

/** @throws MvmError `not_found` when the vTPM was made without certificates. */
export function readCertificates(directory: string, vm: string): PemCertificates {
  if (!existsSync(join(directory, ROOT))) {
    throw new MvmError("not_found", `the vtpm of ${vm} was made without certificates`, {
      hint: "they are made with it: mvm vm create NAME --certificate, or mvm serve --certificates",
    })
  }
  const read = (name: string): string => readFileSync(join(directory, name), "utf8")
  const endorsement: Record<string, string> = {}
  for (const name of readdirSync(directory).toSorted()) {
    const kind = ENDORSEMENT.exec(name)?.[1]
    if (kind !== undefined) endorsement[kind] = read(name)
  }
  return { endorsement, issuer: read(ISSUER), root: read(ROOT) }
}

/** @spec RFC 7468 §5 */
function pemOf(der: Uint8Array): string {
  const lines = der.toBase64().match(new RegExp(`.{1,${LINE}}`, "g")) ?? []
  return ["-----BEGIN CERTIFICATE-----", ...lines, "-----END CERTIFICATE-----", ""].join("\n")
}
