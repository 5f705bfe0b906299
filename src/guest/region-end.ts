/**
 * @module guest/region-end
 *
 * One end's mapping of a channel's region: the ring it writes and the ring it reads.
 */

import { mapShared, type Mapping } from "../platform/mmap.ts"
import { RingConsumer } from "../ring/consumer.ts"
import { checkLayoutVersion, regionOf } from "../ring/layout.ts"
import { RingProducer } from "../ring/producer.ts"
import type { Region } from "../wire/local-messages.ts"

export class RegionEnd {
  readonly producer: RingProducer
  readonly consumer: RingConsumer
  readonly #mapping: Mapping

  /** @throws MvmError `io` or `no_space` when it cannot be mapped, `protocol` for another layout. */
  constructor(region: Region, asker: boolean) {
    this.#mapping = mapShared(region.path, { offsetBytes: region.offset, lengthBytes: region.lengthBytes })
    try {
      const rings = regionOf(this.#mapping.bytes, region.ringBytes)
      checkLayoutVersion(rings)
      this.producer = new RingProducer(asker ? rings.aToB : rings.bToA)
      this.consumer = new RingConsumer(asker ? rings.bToA : rings.aToB)
    } catch (error) {
      this.#mapping.unmap()
      throw error
    }
  }

  /** Every view of the memory becomes empty. */
  unmap(): void {
    this.#mapping.unmap()
  }
}
