// For tests/notify/test_npm.py: reads cases as JSON from standard input, prints for each whether its verifier takes it.
import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const verifiers = {
  // As a receiver uses the library: the text of the body, the headers, one secret.
  v1: (secret, headers, body) => new Webhook(secret).verify(body.toString("utf8"), headers) !== undefined,
  // Node's own Ed25519 over the bytes that Standard Webhooks names.
  v1a: (key, headers, body) => {
    const raw = Buffer.from(key.slice("whpk_".length), "base64");
    const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw]);
    const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
    return headers["webhook-signature"].split(" ").some((signature) => {
      const [version, text] = signature.split(",");
      const publicKey = createPublicKey({ key: der, format: "der", type: "spki" });
      return version === "v1a" && verify(null, signed, publicKey, Buffer.from(text, "base64"));
    });
  },
};

const taken = JSON.parse(readFileSync(0, "utf8")).map(({ scheme, key, headers, body }) => {
  try {
    return verifiers[scheme](key, headers, Buffer.from(body, "base64"));
  } catch {
    return false;
  }
});
console.log(JSON.stringify(taken));
