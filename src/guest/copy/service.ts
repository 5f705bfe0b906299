/**
 * @module guest/copy/service
 *
 * The end of a copy that was asked: shows one folder to its peers, to take from, to put into, or both.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import { Folder } from "../../platform/folder.ts"
import type { ServiceHandler } from "../services/service.ts"
import type { ByteDuplex } from "../streams/byte-duplex.ts"
import { ByteInput } from "./byte-input.ts"
import { entryFailure } from "./entry-failure.ts"
import type { Limits } from "./limits.ts"
import { COPY_VERSION, type CopyRequest } from "./messages.ts"
import { componentsOf, meansContents, type LinkPolicy } from "./names.ts"
import { Receiver } from "./receiver.ts"
import { Sender } from "./sender.ts"
import type { Source } from "./source-tree.ts"
import type { CopyObserver, CopySummary } from "./tally.ts"
import { receiveRequest, told } from "./wire.ts"

const FOLDER_MODE = 0o755

export interface CopyService {
  /** The folder that is shown, as this process resolves its path at each copy. */
  readonly folder: string
  readonly mayRead: boolean
  readonly mayWrite: boolean
  readonly limits: Limits
  readonly links: LinkPolicy
}

/** A service that serves copies: a call each. */
export function copyService(service: CopyService): ServiceHandler {
  return async ({ caller, stream, run }) => {
    if (run) throw new MvmError("refused", "this service is for mvm guest cp")
    await serveCopy(stream, service, { caller: caller.uuid })
  }
}

/**
 * Serves one copy.
 *
 * Trust: the request is a peer's. Its paths are walked one folder at a time from the one that is shown, and no link
 * is followed on the way.
 *
 * @param caller the peer's UUID
 * @throws MvmError why it was not done, which the peer was told as well
 */
export async function serveCopy(
  stream: ByteDuplex,
  service: CopyService,
  { caller, observer = {} }: { caller?: Uint8Array; observer?: CopyObserver } = {},
): Promise<CopySummary> {
  try {
    const input = new ByteInput(stream)
    const request = await receiveRequest(input)
    if (request.version !== COPY_VERSION) {
      throw new MvmError("protocol", `version ${request.version} of the copy protocol is not known here`)
    }
    const ended =
      request.direction === "push"
        ? await take(stream, input, { service, request, observer, caller })
        : await give(stream, input, { service, request, observer })
    return ended.summary()
  } catch (error) {
    const failure = asMvmError(error)
    stream.reset(told(failure))
    throw failure
  }
}

interface Copy {
  readonly service: CopyService
  readonly request: CopyRequest
  readonly observer: CopyObserver
  readonly caller?: Uint8Array | undefined
}

async function take(
  stream: ByteDuplex,
  input: ByteInput,
  { service, request, observer, caller }: Copy,
): ReturnType<Receiver["run"]> {
  if (!service.mayWrite) throw new MvmError("refused", "this folder is read-only")
  const [path] = request.paths
  if (path === undefined || request.paths.length > 1)
    throw new MvmError("protocol", "REQUEST.paths: one target")
  const components = componentsOf(path)
  const folder = shownFolder(service)
  const target = attempt(() => enterAll(folder, components, true))
  const { limits, links } = service
  // Who may only put in does not learn what is there.
  const { checksum } = request
  return new Receiver(
    stream,
    target,
    { limits, links, checksum, reveals: service.mayRead, sender: caller, observer },
    input,
  ).run()
}

async function give(
  stream: ByteDuplex,
  input: ByteInput,
  { service, request, observer }: Copy,
): ReturnType<Sender["run"]> {
  if (!service.mayRead) throw new MvmError("refused", "this folder is write-only")
  const sources: Source[] = []
  try {
    for (const path of request.paths) sources.push(sourceOf(service, path))
    const { recursive, totals } = request
    return await new Sender(stream, sources, { recursive, totals, observer }, input).run()
  } finally {
    for (const source of sources) if ("folder" in source) source.folder.close()
  }
}

function sourceOf(service: CopyService, path: Uint8Array): Source {
  try {
    const components = componentsOf(path)
    const name = meansContents(path) ? undefined : components.pop()
    return { folder: enterAll(shownFolder(service), components, false), name }
  } catch (error) {
    return { path, error: entryFailure(error) }
  }
}

function shownFolder({ folder }: CopyService): Folder {
  try {
    return Folder.open(folder)
  } catch (cause) {
    // Where it is on this machine is not the peer's affair.
    throw new MvmError("io", "the folder that is served cannot be opened", { cause })
  }
}

/** @param from is closed @param makes whether what is missing is made */
function enterAll(from: Folder, components: readonly Uint8Array[], makes: boolean): Folder {
  let folder = from
  try {
    for (const name of components) {
      if (makes && !folder.status(name)) folder.make(name, FOLDER_MODE)
      const next = folder.enter(name)
      folder.close()
      folder = next
    }
    return folder
  } catch (error) {
    folder.close()
    throw error
  }
}

function attempt<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw entryFailure(error)
  }
}
