/**
 * @module tpm/transport
 *
 * How command bytes reach a TPM: one method. {@link connectSwtpm} speaks to swtpm's data socket,
 * {@link openTpmDevice} to the kernel's resource manager.
 */

import { ByteReader } from "../lib/bytes.ts"
import { MAX_TPM_MESSAGE_BYTES } from "./constants.ts"

export interface TpmTransport {
  /** Sends one command and returns its whole response, 10 to 4096 bytes. One at a time. */
  send(command: Uint8Array): Promise<Uint8Array>
  close(): void
}

export const MIN_RESPONSE_BYTES = 10

/**
 * The length a response header states.
 *
 * Trust: the header comes from a TPM process; the length is bounded before anything is allocated for it.
 *
 * @param header at least the first 6 bytes
 * @throws MvmError `tpm` outside 10-4096
 */
export function responseLength(header: Uint8Array): number {
  const reader = new ByteReader(header, "tpm response", "tpm")
  reader.u16be("tag")
  const lengthBytes = reader.u32be("responseSize")
  if (lengthBytes < MIN_RESPONSE_BYTES || lengthBytes > MAX_TPM_MESSAGE_BYTES) {
    throw reader.error("responseSize", `${lengthBytes} bytes, 10 to 4096 allowed`)
  }
  return lengthBytes
}
