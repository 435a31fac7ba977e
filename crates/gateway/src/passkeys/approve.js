// The page on which people decide. Whatever comes from the gateway becomes text, never markup.
"use strict";

const element = (id) => document.getElementById(id);
let token = "";
let keys = [];
let offered = true;
let shown = null;

// What cannot be seen, or changes how the rest is seen: controls, format characters (those for the direction of writing
// among them), what has no meaning of its own, and spaces that are none. Tabs and ends of lines stay.
const ODD = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]|(?! )\p{Zs}/u;

function put(into, text) {
  let plain = "";
  const flush = () => {
    if (plain !== "") {
      into.append(document.createTextNode(plain));
      plain = "";
    }
  };
  into.replaceChildren();
  for (const character of text) {
    if (character === "\n" || character === "\t" || !ODD.test(character)) {
      plain += character;
      continue;
    }
    flush();
    const mark = document.createElement("span");
    mark.className = "odd";
    mark.textContent = "<U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + ">";
    into.append(mark);
  }
  flush();
}

function say(text, bad) {
  element("said").className = bad ? "bad" : "";
  put(element("said"), text);
}

class Refused extends Error {
  constructor(code, text) {
    super(text);
    this.code = code;
  }
}

async function api(method, path, body) {
  const headers = { Authorization: "Bearer " + token };
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  const value = await answer.json();
  if (!answer.ok) {
    const text = [value.error_description, value.hint].filter(Boolean).join(". ");
    throw new Refused(value.error, text || "the gateway answers " + answer.status);
  }
  return value;
}

const bytesOf = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
const textOf = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const allowed = (list) => list.map((one) => ({ ...one, id: bytesOf(one.id) }));

async function sign(options) {
  const publicKey = {
    ...options,
    challenge: bytesOf(options.challenge),
    allowCredentials: allowed(options.allowCredentials),
  };
  const made = await navigator.credentials.get({ publicKey });
  return {
    credential: textOf(made.rawId),
    authenticator_data: textOf(made.response.authenticatorData),
    client_data: textOf(made.response.clientDataJSON),
    signature: textOf(made.response.signature),
  };
}

async function enrol() {
  const { create, confirm } = await api("POST", "/v1/passkeys/begin");
  const assertion = confirm ? await sign(confirm) : undefined;
  const publicKey = {
    ...create,
    challenge: bytesOf(create.challenge),
    user: { ...create.user, id: bytesOf(create.user.id) },
    excludeCredentials: allowed(create.excludeCredentials),
  };
  const made = await navigator.credentials.create({ publicKey });
  await api("POST", "/v1/passkeys/finish", {
    authenticator_data: textOf(made.response.getAuthenticatorData()),
    client_data: textOf(made.response.clientDataJSON),
    assertion,
  });
  await showKeys();
  say("The passkey is enrolled, and on the record.");
}

async function showKeys() {
  try {
    keys = (await api("GET", "/v1/passkeys")).passkeys;
  } catch (error) {
    if (error.code !== "no_passkeys") throw error;
    offered = false;
  }
  element("enrol").hidden = !offered;
  element("keys-none").hidden = keys.length > 0 || !offered;
  element("keys").replaceChildren(
    ...keys.map((key) => {
      const item = document.createElement("li");
      put(item, key.credential.slice(0, 16) + ", " + key.algorithm + ", since " + key.enrolled);
      return item;
    }),
  );
}

function list(approvals) {
  const waiting = approvals.filter((one) => one.state === "waiting" || one.state === "approved");
  element("waiting-none").hidden = waiting.length > 0;
  element("waiting").replaceChildren(
    ...waiting.map((one) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.id = one.id;
      const line = document.createElement("code");
      put(line, one.statement.replaceAll(/\s+/g, " ") + (one.statement_shortened ? " …" : ""));
      const head = document.createElement("span");
      put(head, one.requester + " on " + one.connection + " (" + one.state + "): ");
      button.append(head, line);
      button.addEventListener("click", () => attempt(() => open(one.id)));
      item.append(button);
      return item;
    }),
  );
}

