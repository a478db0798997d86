/* JSON as Python's json.dumps writes it: the tojson filter. */
#include "text/jinja_value.h"

#include <math.h>
#include <stdio.h>

typedef struct {
    jinja                  *j;
    jinja_builder           out;
    const jinja_json_style *style;
    bool                    untrusted; /* of the whole text: what is inside decides for its punctuation too */
    uint32_t                level;
} writer;

static void write_value(writer *w, jinja_value v);

static void put(writer *w, const char *text)
{
    jinja_builder_add(&w->out, span_of(text), w->untrusted);
}

static void write_string(writer *w, const jinja_string *s)
{
    span   text    = jinja_string_text(w->j, s);
    size_t written = 0;
    put(w, "\"");
    for (size_t at = 0, begin = 0; at < text.size; begin = at) {
        uint32_t c = jinja_next_char(text, &at);
        char     escape[16];
        if (c == '"' || c == '\\')
            snprintf(escape, sizeof escape, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t' || c == '\f' || c == '\b')
            snprintf(escape, sizeof escape, "\\%c",
                     c == '\n'   ? 'n'
                     : c == '\r' ? 'r'
                     : c == '\t' ? 't'
                     : c == '\f' ? 'f'
                                 : 'b');
        else if (c < 0x20 || (w->style->ascii && c >= 0x7F && c < 0x10000 && c != 0x7F))
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c);
        else if (w->style->ascii && c >= 0x10000)
            snprintf(escape, sizeof escape, "\\u%04x\\u%04x", (unsigned)(0xD800 + ((c - 0x10000) >> 10)),
                     (unsigned)(0xDC00 + ((c - 0x10000) & 0x3FF)));
        else
            continue;
        jinja_builder_add(&w->out, (span){text.data + written, begin - written}, w->untrusted);
        put(w, escape);
        written = at;
    }
    jinja_builder_add(&w->out, (span){text.data + written, text.size - written}, w->untrusted);
    put(w, "\"");
}

static void new_line(writer *w)
{
    if (!w->style->multiline)
        return;
    put(w, "\n");
    for (uint32_t i = 0; i < w->level; i++)
        jinja_builder_add(&w->out, w->style->indent, w->untrusted);
}

static void between_items(writer *w, size_t i)
{
    if (i > 0)
        jinja_builder_add(&w->out, w->style->item_separator, w->untrusted);
    new_line(w);
}

static void write_list(writer *w, const jinja_sequence *s)
{
    put(w, "[");
    w->level++;
    for (size_t i = 0; i < s->n; i++) {
        between_items(w, i);
        write_value(w, s->items[i]);
    }
    w->level--;
    if (s->n > 0)
        new_line(w);
    put(w, "]");
}

static void write_key(writer *w, jinja_value key)
{
    if (key.kind == JINJA_STRING) {
        write_string(w, key.string);
        return;
    }
    if (!jinja_is_number(key) && key.kind != JINJA_NONE)
        jinja_fail_type(w->j, "keys must be str, int, float, bool or None", key);
    put(w, "\"");
    write_value(w, key);
    put(w, "\"");
}

static void write_dict(writer *w, const jinja_dict *d)
{
    jinja  *j     = w->j;
    size_t *order = jinja_take(j, d->n, sizeof *order);
    for (size_t i = 0; i < d->n; i++) {
        size_t at = i;
        /* Insertion sort: sort_keys is rare and its objects are small; the steps bound it. */
        for (; w->style->sort_keys && at > 0 && jinja_compare(j, d->keys[i], d->keys[order[at - 1]], "<") < 0; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    put(w, "{");
    w->level++;
    for (size_t i = 0; i < d->n; i++) {
        between_items(w, i);
        write_key(w, d->keys[order[i]]);
        jinja_builder_add(&w->out, w->style->key_separator, w->untrusted);
        write_value(w, d->values[order[i]]);
    }
    w->level--;
    if (d->n > 0)
        new_line(w);
    put(w, "}");
}

static void write_number(writer *w, jinja_value v)
{
    char number[JINJA_NUMBER_BYTES];
    if (v.kind == JINJA_INT)
        snprintf(number, sizeof number, "%lld", (long long)v.integer);
    else if (isfinite(v.number))
        jinja_format_float(number, v.number);
    else
        snprintf(number, sizeof number, isnan(v.number) ? "NaN" : v.number > 0 ? "Infinity" : "-Infinity");
    put(w, number);
}

static void write_value(writer *w, jinja_value v)
{
    jinja_enter(w->j);
    switch ((jinja_kind)v.kind) {
    case JINJA_NONE:
        put(w, "null");
        break;
    case JINJA_BOOL:
        put(w, v.boolean ? "true" : "false");
        break;
    case JINJA_INT:
    case JINJA_FLOAT:
        write_number(w, v);
        break;
    case JINJA_STRING:
        write_string(w, v.string);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
        write_list(w, v.sequence);
        break;
    case JINJA_DICT:
        write_dict(w, v.dict);
        break;
    default:
        jinja_fail(w->j, ERR_INVALID, "Object of type %s is not JSON serializable", jinja_type_name(v));
    }
    jinja_leave(w->j);
}

jinja_string *jinja_json(jinja *j, jinja_value v, const jinja_json_style *style)
{
    writer w = {.j = j, .style = style, .untrusted = jinja_is_untrusted(j, v)};
    jinja_builder_start(&w.out, j);
    write_value(&w, v);
    return jinja_builder_finish(&w.out);
}
