/**
 * @module guest/copy/incoming-file
 *
 * A file at its receiver, from the answer that wants it to the moment it has its name.
 */

import { equalBytes } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import { BLOCK_BYTES, ContentDigest } from "./blocks.ts"
import { entryFailure } from "./entry-failure.ts"
import type { KnownBlocks } from "./known-blocks.ts"
import type { LimitAccount } from "./limits.ts"
import { Partial, type FileAttributes } from "./partial.ts"
import type { TargetFolder } from "./target-folder.ts"

export class IncomingFile {
  readonly index: number
  readonly target: TargetFolder
  readonly name: Uint8Array
  /** As announced, and anew with each BEGIN. */
  lengthBytes: number
  sentBytes = 0
  keptBytes = 0
  /** Why it will not be stored; what still comes of it is thrown away. */
  failure: MvmError | undefined
  /** Nothing more comes of it: it is on its way to the disk. */
  isStoring = false
  #attributes: FileAttributes | undefined
  #partial: Partial | undefined
  #known: KnownBlocks | undefined
  #digest = new ContentDigest()
  /** Where the next piece goes, also while pieces are thrown away. */
  #offset = 0
  #began = false

  constructor(place: { index: number; target: TargetFolder; name: Uint8Array }, lengthBytes: number) {
    this.index = place.index
    this.target = place.target
    this.name = place.name
    this.lengthBytes = lengthBytes
  }

  get isWhole(): boolean {
    return this.#offset === this.lengthBytes
  }

  /** Below the target folder. */
  get path(): Uint8Array {
    return this.target.pathOf(this.name)
  }

  get offset(): number {
    return this.#offset
  }

  /** What is here already, which the sender is told of. */
  knows(known: KnownBlocks): void {
    this.#known = known
    this.#partial = known.partial
  }

  /** The content begins; for the second time it begins anew, and nothing is kept. @throws what ends the copy */
  begin(lengthBytes: number, attributes: FileAttributes): void {
    if (this.#began) this.#forgetKnown()
    const known = this.#known
    this.#began = true
    this.#attributes = attributes
    this.lengthBytes = lengthBytes
    this.#digest = new ContentDigest()
    this.#offset = 0
    this.sentBytes = 0
    this.keptBytes = 0
    this.#trying(() => {
      this.#partial ??= Partial.open(this.target.folder, this.name, this.target.owner)
      this.#partial.keep(known?.partial ? known.count * BLOCK_BYTES : 0)
    })
  }

  /** @throws MvmError `protocol` past the announced length, and what ends the copy. */
  write(bytes: Uint8Array, account: LimitAccount): void {
    this.#advance(bytes.length)
    account.addWritten(bytes.length)
    this.sentBytes += bytes.length
    this.#trying((partial) => {
      partial.write(bytes, this.#offset - bytes.length)
      this.#digest.update(bytes)
    })
  }

  /** @throws as {@link write} */
  skip(lengthBytes: number): void {
    this.#advance(lengthBytes)
    this.#trying((partial) => {
      partial.clear(this.#offset - lengthBytes, lengthBytes)
      this.#digest.updateZeros(lengthBytes)
    })
  }

  /** The next block is as the sender was told. @throws MvmError `protocol` for one that it was not told of */
  keepBlock(): void {
    const block = this.#offset / BLOCK_BYTES
    if (!Number.isInteger(block) || this.#known?.digestAt(block) === undefined) {
      throw new MvmError("protocol", "KEEP: a block that was not offered")
    }
    this.#advance(BLOCK_BYTES)
    this.keptBytes += BLOCK_BYTES
    this.#trying((partial) => {
      const digest = this.#known?.keep(block, partial)
      if (digest) this.#digest.updateBlock(digest, BLOCK_BYTES)
    })
  }

  /** Whether the content has this digest. @throws MvmError `protocol` before all of it came */
  agrees(digest: Uint8Array): boolean {
    if (!this.isWhole) throw new MvmError("protocol", "END before the end of the file")
    return this.failure !== undefined || equalBytes(this.#digest.digest(), digest)
  }

  /** Puts it on disk under its name. @throws the system's errors */
  async store(): Promise<void> {
    if (!this.#partial || !this.#attributes) throw new MvmError("internal", "a file without content")
    this.#forgetKnown()
    await this.#partial.commit(this.lengthBytes, this.#attributes)
  }

  /** It will not be stored now. @param keep whether another copy may take it up again */
  giveUp(keep: boolean): void {
    this.#forgetKnown()
    if (keep) this.#partial?.leave()
    else this.#partial?.discard()
    this.#partial = undefined
  }

  #forgetKnown(): void {
    this.#known?.close()
    this.#known = undefined
  }

  #advance(lengthBytes: number): void {
    if (lengthBytes > this.lengthBytes - this.#offset) {
      throw new MvmError("protocol", "more content than the file was announced with")
    }
    this.#offset += lengthBytes
  }

  /** A failure that costs this file alone is kept for its END. */
  #trying(work: (partial: Partial) => void): void {
    if (this.failure) return
    try {
      work(this.#partial as Partial)
    } catch (error) {
      this.failure = entryFailure(error)
    }
  }
}
