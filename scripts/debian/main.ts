/**
 * @module scripts/debian/main
 *
 * Lays out the trees of the Debian packages: `main.ts FOLDER TARGET VERSION EXECUTABLE`. scripts/package runs it and
 * packs what it made. The units and what belongs to them come from the installer itself.
 */

import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { dirname, join } from "node:path"
import { hostInstallation } from "../../src/mvm/install/plan.ts"
import { guestInstallation } from "../../src/guest/install/plan.ts"
import { applyInstallation, type Installation } from "../../src/platform/installation.ts"
import { toHex } from "../../src/lib/bytes.ts"
import { changelog, control, copyright, type Package } from "./control.ts"

const HERE = import.meta.dir
const ROOT = join(HERE, "../..")
const EXECUTABLE = "/usr/bin/mvm"
const COMPLETIONS = {
  bash: "usr/share/bash-completion/completions/mvm",
  zsh: "usr/share/zsh/vendor-completions/_mvm",
  fish: "usr/share/fish/vendor_completions.d/mvm.fish",
}
const PAGES = ["man1/mvm.1", "man5/mvm-policy.5"]
const SCRIPTS = ["preinst", "postinst", "prerm", "postrm"]

const [folder, target, version, executable] = process.argv.slice(2)
if (!folder || !target || !version || !executable) {
  throw new Error("usage: main.ts FOLDER TARGET VERSION EXECUTABLE")
}
const architecture = target === "linux-arm64" ? "arm64" : "amd64"
const built = { version, architecture, date: new Date(Number(process.env["SOURCE_DATE_EPOCH"]) * 1000) }

const tree = (name: Package): string => join(folder, name)
layOutExecutable(tree("mvm"), executable)
layOutService(tree("mvm-host"), hostInstallation({ executable: EXECUTABLE, vendor: true }))
layOutService(tree("mvm-guest"), guestInstallation({ executable: EXECUTABLE, vendor: true }))
for (const name of ["mvm", "mvm-host", "mvm-guest"] as const) finish(name)

function layOutExecutable(root: string, program: string): void {
  const put = (path: string, content: string | Uint8Array): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), content)
  }
  mkdirSync(join(root, "usr/bin"), { recursive: true })
  copyFileSync(program, join(root, EXECUTABLE))
  chmodSync(join(root, EXECUTABLE), 0o755)
  for (const page of PAGES)
    put(`usr/share/man/${page}.gz`, packed(readFileSync(join(ROOT, "dist/man", page))))
  for (const [shell, path] of Object.entries(COMPLETIONS)) {
    // That of this machine: the one that is packed may be for another.
    const child = Bun.spawnSync([join(ROOT, "dist/mvm"), "completion", shell])
    if (child.exitCode !== 0) throw new Error(`completion ${shell}: ${child.stderr.toString()}`)
    put(path, child.stdout)
  }
  put("usr/share/doc/mvm/README.md.gz", packed(readFileSync(join(ROOT, "README.md"))))
  put("usr/share/doc/mvm/copyright", copyright(ROOT))
  put("usr/share/doc/mvm/changelog.gz", packed(Buffer.from(changelog(built))))
}

function layOutService(root: string, plan: Installation): void {
  mkdirSync(root)
  applyInstallation(plan, { root, unrecorded: true })
  mkdirSync(join(root, "usr/share/doc"), { recursive: true })
  // The same source, whose package is always there.
  symlinkSync("mvm", join(root, `usr/share/doc/mvm-${plan.name}`))
}

function finish(name: Package): void {
  const root = tree(name)
  const files = [...new Bun.Glob("**/*").scanSync({ cwd: root, onlyFiles: true, dot: true })].toSorted()
  const sums = files.map((file) => `${md5(readFileSync(join(root, file)))}  ${file}\n`).join("")
  const bytes = files.reduce((sum, file) => sum + Bun.file(join(root, file)).size, 0)
  const conffiles = files.filter((file) => file.startsWith("etc/")).map((file) => `/${file}\n`)
  const at = join(root, "DEBIAN")
  mkdirSync(at)
  writeFileSync(join(at, "control"), control(name, built, Math.ceil(bytes / 1024)))
  writeFileSync(join(at, "md5sums"), sums)
  if (conffiles.length > 0) writeFileSync(join(at, "conffiles"), conffiles.join(""))
  const present = new Set(readdirSync(HERE))
  for (const script of SCRIPTS.filter((one) => present.has(`${name}.${one}`))) {
    copyFileSync(join(HERE, `${name}.${script}`), join(at, script))
    chmodSync(join(at, script), 0o755)
  }
  for (const folderOf of new Bun.Glob("**/*").scanSync({ cwd: root, onlyFiles: false, dot: true })) {
    closeToOthers(join(root, folderOf))
  }
  chmodSync(root, 0o755)
}

/** Folders as every package has them, whatever the umask was. */
function closeToOthers(path: string): void {
  try {
    readdirSync(path)
  } catch {
    return
  }
  chmodSync(path, 0o755)
}

function packed(bytes: Uint8Array): Uint8Array {
  return Bun.gzipSync(bytes as Uint8Array<ArrayBuffer>, { level: 9 })
}

/** What dpkg checks a package's files with. */
function md5(bytes: Uint8Array): string {
  return toHex(new Bun.CryptoHasher("md5").update(bytes).digest())
}
