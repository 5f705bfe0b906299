/**
 * @module platform/metrics-server
 *
 * An HTTP server for one text, on a unix socket or a loopback address and nowhere else: what it serves needs no
 * password there, and would elsewhere.
 */

import { resolve } from "node:path"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { placeSocket, removeSocket } from "./socket-file.ts"

const PATH = "/metrics"
const SOCKET_MODE = 0o660
const IDLE_SECONDS = 30
const MAX_PATH_BYTES = 107
const MAX_BODY_BYTES = 1024
const HINT = "unix:PATH, 127.0.0.1:PORT or [::1]:PORT"

export type MetricsAddress = { readonly unix: string } | { readonly hostname: string; readonly port: number }

export interface MetricsServer {
  /** Where it listens: a port of 0 became one. */
  readonly address: MetricsAddress
  close(): void
}

/**
 * "unix:PATH", "127.0.0.1:PORT" or "[::1]:PORT"; port 0 is any that is free.
 *
 * @throws MvmError `usage` for anything else: a name could be resolved to any address, and others are not loopback.
 */
export function parseMetricsAddress(text: string, what: string): MetricsAddress {
  const path = text.startsWith("unix:") ? text.slice("unix:".length) : undefined
  if (path !== undefined) {
    const unix = resolve(path)
    if (path !== "" && Buffer.byteLength(unix) <= MAX_PATH_BYTES) return { unix }
    throw new MvmError("usage", `${what}: ${text} names no path that a socket can have`, { hint: HINT })
  }
  const [, host, digits] = /^(127(?:\.\d{1,3}){3}|\[::1\]):(\d{1,5})$/.exec(text) ?? []
  const isLoopback = host !== undefined && host.split(".").every((part) => !(Number(part) > 255))
  const port = Number(digits)
  if (isLoopback && port <= 65_535) return { hostname: host.replace(/^\[|\]$/g, ""), port }
  throw new MvmError("usage", `${what}: ${text} is no loopback address and no unix socket`, { hint: HINT })
}

/**
 * Answers GET /metrics with what `text` says at that moment; when it throws, with status 500.
 *
 * @throws MvmError `io` for an address in use, `exists` for a file that is no socket.
 */
export function serveMetrics(
  address: MetricsAddress,
  contentType: string,
  text: () => string,
): MetricsServer {
  const fetch = (request: Request): Response => {
    if (new URL(request.url).pathname !== PATH) return plain(404, `see ${PATH}`)
    if (request.method !== "GET" && request.method !== "HEAD") return plain(405, "GET")
    try {
      return new Response(text(), { headers: { "Content-Type": contentType } })
    } catch {
      return plain(500, "the metrics cannot be read now")
    }
  }
  const options = { fetch, development: false, idleTimeout: IDLE_SECONDS, maxRequestBodySize: MAX_BODY_BYTES }
  try {
    if (!("unix" in address)) {
      const server = Bun.serve({ ...options, hostname: address.hostname, port: address.port })
      const { port = address.port } = server
      return { address: { hostname: address.hostname, port }, close: () => void server.stop(true) }
    }
    const { unix } = address
    removeSocket(unix)
    const { listener, remove } = placeSocket(unix, SOCKET_MODE, (path) =>
      Bun.serve({ ...options, unix: path, idleTimeout: IDLE_SECONDS } as never),
    )
    return {
      address,
      close: () => {
        remove()
        void listener.stop(true)
      },
    }
  } catch (cause) {
    if (cause instanceof MvmError) throw cause
    const where = "unix" in address ? address.unix : `${address.hostname}:${address.port}`
    throw new MvmError("io", `cannot listen at ${where}: ${errnoOf(cause) ?? "failed"}`, { cause })
  }
}

function plain(status: number, text: string): Response {
  return new Response(`${text}\n`, { status, headers: { "Content-Type": "text/plain; charset=utf-8" } })
}
