/** @module cli/guest/forward */

import { Forwarder } from "../../guest/services/forwarder.ts"
import type { ServiceAddress } from "../../guest/services/client.ts"
import { StandingSession, type StandingEvents } from "../../guest/services/standing-session.ts"
import { addressText, parseAddress } from "../../guest/streams/address.ts"
import { MvmError, STATUS } from "../../lib/errors.ts"
import type { Call, CommandSpec } from "../command.ts"
import { WaitingLine, note, printJson } from "../output.ts"
import { CALL_OPTIONS, serviceAddress, targetAndService } from "./service-target.ts"

const IDLE_MS = 60_000
const SIGNALS = ["SIGINT", "SIGTERM"] as const

export const guestForward: CommandSpec = {
  usage: "guest forward <listen> <target:service>",
  summary: "listen on a TCP or unix socket whose connections reach a service of another VM",
  options: [
    { flags: "--mode <octal>", description: "of a unix socket's file (default 600)" },
    {
      flags: "--exit-on-idle [time]",
      description: "end after a time without a connection (without a time: 1m)",
    },
    { flags: "--quiet", description: "say only what goes wrong" },
    { flags: "--json", description: "say where it listens, and what happens, as JSON on stdout" },
    ...CALL_OPTIONS,
  ],
  examples: [
    "guest forward 127.0.0.1:5432 db:postgres",
    "guest forward /run/db.sock db:postgres --mode 660 --wait",
    "guest forward 127.0.0.1:0 web:http --exit-on-idle 10m --json",
  ],
  async run(call) {
    const listen = parseAddress(call.arg(0), "LISTEN")
    const { target, service } = targetAndService(call.arg(1))
    const address = serviceAddress(call, { target, service })
    const what = `service ${service} of ${target}`
    const tell = teller(call)
    const over = Promise.withResolvers<number>()
    const stopping = new AbortController()
    const session = Promise.withResolvers<StandingSession>()
    session.promise.catch(() => {})
    const end = (signal: NodeJS.Signals): void => over.resolve(signal === "SIGINT" ? STATUS.interrupted : 0)
    for (const signal of SIGNALS) process.once(signal, end)
    // First of all, so that a port in use is said before anybody is waited for.
    const forwarder = await Forwarder.start(
      listen,
      {
        session: session.promise,
        idleMs: call.given("exitOnIdle") ? call.durationMs("exitOnIdle", IDLE_MS) : undefined,
        onIdle: () => over.resolve(0),
        onFailed: ({ code, message }) => {
          // A client of this side that just leaves is no news.
          if (code !== "aborted") tell("failed", `a connection broke off: ${message}`, { code })
        },
      },
      modeOf(call),
    )
    try {
      const opening = openStanding(
        { address, what, cancelled: stopping.signal },
        {
          onLost: ({ code, message }) => tell("lost", `the session with ${what} ended: ${message}`, { code }),
          onBack: () => tell("back", `connected to ${what} again`),
          onRevoked: (reason) => over.reject(reason),
        },
      )
      opening.then(session.resolve, session.reject)
      const first = await Promise.race([opening, over.promise])
      if (typeof first === "number") return first
      const at = addressText(forwarder.address)
      tell("listening", `${at} is ${what}`, { address: at })
      return await over.promise
    } finally {
      for (const signal of SIGNALS) process.removeListener(signal, end)
      forwarder.stop()
      stopping.abort()
      await session.promise.then(
        (standing) => standing.close(),
        () => {},
      )
    }
  },
}

function openStanding(
  { address, what, cancelled }: { address: ServiceAddress; what: string; cancelled: AbortSignal },
  events: StandingEvents,
): Promise<StandingSession> {
  const line = address.waitMs > 0 ? new WaitingLine(`waiting for ${what}`) : undefined
  return StandingSession.open(address, events, cancelled).finally(() => line?.end())
}

/** Says what happens: as JSON on stdout, one object a line, or for people on stderr. */
function teller(call: Call): (event: string, text: string, facts?: Record<string, string>) => void {
  const isBad = new Set(["lost", "failed"])
  return (event, text, facts = {}) => {
    if (call.flag("json")) printJson({ event, ...facts, message: text })
    else if (isBad.has(event) || !call.flag("quiet")) note(text)
  }
}

function modeOf(call: Call): number | undefined {
  const text = call.text("mode")
  if (text === undefined) return undefined
  if (/^0?[0-7]{3}$/.test(text)) return Number.parseInt(text, 8)
  throw new MvmError("usage", `--mode: ${text} is not an octal mode`, { hint: "660, or 600 as without it" })
}
