/**
 * @module guest/doctor/checks
 *
 * What a VM needs to prove itself and to use channels, one row a check. `fail`: something does not work, or a promise
 * does not hold. `warn`: it works, and not as well as it could.
 */

import { MvmError } from "../../lib/errors.ts"
import { fail, isOlder, ok, warn, type Check, type Judgement } from "../../lib/health.ts"
import { formatDuration, formatSize } from "../../lib/units.ts"
import { WAYS, cacheIn, fastest, usualCache, type MappingProbe } from "../../platform/mapping.ts"
import { PORT_NAME } from "../environment.ts"
import { GROUP, KERNEL_WORDS } from "../install/plan.ts"
import type { AgentFacts, GuestFacts } from "./facts.ts"
import { measuring, programs, replayed } from "./ima-checks.ts"

/** Receipts and decisions are dated by the MVM; people compare them with their own logs. */
const CLOCK_TOLERANCE_MS = 2000
/** The first whose IMA knows every word of the policy: CRITICAL_DATA. */
const LEAST_KERNEL = [5, 12]
/** Cached memory is read about as fast as any; uncached, ten to a hundred times slower. */
const UNCACHED_SHARE = 1 / 8

type Agent = Pick<GuestFacts, "agent">

/** Of any member; a local endpoint has nothing else of its own. */
export const MEMBER_CHECKS: readonly Check<Agent>[] = [
  { name: "agent", judge: agent },
  { name: "memory", judge: mapping },
  { name: "verdict", judge: verdict },
  { name: "clock", judge: clock },
]

export const GUEST_CHECKS: readonly Check<GuestFacts>[] = [
  { name: "kernel", judge: kernel },
  {
    name: "root",
    judge: ({ isRoot }) =>
      isRoot ? undefined : warn("not root: the log and the TPM cannot be looked at", "run it as root"),
  },
  { name: "port", judge: port },
  { name: "tpm", judge: tpm },
  { name: "pcr bank", judge: banks },
  { name: "measuring", judge: measuring },
  { name: "pcr 10", judge: replayed },
  { name: "programs", judge: programs },
  { name: "command line", judge: commandLine },
  { name: "modules", judge: modules },
  { name: "sleep", judge: sleep },
  { name: "ptrace", judge: ({ ptraceScope }) => limit("kernel.yama.ptrace_scope", ptraceScope, ["3", "2"]) },
  { name: "kexec", judge: ({ kexecDisabled }) => limit("kernel.kexec_load_disabled", kexecDisabled, ["1"]) },
  { name: "device", judge: sharedMemory },
  { name: "cache", judge: cache },
  { name: "lockdown", judge: lockdown },
  { name: "group", judge: group },
  ...MEMBER_CHECKS,
]

function kernel({ kernel: version }: Pick<GuestFacts, "kernel">): Judgement {
  if (!isOlder(version, LEAST_KERNEL)) return ok(`linux ${version}`)
  return fail(
    `linux ${version} is older than ${LEAST_KERNEL.join(".")}: it takes no rule for critical data, and so not the policy`,
    "start the VM with a newer kernel",
  )
}

function port({ port: found, portDriver }: GuestFacts): Judgement {
  if (!found) {
    return portDriver
      ? fail(
          `no virtio-serial port ${PORT_NAME}`,
          "start the VM with mvm vm start, or with what mvm vm qemu-args prints",
        )
      : fail(`no driver for the virtio-serial port ${PORT_NAME}`, "modprobe virtio_console")
  }
  return closed(found.path, found.isOthers, "speak to the host in this VM's name")
}

function tpm({ tpm: { device, version, provisioned }, isRoot }: GuestFacts): Judgement {
  if (!device)
    return fail("no TPM device /dev/tpmrm0", "start the VM with mvm vm start: it gives each VM a vTPM")
  if (version !== "2")
    return fail(`TPM ${version ?? "of an unknown version"}, not 2`, "give the VM a TPM 2.0")
  if (provisioned instanceof MvmError && isRoot) {
    return fail(provisioned.message, provisioned.hint ?? "start the VM with mvm vm start")
  }
  return closed(device.path, device.isOthers, "sign and quote in this VM's name")
}

