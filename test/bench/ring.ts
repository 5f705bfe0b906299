/**
 * @module bench/ring
 *
 * A file's worth of sealed records through a ring between two processes, beside one thread that only seals, and
 * beside socat over TLS on loopback.
 */

import { aes256Key, discardOutput, gcmSeal } from "../../src/lib/crypto.ts"
import { figure, median, ratios, type BenchOptions, type Figure } from "./measure.ts"
import { openPair, pump, type Pair } from "./ring-pair.ts"
import { TlsPeer } from "./tls-peer.ts"

const ROUND_BYTES = 256 * 2 ** 20
const TLS_ROUND_BYTES = 2 ** 30
const SOURCE_BYTES = 4 * 2 ** 20

/** The sizes that did best of a sweep over rings of 512 KiB to 8 MiB and records of 64 to 512 KiB. */
const SIZES = [
  { ringBytes: 2 ** 21, recordBytes: 2 ** 18 },
  { ringBytes: 2 ** 22, recordBytes: 2 ** 17 },
  { ringBytes: 2 ** 22, recordBytes: 2 ** 18 },
] as const

export async function bench({ rounds, note }: BenchOptions): Promise<Figure[]> {
  const source = new Uint8Array(SOURCE_BYTES).fill(7)
  const rows = SIZES.flatMap((size) =>
    (["arena", "dedicated"] as const).map((isolation) => ({
      ...size,
      isolation,
      pair: openPair({ ...size, isolation, task: "drain" }) as Pair,
      ours: [] as number[],
      cipher: [] as number[],
    })),
  )
  const tls = await TlsPeer.start(TLS_ROUND_BYTES)
  const tlsRounds: number[] = []
  try {
    for (const { pair } of rows) pump(pair, source, ROUND_BYTES)
    for (let index = 0; index < rounds; index++) {
      for (const row of rows) {
        row.cipher.push(sealOnly(row.recordBytes - 64, ROUND_BYTES))
        row.ours.push(pump(row.pair, source, ROUND_BYTES))
      }
      tlsRounds.push(await tls.round())
      note(`round ${index + 1} of ${rounds}`)
    }
  } finally {
    for (const { pair } of rows) pair[Symbol.dispose]()
    tls[Symbol.dispose]()
  }
  const best = (isolation: string) =>
    rows.filter((row) => row.isolation === isolation).toSorted((a, b) => median(b.ours) - median(a.ours))[0]!
  const [arena, dedicated] = [best("arena"), best("dedicated")]
  return [
    figure("ring.vs_cipher", "", ratios(arena.ours, arena.cipher), "at least 0.65"),
    figure("ring.dedicated_vs_cipher", "", ratios(dedicated.ours, dedicated.cipher), "at least 0.75"),
    figure("ring.vs_socat_tls", "", ratios(arena.ours, tlsRounds), "at least 5"),
    figure("ring.socat_tls_gbps", "GB/s", tlsRounds),
    ...rows.flatMap(({ isolation, ringBytes, recordBytes, ours, cipher }) => {
      const size = `${ringBytes / 1024}k_by_${recordBytes / 1024}k`
      return [
        figure(`ring.${isolation}_${size}_gbps`, "GB/s", ours),
        figure(`ring.${isolation}_${size}_cipher_gbps`, "GB/s", cipher),
      ]
    }),
  ]
}

/** One thread that does nothing but seal records of this length, warm and at its fastest: GB/s. */
export function sealOnly(recordBytes: number, lengthBytes: number): number {
  const key = aes256Key(new Uint8Array(32))
  const [nonce, aad, plaintext] = [new Uint8Array(12), new Uint8Array(16), new Uint8Array(recordBytes)]
  const records = Math.ceil(lengthBytes / recordBytes)
  const seal = (): void => discardOutput(gcmSeal(key, nonce, aad, plaintext).ciphertext)
  for (let index = 0; index < records / 16; index++) seal()
  const start = Bun.nanoseconds()
  for (let index = 0; index < records; index++) seal()
  return (records * recordBytes) / (Bun.nanoseconds() - start)
}
