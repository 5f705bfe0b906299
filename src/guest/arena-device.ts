/**
 * @module guest/arena-device
 *
 * Which of a VM's shared memory devices is the arena. It is there when the VM starts, and nothing is plugged in before
 * an agent is linked: so the first agent of a boot sees the arena alone, and writes down where it is. An address that is
 * lower than all others proves nothing later, since a device may be plugged into any free slot.
 */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import { findIvshmem, type SharedMemoryDevice } from "../platform/ivshmem.ts"

/** Root's, and gone with the boot. */
const NOTE = "/run/mvm/arena-device"
const BOOT_ID = "/proc/sys/kernel/random/boot_id"

export class ArenaDevice {
  readonly #devices: () => SharedMemoryDevice[]
  readonly #note: string
  #address: string | undefined

  /** @param devices all that there are now, in bus order */
  constructor(devices: () => SharedMemoryDevice[] = findIvshmem, note = NOTE) {
    this.#devices = devices
    this.#note = note
  }

  /** The arena, if this machine has it. */
  find(): SharedMemoryDevice | undefined {
    const all = this.#devices()
    this.#address ??= this.#noted(all) ?? this.#decide(all[0])
    return all.find(({ address }) => address === this.#address)
  }

  /** The others: each is some channel's own. */
  plugged(): SharedMemoryDevice[] {
    const arena = this.find()
    return this.#devices().filter(({ address }) => address !== arena?.address)
  }

  /** What an earlier agent of this boot found, where that is still there. */
  #noted(all: readonly SharedMemoryDevice[]): string | undefined {
    try {
      const [boot, address] = readFileSync(this.#note, "utf8").trim().split(" ")
      return boot === bootId() && all.some((device) => device.address === address) ? address : undefined
    } catch {
      return undefined
    }
  }

  #decide(device: SharedMemoryDevice | undefined): string | undefined {
    if (!device) return undefined
    try {
      mkdirSync(dirname(this.#note), { recursive: true, mode: 0o755 })
      writeFileSync(this.#note, `${bootId()} ${device.address}\n`, { mode: 0o644 })
    } catch {
      // Then the next agent of this boot takes the first again.
    }
    return device.address
  }
}

function bootId(): string {
  return readFileSync(BOOT_ID, "utf8").trim()
}
