/**
 * @module guest/deposits/deposit-client
 *
 * A command's talk with its agent about one deposit.
 */

import type { LocalFields } from "../../wire/local-link.ts"
import type { AgentClient } from "../agent-client.ts"
import { PARTS_AHEAD } from "./deposit-session.ts"

export class DepositClient {
  readonly agent: AgentClient
  /** Parts that were not answered yet. */
  #ahead = 0

  constructor(agent: AgentClient) {
    this.agent = agent
  }

  /** @throws MvmError as the agent or the MVM said; so do all here */
  begin(asked: LocalFields<"DEPOSIT">): Promise<LocalFields<"DEPOSITING">> {
    this.agent.send("DEPOSIT", asked)
    return this.agent.reply("DEPOSITING")
  }

  /** Resolves when more may follow. */
  async put(part: Uint8Array): Promise<void> {
    this.agent.send("DEPOSIT_DATA", { part })
    this.#ahead += 1
    if (this.#ahead < PARTS_AHEAD) return
    await this.agent.reply("DONE")
    this.#ahead -= 1
  }

  /** Resolves once the MVM keeps it. */
  async finish(fields: LocalFields<"DEPOSIT_FINISH">): Promise<void> {
    for (; this.#ahead > 0; this.#ahead -= 1) await this.agent.reply("DONE")
    this.agent.send("DEPOSIT_FINISH", fields)
    await this.agent.reply("DONE")
  }

  collect(wanted: LocalFields<"COLLECT">): Promise<LocalFields<"COLLECTED">> {
    this.agent.send("COLLECT", wanted)
    return this.agent.reply("COLLECTED")
  }

  /** The next records; none at their end. */
  async next(): Promise<Uint8Array> {
    this.agent.send("DEPOSIT_DATA", { part: new Uint8Array(0) })
    return (await this.agent.reply("DEPOSIT_DATA")).part
  }

  /** Resolves when it is remembered, and after the last step when the MVM has the receipt. */
  async tell(step: LocalFields<"DELIVERED">["step"]): Promise<void> {
    this.agent.send("DELIVERED", { step })
    await this.agent.reply("DONE")
  }
}
