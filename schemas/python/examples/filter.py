#!/usr/bin/env python3
"""A postprocessor of one's own: it takes the tokens of every answer, and hands their text on without mail addresses.

It stands in the place of `troupe postprocessor`, and leaves to that what this one does not do: stop strings and log
probabilities. Tokens become text by asking a gateway. A word goes out when it is complete; a delta names the tokens
that it accounts for, so that an answer which is taken over after a failure goes on at the right place.

    filter.py --scheduler tcp://127.0.0.1:5571 --gateway tcp://127.0.0.1:5570 \\
              --client-key-file client.key --key-file postprocessor.key --server-key-file gateway.key.pub
"""

import re

from flags import parser_of, run_until_told
from troupe_bus import Client, Worker

ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")


class Choice:
    def __init__(self, tokens, finished):
        self.tokens, self.n_sent, self.finished = list(tokens), len(tokens), finished
        self.text_sent = None  # length of the text of tokens[:n_sent], once it is needed


class Stream:
    """One request, from gen.open on."""

    def __init__(self, opening):
        self.opening, self.body = opening, opening.body
        self.choices = [Choice([], False) for _ in range(self.body["n"])]
        for point in self.body["resume"]:
            self.choices[point["choice"]] = Choice(point["tokens"], point["finished"])


class Filter:
    def __init__(self, client):
        self.client, self.streams = client, {}

    def on_gen_open(self, message):
        old = self.streams.get(message.request)
        if old and old.opening.attempt >= message.attempt:
            return message.done()
        self.streams[message.request] = Stream(message)

    def on_gen_tokens(self, message):
        stream = self.streams.get(message.request)
        if not stream or stream.opening.attempt != message.attempt:
            return
        choice = stream.choices[message.body["choice"]]
        for token in message.body["tokens"][max(0, len(choice.tokens) - message.body["index"]) :]:
            self.add(stream, message, choice, token)
        if message.body["finish"] != "none" and not choice.finished:
            choice.finished = True
            self.hand_out(stream, message, choice, self.client.decode(choice.tokens))
        if all(c.finished for c in stream.choices):
            self.end(message.request)

    def add(self, stream, message, choice, token):
        """What came before a token that begins with a space is complete words."""
        before = self.client.decode(choice.tokens)
        if choice.text_sent is None:
            choice.text_sent = len(before)  # of tokens that an earlier attempt delivered
        after = self.client.decode([*choice.tokens, token])
        if after[len(before) : len(before) + 1].isspace() and len(before) > choice.text_sent:
            self.hand_out(stream, message, choice, before)
        choice.tokens.append(token)

    def hand_out(self, stream, message, choice, text):
        delta = {
            "choice": message.body["choice"],
            "index": choice.n_sent,
            "tokens": choice.tokens[choice.n_sent :],
            "text": ADDRESS.sub("[address]", text[choice.text_sent or 0 :]),
        }
        if choice.finished:
            delta |= {"finish": message.body["finish"], "error": message.body["error"]}
            delta["usage"] = {
                "prompt_tokens": stream.body["n_prompt_tokens"],
                "completion_tokens": len(choice.tokens),
                "cached_tokens": message.body["cached_tokens"],
            }
        choice.n_sent, choice.text_sent = len(choice.tokens), len(text)
        message.worker.send(stream.body["reply_to"], "text.delta", delta, message.head)

    def on_gen_cancel(self, message):
        stream = self.streams.get(message.request)
        if stream and message.body["all"]:
            self.end(message.request)
        elif stream:
            stream.choices[message.body["choice"]].finished = True

    def end(self, request):
        self.streams.pop(request).opening.done()

    def on_lost(self, peer):
        """What a scheduler that went away had begun is begun again elsewhere."""
        self.streams = {id_: s for id_, s in self.streams.items() if s.opening.peer != peer}


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--scheduler", action="append", required=True, help="may be given several times")
    parser.add_argument("--gateway", action="append", required=True, help="may be given several times")
    parser.add_argument("--client-key-file", help="a CURVE pair of the role client, to ask for the text of tokens")
    args = parser.parse_args()
    asks = {"key_file": args.client_key_file, "server_key_file": args.client_key_file and args.server_key_file}
    with Client(args.gateway[0], **asks, connect_timeout=60) as client:
        own = Filter(client)
        handlers = {
            "gen.open": own.on_gen_open,
            "gen.tokens": own.on_gen_tokens,
            "gen.cancel": own.on_gen_cancel,
        }
        keys = {"key_file": args.key_file, "server_key_file": args.server_key_file}
        endpoints = [*args.scheduler, *args.gateway]
        run_until_told(Worker("postprocessor", endpoints, handlers, on_lost=own.on_lost, **keys))


if __name__ == "__main__":
    main()
