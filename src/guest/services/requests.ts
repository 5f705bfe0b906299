/**
 * @module guest/services/requests
 *
 * What a stream is opened for, as the asker says it and the service reads it. The service's name is the session's:
 * it stands in the DECISION, and nothing here can change it.
 */

import { MvmError } from "../../lib/errors.ts"
import { optional, struct, text, u16, type Infer } from "../../wire/schema.ts"
import {
  decodeMessage,
  defineTable,
  encodeMessage,
  row,
  type FieldsOf,
  type Message,
} from "../../wire/table.ts"

/** The longest ARG, in bytes of UTF-8. */
export const MAX_ARG_BYTES = 4096

/** ARG as it is sent; what a service takes is {@link checkArg}'s business. */
const arg = optional(text(MAX_ARG_BYTES))

const terminal = struct({ name: text(64), columns: u16, rows: u16 })

export const SERVICE_REQUESTS = defineTable({
  CONNECT: row({
    id: 1,
    from: "asker",
    since: 1,
    maxBytes: 4160,
    fields: { arg },
    purpose: "bytes both ways, as of a socket",
  }),
  RUN: row({
    id: 2,
    from: "asker",
    since: 1,
    maxBytes: 4288,
    fields: { arg, terminal: optional(terminal) },
    purpose: "standard input and output of a run; SIDE follows",
  }),
  SIDE: row({
    id: 3,
    from: "asker",
    since: 1,
    maxBytes: 64,
    fields: { of: u16 },
    purpose: "standard error, signals and status of the run whose stream has that number",
  }),
})

export type RequestName = keyof (typeof SERVICE_REQUESTS)["rows"]
export type RequestFields<N extends RequestName> = FieldsOf<typeof SERVICE_REQUESTS, N>
export type ServiceRequest = Message<typeof SERVICE_REQUESTS>
export type TerminalRequest = Infer<typeof terminal>

/** The request of an OPEN frame. */
export function encodeRequest<N extends RequestName>(name: N, fields: RequestFields<N>): Uint8Array {
  return encodeMessage(SERVICE_REQUESTS, name, 0, fields)
}

/**
 * Trust: the request is the asker's.
 *
 * @throws MvmError `protocol` naming request and field, `usage` for an ARG that no service takes.
 */
export function decodeRequest(payload: Uint8Array): ServiceRequest {
  const request = decodeMessage(SERVICE_REQUESTS, payload, "asker")
  if (request.requestId !== 0) throw new MvmError("protocol", `${request.name}: a request id`)
  if (request.name !== "SIDE" && request.fields.arg !== undefined) checkArg(request.fields.arg)
  return request
}

/** @throws MvmError `usage` unless `arg` can be the value of an environment variable that people may be shown. */
export function checkArg(arg: string): void {
  if (Buffer.byteLength(arg) > MAX_ARG_BYTES) {
    throw new MvmError("usage", `the argument is longer than ${MAX_ARG_BYTES} bytes`, {
      hint: "send long input on standard input",
    })
  }
  if (/[\p{Cc}\u2028\u2029]/u.test(arg) || !arg.isWellFormed()) {
    throw new MvmError("usage", "the argument has a control character in it", {
      hint: "send such input on standard input",
    })
  }
}
