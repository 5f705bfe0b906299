/**
 * @module test/integration/host-options
 *
 * What a test says of its host, and what the host says of itself.
 */

/** MVM_LONG=1 moves amounts that CI has no time for. */
export const LONG = process.env["MVM_LONG"] === "1"

export interface RunOptions {
  readonly stdin?: number | Uint8Array | "pipe" | undefined
  /** A path (truncated first), an open descriptor, or "pipe"; else nowhere */
  readonly stdout?: string | number | undefined
  readonly program?: string
  /** Beside this process's own */
  readonly env?: Readonly<Record<string, string>>
  /** Another user than this process's, of this one group */
  readonly user?: { readonly uid: number; readonly gid: number }
}

export interface HostOptions {
  /** More words for `mvm serve`. */
  readonly serve?: readonly string[]
  /** More of an environment for `mvm serve`, once the host's folder is there. */
  readonly environment?: (folder: string) => Promise<Readonly<Record<string, string>>>
  /** The state directory, where it is not to be in the host's folder: there already, mode 0700. */
  readonly state?: string
  readonly members?: readonly string[]
  readonly remeasure?: string
  /** Where agents and their commands look for their sockets; else the state directory. For a proxy in between. */
  readonly guestState?: string
  /** Called with each member that was made and has no agent yet. */
  readonly onMember?: (name: string) => void
  /** More words for the agent of a member. */
  readonly agents?: Readonly<Record<string, readonly string[]>>
}

export interface StatusView {
  arena: { path: string; sizeBytes: number; freeBytes: number }
  dedicated: { limitBytes: number; usedBytes: number; used: number; idle: number; ignored: number }
  policy: { state: string; rules: number; reason?: string }
  vms: { name: string; state: string; link: string; verdict: string; channels: number }[]
  channels: number
}
