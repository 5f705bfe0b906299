/**
 * @module mvm/doctor/checks
 *
 * What makes a host good for VMs and channels, one row a check. `fail`: something does not work, or a promise does not
 * hold. `warn`: it works, and not as well as it could.
 */

import { MvmError } from "../../lib/errors.ts"
import { fail, isOlder, ok, warn, type Check, type Judgement } from "../../lib/health.ts"
import { formatDuration, formatSize } from "../../lib/units.ts"
import { kvmRuns, type Accel } from "../../platform/accel.ts"
import { APPARMOR_FILE } from "../../platform/libvirt/apparmor.ts"
import { userName } from "../../platform/users.ts"
import { DEFAULT_RING_BYTES, regionBytes } from "../../ring/layout.ts"
import type { HostFacts, ProgramFacts } from "./facts.ts"

/** What the tests run on; the first that can take our arguments. */
const QEMU = { tried: [7, 2], least: [6, 0] }
const SWTPM = { tried: [0, 7], least: [0, 6] }
const KERNEL = [5, 10]

const MIB = 2 ** 20
const STATE_NEEDED_BYTES = 16 * MIB
const STATE_WANTED_BYTES = 256 * MIB
const FILES_WANTED = 4096

export const HOST_CHECKS: readonly Check<HostFacts>[] = [
  {
    name: "kernel",
    judge: ({ kernel }) =>
      isOlder(kernel, KERNEL)
        ? warn(`linux ${kernel} is older than what was tried`, `use ${KERNEL.join(".")} or newer`)
        : ok(`linux ${kernel}`),
  },
  { name: "kvm", judge: kvm },
  {
    name: "qemu",
    judge: ({ qemu, accel }) => {
      return program(qemu, QEMU, accel.host.arch === "arm64" ? "qemu-system-arm" : "qemu-system-x86")
    },
  },
  { name: "swtpm", judge: ({ swtpm }) => program(swtpm, SWTPM, "swtpm") },
  { name: "firmware", judge: firmware },
  { name: "shared memory", judge: sharedMemory },
  { name: "arena", judge: arena },
  { name: "state", judge: stateDirectory },
  { name: "disk space", judge: diskSpace },
  { name: "state key", judge: stateKey },
  { name: "daemon", judge: daemon },
  { name: "user", judge: user },
  { name: "limits", judge: limits },
  { name: "policy", judge: policy },
  { name: "vm", judge: vms },
  { name: "hot-plug", judge: hotplug },
  { name: "libvirt", judge: libvirt },
  { name: "apparmor", judge: apparmor },
]

function kvm({ accel: { chosen, host, kvm: access }, actor }: HostFacts): Judgement {
  if (chosen instanceof MvmError) return fail(chosen.message, "unset MVM_ACCEL, or set it to kvm or tcg")
  if (host.override) return forced(chosen, access === "open", kvmRuns(host))
  if (access === "denied") {
    return warn(
      `uid ${actor.uid} may not open /dev/kvm: VMs are translated, many times slower`,
      "usermod -aG kvm USER, then start the daemon again",
    )
  }
  if (chosen === "kvm") return ok("used")
  const why = access === "absent" ? "no /dev/kvm" : "kvm_intel or kvm_amd is not loaded"
  return warn(
    `${why}: VMs are translated, many times slower`,
    access === "absent"
      ? "modprobe kvm_intel (or kvm_amd); switch virtualisation on in the firmware"
      : "modprobe kvm_intel (or kvm_amd); a nested host may not be able to",
  )
}

function forced(chosen: Accel, opens: boolean, runs: boolean): Judgement {
  if (chosen === "tcg") {
    return opens && runs
      ? warn(
          "MVM_ACCEL=tcg: VMs are translated, many times slower than by KVM",
          "start the daemon without it",
        )
      : ok("tcg, as MVM_ACCEL says")
  }
  if (!opens) return fail("MVM_ACCEL=kvm, and the daemon may not open /dev/kvm", "start it without MVM_ACCEL")
  return runs
    ? ok("kvm, as MVM_ACCEL says")
    : warn("MVM_ACCEL=kvm, and neither kvm_intel nor kvm_amd is loaded", "start the daemon without MVM_ACCEL")
}

function program(
  { name, path, version }: ProgramFacts,
  { tried, least }: { tried: readonly number[]; least: readonly number[] },
  debian: string,
): Judgement {
  if (path === undefined) return fail(`${name} is not in the search path`, `apt-get install ${debian}`)
  if (version === "") return fail(`${path} does not say its version`, `apt-get install --reinstall ${debian}`)
  if (isOlder(version, least))
    return fail(`${path}: ${version} is too old`, `use ${tried.join(".")} or newer`)
  if (isOlder(version, tried)) {
    return warn(`${path}: ${version} is older than what was tried`, `use ${tried.join(".")} or newer`)
  }
  return ok(`${path}: ${version}`)
}

