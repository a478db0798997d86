#!/usr/bin/env python3
"""A batch producer without HTTP: reads prompts, a JSON object a line, and writes their answers.

    {"id": "a1", "prompt": "The capital of France is", "max_tokens": 16}

Besides `id` and `prompt` (or `messages`) a line may hold every field of text.request, sampling_params and
output_params. Answers come in any order, {"id", "text", "finish"} or {"id", "error"}. Lines whose id has an answer in
OUTPUT are skipped, so a batch that was interrupted is run again with the same command. What may be tried again (an
overload, a part that went away) is.

    batch.py --gateway tcp://127.0.0.1:5570 INPUT OUTPUT
"""

import concurrent.futures
import json
import time
from pathlib import Path

from flags import parser_of
from troupe_bus import BusError, Client

RETRIED = ("overloaded", "not_ready", "gone")
ATTEMPTS = 10


def ask(client, line, fields):
    return client.chat(line["messages"], **fields) if "messages" in line else client.complete(line["prompt"], **fields)


def answer(client, line):
    fields = {key: value for key, value in line.items() if key not in ("id", "prompt", "messages")}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            asked = ask(client, line, fields)
            texts = asked.texts()
            return {"id": line["id"], "text": texts[0] if len(texts) == 1 else texts, "finish": asked.finish}
        except BusError as fault:
            if fault.code not in RETRIED or attempt == ATTEMPTS:
                return {"id": line["id"], "error": str(fault)}
            time.sleep(max(fault.retry_after_ms / 1000, 0.1 * attempt))
        except (TypeError, KeyError) as fault:  # a line that is no request
            return {"id": line["id"], "error": str(fault)}


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--concurrency", type=int, default=32, help="requests in flight (32)")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    done = set()
    if args.output.exists():
        done = {record["id"] for record in map(json.loads, args.output.open()) if "error" not in record}
    lines = [line for line in map(json.loads, args.input.open()) if line["id"] not in done]
    keys = {"key_file": args.key_file, "server_key_file": args.server_key_file}
    with Client(args.gateway, **keys) as client, args.output.open("a") as output:
        with concurrent.futures.ThreadPoolExecutor(args.concurrency) as pool:
            for finished in concurrent.futures.as_completed(pool.submit(answer, client, line) for line in lines):
                print(json.dumps(finished.result(), ensure_ascii=False), file=output, flush=True)


if __name__ == "__main__":
    main()
