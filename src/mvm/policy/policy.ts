/**
 * @module mvm/policy/policy
 *
 * What a policy is once it is read: ordered rules, tags, and for a file that could not be read the reason. The
 * first rule that matches decides; no match denies; a broken policy denies everything.
 */

import type { MvmError } from "../../lib/errors.ts"
import type { Pattern } from "./pattern.ts"

/** Who keeps a measurement log: the VM's kernel, or (a local endpoint) its agent. */
export type MeasurementKind = "kernel" | "agent"

/** Which rule decided, for messages, DECISION and audit. */
export interface Rule {
  /** 0 for the first rule; -1 where no rule decided. */
  readonly index: number
  /** 1 for the first line of the file; 0 where no rule decided. */
  readonly line: number
  readonly comment: string
  /** `policy.toml:12`, or `default` (no rule matched) or `broken` (the policy could not be read). */
  readonly label: string
}

export interface Constraints {
  /** Undefined: the MVM chooses. */
  readonly isolation: "arena" | "dedicated" | undefined
  /** `memory`: never over the relay. */
  readonly transport: "memory" | "any"
  /** `sha256`: the content's own hash is demanded beside the records' digest. */
  readonly digest: "records" | "sha256"
  /** Whose logs count, at both ends. */
  readonly measurement: readonly MeasurementKind[]
  /** In each direction. */
  readonly maxBytes: number | undefined
  readonly maxSeconds: number | undefined
  /** Open at once under this rule. */
  readonly maxChannels: number | undefined
  /** Whether content may also be left for a target that is not there: it has no forward secrecy. */
  readonly deposit: boolean
}

export const DEFAULT_CONSTRAINTS: Constraints = {
  isolation: undefined,
  transport: "any",
  digest: "records",
  measurement: ["kernel"],
  maxBytes: undefined,
  maxSeconds: undefined,
  maxChannels: undefined,
  deposit: false,
}

export interface ProgramPattern {
  /** Absolute, compared as it is. */
  readonly path: string
  /** Hex SHA-256, lower case; undefined: any measured file of that path. */
  readonly digest: string | undefined
}

export interface PolicyRule {
  readonly rule: Rule
  readonly action: "allow" | "deny"
  readonly service: readonly Pattern[]
  readonly from: readonly Pattern[]
  readonly to: readonly Pattern[]
  /** Undefined: whatever program asks. */
  readonly programs: readonly ProgramPattern[] | undefined
  /** The VM that gets the request in place of the one that was asked for. */
  readonly target: string | undefined
  readonly constraints: Constraints
}

export interface Policy {
  readonly file: string
  readonly rules: readonly PolicyRule[]
  /** Tag to VM names, beside the tags the registry holds. */
  readonly tags: ReadonlyMap<string, ReadonlySet<string>>
  readonly tagLines: ReadonlyMap<string, number>
}

/** A policy that cannot be used: denies everything, and says why. */
export interface BrokenPolicy {
  readonly file: string
  readonly error: MvmError
}
