/* The Lua scripts that make an operation on Redis atomic, and their names there: the SHA-1 of their text. */
#ifndef TROUPE_STORE_REDIS_SCRIPTS_H
#define TROUPE_STORE_REDIS_SCRIPTS_H

#include "store/request.h"

enum { REDIS_SHA_BYTES = 40 };

/* The text of an operation's script; NULL for STORE_OP_READ, which is a plain command. */
const char *redis_script(store_op op);

/* The 40 hexadecimal digits that EVALSHA wants, NUL-terminated. */
bool redis_script_sha(store_op op, char sha[REDIS_SHA_BYTES + 1], error *err) MUST_CHECK;

#endif
