"""Key files as `troupe keys` writes them; see libllm/bus/keys.h."""

import re
from pathlib import Path

LINE = re.compile(r'^(public|secret)-key = "([^"]{40})"$')


def read(path):
    """A dict with "public" and, in a file of a pair, "secret": keys of 40 characters in Z85."""
    lines = (LINE.match(line.strip()) for line in Path(path).read_text().splitlines())
    keys = {m.group(1): m.group(2).encode() for m in lines if m}
    if "public" not in keys:
        raise ValueError(f'{path}: no line `public-key = "..."` with a key of 40 characters')
    return keys


def triple(key_file, server_key_file):
    """What session.Session takes: our pair, and the public key of the server."""
    pair, server = read(key_file), read(server_key_file)
    if "secret" not in pair:
        raise ValueError(f'{key_file}: no line `secret-key = "..."`')
    return pair["public"], pair["secret"], server["public"]
