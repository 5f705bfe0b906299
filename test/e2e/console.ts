/**
 * @module test/e2e/console
 *
 * Drives the root shell on a guest's serial console: one command at a time, its output and exit status taken from
 * between markers that the typed text does not itself contain, so an echo is never mistaken for a result.
 */

import { randomBytes } from "node:crypto"
import { connectUnix, type ByteSocket } from "../../src/platform/unix-socket.ts"

const DEFAULT_TIMEOUT_MS = 60_000

/** A terminal line longer than this is cut by the guest's line editor. */
const MAX_TYPED_BYTES = 512

export interface ConsoleResult {
  status: number
  /** stdout and stderr as the terminal showed them, with LF line ends. */
  output: string
}

export class Console {
  #socket: ByteSocket
  #seen = ""
  #arrived = Promise.withResolvers<void>()
  #isClosed = false
  #queue: Promise<unknown> = Promise.resolve()

  private constructor(socket: ByteSocket) {
    this.#socket = socket
    const decoder = new TextDecoder()
    const wake = () => {
      this.#arrived.resolve()
      this.#arrived = Promise.withResolvers<void>()
    }
    socket.handlers = {
      onData: (chunk) => {
        this.#seen += decoder.decode(chunk, { stream: true })
        wake()
      },
      onClose: () => {
        this.#isClosed = true
        wake()
      },
    }
  }

  /** Connects to the console's socket; the guest may still be starting. */
  static async connect(unixSocketPath: string): Promise<Console> {
    return new Console(await connectUnix(unixSocketPath))
  }

  /** Waits until the shell answers. @throws Error after `timeoutMs`, with what the console showed. */
  async ready({ timeoutMs = 120_000 } = {}): Promise<void> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      // What is typed before the shell is there is lost, so the question is asked again.
      const mark = newMark()
      this.#type(`echo ${mark.slice(0, 4)}""${mark.slice(4)}`)
      const wait = Math.min(500, deadline - performance.now())
      if (await this.#until(new RegExp(mark), wait).catch(() => undefined)) break
      if (this.#isClosed || performance.now() >= deadline) throw this.#stuck("the shell did not answer")
    }
    await this.#run("stty -echo cols 1000; PS1=", 10_000)
  }

  /**
   * Runs `command` in the console's shell, so `cd` and variables last. Its standard input is empty.
   *
   * @throws Error when it does not end within `timeoutMs`, with the output so far.
   */
  run(command: string, { timeoutMs = DEFAULT_TIMEOUT_MS } = {}): Promise<ConsoleResult> {
    const result = this.#queue.then(() => this.#run(command, timeoutMs))
    this.#queue = result.catch(() => {})
    return result
  }

  /** Like {@link run}; a status other than 0 is an error. Returns the output without its last line end. */
  async must(command: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { status, output } = await this.run(command, options)
    if (status !== 0) throw new Error(`status ${status} from: ${command}\n${output}`)
    return output.replace(/\n$/, "")
  }

  /** Sends ^C to the command that runs. */
  interrupt(): void {
    this.#socket.write(Buffer.from("\x03"))
  }

  close(): void {
    this.#socket.close()
  }

  async #run(command: string, timeoutMs: number): Promise<ConsoleResult> {
    const mark = newMark()
    const script = Buffer.from(command).toString("base64")
    this.#seen = ""
    const variable = "MVM_CONSOLE"
    this.#type(`${variable}=`)
    for (let at = 0; at < script.length; at += MAX_TYPED_BYTES) {
      this.#type(`${variable}="$${variable}"${script.slice(at, at + MAX_TYPED_BYTES)}`)
    }
    const [head, tail] = [mark.slice(0, 4), mark.slice(4)]
    this.#type(
      `printf '\\n%s%s<' ${head} ${tail}; eval "$(echo $${variable} | base64 -d)" </dev/null; printf '%s%s>%s.' ${head} ${tail} $?`,
    )
    const found = await this.#until(new RegExp(`\\n${mark}<([\\s\\S]*)${mark}>(\\d+)\\.`), timeoutMs).catch(
      () => {
        throw this.#stuck(`no end within ${timeoutMs} ms of: ${command}`)
      },
    )
    return { status: Number(found[2]), output: (found[1] ?? "").replaceAll("\r\n", "\n") }
  }

  #type(line: string): void {
    this.#socket.write(Buffer.from(`${line}\n`))
  }

  async #until(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const found = pattern.exec(this.#seen)
      if (found !== null) return found
      const left = deadline - performance.now()
      if (left <= 0 || this.#isClosed) throw new Error("not seen")
      let timer: ReturnType<typeof setTimeout> | undefined
      await Promise.race([
        this.#arrived.promise,
        new Promise((resolve) => (timer = setTimeout(resolve, left))),
      ])
      clearTimeout(timer)
    }
  }

  #stuck(problem: string): Error {
    const closed = this.#isClosed ? " (the console is closed)" : ""
    return new Error(`${problem}${closed}\n${this.#seen.slice(-2000)}`)
  }
}

/** Letters only, and never the same twice. */
function newMark(): string {
  return `mvm${randomBytes(9).toString("hex")}`
}
