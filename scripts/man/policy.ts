/**
 * @module scripts/man/policy
 *
 * mvm-policy(5), from the table of the policy's keys.
 */

import { DEMAND_KEYS, RULE_KEYS, type KeyMeaning } from "../../src/mvm/policy/policy-keys.ts"
import { example, item, line, title } from "./roff.ts"

export const POLICY_EXAMPLE = `[settings]
measurement = "kernel"

[tags]
frontend = ["web", "web2"]

[[rule]]
service = "nightly"
from = "tag:frontend"
to = "backup"
action = "allow"
programs = ["/usr/bin/mvm"]
digest = "sha256"
comment = "nightly dumps"`

export function policyPage(version: string): string {
  return [
    title("MVM-POLICY", 5, `mvm ${version}`, "File Formats"),
    ".SH NAME",
    "mvm\\-policy \\- who may open channels to whom",
    ".SH SYNOPSIS",
    line("/var/lib/mvm/policy.toml, or the file of mvm serve --policy"),
    ".SH DESCRIPTION",
    line("The policy is a TOML file. Its rules are tried in order and the first that matches decides."),
    line("No match denies. A file that is absent, broken, or writable by others denies everything, and says"),
    line("where it is broken. A change is taken over at once, and running channels are judged again."),
    line("An unknown key is an error."),
    ".SH RULES",
    line("Each [[rule]] has these keys:"),
    ...keys(RULE_KEYS),
    ".SH DEMANDS",
    line("A rule that allows may demand more. [settings] sets the same keys for every rule that does not."),
    ...keys(DEMAND_KEYS),
    ".SH TAGS",
    line("[tags] maps a tag to a list of VM names, beside the tags that VMs were given with"),
    line("mvm vm create --tag and mvm vm set --tag."),
    ".SH EXAMPLES",
    ...example(...POLICY_EXAMPLE.split("\n")),
    ".PP",
    line("mvm policy check says what is wrong with a file, mvm policy test what it decides and why."),
    ".SH SEE ALSO",
    ".BR mvm (1)",
    "",
  ].join("\n")
}

function keys(table: Readonly<Record<string, KeyMeaning>>): string[] {
  return Object.entries(table).flatMap(([key, { value, meaning, default: preset }]) =>
    item(`${key} = ...`, `${value}: ${meaning}${preset === undefined ? "" : ` (default: ${preset})`}.`),
  )
}
