/** @module cli/guest/cp */

import { localSources, pullFiles, pushFiles } from "../../guest/copy/client.ts"
import { MAX_PATHS } from "../../guest/copy/messages.ts"
import type { Tally } from "../../guest/copy/tally.ts"
import type { ServiceClient } from "../../guest/services/client.ts"
import type { ByteDuplex } from "../../guest/streams/byte-duplex.ts"
import { asMvmError } from "../../lib/errors.ts"
import type { Call, CommandSpec } from "../command.ts"
import { printJson } from "../output.ts"
import { COPY_LIMIT_OPTIONS, COPY_SERVICE, copyLimits, linkPolicy } from "./copy-limits.ts"
import { planOf } from "./copy-places.ts"
import { CopyProgress } from "./copy-progress.ts"
import { CALL_OPTIONS, openService, serviceAddress, sessionFacts } from "./service-target.ts"
import { nameOf } from "./transfer.ts"

export const guestCp: CommandSpec = {
  usage: "guest cp [...file|target:path]",
  summary: "copy files and folders to another VM (SRC... TARGET:DIR) or from one (TARGET:PATH... DIR)",
  options: [
    { flags: "-r, --recursive", description: "folders too, with all that is in them" },
    { flags: "--checksum", description: "compare contents also where length and time are the same" },
    { flags: "--service <name>", description: `which service of the other VM (default: ${COPY_SERVICE})` },
    ...COPY_LIMIT_OPTIONS.map((option) => ({ ...option, description: `from a VM: ${option.description}` })),
    { flags: "--quiet", description: "say nothing but what was not copied" },
    { flags: "--json", description: "report events as JSON, one a line" },
    ...CALL_OPTIONS,
  ],
  examples: [
    "guest cp report.pdf db:in",
    "guest cp -r src/. backup:src --wait 1m",
    "guest cp -r web:www web:logs/today /srv/copy",
  ],
  async run(call) {
    const plan = planOf(call.args)
    if (plan.direction === "push") {
      const sources = localSources(plan.sources)
      try {
        await copy(call, plan.to.target, (stream, options) =>
          pushFiles(stream, sources, plan.to.path, options),
        )
      } finally {
        sources.close()
      }
      return
    }
    const receiving = { limits: copyLimits(call), links: linkPolicy(call) }
    for (const [target, paths] of plan.from) {
      for (let at = 0; at < paths.length; at += MAX_PATHS) {
        const some = paths.slice(at, at + MAX_PATHS)
        await copy(call, target, (stream, options) =>
          pullFiles(stream, some, plan.folder, { ...options, ...receiving }),
        )
      }
    }
  },
}

interface Options {
  readonly recursive: boolean
  readonly checksum: boolean
  readonly totals: boolean
  readonly observer: CopyProgress
}

/** One session, one copy. @throws MvmError as the copy did, or for the first entry that was not copied */
async function copy(
  call: Call,
  target: string,
  work: (stream: ByteDuplex, options: Options) => Promise<Tally>,
): Promise<void> {
  const service = nameOf(call.text("service") ?? COPY_SERVICE, "--service")
  const json = call.flag("json")
  const client = await openService(serviceAddress(call, { target, service }))
  const observer = new CopyProgress({ json, quiet: call.flag("quiet") })
  if (json) printJson({ event: "begin", ...sessionFacts(client) })
  const { recursive, checksum } = { recursive: call.flag("recursive"), checksum: call.flag("checksum") }
  const tally = await ending(client, async () => {
    try {
      return await work(client.connect(), { recursive, checksum, totals: observer.wantsTotals, observer })
    } finally {
      observer.stop()
    }
  })
  observer.end(tally.summary())
  tally.requireAll()
}

/** Brings the session to its agreed end after `work`, or tells the other end why there is none. */
async function ending<T>(client: ServiceClient, work: () => Promise<T>): Promise<T> {
  try {
    const result = await work()
    await client.finish()
    return result
  } catch (error) {
    client.fail(asMvmError(error))
    await client.over.catch(() => {})
    throw error
  }
}
