import { expect, test } from "bun:test"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { boundConsoleLog } from "../../../src/mvm/vm/console-log.ts"
import { scratchFolder } from "../scratch-state.ts"

test("a console's log keeps its newest part when it grew too long, and stays as it is otherwise", () => {
  const path = join(scratchFolder(), "console.log")
  boundConsoleLog(path)
  writeFileSync(path, "0123456789")
  boundConsoleLog(path, 10, 4)
  expect(readFileSync(path, "utf8")).toBe("0123456789")
  boundConsoleLog(path, 9, 4)
  expect(readFileSync(path, "utf8")).toBe("6789")
})
