/**
 * @module lib/errors
 *
 * The one error class. Every failure the program can name has a row in {@link CODES}: a stable code, the exit
 * status a command ends with, and whether the message may be shown to a guest as it is. Unknown failures map to
 * `internal`, status 1.
 */

/** Exit statuses of every command (`exec` adds 125-127 of its own). */
export const STATUS = {
  ok: 0,
  failure: 1,
  usage: 2,
  unreachable: 3,
  attestation: 4,
  integrity: 5,
  denied: 6,
  revoked: 7,
  interrupted: 130,
} as const

/** Stable code -> exit status. */
export const CODES = {
  internal: STATUS.failure,
  io: STATUS.failure,
  no_space: STATUS.failure,
  state: STATUS.failure,
  state_key: STATUS.failure,
  already_running: STATUS.failure,
  exists: STATUS.failure,
  vm_state: STATUS.failure,
  qemu: STATUS.failure,
  libvirt: STATUS.failure,
  swtpm: STATUS.failure,
  tpm: STATUS.failure,
  setup: STATUS.failure,
  sink: STATUS.failure,
  usage: STATUS.usage,
  config: STATUS.usage,
  not_found: STATUS.usage,
  too_large: STATUS.usage,
  unreachable: STATUS.unreachable,
  no_mvm: STATUS.unreachable,
  no_agent: STATUS.unreachable,
  no_target: STATUS.unreachable,
  no_receiver: STATUS.unreachable,
  timeout: STATUS.unreachable,
  aborted: STATUS.unreachable,
  peer_failed: STATUS.unreachable,
  unknown_outcome: STATUS.unreachable,
  busy: STATUS.unreachable,
  untrusted: STATUS.attestation,
  peer_untrusted: STATUS.attestation,
  no_reference: STATUS.attestation,
  evidence_malformed: STATUS.attestation,
  evidence_quote_signature: STATUS.attestation,
  evidence_quote_magic: STATUS.attestation,
  evidence_nonce: STATUS.attestation,
  evidence_pcr_bank: STATUS.attestation,
  evidence_pcr_selection: STATUS.attestation,
  evidence_pcr_digest: STATUS.attestation,
  evidence_log_mismatch: STATUS.attestation,
  evidence_log_template: STATUS.attestation,
  evidence_log_offset: STATUS.attestation,
  evidence_reset: STATUS.attestation,
  evidence_rollback: STATUS.attestation,
  evidence_event_log: STATUS.attestation,
  integrity: STATUS.integrity,
  protocol: STATUS.integrity,
  frame: STATUS.integrity,
  record: STATUS.integrity,
  truncated: STATUS.integrity,
  digest_mismatch: STATUS.integrity,
  signature: STATUS.integrity,
  denied: STATUS.denied,
  policy_broken: STATUS.denied,
  refused: STATUS.denied,
  revoked: STATUS.revoked,
  lease_expired: STATUS.revoked,
  interrupted: STATUS.interrupted,
} as const satisfies Record<string, number>

export type ErrorCode = keyof typeof CODES

export interface ErrorDetail {
  /** What the person can do about it: one line, lower case, no full stop. */
  hint?: string | undefined
  cause?: unknown
}

/** A failure with a stable code. The message is one line: lower case, no full stop, no secret. */
export class MvmError extends Error {
  readonly code: ErrorCode
  readonly hint: string | undefined

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause })
    this.name = "MvmError"
    this.code = code
    this.hint = detail.hint
  }

  /** The exit status this failure gives a command. */
  get status(): number {
    return CODES[this.code]
  }
}

/** Whether `code`, a word a peer wrote, is one of ours. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(CODES, code)
}

/** Any thrown value as an `MvmError`; an unknown one becomes `code` with its message kept as the cause. */
export function asMvmError(error: unknown, code: ErrorCode = "internal"): MvmError {
  if (error instanceof MvmError) return error
  const message = error instanceof Error ? error.message : String(error)
  return new MvmError(code, message, { cause: error })
}

/** The errno name of a thrown system error ("ENOENT"), or undefined. */
export function errnoOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === "string" && /^E[A-Z0-9]+$/.test(code) ? code : undefined
}
