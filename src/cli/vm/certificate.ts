/** @module cli/vm/certificate */

import { MvmError } from "../../lib/errors.ts"
import { utf8 } from "../../lib/bytes.ts"
import type { PemCertificates } from "../../mvm/vm/vm-certificates.ts"
import type { CommandSpec } from "../command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "../connect.ts"
import { printJson, writeRaw } from "../output.ts"

export const vmCertificate: CommandSpec = {
  usage: "vm certificate <name>",
  summary: "print the endorsement certificates of a VM's vTPM, as PEM",
  options: [
    STATE_OPTION,
    {
      flags: "--key <kind>",
      description: "only this key's: rsa2048 or secp384r1",
      values: ["rsa2048", "secp384r1"],
    },
    { flags: "--chain", description: "and the certificates of the CA and its root, in this order" },
    { flags: "--root", description: "the root's alone" },
    JSON_OPTION,
  ],
  examples: [
    "vm certificate web >web.pem",
    "vm certificate web --key rsa2048 --chain",
    "vm certificate web --root",
  ],
  async run(call) {
    const { endorsement, issuer, root } = await ask<PemCertificates>(call, "vm.certificate", {
      name: call.arg(0),
    })
    if (call.flag("json")) return printJson({ endorsement, issuer, root })
    if (call.flag("root")) return writeRaw(utf8(root))
    const kind = call.text("key")
    if (kind !== undefined && endorsement[kind] === undefined) {
      throw new MvmError("usage", `--key: ${kind} is none of ${Object.keys(endorsement).join(", ")}`)
    }
    const own = kind === undefined ? Object.values(endorsement) : [endorsement[kind]!]
    writeRaw(utf8([...own, ...(call.flag("chain") ? [issuer, root] : [])].join("")))
  },
}
