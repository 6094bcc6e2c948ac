// @ts-check
// Who may enter, over the stream, in Node.js 20 or a browser: with `fetch`, because `EventSource` cannot send the header Authorization.
//
//   LEDGER_TOKEN=sl_consumer_… node examples/stream.mjs http://127.0.0.1:8000 acme
//
// Nothing but the platform. Prints each change. A connection that breaks is made again, and continues after the last event.

/** @typedef {import("../clients/typescript/events").LedgerEvent} LedgerEvent */

/**
 * What an event does to access: [begins, directory, group, member], or null. Without a group: all of the directory ends.
 * @param {LedgerEvent} event
 * @returns {[boolean, string, string | null, string | null] | null}
 */
export function accessChange(event) {
  switch (event.type) {
    case "directory.closed":
      return [false, event.directory, null, null];
    case "group.member_added":
    case "group.member_access_restored":
      return event.data.effective ? [true, event.directory, event.data.group.id, event.data.member.id] : null;
    case "group.member_removed":
    case "group.member_access_revoked":
      return [false, event.directory, event.data.group.id, event.data.member.id];
    default:
      return null; // users, and types that are younger than this program
  }
}

/**
 * The messages of one connection.
 * @param {string} url
 * @param {string} token
 * @param {string} last the id of the last message that was seen
 */
async function* messages(url, token, last) {
  const answer = await fetch(url, { headers: { Authorization: `Bearer ${token}`, ...(last && { "Last-Event-ID": last }) } });
  if (!answer.ok || !answer.body) throw Object.assign(new Error(await answer.text()), { status: answer.status });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let fields = { id: "", event: "", data: "" };
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    const lines = (rest + piece.value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const [name, ...value] = line.split(": ");
      if (name === "id" || name === "event" || name === "data") fields[name] = value.join(": ");
      if (line !== "") continue;
      if (fields.data) yield fields; // an empty line ends a message
      fields = { id: "", event: "", data: "" };
    }
  }
}

/**
 * @param {string} base
 * @param {string} directory
 * @param {string} token
 */
async function main(base, directory, token) {
  /** @type {Set<string>} */
  const access = new Set();
  for (let last = ""; ; await new Promise((done) => setTimeout(done, 1000))) {
    try {
      for await (const message of messages(`${base}/v1/events/stream?directory=${directory}`, token, last)) {
        if (message.event === "error") throw Object.assign(new Error(message.data), { status: 409 });
        if (message.event !== "covered") apply(access, JSON.parse(message.data));
        last = message.id;
      }
    } catch (error) {
      const status = /** @type {{status?: number}} */ (error).status ?? 503;
      if (status < 500 && status !== 429) throw error; // the token ended, or the log lost its end
    }
  }
}

/**
 * @param {Set<string>} access
 * @param {LedgerEvent} event
 */
function apply(access, event) {
  const change = accessChange(event);
  if (change === null) return;
  const [begins, , group, member] = change;
  const edges = group === null ? [...access] : [`${group} ${member}`];
  for (const edge of edges.filter((one) => access.has(one) !== begins)) {
    console.log(begins ? "+" : "-", edge);
    begins ? access.add(edge) : access.delete(edge);
  }
}

const { argv, env } = /** @type {any} */ (globalThis).process;
if (argv[3]) await main(argv[2], argv[3], env.LEDGER_TOKEN);
