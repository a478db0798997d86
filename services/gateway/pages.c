/* See pages.h. */
#include "services/gateway/pages.h"

#include "base/embed.h"
#include "base/hash.h"

#include <inttypes.h>
#include <stdio.h>

EMBED_FILE(page_chat_html, PAGES_DIR "/chat.html");
EMBED_FILE(page_chat_js, PAGES_DIR "/chat.js");
EMBED_FILE(page_icon_svg, PAGES_DIR "/icon.svg");
EMBED_FILE(page_pages_css, PAGES_DIR "/pages.css");
EMBED_FILE(page_server_js, PAGES_DIR "/server.js");
EMBED_FILE(page_status_html, PAGES_DIR "/status.html");
EMBED_FILE(page_status_js, PAGES_DIR "/status.js");

static const struct {
    const char *path, *content_type, *first, *end;
} pages[] = {
    {"/", "text/html; charset=utf-8", page_chat_html_first, page_chat_html_end},
    {"/status", "text/html; charset=utf-8", page_status_html_first, page_status_html_end},
    {"/pages/chat.js", "text/javascript; charset=utf-8", page_chat_js_first, page_chat_js_end},
    {"/pages/icon.svg", "image/svg+xml", page_icon_svg_first, page_icon_svg_end},
    {"/pages/pages.css", "text/css; charset=utf-8", page_pages_css_first, page_pages_css_end},
    {"/pages/server.js", "text/javascript; charset=utf-8", page_server_js_first, page_server_js_end},
    {"/pages/status.js", "text/javascript; charset=utf-8", page_status_js_first, page_status_js_end},
};

static const span policy = SPAN("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src "
                                "'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'");

bool pages_respond(http_server *server, const http_request *request)
{
    size_t i = 0;
    while (i < COUNT(pages) && !span_is(request->path, pages[i].path))
        i++;
    if (i == COUNT(pages))
        return false;
    span       body = {pages[i].first, (size_t)(pages[i].end - pages[i].first)}, known;
    char       etag[24];
    int        n = snprintf(etag, sizeof etag, "\"%016" PRIx64 "\"", hash_64((hash_key){0}, body.data, body.size));
    http_field fields[] = {{"Content-Security-Policy", policy},
                           {"X-Content-Type-Options", SPAN("nosniff")},
                           {"Referrer-Policy", SPAN("no-referrer")},
                           {"Cross-Origin-Resource-Policy", SPAN("same-origin")},
                           {"Cache-Control", SPAN("no-cache")}, /* kept, but asked for again: 304 */
                           {"ETag", {etag, (size_t)n}}};
    bool       is_known =
        http_request_header(request, "If-None-Match", &known) && memmem(known.data, known.size, etag, (size_t)n);
    http_reply reply = {.status       = is_known ? 304 : 200,
                        .content_type = pages[i].content_type,
                        .fields       = fields,
                        .n_fields     = COUNT(fields),
                        .body         = body};
    http_respond(server, request->handle, &reply);
    return true;
}