function firmware({ firmware: found, daemon: running }: HostFacts): Judgement[] {
  const inUse = running instanceof MvmError ? [] : running.vms.map((vm) => vm.config.firmware)
  return found.map(({ name, path, isThere }, index) => {
    if (isThere) return ok(`${name}: ${path}`)
    const remedy = `apt-get install ${path.includes("AAVMF") ? "qemu-efi-aarch64" : name}`
    // The first is what a VM gets that does not choose.
    return index === 0 || inUse.includes(name)
      ? fail(`${name}: no ${path}`, remedy)
      : warn(`${name}: no ${path}; only VMs with --firmware ${name} need it`, remedy)
  })
}

function sharedMemory({
  sharedMemory: found,
  arena: { file, wantedBytes },
  dedicated,
}: HostFacts): Judgement {
  if (found instanceof MvmError) return fail(`/dev/shm: ${found.message}`, "mount -t tmpfs tmpfs /dev/shm")
  const { freeBytes, totalBytes } = found
  const neededBytes = wantedBytes + dedicated.limitBytes
  const room = freeBytes + (file?.usedBytes ?? 0) + dedicated.usedBytes
  const text = `/dev/shm has ${formatSize(freeBytes)} free of ${formatSize(totalBytes)}`
  const size = Math.ceil((neededBytes + wantedBytes) / MIB)
  const remedy = `mount -o remount,size=${size}M /dev/shm, or remove what fills it`
  if (freeBytes < regionBytes(DEFAULT_RING_BYTES)) return fail(`${text}: no room for a channel`, remedy)
  if (room >= neededBytes) return ok(text)
  const own = `${formatSize(dedicated.limitBytes)} of channels' own memory`
  return warn(
    `${text}: not enough for all of an arena of ${formatSize(wantedBytes)} and ${own}`,
    `${remedy}, or start the daemon with a smaller --dedicated`,
  )
}

function arena({ arena: { path, file, wantedBytes } }: HostFacts): Judgement {
  if (!file) return ok(`${path} is made at the daemon's start, ${formatSize(wantedBytes)}`)
  if (file.sizeBytes === wantedBytes) {
    return ok(`${path}: ${formatSize(wantedBytes)}, ${formatSize(file.usedBytes)} in memory`)
  }
  return fail(
    `${path} has ${formatSize(file.sizeBytes)}, not ${formatSize(wantedBytes)}`,
    `stop all VMs and remove it, or start the daemon with --arena ${file.sizeBytes / MIB}M`,
  )
}

function stateDirectory({ state: { path, owner, mode, isShared }, actor }: HostFacts): Judgement {
  if (mode === undefined) return warn(`${path} is not there yet`, `mvm serve --state ${path} makes it`)
  if (owner !== actor.uid) {
    return fail(
      `${path} belongs to uid ${owner}, not to uid ${actor.uid}`,
      `chown -R ${userName(actor.uid)} ${path}`,
    )
  }
  if ((mode & 0o077) === 0) return ok(`${path}: mode ${mode.toString(8)}`)
  // The group's bits then are what the single users have: enough to pass through to their sockets.
  if (isShared && (mode & 0o067) === 0)
    return ok(`${path}: mode ${mode.toString(8)}, open to QEMU's users alone`)
  const what = (mode & 0o022) === 0 ? "enter" : "change"
  return fail(`${path} has mode ${mode.toString(8)}: other users can ${what} it`, `chmod 700 ${path}`)
}

function diskSpace({ state: { path, mode, freeBytes } }: HostFacts): Judgement | undefined {
  if (mode === undefined) return undefined
  const text = `${formatSize(freeBytes)} free for ${path}`
  const remedy = "free some space: without it no audit row is written, and so no receipt given"
  if (freeBytes < STATE_NEEDED_BYTES) return fail(text, remedy)
  return freeBytes < STATE_WANTED_BYTES ? warn(text, remedy) : ok(text)
}

function stateKey({ stateKey: found, daemon: running, state }: HostFacts): Judgement | undefined {
  if (state.mode === undefined) return undefined
  if (found === "right") return ok("opens this state")
  if (found === "none yet") return ok("is made at the daemon's first start")
  if (!(running instanceof MvmError) && found.message.includes("is gone")) {
    return ok("kept elsewhere; the daemon has it")
  }
  return fail(found.message, found.hint ?? "name the right file with --state-key")
}

