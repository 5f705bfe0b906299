/**
 * @module channel/record
 *
 * The record layer: what every byte between two ends travels in.
 *
 *     head, 24 bytes (in a ring it takes the first 64: ring/layout)
 *        0  u32 LE  payload length in bytes
 *        4  u8      kind
 *        5  u8      0
 *        6  u16 LE  stream; 0 in a channel of one direction, and of records about the channel itself
 *        8  16 B    AES-256-GCM tag
 *
 *     associated data, 16 bytes: the first 8 of the head, then the sequence number, u64 BE
 *     nonce, 12 bytes:           4 zero bytes, then the sequence number, u64 BE
 *
 * The sequence number is never written down: it counts the records sealed in one direction, starts at 0, is used
 * up at sealing even if the record is dropped, and never resets. The key moves on every 2^20 records
 * (`channel/keys`). So a record that was replayed, moved, left out or taken from the other direction does not open.
 *
 *     UNVERIFIED --HANDSHAKE--> OPEN --EOF--> ENDED        a record that does not fit here, or does
 *                                | ^                       not authenticate: DEAD, for good
 *                            DATA, CONTROL
 */

import { GCM_TAG_BYTES } from "../lib/crypto.ts"

// Specification.

/** The head as six little-endian words: length, kind and stream, four of tag. */
export const HEAD_WORDS = 6
export const HEAD_BYTES = 4 * HEAD_WORDS
export const AAD_BYTES = 16

export const KIND = {
  /** The first record of a direction: its sender's identity signature, 64 bytes. */
  HANDSHAKE: 1,
  DATA: 2,
  /** The last record of a direction; empty. Without it the direction was truncated. */
  EOF: 3,
  /** Something about one stream of a duplex channel: a frame of guest/streams. */
  CONTROL: 4,
} as const

export type Kind = (typeof KIND)[keyof typeof KIND]

/** Kinds that may belong to a stream; the others are about the channel. */
const OF_STREAMS: ReadonlySet<number> = new Set([KIND.DATA, KIND.CONTROL])
const OF_ONE_FLOW: ReadonlySet<number> = new Set([KIND.HANDSHAKE, KIND.DATA, KIND.EOF])

/** The greatest number a stream can have. */
export const MAX_STREAM = 0xffff

/** The head's second word: kind, a byte of zero, stream. */
export function kindWordOf(kind: Kind, stream: number): number {
  return (kind | (stream << 16)) >>> 0
}

/**
 * Whether a kind word is one this version knows: reserved byte zero, and either a kind of a channel's one flow with
 * stream 0 or, where the channel carries streams, a kind that belongs to a stream.
 */
export function isKindWord(kindWord: number, hasStreams: boolean): boolean {
  return OF_ONE_FLOW.has(kindWord) || (hasStreams && OF_STREAMS.has(kindWord & 0xffff))
}

export function kindOf(kindWord: number): Kind {
  return (kindWord & 0xff) as Kind
}

export function streamOf(kindWord: number): number {
  return kindWord >>> 16
}

/** Where sealed records go: a ring, or frames on a relay. */
export interface RecordSink {
  /** The longest payload a record can have here. */
  readonly maxPayloadBytes: number
  /**
   * How long a payload, up to `wantedBytes`, is best taken now; -1 when there is no room for a useful one. Asked
   * before {@link claim} by a sender with more waiting than one record takes.
   */
  room(wantedBytes: number): number
  /** Makes room for one record. False: not now. */
  claim(payloadBytes: number): boolean
  /** Fills the claimed room with copies. `head` has {@link HEAD_WORDS} words. */
  put(head: Uint32Array, payload: Uint8Array): void
  /** Shows everything put so far to the other end. */
  publish(): void
}

/**
 * Where sealed records come from.
 *
 * Trust: head and payload are the peer's, or anybody's who maps the region. An implementation reads each from shared
 * memory once; the payload it returns is bounds-checked.
 */
export interface RecordSource {
  /** Fills `head` with the next record's and returns its payload, or undefined when there is none. */
  next(head: Uint32Array): Uint8Array | undefined
  /** The payload returned last will not be read again. */
  release(): void
}

/** Associated data and nonce of the record with this sequence number, written into the given arrays. */
export function bindSequence(sequence: number, aad: DataView, nonce: DataView): void {
  const high = Math.floor(sequence / 2 ** 32)
  const low = sequence >>> 0
  aad.setUint32(8, high)
  aad.setUint32(12, low)
  nonce.setUint32(4, high)
  nonce.setUint32(8, low)
}

/** The tag in a head, as bytes. */
export function tagBytesOf(head: Uint32Array): Uint8Array {
  return new Uint8Array(head.buffer, head.byteOffset + 8, GCM_TAG_BYTES)
}