function closed(path: string, isOthers: boolean, what: string): Judgement {
  if (!isOthers) return ok(path)
  return fail(
    `${path} is open to others than root, who can ${what}`,
    "mvm guest install (its udev rules close it)",
  )
}

function banks({ tpm: { device, banks: found } }: GuestFacts): Judgement | undefined {
  if (!device) return undefined
  const others = found.filter((name) => name !== "sha256")
  if (!found.includes("sha256")) {
    return fail(`no sha256 bank (${found.join(", ") || "none"})`, "use the vTPM that mvm provisioned")
  }
  if (others.length === 0) return ok("sha256 alone")
  return warn(
    `banks beside sha256: ${others.join(", ")}; nobody measures into them`,
    "use the vTPM that mvm provisioned",
  )
}

function commandLine({ commandLine: words }: GuestFacts): Judgement {
  const missing = KERNEL_WORDS.filter((word) => !words.includes(word))
  if (missing.length === 0) return ok(KERNEL_WORDS.join(" "))
  return fail(`lacks ${missing.join(" ")}`, "mvm guest install and update-grub, or mvm vm start")
}

function modules({ sigEnforce }: GuestFacts): Judgement {
  if (sigEnforce === "Y") return ok("only signed ones can be loaded")
  return fail("unsigned kernel modules can be loaded", "module.sig_enforce=1 on the kernel's command line")
}

function sleep({ sleep: states, deepestSleep }: GuestFacts): Judgement {
  const deep = [
    ...(deepestSleep.includes("deep") ? ["to memory (S3)"] : []),
    ...(states.split(" ").includes("disk") ? ["to disk (S4)"] : []),
  ]
  if (deep.length === 0) return ok("no suspend to memory or disk")
  return fail(
    `this VM can suspend ${deep.join(" and ")}, which resets its TPM`,
    "start it with mvm vm start, or switch S3 and S4 off in its <pm>; nohibernate on the command line",
  )
}

function limit(name: string, value: string | undefined, good: readonly string[]): Judgement {
  if (value !== undefined && good.includes(value)) return ok(`${name} = ${value}`)
  return fail(
    `${name} is ${value ?? "not there"}, not ${good[0]}`,
    `mvm guest install, or sysctl -w ${name}=${good[0]}`,
  )
}

function sharedMemory({ memory }: GuestFacts): Judgement {
  const [first] = memory
  if (first)
    return ok(memory.map(({ address, lengthBytes }) => `${address} ${formatSize(lengthBytes)}`).join(", "))
  return warn(
    "no shared memory on the PCI bus: records go by way of the MVM",
    "start the VM with mvm vm start",
  )
}

/** Of the arena's mapping, in the kernel's words where it says them. */
function cache({ agent: found, memory, cacheTypes }: GuestFacts): Judgement | undefined {
  const [, how, address] = /^(\S+) of (\S+)$/.exec(linked(found)?.mapping ?? "") ?? []
  const device = memory.find((one) => one.address === address)
  const way = WAYS.find((known) => known === (how === "/dev/mem" ? "devmem" : how))
  if (!device || !way) return undefined
  const kept = cacheTypes && cacheIn(cacheTypes, device)
  if (kept) return ok(`the kernel maps ${address} ${kept}`)
  return ok(`${how} maps ${address} ${usualCache(device, way)}; on Intel, KVM makes that write-back`)
}

function lockdown({ lockdown: mode }: GuestFacts): Judgement {
  if (mode === "none") return ok("off: shared memory can be mapped")
  return warn(
    `${mode}: PCI memory cannot be mapped, records go by way of the MVM`,
    "if memory speed counts more: no lockdown= on the kernel's command line, and no Secure Boot for this VM",
  )
}

