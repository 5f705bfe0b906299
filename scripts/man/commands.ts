/**
 * @module scripts/man/commands
 *
 * mvm(1), from the table of commands.
 */

import { optionName, type CommandSpec } from "../../src/cli/command.ts"
import { sectionsOf } from "../../src/cli/help.ts"
import { STATUS } from "../../src/lib/errors.ts"
import { example, item, line, macro, title } from "./roff.ts"

const STATUSES: Readonly<Record<keyof typeof STATUS, string>> = {
  ok: "the whole length was delivered and verified; or the command did what it says",
  failure: "failure of this machine: disk full, output closed, QEMU, swtpm",
  usage: "wrong usage, unknown VM",
  unreachable: "MVM, agent or target unreachable, time ran out, or outcome unknown",
  attestation: "attestation failed, own or the peer's",
  integrity: "integrity: tampering, digest mismatch, protocol violation",
  denied: "denied by policy, or the policy is broken",
  revoked: "revoked while running",
  interrupted: "interrupted",
}

const ENVIRONMENT: readonly (readonly [string, string])[] = [
  ["MVM_STATE", "the MVM's state directory, where --state does not name it (default /var/lib/mvm)"],
  ["MVM_AGENT", "the agent's socket, where --socket does not name it (default /run/mvm/agent.sock)"],
  ["MVM_ACCEL", "kvm or tcg: how QEMU runs VMs, where mvm serve is not to find it out"],
  ["TMPDIR", "where recv --verify-first holds content back (default /tmp)"],
  ["NOTIFY_SOCKET, WATCHDOG_USEC", "set by systemd; see sd_notify(3)"],
]

const FILES: readonly (readonly [string, string])[] = [
  ["/var/lib/mvm", "the state directory: policy, database, vTPMs, evidence, logs"],
  ["/var/lib/mvm/policy.toml", "the policy, see mvm-policy(5)"],
  ["/run/mvm/agent.sock", "the guest agent's socket"],
  ["/dev/shm/mvm-*", "the shared memory of the host's channels"],
]

export function commandsPage(commands: readonly CommandSpec[], version: string): string {
  return [
    title("MVM", 1, `mvm ${version}`, "User Commands"),
    ".SH NAME",
    "mvm \\- attested private channels between the virtual machines of one host",
    ".SH SYNOPSIS",
    macro("B", "mvm"),
    macro("I", "COMMAND"),
    line("[OPTIONS] [ARGUMENTS]"),
    ".br",
    macro("B", "mvm"),
    macro("I", "COMMAND"),
    macro("B", "--help"),
    ".SH DESCRIPTION",
    line("On a KVM host mvm is the manager (MVM) of its virtual machines; inside one it is the guest."),
    line("VMs get private channels through shared memory, and nobody gets one before the MVM has"),
    line("checked, by policy and measurement, who asks and what software it runs."),
    ".PP",
    line("Data alone is on standard output; messages, hints and progress are on standard error."),
    line(
      "Sizes are 512K, 256M, 1G (powers of 1024); times are 250ms, 30s, 5m, 1h, a bare number is seconds.",
    ),
    ".SH COMMANDS",
    ...sectionsOf(commands).flatMap(({ title: heading, members }) => [
      macro("SS", `${heading[0]?.toUpperCase() ?? ""}${heading.slice(1)}`),
      ...members.flatMap(command),
    ]),
    ".SH EXIT STATUS",
    ...Object.entries(STATUS).flatMap(([name, status]) =>
      item(String(status), STATUSES[name as keyof typeof STATUS]),
    ),
    ".SH ENVIRONMENT",
    ...ENVIRONMENT.flatMap(([name, meaning]) => item(name, meaning)),
    ".SH FILES",
    ...FILES.flatMap(([name, meaning]) => item(name, meaning)),
    ".SH SEE ALSO",
    ".BR mvm\\-policy (5)",
    "",
  ].join("\n")
}

function command({ usage, summary, options, examples }: CommandSpec): string[] {
  return [
    ".TP",
    macro("B", `mvm ${usage}`),
    line(`${summary[0]?.toUpperCase() ?? ""}${summary.slice(1)}.`),
    ".RS",
    ...(options ?? []).flatMap((option) => {
      const preset = option.default === undefined ? "" : ` (default ${option.default})`
      const name = optionName(option)
      const value = option.flags.slice(name.length).trim()
      return [
        ".TP",
        [".BI", escapeWord(name), ...(value === "" ? [] : [`" ${escapeWord(value)}"`])].join(" "),
      ].concat(line(`${option.description}${preset}`))
    }),
    ".RE",
    ".RS",
    ...example(...examples.map((words) => `mvm ${words}`)),
    ".RE",
  ]
}

function escapeWord(word: string): string {
  return word.replaceAll("-", "\\-")
}
