/**
 * @module test/tpm/golden-responses
 *
 * One whole response for every command whose answer is decoded.
 */

import { fromHex } from "../../src/lib/bytes.ts"
import type { TpmCommand } from "../../src/tpm/command.ts"
import {
  createPrimaryCommand,
  ecdhZGenCommand,
  quoteCommand,
  readPublicCommand,
  signCommand,
} from "../../src/tpm/commands-key.ts"
import { nvReadCommand, nvReadPublicCommand } from "../../src/tpm/commands-nv.ts"
import { pcrAllocateCommand, pcrExtendCommand, pcrReadCommand } from "../../src/tpm/commands-pcr.ts"
import {
  getHandlesCommand,
  getPcrBanksCommand,
  getPropertyCommand,
  getRandomCommand,
  readClockCommand,
} from "../../src/tpm/commands-state.ts"
import { keyTemplate } from "../../src/tpm/templates.ts"
import { ATTEST, ATTESTATION_PUBLIC, CLOCK_INFO, DIGESTS, NV_PUBLIC, SELECTION, SIGNATURE } from "./golden.ts"

const digest32 = new Uint8Array(32)
const point65 = new Uint8Array(65).fill(4)
const t2b = (hex: string): string => (hex.length / 2).toString(16).padStart(4, "0") + hex
const NAME = `000b${"33".repeat(32)}`

export interface ResponseCase {
  command: TpmCommand<unknown>
  /** Response handle if any, and parameters, in hex. */
  handle?: string
  parameters: string
}

export const RESPONSES: ResponseCase[] = [
  { command: getRandomCommand(4), parameters: t2b("01020304") },
  { command: readClockCommand(), parameters: `0000000000000001${CLOCK_INFO}` },
  { command: getHandlesCommand(0x81000000), parameters: "01000000010000000281800001" + "81800002" },
  { command: getPropertyCommand(0x105), parameters: "0000000006000000010000010549424d00" },
  { command: getPcrBanksCommand(), parameters: `0000000005${SELECTION}` },
  { command: readPublicCommand(1), parameters: t2b(ATTESTATION_PUBLIC) + t2b(NAME) + t2b(NAME) },
  { command: signCommand(1, digest32), parameters: SIGNATURE },
  { command: quoteCommand(1, digest32, [0]), parameters: t2b(ATTEST) + SIGNATURE },
  {
    command: ecdhZGenCommand(1, point65),
    parameters: t2b(t2b("44".repeat(32)) + t2b("55".repeat(32))),
  },
  {
    command: createPrimaryCommand(0x4000000c, keyTemplate("identity", digest32), new Uint8Array(0)),
    handle: "80000000",
    parameters:
      t2b(ATTESTATION_PUBLIC) +
      t2b("66".repeat(40)) +
      t2b("77".repeat(32)) +
      "80214000000c" +
      t2b("") +
      t2b(NAME),
  },
  { command: pcrReadCommand([0, 1]), parameters: `0000001400000001000b03030000${DIGESTS}` },
  { command: pcrExtendCommand(10, digest32), parameters: "" },
  { command: pcrAllocateCommand([], new Uint8Array(0)), parameters: "01000000180000000000001000" },
  { command: nvReadPublicCommand(0x01c10100), parameters: t2b(NV_PUBLIC) + t2b(NAME) },
  { command: nvReadCommand(0x01c10100, 4, 0), parameters: t2b("01020304") },
]

/** The whole response, its header included. */
export function response({ command, handle = "", parameters }: ResponseCase): Uint8Array {
  const sessions = command.auths?.length ?? 0
  const size = (parameters.length / 2).toString(16).padStart(8, "0")
  const body = handle + (sessions > 0 ? size : "") + parameters + "0000010000".repeat(sessions)
  const total = (10 + body.length / 2).toString(16).padStart(8, "0")
  return fromHex(`${sessions > 0 ? "8002" : "8001"}${total}00000000${body}`)
}
