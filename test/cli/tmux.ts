/**
 * @module test/cli/tmux
 *
 * A terminal as a person has one: tmux with a server of its own, and in it an interactive bash, whose job control
 * makes Ctrl-C what it is at a keyboard. Closing it ends everything that was started in it, and fails when a process
 * of it was left.
 */

import {
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const HANG_MS = 30_000
const POLL_MS = 20
const KEPT_LINES = 2000

/** Numbers of commands tell a command's prompt from one that a late Ctrl-C made. */
const RC = `PS1='$ '
unset HISTFILE
number='\\#'
PROMPT_COMMAND='echo "$? \${number@P}" >>"$MVT_STATUSES"'
`

export interface TerminalOptions {
  readonly columns?: number
  readonly rows?: number
  /** Beside this process's own; undefined removes one */
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
}

export class Terminal {
  readonly folder = mkdtempSync(join(tmpdir(), "mvt-"))
  /** A line for each prompt: the status of the command before it, and its number. */
  readonly #statuses = join(this.folder, "statuses")
  readonly #raw = join(this.folder, "raw")
  readonly #socket = join(this.folder, "tmux")
  readonly #env: Record<string, string>
  #begun = 0
  #shell = 0

  private constructor(options: TerminalOptions) {
    const env: Record<string, string | undefined> = {
      ...process.env,
      // Of the terminal that the tests were started in.
      TMUX: undefined,
      TMUX_PANE: undefined,
      NO_COLOR: undefined,
      LC_ALL: "C.UTF-8",
      ...options.env,
      MVT_STATUSES: this.#statuses,
    }
    this.#env = Object.fromEntries(
      Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined),
    )
    writeFileSync(this.#statuses, "")
    writeFileSync(this.#raw, "")
    writeFileSync(join(this.folder, "rc"), RC)
  }

  static async open(options: TerminalOptions = {}): Promise<Terminal> {
    const terminal = new Terminal(options)
    const { columns = 80, rows = 24, cwd = terminal.folder } = options
    const shell = `exec bash --noprofile --rcfile ${join(terminal.folder, "rc")} -i`
    const size = ["-x", String(columns), "-y", String(rows)]
    try {
      await terminal.#tmux("-f", "/dev/null", "new-session", "-d", ...size, "-c", cwd, shell)
      await terminal.#tmux("set-option", "-g", "history-limit", String(KEPT_LINES))
      await terminal.#tmux("pipe-pane", "-o", `exec cat >>${terminal.#raw}`)
      terminal.#shell = Number(await terminal.#tmux("display-message", "-p", "#{pane_pid}"))
      await terminal.until("the shell", () => terminal.#statusOf(0) !== undefined)
      return terminal
    } catch (error) {
      await terminal.close().catch(() => {})
      throw error
    }
  }

  /** Types `line` and Enter. */
  async type(line: string): Promise<void> {
    // From the shell itself: a line that was lost has no number, and must not shift those of all after it.
    this.#begun = this.#lastNumber() + 1
    await this.write(line)
    await this.#tmux("send-keys", "Enter")
  }

  /** Types `line` and waits for its end. @returns its status */
  async run(line: string): Promise<number> {
    await this.type(line)
    return this.ended()
  }

  /** Types `text` and no Enter. */
  async write(text: string): Promise<void> {
    await this.#tmux("send-keys", "-l", text)
  }

  /** tmux's names of keys: "C-c", "Enter", "Up". */
  async press(...keys: string[]): Promise<void> {
    await this.#tmux("send-keys", ...keys)
  }

  /**
   * Resolves when the command typed last has the terminal and is itself. A Ctrl-C before that is for the shell, or for
   * the copy of the shell that becomes the command, and may be lost on the command.
   */
  async begun(): Promise<void> {
    await this.until("the command's begin", () => {
      if (this.isOver) return true
      const group = foreground(this.#shell)
      return group !== this.#shell && programOf(group) !== programOf(this.#shell)
    })
  }

  /** Resolves with the status of the command typed last. */
  async ended(): Promise<number> {
    await this.until("the command's end", () => this.#statusOf(this.#begun) !== undefined)
    return this.#statusOf(this.#begun) ?? NaN
  }

  /**
   * Ctrl-C, whatever it meets. @returns the status of the command typed last, once the shell is ready for the next
   */
  async interrupt(): Promise<number> {
    await this.press("C-c")
    const status = await this.ended()
    // One that came after the end is for the shell, which drops what is typed while it sees to it.
    const before = this.#prompts()
    await this.press("Enter")
    await this.until("the prompt", () => this.#prompts() > before)
    return status
  }

  /** Whether the command typed last has come to its end. */
  get isOver(): boolean {
    return this.#statusOf(this.#begun) !== undefined
  }

  /** What a person sees: the lines of the screen, without blanks at their ends. */
  async screen(): Promise<string> {
    return this.#capture()
  }

  /** The screen's line with the cursor, up to the cursor. */
  async line(): Promise<string> {
    const { column, row } = await this.cursor()
    const text = await this.#tmux("capture-pane", "-p")
    return (text.split("\n")[row] ?? "").padEnd(column).slice(0, column)
  }

  /** The screen with all that was scrolled off it, wrapped lines joined. */
  async history(): Promise<string> {
    return this.#capture("-S", `-${KEPT_LINES}`, "-J")
  }

  /** The screen with its colours and attributes as escapes. */
  async styled(): Promise<string> {
    return this.#capture("-e")
  }

  /** Every byte that was written to the terminal so far. */
  raw(): string {
    return readFileSync(this.#raw, "utf8")
  }

  /** Column and row of the cursor, from 0, and whether it is shown. */
  async cursor(): Promise<{ column: number; row: number; shown: boolean; alternate: boolean }> {
    const format = "#{cursor_x} #{cursor_y} #{cursor_flag} #{alternate_on}"
    const [column, row, shown, alternate] = (await this.#tmux("display-message", "-p", format)).split(" ")
    return {
      column: Number(column),
      row: Number(row),
      shown: shown === "1",
      alternate: alternate?.trim() === "1",
    }
  }

  /** What stty says of the terminal: the same before and after a command that left it in order. */
  async modes(): Promise<string> {
    const file = join(this.folder, `stty.${this.#begun}`)
    await this.run(`stty -a >${file}`)
    return readFileSync(file, "utf8")
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.#tmux("resize-window", "-x", String(columns), "-y", String(rows))
  }

  /** Waits until the screen holds `text` or matches it. @returns the screen */
  async shows(text: string | RegExp): Promise<string> {
    let screen = ""
    await this.until(`${String(text)} on the screen`, async () => {
      screen = await this.screen()
      return typeof text === "string" ? screen.includes(text) : text.test(screen)
    })
    return screen
  }

  async until(what: string, ready: () => unknown): Promise<void> {
    const deadline = performance.now() + HANG_MS
    while (!(await ready())) {
      if (performance.now() > deadline) {
        const screen = await this.screen().catch(() => "")
        throw new Error(`waited in vain for ${what}; the screen:\n${screen}`)
      }
      await Bun.sleep(POLL_MS)
    }
  }

  /** Ends the shell and all that runs in it. @throws Error when a process of it was left. */
  async close(): Promise<void> {
    if (existsSync(this.#socket)) await this.#tmux("kill-server").catch(() => {})
    const deadline = performance.now() + HANG_MS
    while (this.#processes().length > 0 && performance.now() < deadline) await Bun.sleep(POLL_MS)
    const left = this.#processes()
    for (const { pid } of left) process.kill(pid, "SIGKILL")
    rmSync(this.folder, { recursive: true, force: true })
    if (left.length > 0) throw new Error(`left behind: ${left.map(({ line }) => line).join(", ")}`)
  }

  /** The status of the command before each prompt, and that command's number. */
  #lines(): string[] {
    return readFileSync(this.#statuses, "utf8").split("\n").slice(0, -1)
  }

  #prompts(): number {
    return this.#lines().length
  }

  #lastNumber(): number {
    return Number(this.#lines().at(-1)?.split(" ")[1] ?? 0)
  }

  #statusOf(command: number): number | undefined {
    const found = this.#lines().find((line) => line.endsWith(` ${command}`))
    return found === undefined ? undefined : parseInt(found, 10)
  }

  async #capture(...options: string[]): Promise<string> {
    const text = await this.#tmux("capture-pane", "-p", ...options)
    return text.replace(/[ \n]+$/, "\n")
  }

  async #tmux(...words: string[]): Promise<string> {
    const child = Bun.spawn(["tmux", "-S", this.#socket, ...words], {
      env: this.#env,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    })
    const [stdout, stderr, status] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ])
    if (status !== 0) throw new Error(`tmux ${words.join(" ")}: ${stderr}`)
    return stdout
  }

  /** Processes that were started here: they have this terminal's folder in their environment. */
  #processes(): { pid: number; line: string }[] {
    return readdirSync("/proc")
      .map(Number)
      .filter((pid) => pid > 0 && pid !== process.pid)
      .flatMap((pid) => {
        try {
          const environment = readFileSync(`/proc/${pid}/environ`, "utf8")
          if (!environment.includes(`MVT_STATUSES=${this.#statuses}\0`)) return []
          return [{ pid, line: readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ") }]
        } catch {
          return []
        }
      })
  }
}

/** The process group that has the terminal of process `pid`: `tpgid`, field 8. @spec proc(5), /proc/PID/stat */
function foreground(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[8 - 3])
}

/** The file that process `pid` executes; nothing once it has ended. */
function programOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`)
  } catch {
    return undefined
  }
}
