#!/usr/bin/env python3
"""A drafter of one's own: it remembers what followed every three tokens in all sequences it ever saw.

Where requests resemble each other (forms, code, boiler plate) the second answer is drafted from the first. A wrong
draft costs time and no correctness: the executor verifies every one. Run it instead of `troupe drafter`, and send
requests with `draft_tokens`.

    drafter.py --scheduler tcp://127.0.0.1:5571
"""

import collections

from flags import parser_of, run_until_told
from troupe_bus import Worker

CONTEXT = 3
SEQUENCES_MAX = 1024
MEMORY_MAX = 1 << 20

sequences = collections.OrderedDict()  # (request, choice): tokens
followed_by = {}  # three tokens: the one that came next the last time


def learn(tokens, first):
    for i in range(max(first, CONTEXT), len(tokens)):
        if len(followed_by) < MEMORY_MAX:
            followed_by[tuple(tokens[i - CONTEXT : i])] = tokens[i]


def propose(tokens, n):
    drafts = []
    while len(drafts) < n:
        following = followed_by.get(tuple((tokens[-CONTEXT:] + drafts)[-CONTEXT:]))
        if following is None:
            break
        drafts.append(following)
    return drafts


def on_draft_request(message):
    body = message.body
    tokens = sequences.setdefault((message.request, body["choice"]), [])
    reply = {"choice": body["choice"], "length": body["index"] + len(body["tokens"])}
    if body["index"] <= len(tokens):  # else something is missing in between: `known` says from where to send
        tokens[body["index"] :] = body["tokens"]
        learn(tokens, body["index"])
        reply["tokens"] = propose(tokens, body["n"])
    message.reply("draft.reply", {**reply, "known": len(tokens)})
    message.done()
    if len(sequences) > SEQUENCES_MAX:
        sequences.popitem(last=False)


def on_draft_forget(message):
    for key in [key for key in sequences if key[0] == message.request]:
        if message.body["all"] or key[1] == message.body["choice"]:
            del sequences[key]


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--scheduler", action="append", required=True, help="may be given several times")
    args = parser.parse_args()
    handlers = {"draft.request": on_draft_request, "draft.forget": on_draft_forget}
    keys = {"key_file": args.key_file, "server_key_file": args.server_key_file}
    run_until_told(Worker("drafter", args.scheduler, handlers, **keys))


if __name__ == "__main__":
    main()
