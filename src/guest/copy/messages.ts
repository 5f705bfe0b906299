/**
 * @module guest/copy/messages
 *
 * The copy protocol: what the two ends of one stream say while files go from a "sender" to a "receiver". Either may
 * have asked for the copy.
 *
 * ```
 *  who asks        REQUEST ──────────────────────────────────────────────────────>  who serves
 *
 *  sender                                                                             receiver
 *  TOTAL (a hint)               ──>
 *  DIRECTORY, FILE, SYMLINK,    ──>   an answer to each: SAME, WANT, RESUME and its HASHES, MADE or REFUSED
 *  LEAVE, depth first
 *  for each file that is wanted, in the order in which it was:
 *  BEGIN, (DATA | HOLE | KEEP)*, END   ──>   STORED, or REFUSED
 *  FINISH                       ──>
 *                               <──   DONE, once everything is on disk
 * ```
 *
 * An entry has no path: it lies in the directory that was entered last and not left yet. Its index is its place
 * among all entries, from 1; 0 is the target folder itself. The content of a file has no offsets: its pieces follow
 * each other from the first byte to the last. The bytes of a DATA piece follow the message, outside its frame.
 *
 * Entries run ahead of their answers by at most {@link WINDOW}, so that a small file costs no round trip.
 */

import {
  bool,
  bytes,
  bytesUpTo,
  list,
  oneOf,
  struct,
  text,
  u8,
  u16,
  u32,
  u53,
  type Infer,
} from "../../wire/schema.ts"
import { defineTable, row, type FieldsOf, type Message, type MessageName } from "../../wire/table.ts"

/** Of this table. Another one is refused. */
export const COPY_VERSION = 1

/** Greatest frame: a REQUEST with every path at its longest. */
export const MAX_FRAME_BYTES = 63 * 1024

/** Of one REQUEST. */
export const MAX_PATHS = 15

/** Greatest piece of content behind one DATA message. */
export const MAX_DATA_BYTES = 1 << 20

/** Entries without an answer, and wanted files that are not stored, at any time. */
export const WINDOW = 512

/** Block digests in one HASHES message. */
export const MAX_HASHES = 1024

const DIGEST_BYTES = 32

/** Bytes of a file name, as the sender's file system has them. */
const fileName = bytesUpTo(255)

/** See {@link module:guest/copy/wire-time}. */
const time = struct({ secondsBiased: u53, nanoseconds: u32 })

/** Permissions; set-id and sticky bits are not carried. */
const mode = u16

const index = u53

const failure = { code: text(64), message: text(512) }

export const COPY_MESSAGES = defineTable({
  REQUEST: row({
    id: 1,
    from: "both",
    since: 1,
    maxBytes: MAX_FRAME_BYTES,
    purpose: "the first message: what is asked of the other end",
    fields: {
      version: u8,
      direction: oneOf(["push", "pull"]),
      /** push: the target folder, alone; pull: what to copy */
      paths: list(bytesUpTo(4095), MAX_PATHS),
      recursive: bool,
      /** compare contents also where length and time are the same */
      checksum: bool,
      totals: bool,
    },
  }),

  TOTAL: row({ id: 2, from: "sender", since: 1, maxBytes: 64, fields: { entries: u53, lengthBytes: u53 } }),
  DIRECTORY: row({ id: 3, from: "sender", since: 1, maxBytes: 512, fields: { name: fileName, mode, time } }),
  LEAVE: row({ id: 4, from: "sender", since: 1, maxBytes: 32, fields: {} }),
  FILE: row({
    id: 5,
    from: "sender",
    since: 1,
    maxBytes: 512,
    fields: { name: fileName, mode, time, lengthBytes: u53, allocatedBytes: u53 },
  }),
  SYMLINK: row({
    id: 6,
    from: "sender",
    since: 1,
    maxBytes: 5120,
    fields: { name: fileName, time, text: bytesUpTo(4095) },
  }),
  OMITTED: row({
    id: 7,
    from: "sender",
    since: 1,
    maxBytes: 5120,
    purpose: "what the sender could not offer",
    fields: { path: bytesUpTo(4095), ...failure },
  }),

  BEGIN: row({
    id: 16,
    from: "sender",
    since: 1,
    maxBytes: 128,
    purpose: "the content follows; once more if the file changed meanwhile, and then without KEEP",
    fields: { index, mode, time, lengthBytes: u53 },
  }),
  DATA: row({ id: 17, from: "sender", since: 1, maxBytes: 64, fields: { lengthBytes: u32 } }),
  HOLE: row({ id: 18, from: "sender", since: 1, maxBytes: 64, fields: { lengthBytes: u53 } }),
  KEEP: row({
    id: 19,
    from: "sender",
    since: 1,
    maxBytes: 64,
    purpose: "so many blocks are what the receiver's HASHES say",
    fields: { blocks: u32 },
  }),
  END: row({ id: 20, from: "sender", since: 1, maxBytes: 128, fields: { digest: bytes(DIGEST_BYTES) } }),
  DROP: row({
    id: 21,
    from: "sender",
    since: 1,
    maxBytes: 1024,
    purpose: "a wanted file that cannot be read after all",
    fields: { index, ...failure },
  }),
  FINISH: row({ id: 22, from: "sender", since: 1, maxBytes: 32, fields: {} }),

  SAME: row({ id: 32, from: "receiver", since: 1, maxBytes: 64, fields: { index } }),
  MADE: row({ id: 33, from: "receiver", since: 1, maxBytes: 64, fields: { index } }),
  WANT: row({ id: 34, from: "receiver", since: 1, maxBytes: 64, fields: { index } }),
  RESUME: row({
    id: 35,
    from: "receiver",
    since: 1,
    maxBytes: 64,
    purpose: "wanted, but for what is here already: HASHES of its first blocks follow",
    fields: { index, blocks: u32 },
  }),
  HASHES: row({
    id: 36,
    from: "receiver",
    since: 1,
    maxBytes: MAX_HASHES * DIGEST_BYTES + 64,
    fields: { digests: bytesUpTo(MAX_HASHES * DIGEST_BYTES) },
  }),
  STORED: row({ id: 37, from: "receiver", since: 1, maxBytes: 64, fields: { index } }),
  REFUSED: row({
    id: 38,
    from: "receiver",
    since: 1,
    maxBytes: 1024,
    fields: { index, ...failure },
  }),
  DONE: row({ id: 39, from: "receiver", since: 1, maxBytes: 32, fields: {} }),
})

export type CopySide = "sender" | "receiver"
export type CopyMessage<S extends CopySide = CopySide> = Message<typeof COPY_MESSAGES, S>
export type CopyName<S extends CopySide = CopySide> = MessageName<typeof COPY_MESSAGES, S>
export type CopyFields<N extends CopyName> = FieldsOf<typeof COPY_MESSAGES, N>
export type CopyRequest = CopyFields<"REQUEST">
export type WireTime = Infer<typeof time>
