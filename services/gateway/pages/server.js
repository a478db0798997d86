// What both pages need of the server: requests with the API key, and failures as sentences.

// In this tab only, and gone when it closes.
const KEY = "troupe-api-key";

export function readKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function keepKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

// Why the server did not do what it was asked, for a person. `status` is HTTP's, 0 when there was none.
export class Refusal extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

async function refusalOf(response) {
  let said;
  try {
    said = (await response.json()).error?.message;
  } catch {
    // not JSON: a proxy's page, which says less than the status
  }
  if (response.status === 401)
    return new Refusal(
      readKey() ? "The server does not know this API key." : "The server asks for an API key.", 401);
  const again = response.headers.get("Retry-After");
  const wait = again ? ` Try again in ${again} s.` : "";
  return new Refusal(`${said ?? `The server answered with status ${response.status}.`}${wait}`, response.status);
}

// fetch with the key; throws a Refusal unless the status is a good one. An AbortError goes through.
export async function ask(path, options = {}) {
  const key = readKey();
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server can't be reached.", 0);
  }
  if (!response.ok) throw await refusalOf(response);
  return response;
}

// The sentence of a failure in an element with role alert; nothing hides it.
export function tell(element, sentence) {
  element.textContent = sentence ?? "";
  element.hidden = !sentence;
}
