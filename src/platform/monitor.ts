/**
 * @module platform/monitor
 *
 * What is asked of a QEMU monitor, whichever way leads to it.
 */

export interface QmpEvent {
  /** `SHUTDOWN`, `RESET`, `DEVICE_DELETED`, ... */
  name: string
  data: Record<string, unknown>
}

export interface Monitor {
  /**
   * Runs one command and returns its `return` value.
   *
   * @throws MvmError `qemu` with QEMU's own class and description, `timeout` after `timeoutMs`.
   */
  execute(command: string, args?: Record<string, unknown>, timeoutMs?: number): Promise<unknown>
  /** Calls `handler` for each event from now on; returns a function that stops that. */
  onEvent(handler: (event: QmpEvent) => void): () => void
  /** Resolves when the monitor is gone, whoever ended it. */
  readonly closed: Promise<void>
  close(): void
}
