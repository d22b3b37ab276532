// A gRPC client that the tests drive: see integration/grpc/client.go.
'use strict';
const readline = require('node:readline');
const grpc = require('@grpc/grpc-js');
require('@grpc/grpc-js-xds').register();

const clients = new Map();
const identity = (data) => data;

function callOnce(client, order) {
  const metadata = new grpc.Metadata();
  for (const [name, value] of Object.entries(order.headers || {})) metadata.set(name, value);
  return new Promise((resolve) => {
    const deadline = Date.now() + order.timeout * 1000;
    client.makeUnaryRequest(order.method, identity, identity, Buffer.alloc(0), metadata, { deadline }, (error, name) => {
      resolve(error ? { error: `${grpc.status[error.code]}: ${error.details}` } : { name: name.toString() });
    });
  });
}

async function run(order) {
  if (order.fresh && clients.has(order.target)) {
    clients.get(order.target).close();
    clients.delete(order.target);
  }
  if (!clients.has(order.target)) {
    clients.set(order.target, new grpc.Client(`xds:///${order.target}`, grpc.credentials.createInsecure()));
  }
  const counts = {};
  const errors = {};
  const end = Date.now() + order.within * 1000;
  for (let i = 0; i < order.calls && Date.now() < end; i++) {
    const { name, error } = await callOnce(clients.get(order.target), order);
    const [into, key] = error === undefined ? [counts, name] : [errors, error];
    into[key] = (into[key] || 0) + 1;
  }
  return { counts, errors };
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(JSON.stringify(await run(JSON.parse(line))) + '\n');
  }
  process.exit(0);
})();
