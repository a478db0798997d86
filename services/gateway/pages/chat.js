// The chat page: a conversation over /v1/chat/completions. What anybody says is text, and becomes text nodes only.
import { ask, keepKey, readKey, Refusal, tell } from "./server.js";

const element = (id) => document.getElementById(id);
const [talk, notice, question] = ["talk", "notice", "question"].map(element);
const [send, stop, settings, model] = ["send", "stop", "settings", "model"].map(element);

let messages = []; // of the conversation, as the API has them
let running = null; // the AbortController of the answer that is coming

// ---- what is seen ----

const isAtEnd = () => talk.scrollHeight - talk.scrollTop - talk.clientHeight < 40;

function addTurn(who, text) {
  const turn = document.createElement("article");
  const name = document.createElement("h2");
  const body = document.createElement("p");
  turn.className = `turn ${who}`;
  name.className = "unseen";
  name.textContent = who === "user" ? "You" : "Answer";
  body.className = "text";
  body.textContent = text;
  turn.append(name, body);
  element("welcome")?.remove();
  talk.append(turn);
  talk.scrollTop = talk.scrollHeight;
  return { turn, body };
}

function addNote(turn, text) {
  const note = document.createElement("p");
  const follow = isAtEnd();
  note.className = "note";
  note.textContent = text;
  turn.append(note);
  if (follow) talk.scrollTop = talk.scrollHeight;
}

function showRunning(controller) {
  running = controller;
  send.hidden = Boolean(controller);
  stop.hidden = !controller;
}

// As high as its text, up to what the style allows.
function fitQuestion() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight + 2}px`;
}

// ---- the stream ----

// The data of each server-sent event; comments and ids are passed over.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}

// Calls `onText` with each piece; gives how it ended and what it cost.
async function readAnswer(response, onText) {
  let finish = null;
  let usage = null;
  for await (const data of events(response)) {
    if (data === "[DONE]") return { finish, usage };
    const event = JSON.parse(data);
    if (event.error) throw new Refusal(event.error.message, 200);
    const choice = event.choices[0];
    if (choice?.delta.content) onText(choice.delta.content);
    finish = choice?.finish_reason ?? finish;
    usage = event.usage ?? usage;
  }
  throw new Refusal("The connection broke before the answer was complete.", 0);
}

function requestOf(controller) {
  const body = {
    model: model.value || undefined,
    messages,
    stream: true,
    stream_options: { include_usage: true },
    temperature: element("temperature").valueAsNumber,
    max_tokens: element("max-tokens").valueAsNumber,
  };
  return {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: controller.signal,
  };
}

const ENDS = {
  length: "Cut at the longest answer allowed.",
  content_filter: "Ended by the server's filter.",
};

function costOf(usage, startedMs, firstMs) {
  if (!usage) return "";
  const seconds = (performance.now() - startedMs) / 1000;
  const first = firstMs ? `, the first after ${((firstMs - startedMs) / 1000).toFixed(1)} s` : "";
  return `${usage.completion_tokens} tokens in ${seconds.toFixed(1)} s${first}.`;
}

// One turn of the model. What came before a failure stays, and is part of the conversation.
async function answer() {
  const controller = new AbortController();
  const startedMs = performance.now();
  const { turn, body } = addTurn("assistant", "");
  let firstMs = 0;
  let text = "";
  turn.setAttribute("aria-busy", "true"); // read out when it is complete, not in pieces
  showRunning(controller);
  try {
    const response = await ask("v1/chat/completions", requestOf(controller));
    const { finish, usage } = await readAnswer(response, (piece) => {
      const follow = isAtEnd();
      firstMs ||= performance.now();
      text += piece;
      body.append(piece);
      if (follow) talk.scrollTop = talk.scrollHeight;
    });
    addNote(turn, [ENDS[finish], costOf(usage, startedMs, firstMs)].filter(Boolean).join(" "));
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof Refusal)) throw error;
    if (error.name === "AbortError") addNote(turn, "Stopped.");
    else if (text) addNote(turn, error.message);
    else giveBack(turn, error);
  } finally {
    turn.removeAttribute("aria-busy");
    showRunning(null);
    if (turn.isConnected) messages.push({ role: "assistant", content: text });
    question.focus();
  }
}

// Nothing was said: the question goes back to where it can be sent again.
function giveBack(turn, error) {
  const asked = messages.pop();
  turn.previousElementSibling.remove();
  turn.remove();
  if (!question.value) question.value = asked.content;
  fitQuestion();
  tell(notice, error.message);
  if (error.status === 401) {
    settings.open = true;
    element("key").focus();
  }
}

// ---- the models ----

async function listModels() {
  try {
    const { data } = await (await ask("v1/models")).json();
    model.replaceChildren(...data.map(({ id }) => new Option(id, id)));
    tell(notice, null);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    tell(notice, error.message);
    settings.open ||= error.status === 401;
  }
}

// ---- what a person does ----

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  const wrong = ["temperature", "max-tokens"].map(element).find((field) => !field.value || !field.validity.valid);
  if (!text || running) return;
  if (wrong) {
    settings.open = true;
    wrong.reportValidity();
    wrong.focus();
    tell(notice, "A number in the settings is missing, or not in its range.");
    return;
  }
  tell(notice, null);
  question.value = "";
  fitQuestion();
  messages.push({ role: "user", content: text });
  addTurn("user", text);
  answer();
});

question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  element("ask").requestSubmit();
});
question.addEventListener("input", fitQuestion);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
stop.addEventListener("click", () => running?.abort());

element("key").value = readKey();
element("key").addEventListener("change", (event) => {
  keepKey(event.target.value.trim());
  listModels();
});

element("clear").addEventListener("click", () => {
  running?.abort();
  messages = [];
  talk.replaceChildren();
  tell(notice, null);
  question.focus();
});

listModels();
