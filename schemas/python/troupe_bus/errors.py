"""The errors of the bus: the codes of libllm/base/error.h, as they stand in text.refused and node.refused."""

CODES = (
    "none invalid unauthorized not_found method timeout too_large unsupported overloaded cancelled internal gone "
    "not_ready no_memory io"
).split()


class BusError(Exception):
    """A request that got no answer, or bytes that are no message. `code` is one of CODES; `field` is the field of the
    request at fault, where there is one; `retry_after_ms` is when to try again, 0 where that would not help."""

    def __init__(self, code, text, field="", retry_after_ms=0):
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text
        self.field = field
        self.retry_after_ms = retry_after_ms


def code_name(number):
    return CODES[number] if number < len(CODES) else "internal"
