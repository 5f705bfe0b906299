/**
 * @module guest/pump
 *
 * Whole transfers: a descriptor into a channel, and a channel into a descriptor. Both loops are synchronous
 * while data flows, look at the agent's socket between blocks, and hand control to the event loop only when it
 * has something to say or nothing flows.
 */

import { Sha256, discardOutput } from "../lib/crypto.ts"
import { asMvmError } from "../lib/errors.ts"
import { KIND } from "../channel/record.ts"
import { POLLHUP, POLLIN, PollSet } from "../platform/posix.ts"
import type { EndStatement } from "./agent-client.ts"
import { Attention } from "./attention.ts"
import { turn, type ChannelEnd } from "./channel-end.ts"
import {
  compareFin,
  compareReceipt,
  receivedStatement,
  sentStatement,
  withoutReceipt,
} from "./end-statement.ts"
import { Input, type Source } from "./input.ts"
import { Sink, outputOf, type Output } from "./sink.ts"
import type { Spool } from "./spool.ts"

/** The longest time without a look at the agent's socket. */
const IDLE_POLL_MS = 200

export interface Progress {
  (bytes: number): void
}

/** What was sent, as both ends agreed at the end. */
export interface TransferSummary {
  readonly bytes: number
  readonly records: number
  readonly digest: Uint8Array
  readonly content: Uint8Array | undefined
}

/**
 * Send everything from `source`, then FIN, and wait for the receipt.
 *
 * @throws MvmError `unknown_outcome` when all was sent but no receipt came.
 */
export async function sendAll(
  end: ChannelEnd,
  source: Source,
  onProgress?: Progress,
): Promise<TransferSummary> {
  const content = end.decision.digestMode === "sha256" ? new Sha256() : undefined
  await sealHandshake(end)
  const input = new Input(source, end.sealer.maxPlaintextBytes)
  try {
    await sealInput(end, source, input, { content, onProgress })
  } finally {
    input.close()
  }
  while (!end.sealer.trySeal(KIND.EOF, new Uint8Array(0))) await end.awaitRoom(0)
  end.flush()
  return finish(end, content?.digest())
}

interface SealingOptions {
  readonly content: Sha256 | undefined
  readonly onProgress: Progress | undefined
}

async function sealInput(
  end: ChannelEnd,
  source: Source,
  input: Input,
  { content, onProgress }: SealingOptions,
): Promise<void> {
  const mostBytes = end.sealer.maxPlaintextBytes
  const attention = new Attention(end.agent.fd)
  const waiting = new PollSet([
    { fd: end.agent.fd, events: POLLIN },
    { fd: source.fd, events: POLLIN },
  ])
  for (;;) {
    let isReady = true
    if (source.regular) await attention.look()
    else {
      waiting.wait(IDLE_POLL_MS)
      isReady = (waiting.revents(1) & (POLLIN | POLLHUP)) !== 0
      if (!isReady || waiting.revents(0) !== 0) await turn()
    }
    end.check()
    if (!isReady) continue
    // Room comes before the input is read: a block is sealed at once, and nothing of it waits.
    const room = end.sealer.room(mostBytes)
    if (room <= 0) {
      await end.awaitRoom(mostBytes)
      continue
    }
    const block = input.take(room)
    if (block === undefined) continue
    if (block.length === 0) return
    end.checkLength(end.sealer.plaintextBytes + block.length)
    content?.update(block)
    if (!end.sealer.trySeal(KIND.DATA, block)) throw new RangeError("the room that was there is gone")
    end.flush()
    onProgress?.(end.sealer.plaintextBytes)
  }
}

export interface ReceiveOptions {
  readonly onProgress?: Progress | undefined
  /** Hold everything back here until the digest agreed; without it, records are released as they come. */
  readonly spool?: Spool | undefined
  /** Pass control characters on to a terminal. */
  readonly isRaw?: boolean
}

/**
 * Receive everything into `fd`, compare the end with the sender's FIN, and send the receipt.
 *
 * @throws MvmError `sink` when `fd` takes no more, `digest_mismatch` when the ends disagree, `no_space` or `io`
 *   when the spool cannot hold what came.
 */
export async function receiveAll(
  end: ChannelEnd,
  fd: number,
  options: ReceiveOptions = {},
): Promise<TransferSummary> {
  const output = outputOf(fd, end, options.isRaw ?? false)
  try {
    return await receiveInto(end, output, options)
  } finally {
    output.close()
  }
}

async function receiveInto(
  end: ChannelEnd,
  output: Output,
  { onProgress, spool }: ReceiveOptions,
): Promise<TransferSummary> {
  const content = end.decision.digestMode === "sha256" ? new Sha256() : undefined
  const sink = spool ? new Sink(spool.fd, end, (errno, cause) => spool.failed(errno, cause)) : output
  while (!end.opener.ended) {
    const record = end.opener.tryOpen()
    if (record === null) {
      end.acknowledge()
      await end.awaitData()
      continue
    }
    // The lease is looked at after the record was opened and before anything of it is released.
    end.check()
    if (record.kind !== KIND.DATA) continue
    end.checkLength(end.opener.plaintextBytes)
    content?.update(record.plaintext)
    await sink.write(record.plaintext)
    onProgress?.(end.opener.plaintextBytes)
    discardOutput(record.plaintext)
    end.acknowledge()
  }
  end.acknowledge()
  return acknowledgeEnd(end, content?.digest(), async () => {
    await spool?.release((bytes) => output.write(bytes))
  })
}

async function sealHandshake(end: ChannelEnd): Promise<void> {
  while (!end.sealer.trySeal(KIND.HANDSHAKE, end.handshake)) await end.awaitRoom(end.handshake.length)
  end.flush()
}

async function finish(end: ChannelEnd, content: Uint8Array | undefined): Promise<TransferSummary> {
  const said = sentStatement(end, content)
  end.agent.send("FIN", said)
  let receipt: EndStatement
  try {
    receipt = await end.agent.until(() => end.agent.peerReceipt)
  } catch (error) {
    throw withoutReceipt(asMvmError(error))
  }
  compareReceipt(receipt, said)
  return summary(said)
}

/** @param release what is left to do once the digest agreed: the receipt follows the last write */
async function acknowledgeEnd(
  end: ChannelEnd,
  content: Uint8Array | undefined,
  release: () => Promise<void>,
): Promise<TransferSummary> {
  const seen = receivedStatement(end, content)
  compareFin(await end.agent.until(() => end.agent.peerFin), seen)
  await release()
  end.agent.send("RECEIPT", seen)
  await end.agent.until(() => end.agent.logged > 0)
  return summary(seen)
}

function summary(said: EndStatement): TransferSummary {
  return { bytes: said.lengthBytes, records: said.records, digest: said.digest, content: said.content }
}
