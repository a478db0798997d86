/* A file's bytes inside the program, put there by the assembler: name_first up to name_end. */
#ifndef TROUPE_BASE_EMBED_H
#define TROUPE_BASE_EMBED_H

#include "base/span.h"

/* `path` is a string literal, absolute; the source that embeds it depends on it in CMakeLists.txt. */
#define EMBED_FILE(name, path)                                                                                         \
    __asm__(".pushsection .rodata\n" #name "_first:\n.incbin \"" path "\"\n" #name "_end:\n.popsection\n");            \
    extern const char name##_first[], name##_end[]

#define EMBEDDED(name) ((span){name##_first, (size_t)(name##_end - name##_first)})

#endif
