/**
 * @module mvm/policy/policy-keys
 *
 * What each key of a policy means, for people: the manual page is made from it. The schema says what is accepted.
 */

import type { PolicyDocument, RuleDocument } from "./policy-schema.ts"

export interface KeyMeaning {
  readonly value: string
  readonly meaning: string
  readonly default?: string
}

/** Of `[[rule]]`, without its demands. */
export const RULE_KEYS: Readonly<
  Record<Exclude<keyof RuleDocument, keyof NonNullable<PolicyDocument["settings"]>>, KeyMeaning>
> = {
  service: {
    value: 'a name, a glob (* and ?), "@any", or a list of them',
    meaning: "the service that is asked for; required",
  },
  from: {
    value: 'a VM name, a glob, "tag:NAME", "@any", or a list of them',
    meaning: "the VM that asks; required",
  },
  to: { value: "as from", meaning: "the VM that is asked for; required" },
  action: { value: '"allow" or "deny"', meaning: "what is decided when all of the above match; required" },
  target: {
    value: "a VM name",
    meaning: "the VM that gets the request in place of the one that was asked for; it is not looked up again",
  },
  programs: {
    value: "a list of absolute paths, or of { path, digest } with the SHA-256 of the file",
    meaning: "only these programs may ask",
    default: "any program",
  },
  comment: { value: "one line of text", meaning: "shown in reasons and in the audit log" },
}

/** What a rule that allows may demand, and `[settings]` for every rule that does not. */
export const DEMAND_KEYS: Readonly<Record<keyof NonNullable<PolicyDocument["settings"]>, KeyMeaning>> = {
  isolation: {
    value: '"arena" or "dedicated"',
    meaning:
      "where the shared memory of the channel is: in the file that every VM maps, or in one of its own",
    default: "the MVM chooses",
  },
  transport: {
    value: '"memory" or "any"',
    meaning: "whether records may go over the relay where an end cannot map shared memory",
    default: '"any"',
  },
  digest: {
    value: '"records" or "sha256"',
    meaning: "what the receipts cover: the encrypted records, or the hash of the content as well",
    default: '"records"',
  },
  measurement: {
    value: '"kernel", "agent", or a list of both',
    meaning: "whose measurement log counts, at both ends; a local endpoint's agent keeps its own",
    default: '"kernel"',
  },
  max_bytes: {
    value: 'a size such as "10 GiB"',
    meaning: "the most content in each direction",
    default: "none",
  },
  max_seconds: { value: "a whole number", meaning: "the longest a channel may live", default: "none" },
  max_channels: {
    value: "a whole number",
    meaning: "how many channels may be open at once under the rule",
    default: "none",
  },
  deposit: {
    value: "true or false",
    meaning: "whether content may be left for a target that is not there (mvm guest deposit)",
    default: "false",
  },
}
