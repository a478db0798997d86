"""The flags of the examples."""

import argparse
import signal


def parser_of(doc):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--key-file", help="this program's CURVE pair, as `troupe keys` wrote it")
    parser.add_argument("--server-key-file", help="the servers' public key")
    return parser


def run_until_told(worker):
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    signal.signal(signal.SIGINT, lambda *_: worker.stop())
    worker.run()
