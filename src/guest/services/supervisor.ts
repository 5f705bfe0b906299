/**
 * @module guest/services/supervisor
 *
 * All services of a folder at once, and again when the folder is read anew: one that is as it was goes on, one that
 * changed leaves (its calls come to their end) and is there again as it is now, one that is gone stops, and so does
 * one whose file is broken. The others go on.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { serviceOptions, type ServiceDefinition } from "./definition.ts"
import { ServiceServer, type ServiceOptions } from "./server.ts"
import type { ServicesFound } from "./service-file.ts"

interface Served {
  readonly definition: string
  readonly server: ServiceServer
}

export class ServiceSupervisor {
  readonly #agentSocket: string
  readonly #read: () => ServicesFound
  readonly #log: Log
  readonly #served = new Map<string, Served>()
  /** Servers whose services are no more, or are others' by now, until their calls are over. */
  readonly #leaving = new Map<ServiceServer, Promise<void>>()
  /** Calls under way by service: its limit of them holds for those of its former self too. */
  readonly #active = new Map<string, Set<Promise<void>>>()

  /** @param read what is to be served now */
  constructor(agentSocket: string, read: () => ServicesFound, log: Log) {
    this.#agentSocket = agentSocket
    this.#read = read
    this.#log = log
  }

  /** Names of the services that are there. */
  get services(): readonly string[] {
    return [...this.#served.keys()]
  }

  get calls(): number {
    return [...this.#active.values()].reduce((sum, { size }) => sum + size, 0)
  }

  /** Reads anew, and does what it says. @returns what is wrong with some of its files @throws MvmError `config`. */
  load(): readonly MvmError[] {
    const { definitions, failures } = this.#read()
    const wrong = [...failures]
    for (const [name, served] of this.#served) {
      if (!definitions.has(name)) this.#end(name, served.server, "stop")
    }
    for (const [name, definition] of definitions) {
      try {
        this.#serve(name, definition)
      } catch (error) {
        wrong.push(asMvmError(error))
      }
    }
    for (const { code, message } of wrong) this.#log.error("service_file", { code, message })
    return wrong
  }

  /** Stops them all; resolves when their sessions have ended. */
  async stop(): Promise<void> {
    for (const [name, { server }] of this.#served) this.#end(name, server, "stop")
    await Promise.all([...this.#leaving.keys()].map((server) => server.stop()))
    await Promise.all(this.#leaving.values())
  }

  #serve(name: string, definition: ServiceDefinition): void {
    const text = JSON.stringify(definition)
    const present = this.#served.get(name)
    if (present?.definition === text) return
    let options: ServiceOptions
    try {
      options = serviceOptions(definition)
    } catch (error) {
      // What it was before is not what its owner wants now.
      if (present) this.#end(name, present.server, "stop")
      throw new MvmError(asMvmError(error).code, `${name}: ${asMvmError(error).message}`, { cause: error })
    }
    if (present) this.#end(name, present.server, "leave")
    const active = this.#active.get(name) ?? new Set()
    this.#active.set(name, active)
    const server = new ServiceServer(this.#agentSocket, { ...options, active }, this.#log, () =>
      this.#log.info("serving", { service: name }),
    )
    this.#served.set(name, { definition: text, server })
  }

  #end(name: string, server: ServiceServer, how: "stop" | "leave"): void {
    this.#served.delete(name)
    this.#log.info("leaving", { service: name })
    this.#leaving.set(
      server,
      server[how]().finally(() => this.#leaving.delete(server)),
    )
  }
}
