/**
 * @module test/wire/sample-table
 *
 * A small protocol with every kind of field, so that the machinery is tested apart from the program's own tables.
 */

import {
  bool,
  bytes,
  bytesUpTo,
  list,
  name,
  oneOf,
  optional,
  struct,
  text,
  u16,
  u32,
  u53,
  u8,
} from "../../src/wire/schema.ts"
import { defineTable, row } from "../../src/wire/table.ts"

const quote = struct({ attest: bytesUpTo(64), pcrs: list(bytes(4), 3), clock: optional(u53) })

export const SAMPLE = defineTable({
  GREET: row({
    id: 1,
    from: "guest",
    since: 1,
    maxBytes: 256,
    purpose: "opens the conversation",
    fields: { nonce: bytes(8), version: u8, host: name(64), note: optional(text(20)) },
  }),
  REPLY: row({
    id: 2,
    from: "mvm",
    since: 1,
    maxBytes: 512,
    fields: { verdict: oneOf(["trusted", "untrusted"]), lengthBytes: u53, port: u16, final: bool },
  }),
  PROVE: row({
    id: 200,
    from: "both",
    since: 2,
    maxBytes: 4096,
    fields: { quotes: list(struct({ id: u32, quote }), 4), names: list(name(), 5) },
  }),
  EMPTY: row({ id: 4, from: "both", since: 1, maxBytes: 16, fields: {} }),
})