function daemon({ daemon: running, state, isSystemd }: HostFacts): Judgement {
  if (!(running instanceof MvmError)) {
    return ok(`pid ${running.pid}, up ${formatDuration(running.uptimeSeconds * 1000)}`)
  }
  if (running.code === "timeout") {
    return fail(
      running.message,
      isSystemd ? "journalctl -u mvm; systemctl restart mvm" : "see its log, start it again",
    )
  }
  const remedy = isSystemd
    ? "systemctl start mvm, or see journalctl -u mvm"
    : `mvm serve --state ${state.path}`
  return fail(running.message, remedy)
}

function user({ actor, daemon: running }: HostFacts): Judgement | undefined {
  if (running instanceof MvmError) return undefined
  if (actor.uid !== 0) return ok(`the daemon runs as uid ${actor.uid}`)
  return warn(
    "the daemon runs as root, which it need not",
    "mvm install gives it a user and limits of its own",
  )
}

function limits({ limits: { openFiles, lockedBytes } }: HostFacts): Judgement {
  const size = lockedBytes === Infinity ? "any" : formatSize(lockedBytes)
  const text = `${openFiles} open files, ${size} locked memory`
  if (openFiles >= FILES_WANTED) return ok(text)
  return warn(
    `${text}: too few files for many VMs`,
    `LimitNOFILE=65536 in its unit, or ulimit -n ${FILES_WANTED}`,
  )
}

function policy({ policy: { path, rules, warnings } }: HostFacts): Judgement[] {
  if (rules instanceof MvmError) return [fail(rules.message, rules.hint ?? `mvm policy check ${path}`)]
  const lines = warnings.map(({ line, message }) => warn(`${path}:${line}: ${message}`, "mvm policy check"))
  if (rules === 0) return [warn(`${path} has no rules: nothing is allowed`, `write rules into ${path}`)]
  return [ok(`${path}: ${rules} rule${rules === 1 ? "" : "s"}`), ...lines]
}

function vms({ daemon: running }: HostFacts): Judgement[] {
  if (running instanceof MvmError) return []
  return running.vms.flatMap((vm): Judgement[] => {
    const { name, kind, state, link, verdict } = vm
    const bad = vm.files.flatMap(({ field, path, problem, remedy }): Judgement[] =>
      problem === null
        ? []
        : [fail(`${name}: ${field}: ${path}: ${problem}`, remedy ?? `mvm vm set ${name} --${field} FILE`)],
    )
    if (!vm.hasReference) {
      bad.push(
        fail(
          `${name} has no reference table: every channel of it is denied`,
          `mvm measure learn ${name}, or mvm measure import ${name} FILE`,
        ),
      )
    }
    if (verdict === "untrusted") bad.push(warn(`${name} is untrusted`, `mvm measure explain ${name}`))
    if (state === "running" && link !== "up" && kind !== "local") {
      bad.push(warn(`${name} runs and its agent is not linked`, `mvm vm console ${name}`))
    }
    return bad.length > 0 ? bad : [ok(`${name}: ${state}, ${verdict}`)]
  })
}

function hotplug({ daemon: running }: HostFacts): Judgement[] {
  if (running instanceof MvmError) return []
  const found = running.vms
    .filter(({ kind, state }) => kind !== "local" && state === "running")
    .map(({ name, hotplug: { free, all, known } }): Judgement => {
      if (free > 0) return ok(`${name}: ${free} of ${all} places for memory are free`)
      if (!known) {
        return warn(
          `${name}: its monitor does not answer, so its channels share the arena`,
          `mvm vm show ${name}`,
        )
      }
      return all === 0
        ? warn(
            `${name}: its machine has no places for memory, so its channels share the arena`,
            "give it empty pcie-root-ports: mvm vm qemu-args prints some, vm create --libvirt --apply adds them",
          )
        : warn(`${name}: no place is free for another channel's own memory`, `mvm channel list`)
    })
  if (running.dedicated.ignored === 0) return found
  const text = `${running.dedicated.ignored} devices were not let go of by their guest; their memory is not used again`
  return [...found, warn(text, "restart the VM that has them")]
}

function libvirt({ libvirt: access, actor }: HostFacts): Judgement | undefined {
  if (access === "absent") return undefined
  if (access === "open") return ok("its daemon's socket can be used")
  return warn(
    `uid ${actor.uid} may not use libvirt's socket: its domains cannot be adopted`,
    "usermod -aG libvirt USER, then start the daemon again",
  )
}

function apparmor({ apparmor: lacks }: Pick<HostFacts, "apparmor">): Judgement | undefined {
  if (lacks === undefined) return undefined
  if (lacks.length === 0) return ok(`${APPARMOR_FILE} lets libvirt's QEMUs at the MVM's sockets and memory`)
  return warn(
    `AppArmor may keep libvirt's QEMUs from the MVM's sockets, and keeps them from memory of a channel's own`,
    `add to ${APPARMOR_FILE}, and start its domains again: ${lacks.join(" ")}`,
  )
}
