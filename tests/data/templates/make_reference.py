#!/usr/bin/env python3
"""Writes reference.json: what Python's jinja2, set up as transformers does, makes of every template and case.

    pip install jinja2 && python3 make_reference.py

A case is {name, template (a file here) or source, variables (the name of a set of them), output}; output is null where
jinja2 refuses."""

import datetime
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.sandbox

import cases

HERE = pathlib.Path(__file__).parent
NOW = 1700000000


class Generation(jinja2.ext.Extension):
    """transformers' {% generation %}: a call block around its body, to mask the loss by."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    now = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)
    env.globals["strftime_now"] = now.strftime
    return env


def render(source, variables):
    try:
        return environment().from_string(source).render(**variables)
    except Exception:
        return None


def main():
    sets, out = {"features": cases.V}, []
    for name, messages in cases.CONVERSATIONS.items():
        for tools in (None, cases.TOOLS):
            for prompt in (True, False):
                label = f"{name}{'+tools' if tools else ''}{'+prompt' if prompt else ''}"
                sets[label] = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": prompt,
                               **({} if prompt else {"enable_thinking": False}), **cases.SPECIAL}
    for path in sorted(HERE.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for label in sets:
            if label != "features":
                out.append({"name": f"{path.name} {label}", "template": path.name, "variables": label,
                            "output": render(source, sets[label])})
    for i, source in enumerate(cases.FEATURES):
        out.append({"name": f"feature {i}", "source": source, "variables": "features", "output": render(source, cases.V)})
    text = json.dumps({"now_unix_s": NOW, "variables": sets, "cases": out}, ensure_ascii=False, indent=0, separators=(",", ":"))
    (HERE / "reference.json").write_text(text + "\n", encoding="utf-8")
    print(len(out), "cases,", sum(c["output"] is None for c in out), "refused")


if __name__ == "__main__":
    main()
