/**
 * @module mvm/state/channel-store
 *
 * Open channels, kept for the next life of the MVM: one row each, whose text is the channel table's business.
 *
 * Nothing here is flushed. A channel lives in memory that does not outlive the host either.
 */

import type { Query, StateDatabase } from "./database.ts"

export interface StoredRow {
  readonly key: string
  readonly body: string
}

export class ChannelStore {
  readonly #database: StateDatabase
  readonly #put: Query<never>
  readonly #drop: Query<never>
  readonly #all: Query<StoredRow>

  constructor(database: StateDatabase) {
    this.#database = database
    this.#put = database.prepare("INSERT OR REPLACE INTO channel VALUES (?, ?)")
    this.#drop = database.prepare("DELETE FROM channel WHERE key = ?")
    this.#all = database.prepare("SELECT key, body FROM channel")
  }

  /** A part of the transaction under way. @throws MvmError `no_space`, `state`. */
  put(key: string, body: string): void {
    this.#put.run(key, body)
  }

  drop(key: string): void {
    this.#database.transactionUnsynced(() => this.#drop.run(key))
  }

  all(): StoredRow[] {
    return this.#all.all()
  }
}
