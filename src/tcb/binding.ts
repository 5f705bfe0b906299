/**
 * @module tcb/binding
 *
 * What a quote is bound to besides the nonce: the request it belongs to, so that evidence cannot be moved from
 * one request to another.
 */

import { sha256 } from "../lib/crypto.ts"
import { encodeFields } from "../lib/encoding.ts"

/** 32 bytes: the asker's quote covers the message it signed. */
export function requestBinding(requestMessage: Uint8Array): Uint8Array {
  return sha256(requestMessage)
}

export interface AnswerBinding {
  readonly channelId: Uint8Array
  readonly askerShare: Uint8Array
  readonly answererShare: Uint8Array
  readonly program: { readonly path: string; readonly digest: Uint8Array; readonly uid: number }
}

/** 32 bytes: the answerer's quote covers both shares and its program. */
export function answerBinding(answer: AnswerBinding): Uint8Array {
  return sha256(
    encodeFields("mvm answer v1", [
      answer.channelId,
      answer.askerShare,
      answer.answererShare,
      answer.program.path,
      answer.program.digest,
      answer.program.uid,
    ]),
  )
}

/** 32 bytes: a periodic measurement is bound to nothing but its nonce. */
export const NO_BINDING = new Uint8Array(32)
