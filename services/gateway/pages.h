/* The pages for people: a chat at / and the status at /status, with their styles, scripts and icon under /pages/.
 *
 * The files of services/gateway/pages/ are part of the program. They load nothing from elsewhere, and the policy that
 * is sent with each of them (Content-Security-Policy) has the browser refuse it if they tried: so what a model says
 * can neither run nor call home, even where a page showed it wrongly. There is nothing secret in them. */
#ifndef TROUPE_GATEWAY_PAGES_H
#define TROUPE_GATEWAY_PAGES_H

#include "services/gateway/http_server.h"

/* Answers a GET or HEAD of one of the files, with 304 when the client has it already. False: there is none at that
 * path, and nothing was answered. */
bool pages_respond(http_server *server, const http_request *request);

#endif
