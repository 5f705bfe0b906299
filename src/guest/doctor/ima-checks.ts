/**
 * @module guest/doctor/ima-checks
 *
 * Whether the kernel of this VM measures what it must, as {@link imaFacts} found it.
 */

import { toHex, utf8 } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { fail, ok, warn, type Judgement } from "../../lib/health.ts"
import { IMA_POLICY } from "../install/ima-policy.ts"
import type { GuestFacts } from "./facts.ts"

const SHOWN_PROGRAMS = 3
const INSTALL = "mvm guest install, then reboot"

export function measuring({ ima, tpm: { provisioned }, probe, isRoot }: GuestFacts): Judgement[] {
  if (ima instanceof MvmError) {
    if (!isRoot) return []
    return [fail(`the kernel does not measure: ${ima.message}`, ima.hint ?? INSTALL)]
  }
  const found: Judgement[] = []
  if (ima.bootAggregate === undefined) {
    found.push(fail("the log does not begin with boot_aggregate: measuring was off or began late", INSTALL))
  } else if (typeof provisioned === "string" && provisioned !== ima.bootAggregate) {
    found.push(
      fail("boot_aggregate is not the digest of PCRs 0-9: measuring began without this TPM", "reboot"),
    )
  }
  if (ima.firstProgram === undefined) {
    found.push(
      fail(
        "the first programs of this boot were not measured: the initramfs lies on tmpfs, or the policy came late",
        "ima_policy=tcb and root= (or rootfstype=ramfs) on the kernel's command line",
      ),
    )
  }
  if (!ima.policy) {
    found.push(fail("no measurement policy was loaded: what runs from tmpfs is not measured", INSTALL))
  } else if (ima.policy.digest !== toHex(sha256(utf8(IMA_POLICY)))) {
    found.push(
      warn(`${ima.policy.path} is not the policy of this version of mvm`, "mvm guest install --force"),
    )
  }
  for (const folder of probe?.unmeasured ?? []) {
    found.push(fail(`a program run from ${folder} was not measured`, INSTALL))
  }
  if (probe?.ran.length === 0) {
    found.push(
      warn(
        "no new program could be run on tmpfs, to see it measured",
        "make /run or /tmp writable and let it run programs",
      ),
    )
  }
  if (found.length > 0) return found
  const tried = probe ? `, and new programs in ${probe.ran.join(", ")} are too` : ""
  return [ok(`${ima.entries} entries from ${ima.firstProgram} on${tried}`)]
}

export function replayed({ ima }: GuestFacts): Judgement | undefined {
  if (ima instanceof MvmError || ima.isInTpm === undefined) return undefined
  if (ima.isInTpm) return ok("the log leads to its value in the sha256 bank")
  return fail(
    "the log does not lead to its value in the sha256 bank: the MVM will not believe it",
    "reboot; is this TPM the one that the kernel started with?",
  )
}

export function programs({ ima }: GuestFacts): Judgement | undefined {
  if (ima instanceof MvmError) return undefined
  const { running, unmeasured } = ima
  if (unmeasured.length === 0) return ok(`all ${running} that run were measured`)
  const more = unmeasured.length > SHOWN_PROGRAMS ? ` and ${unmeasured.length - SHOWN_PROGRAMS} more` : ""
  return fail(`not measured: ${unmeasured.slice(0, SHOWN_PROGRAMS).join(", ")}${more}`, INSTALL)
}
