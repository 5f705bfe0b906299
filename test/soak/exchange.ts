/**
 * @module test/soak/exchange
 *
 * One channel from its opening to its receipt, both ends in this process, held open for a while: what is received is
 * held against what was sent by its SHA-256.
 */

import { AgentClient } from "../../src/guest/agent-client.ts"
import { ChannelEnd } from "../../src/guest/channel-end.ts"
import { KIND } from "../../src/channel/record.ts"
import { equalBytes } from "../../src/lib/bytes.ts"
import { Sha256 } from "../../src/lib/crypto.ts"

const PIECE_BYTES = 16 * 1024

export interface Exchange {
  readonly fromSocket: string
  readonly toSocket: string
  readonly to: string
  readonly service: string
  readonly content: Uint8Array
  /** How long the channel stays open at least. */
  readonly holdMs: number
  /** The channel is open, or was closed again. */
  onOpen?(isOpen: boolean): void
}

/** Resolves with the milliseconds from asking to the open channel. @throws for anything but a whole, equal delivery. */
export async function exchange(wanted: Exchange): Promise<number> {
  const { service, to, content } = wanted
  const [a, b] = await Promise.all([
    AgentClient.connect(wanted.fromSocket),
    AgentClient.connect(wanted.toSocket),
  ])
  try {
    const offered = Promise.withResolvers<void>()
    const receiving = receive(b, service, () => offered.resolve())
    receiving.catch((error: unknown) => offered.reject(error))
    await offered.promise
    const startedMs = performance.now()
    const asked = { target: to, service, role: "send", digest: "chain", waitMs: 20_000 } as const
    const end = await ChannelEnd.open(a, asked)
    const openMs = performance.now() - startedMs
    wanted.onOpen?.(true)
    try {
      const [sent, received] = await Promise.all([send(end, a, content, wanted.holdMs), receiving])
      if (!equalBytes(sent, received)) throw new Error(`${content.length} bytes arrived as others`)
    } finally {
      wanted.onOpen?.(false)
    }
    return openMs
  } finally {
    a.close()
    b.close()
  }
}

/** @returns SHA-256 of what was sent */
async function send(
  end: ChannelEnd,
  agent: AgentClient,
  content: Uint8Array,
  holdMs: number,
): Promise<Uint8Array> {
  const doneMs = performance.now() + holdMs
  const hash = new Sha256()
  const seal = async (kind: 1 | 2 | 3, plaintext: Uint8Array): Promise<void> => {
    while (!end.sealer.trySeal(kind, plaintext)) await end.awaitRoom(plaintext.length)
    end.flush()
  }
  await seal(KIND.HANDSHAKE, end.handshake)
  const pieceBytes = Math.min(PIECE_BYTES, end.sealer.maxPlaintextBytes)
  for (let at = 0; at < content.length; at += pieceBytes) {
    const piece = content.subarray(at, at + pieceBytes)
    hash.update(piece)
    await seal(KIND.DATA, piece)
    end.check()
  }
  while (performance.now() < doneMs) {
    await agent.event(Math.min(1000, Math.max(1, doneMs - performance.now())), () => false)
    end.check()
  }
  await seal(KIND.EOF, new Uint8Array(0))
  agent.send("FIN", {
    direction: end.sendDirection,
    lengthBytes: end.sealer.plaintextBytes,
    records: end.sealer.chain.records,
    digest: end.sealer.chain.digest(),
  })
  await agent.until(() => agent.peerReceipt)
  end.close()
  return hash.digest()
}

/** @returns SHA-256 of what was received */
async function receive(agent: AgentClient, service: string, onOffered: () => void): Promise<Uint8Array> {
  const end = await ChannelEnd.offer(agent, { service, source: undefined, role: "receive" }, onOffered)
  const hash = new Sha256()
  while (!end.opener.ended) {
    const record = end.opener.tryOpen()
    if (!record) {
      end.acknowledge()
      await end.awaitData()
      continue
    }
    end.check()
    if (record.kind === KIND.DATA) hash.update(record.plaintext)
    end.acknowledge()
  }
  const fin = await agent.until(() => agent.peerFin)
  const digest = end.opener.chain.digest()
  if (!equalBytes(fin.digest, digest)) throw new Error("the sender's digest is another")
  agent.send("RECEIPT", {
    direction: fin.direction,
    lengthBytes: end.opener.plaintextBytes,
    records: end.opener.chain.records,
    digest,
  })
  await agent.until(() => agent.logged > 0)
  end.close()
  return hash.digest()
}