async function open(id) {
  show(await api("GET", "/v1/approvals/" + encodeURIComponent(id)));
  element("comment").value = "";
  element("one").scrollIntoView();
}

function show(one) {
  shown = one;
  element("one").hidden = false;
  put(element("one-title"), "Command " + one.id);
  const facts = [
    ["State", one.state],
    ["Asked by", one.requester + (one.on_behalf_of ? ", for " + one.on_behalf_of : "")],
    ["Asked", one.asked],
    ["Until", one.expires],
    ["Connection", one.connection],
    ["Database", one.database],
    ["As", one.role],
    ["Transaction", one.transaction],
    ["Why", [one.message, "rules: " + one.rules.join(", ")].filter(Boolean).join(" — ")],
    ["May do more", one.opaque.join(", ") || "no: it does what it says"],
    ["Approvals", one.approvals + " of " + one.quorum + (one.signed ? ", each signed by a passkey" : "")],
    ["Seen by", one.seen.map((seen) => seen.by).join(", ")],
    ["Request", one.request],
  ];
  element("facts").replaceChildren(
    ...facts.flatMap(([name, value]) => {
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      put(term, name);
      put(text, String(value));
      return [term, text];
    }),
  );
  put(element("statement"), one.statement);
  const parameters = one.parameters === null ? [] : one.parameters;
  element("parameters-title").hidden = element("parameters").hidden = parameters.length === 0;
  put(element("parameters"), parameters.map((value, at) => "$" + (at + 1) + " = " + JSON.stringify(value)).join("\n"));
  element("votes").replaceChildren(
    ...one.votes.map((vote) => {
      const item = document.createElement("li");
      const signed = vote.signed ? ", signed by a passkey" : "";
      put(item, vote.time + " " + vote.by + ": " + vote.decision + signed + (vote.comment ? ": " + vote.comment : ""));
      return item;
    }),
  );
  element("decide").hidden = !one.may_decide;
}

async function decide(decision) {
  const one = shown;
  const comment = element("comment").value;
  const path = "/v1/approvals/" + encodeURIComponent(one.id);
  const body = { decision, request: one.request, comment };
  if (keys.length > 0) {
    const { publicKey } = await api("POST", path + "/challenge", { decision, request: one.request, comment });
    body.assertion = await sign(publicKey);
  }
  show(await api("POST", path, body));
  say("It is on the record: " + decision + (body.assertion ? ", signed by your passkey." : "."));
}

// Watches for as long as the token holds.
async function watch() {
  let revision = null;
  for (;;) {
    try {
      const query = revision === null ? "" : "?wait=50&after=" + revision;
      const answer = await api("GET", "/v1/approvals" + query);
      revision = answer.revision;
      list(answer.approvals);
    } catch (error) {
      if (error instanceof Refused && error.code === "invalid_token") {
        element("main").hidden = true;
        element("login").hidden = false;
        say(error.message, true);
        return;
      }
      revision = null;
      await new Promise((resolve) => setTimeout(resolve, 3000));
    }
  }
}

async function login(given) {
  token = given.trim();
  const me = await api("GET", "/v1/whoami");
  put(element("who"), me.identity.value);
  element("token").value = "";
  await showKeys();
  element("login").hidden = true;
  element("main").hidden = false;
  say("");
  watch();
}

// One thing at a time, which is seen; and whatever goes wrong is said.
let busy = false;
async function attempt(what) {
  if (busy) return;
  busy = true;
  document.body.classList.add("busy");
  try {
    await what();
  } catch (error) {
    say(error instanceof Refused ? error.message : "It did not work: " + error.message, true);
  } finally {
    busy = false;
    document.body.classList.remove("busy");
  }
}

element("login").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => login(element("token").value));
});
element("decide").addEventListener("submit", (event) => event.preventDefault());
element("enrol").addEventListener("click", () => attempt(enrol));
element("approve").addEventListener("click", () => attempt(() => decide("approve")));
element("deny").addEventListener("click", () => attempt(() => decide("deny")));

// A token in the fragment is sent to nobody, and does not stay in the address.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (location.hash !== "") history.replaceState(null, "", location.pathname);
if (given) attempt(() => login(given));
