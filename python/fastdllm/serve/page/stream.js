// Asks the server and reads what it streams.

export class ServerError extends Error {
  // param: the field of the request that it is about, or null.
  constructor(message, { status = 0, param = null } = {}) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

export function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// fetch(), whose errors are ServerErrors in readable words.
export async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ServerError("The server cannot be reached.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const { status } = response;
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // not the server's own words: a proxy's, or none
  }
  const again = response.headers.get("Retry-After");
  const message = error.message || `The server answered with status ${status}.`;
  return new ServerError(again ? `${message} (try again in ${again} s)` : message, { status, param: error.param ?? null });
}

// The JSON values of a stream of server-sent events, to [DONE]. An event that is an error is thrown.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let done, value;
    try {
      ({ done, value } = await reader.read());
    } catch (problem) {
      if (problem.name === "AbortError") throw problem;
      throw new ServerError("The connection broke before the answer was complete.");
    }
    if (done) throw new ServerError("The answer ended before it was complete.");
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const content = JSON.parse(data);
      if (content.error) throw new ServerError(content.error.message, content.error);
      yield content;
    }
  }
}
