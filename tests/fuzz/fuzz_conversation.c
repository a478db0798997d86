// links: service_tokenizer
/* What a client sends as JSON inside a chat request, rendered by templates that print all of it. Input: a byte that
 * picks the template, then sections that end at a byte 0xFF: tools, chat_template_kwargs, and for each message a
 * letter (the role), its content and its tool calls. Whatever they are, the variables are made or the field at fault is
 * named, and no text of the client's comes out as the template's own. */
#include "base/utf8.h"
#include "text/chat_template.h"
#include "tokenizer/conversation.h"

#include <stdio.h>
#include <stdlib.h>

enum { MESSAGES_MAX = 8, MEMORY_BYTES = 4 << 20, OUTPUT_BYTES_MAX = 1 << 16, TEMPLATE_BYTES_MAX = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every way from a client's value into the output: keys, values, nested, sorted, as JSON, as text, in comparisons. */
static const char everything[] =
    "{%- for k, v in (x or {}).items() %}{{ k }}={{ v | tojson(indent=2) }};{{ v }};{{ v is string }}{{ v == x }}"
    "{%- if v is mapping %}{{ v | dictsort }}{{ v.items() | list }}{% elif v is iterable and v is not string %}"
    "{{ v | length }}{{ v | join(',') }}{{ v[1:-1] }}{{ v | first }}{% elif v is number %}{{ v + 1 }}{{ v | int }}"
    "{{ v | round(2) }}{% endif %}{% endfor %}"
    "{%- for t in tools or [] %}{{ t | tojson }}{{ t.function.name | upper }}{% endfor %}"
    "{%- for m in messages %}{{ m.role ~ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.arguments }}"
    "{% for k, v in c.function.arguments.items() %}{{ k | trim }}{{ v | tojson }}{% endfor %}{% endfor %}{% endfor %}";

static const char *const files[] = {"qwen25_tools", "llama3_tools", "mistral_tools",
                                    "typed_tools",  "qwen3",        "command_r"};
enum { TEMPLATES = COUNT(files) + 1 };
static chat_template *templates[TEMPLATES];
static bool           is_ascii[TEMPLATES]; /* the template: what is not ASCII in a text is then the client's */

static bool has_ascii_alone(span text)
{
    for (size_t i = 0; i < text.size; i++)
        if ((uint8_t)text.data[i] > 0x7F)
            return false;
    return true;
}

static void read_templates(void)
{
    static char text[TEMPLATE_BYTES_MAX];
    templates[0] = chat_template_new(span_of(everything), NULL);
    is_ascii[0]  = true;
    for (size_t i = 0; i < COUNT(files); i++) {
        char path[512];
        snprintf(path, sizeof path, TESTS_DIR "/data/templates/%s.jinja", files[i]);
        FILE *file = fopen(path, "rb");
        if (!file)
            abort();
        span source      = {text, fread(text, 1, sizeof text, file)};
        templates[i + 1] = chat_template_new(source, NULL);
        is_ascii[i + 1]  = has_ascii_alone(source);
        fclose(file);
    }
    for (size_t i = 0; i < TEMPLATES; i++)
        if (!templates[i])
            abort();
}

/* The next section; the bus refuses text that is not UTF-8, so such a one is empty. */
static span take(span *rest)
{
    const char *end  = rest->size ? memchr(rest->data, 0xFF, rest->size) : NULL;
    span        text = {rest->data, end ? (size_t)(end - rest->data) : rest->size};
    size_t      past = text.size + (end != NULL);
    *rest            = (span){rest->data + past, rest->size - past};
    return utf8_is_valid(text) ? text : (span){0};
}

static chat_message take_message(span *rest)
{
    static const char *const roles[] = {"user", "assistant", "tool", "system", "ipython"};
    span                     kind    = take(rest);
    chat_message             m       = chat_message_defaults;
    m.role                           = span_of(roles[(kind.size ? (uint8_t)kind.data[0] : 0) % COUNT(roles)]);
    m.content                        = take(rest);
    m.tool_calls_json                = take(rest);
    if (kind.size > 1) {
        m.name = m.tool_call_id = (span){kind.data + 1, kind.size - 1};
        m.reasoning_content     = m.content;
    }
    return m;
}

static void render(size_t which, const json_t *variables)
{
    error      err    = {0};
    arena     *memory = arena_new(MEMORY_BYTES, &err);
    text_part *parts;
    uint32_t   n_parts;
    size_t     n_bytes = 0;
    if (!chat_template_render(templates[which], variables, 1700000000, OUTPUT_BYTES_MAX, memory, &parts, &n_parts,
                              &err)) {
        if (!err.text[0])
            __builtin_trap();
        n_parts = 0;
    }
    for (uint32_t i = 0; i < n_parts; i++) {
        n_bytes += parts[i].text.size;
        if (parts[i].text.size == 0 || (i > 0 && parts[i].trusted == parts[i - 1].trusted) ||
            (parts[i].trusted && is_ascii[which] && !has_ascii_alone(parts[i].text)))
            __builtin_trap();
    }
    if (n_bytes > OUTPUT_BYTES_MAX)
        __builtin_trap();
    arena_free(&memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    chat_message  messages[MESSAGES_MAX];
    conversation  c     = {.messages = messages, .add_generation_prompt = true, .bos_token = SPAN("<s>")};
    request_field field = {0};
    error         err   = {0};
    if (!templates[0])
        read_templates();
    if (size == 0)
        return 0;
    span rest       = {(const char *)data + 1, size - 1};
    c.tools_json    = take(&rest);
    c.template_json = take(&rest);
    while (rest.size > 0 && c.n_messages < MESSAGES_MAX)
        messages[c.n_messages++] = take_message(&rest);
    json_t *variables = conversation_variables(&c, &field, &err);
    if (!variables && (!err.text[0] || !field.name[0]))
        __builtin_trap();
    if (variables)
        render(data[0] % TEMPLATES, variables);
    json_decref(variables);
    return 0;
}
