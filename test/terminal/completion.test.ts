/**
 * @module test/terminal/completion
 *
 * The Tab key in real shells: bash without any completion package, zsh and fish.
 */

import { afterAll, beforeAll, describe, test } from "bun:test"
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { hostForFile } from "../integration/host.ts"
import type { Terminal } from "../cli/tmux.ts"
import { terminalOf } from "./terminals.ts"

/** A state directory whose daemon takes calls and never answers. */
let deaf = ""
let listener: { stop(force: boolean): void } | undefined

const host = hostForFile({ members: ["alpha", "beta"] })

/** How each shell is started with nothing but the completion loaded, in its usual way. */
const SHELLS = {
  bash: "PS1='% '; PROMPT_COMMAND=; source <(mvm completion bash)",
  zsh: "exec env ZDOTDIR=$PWD/zsh zsh -i",
  fish: "exec env HOME=$PWD/fish XDG_CONFIG_HOME=$PWD/fish fish -i",
} as const
type Shell = keyof typeof SHELLS

beforeAll(() => {
  const zsh = join(host().folder, "zsh")
  mkdirSync(zsh)
  writeFileSync(
    join(zsh, ".zshrc"),
    "PS1='%% '\nautoload -Uz compinit && compinit -u -D\nsource <(mvm completion zsh)\n",
  )
  const fish = join(host().folder, "fish", "fish")
  mkdirSync(fish, { recursive: true })
  writeFileSync(
    join(fish, "config.fish"),
    "set -g fish_greeting ''\nfunction fish_prompt; echo '% '; end\nset -g fish_autosuggestion_enabled 0\nmvm completion fish | source\n",
  )
  writeFileSync(join(host().folder, "a-file"), "")
  mkdirSync(join(host().folder, "a-folder"))
  deaf = join(host().folder, "deaf")
  mkdirSync(deaf)
  listener = Bun.listen({ unix: join(deaf, "control.sock"), socket: { data() {} } })
  copyFileSync(host().mvm, join(host().folder, "other-mvm"))
  chmodSync(join(host().folder, "other-mvm"), 0o755)
})

afterAll(() => {
  listener?.stop(true)
})

async function shell(name: Shell, env: Record<string, string> = {}): Promise<Terminal> {
  const terminal = await terminalOf(host(), { columns: 100, rows: 40, env })
  await terminal.type(SHELLS[name])
  await terminal.shows(/\n%( ?\n| ?$)/)
  return terminal
}

/** Types `text`, then Tab, and waits until the line under the cursor is `completed`. */
async function completes(terminal: Terminal, text: string, completed: string): Promise<void> {
  await terminal.press("C-u")
  await terminal.write(text)
  await terminal.press("Tab")
  await terminal.until(`${JSON.stringify(completed)} for ${text}`, async () => {
    return (await terminal.line()).trimStart() === `% ${completed}`
  })
}

/** Types `text`, then Tab twice, and waits until all of `names` are listed. */
async function lists(terminal: Terminal, text: string, names: readonly string[]): Promise<void> {
  await terminal.press("C-u")
  await terminal.press("C-l")
  await terminal.write(text)
  await terminal.press("Tab", "Tab")
  for (const name of names) await terminal.shows(new RegExp(`(^|\\s)${name}(\\s|$)`, "m"))
}

describe.each(Object.keys(SHELLS) as Shell[])("%s completes", (name) => {
  test("commands, options, values, names of VMs, services and channels", async () => {
    const receiver = await host().recv("beta", undefined, "--service", "nightly")
    const terminal = await shell(name)
    await completes(terminal, "mvm sta", "mvm status ")
    await completes(terminal, "mvm vm wa", "mvm vm wait ")
    await completes(terminal, "mvm vm start al", "mvm vm start alpha ")
    await completes(terminal, "mvm vm create x --firm", "mvm vm create x --firmware ")
    await completes(terminal, "mvm serve --log-format j", "mvm serve --log-format json ")
    await completes(terminal, "mvm serve --log-format=j", "mvm serve --log-format=json ")
    await completes(terminal, "mvm guest recv --local be", "mvm guest recv --local beta ")
    await completes(terminal, "mvm policy test ni", "mvm policy test nightly ")
    await completes(terminal, "mvm guest ping --local alpha be", "mvm guest ping --local alpha beta ")
    await completes(terminal, "mvm guest connect --local alpha be", "mvm guest connect --local alpha beta:")
    await completes(
      terminal,
      "mvm guest connect --local alpha beta:ni",
      "mvm guest connect --local alpha beta:nightly ",
    )
    await completes(
      terminal,
      "mvm guest send --local alpha beta --service ni",
      "mvm guest send --local alpha beta --service nightly ",
    )
    await completes(terminal, "mvm audit list --kind vm_c", "mvm audit list --kind vm_create ")
    await lists(terminal, "mvm vm start ", ["alpha", "beta"])
    await lists(terminal, "mvm vm ", ["create", "console", "certificate"])
    const sender = host().send("alpha", "beta", "pipe", "--service", "nightly")
    const id = await channelId()
    await completes(terminal, `mvm channel close ${id.slice(0, 6)}`, `mvm channel close ${id.slice(0, 12)} `)
    sender.kill("SIGINT")
    await sender.over()
    await receiver.over()
  }, 60_000)

  test("files where files belong, and nothing where nothing fits", async () => {
    const terminal = await shell(name)
    await completes(terminal, "mvm vm create x --kernel a-fi", "mvm vm create x --kernel a-file ")
    await completes(terminal, "mvm vm list --state a-fo", "mvm vm list --state a-folder/")
    await completes(terminal, "mvm guest send beta a-fi", "mvm guest send beta a-file ")
    await terminal.press("C-u")
    await terminal.write("mvm vm start a-fi")
    await terminal.press("Tab")
    await terminal.write("Z")
    await terminal.until("the line as it was typed", async () => {
      return (await terminal.line()).trimStart() === "% mvm vm start a-fiZ"
    })
  }, 60_000)

  test("of a program that is not the one in the path", async () => {
    const terminal = await shell(name)
    if (name === "bash") await terminal.type("complete -F _mvm other-mvm")
    if (name === "zsh") await terminal.type("compdef _mvm other-mvm")
    if (name === "fish") await terminal.type("complete -c other-mvm -f -a '(__mvm_complete)'")
    await completes(terminal, "./other-mvm sta", "./other-mvm status ")
  }, 60_000)

  test("no names, and does not hang, where no daemon answers", async () => {
    for (const MVM_STATE of ["/nonexistent", deaf]) {
      const terminal = await shell(name, { MVM_STATE })
      await completes(terminal, "mvm vm sho", "mvm vm show ")
      await terminal.press("C-u")
      await terminal.write("mvm vm show al")
      await terminal.press("Tab")
      await terminal.write("Z")
      await terminal.until("the line as it was typed", async () => {
        return (await terminal.line()).trimStart() === "% mvm vm show alZ"
      })
    }
  }, 60_000)
})

async function channelId(): Promise<string> {
  let id: string | undefined
  await host().until("an open channel", async () => {
    const channels = await host().ask<{ id: string; state: string }[]>("channel.list")
    id = channels.find(({ state }) => state === "open")?.id
    return id
  })
  return id ?? ""
}