function group({ groupMembers: members }: GuestFacts): Judgement {
  if (!members) return warn(`no group ${GROUP}: only root can use channels`, "mvm guest install")
  return ok(
    members.length === 0
      ? `${GROUP} has no members: only root uses channels`
      : `${GROUP}: ${members.join(", ")}`,
  )
}

function agent({ agent: found }: Agent): Judgement {
  if (found instanceof MvmError) return fail(found.message, found.hint ?? "systemctl start mvm-agent")
  if (!found.linked) return fail("not linked: the MVM does not answer", "is mvm serve running on the host?")
  return ok(`linked as ${found.name}`)
}

function mapping({ agent: found }: Agent): Judgement | undefined {
  const facts = linked(found)
  if (!facts) return undefined
  const { memoryBytes, mapping: how, mappings } = facts
  if (memoryBytes === 0) {
    return warn(
      `none is mapped (${how?.replace(/^none: /, "") ?? "no reason given"}): records go by way of the MVM`,
      "mvm guest status",
    )
  }
  // The arena's device comes first; channels' own are mapped in the same way.
  const ways = mappings.filter(({ device }) => device === mappings[0]?.device)
  const text = [`${formatSize(memoryBytes)} by ${how}`, ...ways.map(speedOf)].join("; ")
  const isTaken = (way: string): boolean =>
    how?.startsWith(way === "devmem" ? "/dev/mem " : `${way} `) ?? false
  const taken = ways.find(({ way }) => isTaken(way))
  if (taken && (taken.readMbS ?? 0) < (taken.ordinaryMbS ?? 0) * UNCACHED_SHARE) {
    return warn(
      `${text}: read as slowly as without a cache, where other memory gives ${taken.ordinaryMbS} MB/s`,
      'isolation = "dedicated" in the policy: memory of a channel\'s own lies where it is cached; and no --map',
    )
  }
  // By the same figures as the agent chose by.
  const best = fastest(ways)
  return taken && best !== undefined && !isTaken(best)
    ? warn(`${text}: not the fastest way`, "start the agent without --map")
    : ok(text)
}

/** Megabytes a second of reading and of writing. */
function speedOf({ way, readMbS, writeMbS, problem }: MappingProbe): string {
  return readMbS === null ? `${way}: ${problem}` : `${way} ${readMbS}/${writeMbS} MB/s`
}

function verdict({ agent: found }: Agent): Judgement | undefined {
  const facts = linked(found)
  if (!facts) return undefined
  const { standing, name } = facts
  if (standing instanceof MvmError)
    return fail(`the MVM gives no opinion: ${standing.message}`, "mvm vm show on the host")
  switch (standing.verdict) {
    case "trusted":
      return ok("the MVM trusts what runs here")
    case "untrusted":
      return fail("the MVM does not trust what ran here", `on the host: mvm measure explain ${name}`)
    case "no_reference":
      return fail("the MVM has no reference table for this VM", `on the host: mvm measure learn ${name}`)
    default:
      return warn("the MVM has not measured this VM yet", `on the host: mvm measure run ${name}`)
  }
}

function clock({ agent: found }: Agent): Judgement | undefined {
  const facts = linked(found)
  if (!facts || facts.standing instanceof MvmError) return undefined
  const { clockAheadMs } = facts.standing
  const apart = formatDuration(Math.abs(clockAheadMs))
  if (Math.abs(clockAheadMs) <= CLOCK_TOLERANCE_MS) return ok(`${apart} from the MVM's`)
  const side = clockAheadMs > 0 ? "behind" : "ahead of"
  return warn(
    `${apart} ${side} the MVM's: times in logs will not agree`,
    "synchronise it, for example with systemd-timesyncd",
  )
}

function linked(found: GuestFacts["agent"]): AgentFacts | undefined {
  return found instanceof MvmError || !found.linked ? undefined : found
}
