/**
 * @module test/fuzz/targets
 *
 * Every decoder there is.
 */

import type { Target } from "./target.ts"
import { AUDIT_TARGETS } from "./targets/audit.ts"
import { CHANNEL_TARGETS } from "./targets/channel.ts"
import { HOST_TARGETS } from "./targets/host.ts"
import { MEASUREMENT_TARGETS } from "./targets/measurement.ts"
import { SERVICE_TARGETS } from "./targets/services.ts"
import { TPM_TARGETS } from "./targets/tpm.ts"
import { WIRE_TARGETS } from "./targets/wire.ts"

export const TARGETS: readonly Target[] = [
  ...WIRE_TARGETS,
  ...CHANNEL_TARGETS,
  ...TPM_TARGETS,
  ...MEASUREMENT_TARGETS,
  ...HOST_TARGETS,
  ...AUDIT_TARGETS,
  ...SERVICE_TARGETS,
]

/** Faults made on purpose, each one byte away from its seed: what finds these finds others. Run only when named. */
const PLANTED: readonly Target[] = [
  planted("crash", () => {
    throw new TypeError("undefined is not an object")
  }),
  planted("hang", () => {
    for (;;) Math.sqrt(2)
  }),
  planted("memory", () => {
    const held: Uint8Array[] = []
    for (;;) {
      const more = new Uint8Array(1 << 24)
      // A byte of each page: memory at half the processor time of filling it, so that this limit is the first.
      for (let at = 0; at < more.length; at += 4096) more[at] = 1
      held.push(more)
    }
  }),
  planted("death", () => process.kill(process.pid, "SIGKILL")),
]

function planted(name: string, fault: () => unknown): Target {
  return {
    name: `planted.${name}`,
    seeds: () => [new Uint8Array(40)],
    run: (input) => {
      if (input.includes(0x2a)) fault()
      return "fine"
    },
  }
}

/** In the order by which a worker and its watcher name them to each other. */
export const ALL_TARGETS: readonly Target[] = [...TARGETS, ...PLANTED]
