// The status page: asks /status.json once a second while somebody looks, and changes only what changed.
import { ask, keepKey, readKey, Refusal, tell } from "./server.js";

const EVERY_MS = 1000;
const SAMPLES = 60;

const element = (id) => document.getElementById(id);
const notice = element("notice");
const rates = []; // tokens a second, the latest last

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const rateText = (rate) => (rate < 0.05 ? "0" : rate < 100 ? fine.format(rate) : whole.format(rate));
const share = (part, all) => (all > 0 ? `${Math.round((100 * part) / all)} %` : "-");

function duration(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// ---- tables: a row for each key, cells filled by the columns ----

// "executor-3f2a9c01d2b4e5f6": the end is enough to tell nodes apart.
const shortName = (name) => name.replace(/-[0-9a-f]*([0-9a-f]{6})$/, "-$1");
const nameColumn = { title: "Name", text: (row) => shortName(row.name), isHead: true };
const stateColumn = { title: "State", text: (row) => row.state, mark: (row) => row.state.replace(" ", "-") };

const COLUMNS = {
  executors: [
    nameColumn,
    stateColumn,
    { title: "Works for", text: (row) => shortName(row.scheduler) },
    { title: "Device", text: (row) => row.device },
    { title: "Batch", text: (row) => `${row.running} of ${row.slots}` },
    {
      title: "KV blocks",
      text: (row) => `${whole.format(row.kv_blocks_used)} of ${whole.format(row.kv_blocks)}`,
      bar: (row) => [row.kv_blocks_used / row.kv_blocks, row.kv_blocks_cached / row.kv_blocks],
    },
    { title: "Tokens/s", text: (row) => rateText(row.tokens_per_s) },
  ],
  queues: [
    { ...nameColumn, title: "Scheduler" },
    { title: "Running", text: (row) => whole.format(row.running) },
    { title: "Waiting", text: (row) => whole.format(row.waiting) },
    { title: "Waiting tokens", text: (row) => whole.format(row.waiting_tokens) },
    { title: "Executors", text: (row) => whole.format(row.executors_in_all) },
    { title: "Tokens/s", text: (row) => rateText(row.tokens_per_s) },
    { title: "Report", text: (row) => (row.answers ? "current" : "late") },
  ],
  nodes: [
    { title: "Service", text: (row) => row.role, isHead: true },
    { title: "Name", text: (row) => shortName(row.name) },
    stateColumn,
    { title: "Here for", text: (row) => duration(row.connected_s) },
    { title: "In hand", text: (row) => whole.format(row.load) },
    { title: "Credits", text: (row) => (row.credits === undefined ? "-" : whole.format(row.credits)) },
    { title: "Version", text: (row) => row.version || "unknown" },
  ],
};

function newCell(column) {
  const cell = document.createElement(column.isHead ? "th" : "td");
  if (column.isHead) cell.scope = "row";
  cell.dataset.title = column.title;
  cell.append(document.createElement("span"));
  if (column.bar) {
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.setAttribute("aria-hidden", "true"); // the text says it
    bar.append(document.createElement("i"), document.createElement("i"));
    cell.append(bar);
  }
  return cell;
}

function fillCell(cell, column, row) {
  setText(cell.firstChild, column.text(row));
  if (column.mark) cell.firstChild.className = `mark ${column.mark(row)}`;
  if (column.bar)
    column.bar(row).forEach((part, i) => {
      cell.lastChild.children[i].style.width = `${100 * part}%`;
    });
}

function newTable(table, columns) {
  const row = table.createTHead().insertRow();
  for (const { title } of columns) {
    const head = document.createElement("th");
    head.scope = "col";
    head.textContent = title;
    row.append(head);
  }
  return table.createTBody();
}

function fillTable(id, rows) {
  const table = element(id);
  const columns = COLUMNS[id];
  const body = table.tBodies[0] ?? newTable(table, columns);
  const known = new Map([...body.rows].map((tr) => [tr.dataset.key, tr]));
  rows.forEach((row, i) => {
    let tr = known.get(row.name);
    known.delete(row.name);
    if (!tr) {
      tr = document.createElement("tr");
      tr.dataset.key = row.name;
      tr.append(...columns.map(newCell));
    }
    columns.forEach((column, c) => fillCell(tr.cells[c], column, row));
    if (body.rows[i] !== tr) body.insertBefore(tr, body.rows[i] ?? null);
  });
  for (const tr of known.values()) tr.remove();
  table.parentElement.hidden = rows.length === 0;
}

// ---- what is shown ----

const sum = (rows, field) => rows.reduce((total, row) => total + row[field], 0);
const byName = (a, b) => (a.role ?? "").localeCompare(b.role ?? "") || a.name.localeCompare(b.name);

function drawRates() {
  const most = Math.max(1, ...rates);
  const step = 240 / (SAMPLES - 1);
  const first = SAMPLES - rates.length;
  const points = rates.map((rate, i) => `${((first + i) * step).toFixed(1)},${(46 - (44 * rate) / most).toFixed(1)}`);
  element("spark").firstElementChild.setAttribute("points", points.join(" "));
  element("spark").setAttribute("aria-label", `The last ${rates.length} s; at most ${rateText(most)} tokens a second`);
}

function showTiles(status, queues, executors) {
  const { gateway } = status;
  const used = sum(executors, "kv_blocks_used");
  const all = sum(executors, "kv_blocks");
  rates.push(status.tokens_per_s);
  if (rates.length > SAMPLES) rates.shift();
  drawRates();
  setText(element("rate"), rateText(status.tokens_per_s));
  setText(element("running"), whole.format(sum(queues, "running")));
  setText(element("waiting"), whole.format(sum(queues, "waiting") + gateway.prompts_waiting));
  setText(element("waiting-note"), `${whole.format(sum(queues, "waiting_tokens"))} tokens`);
  setText(element("kv"), share(used, all));
  setText(element("kv-note"), `${whole.format(sum(executors, "kv_blocks_cached"))} blocks kept for later`);
  setText(element("streams"), whole.format(gateway.streams));
  setText(element("streams-note"), `${whole.format(gateway.connections)} connections`);
}

function show(status) {
  const { gateway } = status;
  const queues = status.schedulers.filter(({ report }) => report).map((s) => ({ ...s.report, ...s }));
  const executors = queues.flatMap((q) => q.executors.map((x) => ({ ...x, scheduler: q.name })));
  const drafters = new Map(queues.flatMap((q) => q.drafters).map((d) => [d.name, { ...d, role: "drafter" }]));
  const self = { ...gateway, role: "gateway", connected_s: gateway.started_s, load: gateway.requests };
  const nodes = [self, ...status.nodes, ...executors.map((x) => ({ ...x, role: "executor" })), ...drafters.values()];
  const state = gateway.reason ? `Not ready: ${gateway.reason}.` : "Ready.";
  const n = executors.filter((x) => x.state === "ready").length;
  setText(
    element("summary"),
    `${state} ${status.model}, ${n} of ${executors.length} executor${executors.length === 1 ? "" : "s"} ready, ` +
      `this gateway up for ${duration(gateway.started_s)}.`);
  showTiles(status, queues, executors);
  fillTable("executors", executors.sort(byName));
  fillTable("queues", queues.sort(byName));
  fillTable("nodes", nodes.sort(byName));
  element("board").hidden = false;
}

// ---- asking ----

let timer = 0;

async function look() {
  clearTimeout(timer);
  try {
    show(await (await ask("status.json")).json());
    tell(notice, null);
    element("unlock").hidden = true;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    tell(notice, error.status === 401 ? error.message : `${error.message} What is below is not current.`);
    if (error.status === 401) {
      element("board").hidden = true;
      element("unlock").hidden = false;
      return; // until there is a key
    }
  }
  if (!document.hidden) timer = setTimeout(look, EVERY_MS);
}

element("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(element("key").value.trim());
  look();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});

element("key").value = readKey();
look();
