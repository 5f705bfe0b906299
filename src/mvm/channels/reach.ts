/**
 * @module mvm/channels/reach
 *
 * Whom a member may reach now: what its own policy rules let it, and nothing else of the host. Names of VMs and
 * services that it may not talk to, rules, and how many of each there are, never leave here.
 */

import { toHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import type { Fields } from "../../wire/link.ts"
import type { Program } from "../../wire/messages.ts"
import { isReserved } from "../../wire/reserved.ts"
import type { MvmContext } from "../context.ts"
import type { Member, Offer } from "../member.ts"
import { decide, tagsOf, type Party, type Question } from "../policy/decide.ts"
import { matches, type Pattern } from "../policy/pattern.ts"
import type { Policy, PolicyRule } from "../policy/policy.ts"
import { TokenBucket } from "../token-bucket.ts"

type Peers = Fields<"PEER_LIST">
type Peer = Peers["peers"][number]

/** As many as one message holds. */
const PAGE_PEERS = 16
const MAX_SERVICES = 32

/** Questions of one member: at once, and a second. Each looks at every VM of the host. */
const QUESTIONS = 16
const QUESTIONS_PER_SECOND = 2

/** Others get their turn after so many VMs. */
const SLICE = 32

export class Reach {
  readonly #context: MvmContext
  readonly #buckets = new WeakMap<Member, TokenBucket>()
  readonly #asking = new WeakSet<Member>()

  constructor(context: MvmContext) {
    this.#context = context
  }

  /**
   * A page of what `program` on `asker` may reach, by name.
   *
   * Trust: `program` is what the measured agent asserts; `after`, a name that the asker chose, is only compared with.
   *
   * @throws MvmError `busy` when it asks too often.
   */
  async page(asker: Member, program: Program, after: string | undefined): Promise<Peers> {
    let bucket = this.#buckets.get(asker)
    if (!bucket) this.#buckets.set(asker, (bucket = new TokenBucket(QUESTIONS, QUESTIONS_PER_SECOND)))
    if (this.#asking.has(asker) || !bucket.take()) {
      throw new MvmError("busy", "this VM asks too often whom it may reach", { hint: "try again" })
    }
    this.#asking.add(asker)
    try {
      return await this.#find(asker, program, after)
    } finally {
      this.#asking.delete(asker)
    }
  }

  async #find(asker: Member, program: Program, after: string | undefined): Promise<Peers> {
    const { current } = this.#context.policy
    if ("error" in current) return { peers: [], more: false }
    const from = { name: asker.record.name, tags: asker.record.tags }
    const tags = tagsOf(current, from)
    const own = current.rules.filter((rule) => rule.from.some((pattern) => matches(pattern, from.name, tags)))
    const asking = { from, program: { path: program.path, digest: toHex(program.digest) } }
    const peers: Peer[] = []
    for (const [index, name] of this.#names(own, after).entries()) {
      if (index % SLICE === SLICE - 1) await Bun.sleep(0)
      if (name === from.name) continue
      const peer = this.#peer(current, own, { ...asking, to: this.#party(name) }, asker)
      if (!peer) continue
      if (peers.length === PAGE_PEERS) return { peers, more: true }
      peers.push(peer)
    }
    return { peers, more: false }
  }

  /** VMs, and names that only a rule's redirect answers. */
  #names(own: readonly PolicyRule[], after: string | undefined): string[] {
    const vms = this.#context.registry.listVms().map(({ name }) => name)
    const redirected = own
      .filter((rule) => rule.target !== undefined)
      .flatMap((rule) => rule.to.filter(({ kind }) => kind === "name").map(({ text }) => text))
    const names = [...new Set([...vms, ...redirected])].sort()
    return after === undefined ? names : names.filter((name) => name > after)
  }

  #party(name: string): Party {
    return { name, tags: this.#context.registry.getVm(name)?.tags ?? [] }
  }

  #peer(
    policy: Policy,
    own: readonly PolicyRule[],
    question: Omit<Question, "service">,
    asker: Member,
  ): Peer | undefined {
    const tags = tagsOf(policy, question.to)
    const about = own.filter(({ to }) => to.some((pattern) => matches(pattern, question.to.name, tags)))
    const { hub } = this.#context
    const reach = (service: string): string | undefined => {
      const { action, target, constraints } = decide(policy, { ...question, service })
      const kind = this.#context.registry.getVm(target)?.kind
      if (action !== "allow" || kind === undefined || target === question.from.name) return undefined
      const keepers = [asker.session?.kind, kind === "local" ? "agent" : "kernel"] as const
      const isCounted = keepers.every((keeper) => keeper && constraints.measurement.includes(keeper))
      return isCounted ? target : undefined
    }
    const waiting = offered(hub.byName(question.to.name), asker).map(({ name }) => name)
    const examples = about.flatMap(({ service }) => service.map(exampleOf))
    // Rules may send some services elsewhere. One name has one state here: that of who answers the first.
    const target = [...waiting, ...examples].map(reach).find((found) => found !== undefined)
    if (target === undefined) return undefined
    const member = hub.byName(target)
    return {
      name: question.to.name,
      linked: member?.session !== undefined,
      verdict: member?.verifier.opinion.verdict ?? "unknown",
      services: offered(member, asker)
        .filter(({ name }) => reach(name) === target)
        .slice(0, MAX_SERVICES),
    }
  }
}

/** A service that the pattern matches, and that hardly any other rule names. */
function exampleOf(pattern: Pattern): string {
  if (pattern.kind === "any") return "x.example"
  return pattern.text.replaceAll("*", "x").replaceAll("?", "x")
}

/** What waits there for anybody or for the asker, each once. */
function offered(member: Member | undefined, asker: Member): Peer["services"] {
  const open = [...(member?.offers.values() ?? [])].filter(
    ({ service, source }: Offer) =>
      !isReserved(service) && (source === undefined || source === asker.record.name),
  )
  const byKey = new Map(open.map(({ service, role }) => [`${service} ${role}`, { name: service, role }]))
  return [...byKey.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}
