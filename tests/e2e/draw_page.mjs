// node draw_page.mjs SCRIPT DOCUMENT: runs a page's script on a document that it fetches, in a page that can hold elements
// and text and nothing else: HTML in a string has no way in. Prints what is shown as JSON.
import { readFileSync } from "node:fs";
import vm from "node:vm";

const [, , scriptFile, documentFile] = process.argv;

class Element {
  constructor(name) {
    this.name = name;
    this.childNodes = [];
    this.className = "";
  }
  append(...children) {
    this.childNodes.push(...children);
  }
  prepend(...children) {
    this.childNodes.unshift(...children);
  }
  replaceChildren(...children) {
    this.childNodes = children;
  }
  scrollIntoView() {}
  get text() {
    return this.childNodes.map((child) => (child instanceof Element ? child.text : String(child))).join(" ");
  }
  get all() {
    return [this, ...this.childNodes.filter((child) => child instanceof Element).flatMap((child) => child.all)];
  }
}

const parts = { contents: new Element("nav"), document: new Element("main") };
const allowed = new Set(["name", "childNodes", "className", "href", "id"]);
const guarded = (element) =>
  new Proxy(element, {
    set(target, key, value) {
      if (!allowed.has(key)) throw new Error(`the page sets ${String(key)}`);
      target[key] = value;
      return true;
    },
  });
const page = {
  title: "",
  createElement: (name) => guarded(new Element(name)),
  getElementById: (id) => parts[id] ?? null,
};
const answer = { ok: true, status: 200, json: async () => JSON.parse(readFileSync(documentFile, "utf8")) };

vm.runInNewContext(readFileSync(scriptFile, "utf8"), {
  document: page,
  location: { hash: "" },
  fetch: async (address) => {
    if (address !== "openapi.json") throw new Error(`the page fetches ${address}`);
    return answer;
  },
});
await new Promise((resolve) => setTimeout(resolve, 0));

const elements = [parts.contents, parts.document].flatMap((part) => part.all);
process.stdout.write(
  JSON.stringify({
    text: `${parts.contents.text} ${parts.document.text}`,
    elements: [...new Set(elements.map((element) => element.name))],
    ids: elements.map((element) => element.id).filter(Boolean),
    targets: elements.map((element) => element.href ?? "").filter((href) => href.startsWith("#")).map((href) => href.slice(1)),
  }),
);
