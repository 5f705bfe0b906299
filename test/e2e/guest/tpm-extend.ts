/**
 * @module test/e2e/guest/tpm-extend
 *
 * Extends a PCR by hand, which the kernel's measurement log knows nothing of.
 *
 *   bun tpm-extend.js PCR
 */

import { openTpmDevice } from "../../../src/tpm/device-transport.ts"
import { Tpm } from "../../../src/tpm/tpm.ts"

const tpm = new Tpm(await openTpmDevice())
await tpm.pcrExtend(Number(process.argv[2]), new Uint8Array(32).fill(1))
tpm.close()
