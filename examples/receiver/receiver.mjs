// The same receiver in Node: `npm install standardwebhooks`, then WEBHOOK_SECRET=whsec_… node receiver.mjs
// It keeps events as files, one for each webhook-id, made before it says 204: a delivery that comes twice is one file.
import { mkdirSync, writeFileSync } from "node:fs";
import http from "node:http";
import { join } from "node:path";
import { Webhook } from "standardwebhooks";

const secrets = process.env.WEBHOOK_SECRET.split(" "); // two while a secret is being changed
if (!secrets.every((secret) => secret.startsWith("whsec_"))) throw new Error("a secret begins with whsec_");
const webhooks = secrets.map((secret) => new Webhook(secret));
const inbox = process.env.INBOX ?? "inbox";
mkdirSync(inbox, { recursive: true });

function verified(body, headers) {
  for (const webhook of webhooks) {
    try {
      return webhook.verify(body, headers);
    } catch {
      continue;
    }
  }
  return null;
}

http.createServer(async (request, response) => {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > 70_000) return response.writeHead(413).end(); // a node sends at most 64 KiB
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks).toString("utf8"); // the exact bytes; parsed only after they are verified
  const event = verified(body, request.headers);
  if (event === null) return response.writeHead(401).end();
  const id = request.headers["webhook-id"].replace(/[^0-9a-zA-Z_-]/g, "");
  let first = true;
  try {
    writeFileSync(join(inbox, `${id}.json`), body, { flag: "wx", flush: true });
  } catch (error) {
    if (error.code !== "EEXIST") return response.writeHead(500).end(); // the node sends it again
    first = false;
  }
  response.writeHead(204).end();
  console.log(first ? "new" : "again", event.type, event.data.url ?? "");
}).listen(Number(process.env.PORT ?? 8000), process.env.HOST ?? "127.0.0.1");
