/**
 * @module guest/streams/frames
 *
 * What the two ends of a session say about its streams. The number of a stream is in the record's head (u16, part
 * of the associated data), not in here: so a stream's bytes are sealed from the caller's buffer and handed on from
 * the opener's, with no copy to put a header in front of them and no length to check that the record does not have
 * already. What is said about a stream is a CONTROL record with that number and one message of this table.
 *
 *     asker                                           answerer
 *       OPEN request              ─────────────────►    a handler begins
 *       DATA (up to the window)   ◄────────────────►    DATA
 *       CREDIT                    ◄────────────────►    CREDIT        room the reader gave back
 *       END                       ◄────────────────►    END           this direction is over, all of it came
 *       STOP                      ◄────────────────►    STOP          its reader wants no more of it
 *       RESET                     ◄────────────────►    RESET         both directions broken off
 *
 *                                 ◄─────────────────    LEAVE         open no more streams (on stream 0)
 *
 * The asker numbers streams 1 to 65535 in turn, so that a number comes back only long after everything about its
 * former holder was read. Stream 0 is the session's own.
 *
 * Each end says END or RESET once for its direction, whatever else happens, and STOP makes the other end say END:
 * after both, the number is free. RESET and CREDIT may cross the last word and are then about nothing.
 */

import { MvmError } from "../../lib/errors.ts"
import { bytesUpTo, text, u53 } from "../../wire/schema.ts"
import {
  decodeMessage,
  defineTable,
  encodeMessage,
  row,
  type FieldsOf,
  type Message,
} from "../../wire/table.ts"

/** The longest request an OPEN can carry. */
export const MAX_REQUEST_BYTES = 16 * 1024
const MAX_MESSAGE_BYTES = 512

const reason = { code: text(64), message: text(MAX_MESSAGE_BYTES) }

export const STREAM_FRAMES = defineTable({
  OPEN: row({
    id: 1,
    from: "asker",
    since: 1,
    maxBytes: MAX_REQUEST_BYTES + 32,
    fields: { request: bytesUpTo(MAX_REQUEST_BYTES) },
    purpose: "a new stream; the request is for the service to read",
  }),
  CREDIT: row({
    id: 2,
    from: "both",
    since: 1,
    maxBytes: 32,
    fields: { bytes: u53 },
    purpose: "that many more bytes may be sent",
  }),
  END: row({
    id: 3,
    from: "both",
    since: 1,
    maxBytes: 16,
    fields: {},
    purpose: "no more data from this end",
  }),
  STOP: row({
    id: 4,
    from: "both",
    since: 1,
    maxBytes: 640,
    fields: reason,
    purpose: "no more data is read by this end",
  }),
  RESET: row({
    id: 5,
    from: "both",
    since: 1,
    maxBytes: 640,
    fields: reason,
    purpose: "neither sent nor read any more by this end",
  }),
  LEAVE: row({
    id: 6,
    from: "answerer",
    since: 1,
    maxBytes: 16,
    fields: {},
    purpose: "the session is to end with the streams it has",
  }),
})

export type StreamSide = "asker" | "answerer"
export type FrameName = keyof (typeof STREAM_FRAMES)["rows"]
export type FrameFields<N extends FrameName> = FieldsOf<typeof STREAM_FRAMES, N>
export type StreamFrame = Message<typeof STREAM_FRAMES>

/** The payload of a CONTROL record. */
export function encodeFrame<N extends FrameName>(name: N, fields: FrameFields<N>): Uint8Array {
  return encodeMessage(STREAM_FRAMES, name, 0, fields)
}

/**
 * Trust: the payload is the peer's, authenticated as its own and as nothing more.
 *
 * @throws MvmError `protocol` naming frame and field.
 */
export function decodeFrame(payload: Uint8Array, from: StreamSide): StreamFrame {
  const frame = decodeMessage(STREAM_FRAMES, payload, from)
  if (frame.requestId !== 0) throw new MvmError("protocol", `${frame.name}: a request id`)
  return frame
}
