"""A gRPC client that the tests drive: see integration/grpc/client.go."""

import json
import sys
import time

import grpc

channels = {}


def identity(data):
    return data


def run(order):
    target = order["target"]
    if order.get("fresh") and target in channels:
        channels.pop(target).close()
    if target not in channels:
        channels[target] = grpc.insecure_channel("xds:///" + target)
    call = channels[target].unary_unary(order["method"], identity, identity)
    metadata = list(order.get("headers", {}).items())
    counts, errors = {}, {}
    end = time.monotonic() + order["within"]
    for _ in range(order["calls"]):
        if time.monotonic() > end:
            break
        try:
            name = call(b"", timeout=order["timeout"], metadata=metadata).decode()
            counts[name] = counts.get(name, 0) + 1
        except grpc.RpcError as e:
            text = e.code().name + ": " + (e.details() or "")
            errors[text] = errors.get(text, 0) + 1
    return {"counts": counts, "errors": errors}


for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
