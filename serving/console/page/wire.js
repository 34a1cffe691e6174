// Asking the console's own address with the key, which stands in a header and never in a URL.

const KEPT = "flotilla.key";
let key = "";

export function take(text) {
  key = text;
  if (text) sessionStorage.setItem(KEPT, text);
  else sessionStorage.removeItem(KEPT);
}

export const remembered = () => sessionStorage.getItem(KEPT) || "";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// An answer that went well. Throws: Refused with what the server said.
export async function ask(path, options = {}) {
  const answer = await fetch(path, {
    cache: "no-store", credentials: "omit", ...options,
    headers: {authorization: `Bearer ${key}`, ...(options.headers || {})},
  });
  if (answer.ok) return answer;
  let message = `${answer.status} ${answer.statusText}`;
  try {
    message = (await answer.json()).error.message || message;
  } catch { /* no JSON: the status says what there is to say */ }
  throw new Refused(answer.status, message);
}

// Server-sent events of an answer: [name, data] each.
export async function* events(answer) {
  const reader = answer.body.getReader(), decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return;
      rest += decoder.decode(value, {stream: true});
      const parts = rest.split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        let name = "message";
        const data = [];
        for (const line of part.split(/\r?\n/)) {
          if (line.startsWith("event:")) name = line.slice(6).trim();
          else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        }
        if (data.length) yield [name, data.join("\n")];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
