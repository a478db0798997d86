// links: llm_bus
/* Any bytes as the body of a message. What decodes must encode, and print.
 *
 * `--type=gen.tokens` makes it the target of that message, with a budget and finds of its own; `--types` lists them.
 * Seeds are for all: the first byte picks the type where no flag does, and is skipped where one does. */
#include "bus/messages.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const message_info *only; /* NULL: the first byte picks */

static void take_flag(const char *flag)
{
    bool lists = strcmp(flag, "--types") == 0, picks = strncmp(flag, "--type=", 7) == 0;
    for (uint32_t i = 0; (lists || picks) && i < n_message_infos; i++) {
        if (lists)
            puts(message_infos[i].name);
        if (picks && strcmp(flag + 7, message_infos[i].name) == 0)
            only = &message_infos[i];
    }
    if (picks && !only)
        fprintf(stderr, "%s: there is no such message; --types lists them\n", flag);
    if (lists || (picks && !only))
        exit(lists ? 0 : 1);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    for (int i = 1; i < *argc; i++)
        take_flag((*argv)[i]);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t encoded[1 << 20];
    static char    text[4096];
    static arena  *memory;
    if (!memory)
        memory = arena_new(1 << 22, NULL);
    arena_reset(memory);
    if (size == 0)
        return 0;
    const message_info *info = only ? only : &message_infos[data[0] % n_message_infos];
    const void         *body;
    if (!message_decode(info->type, (span){(const char *)data + 1, size - 1}, memory, &body, NULL))
        return 0;
    wire_writer out = {encoded, sizeof encoded, 0, false};
    if (!message_encode(info->type, body, &out, NULL))
        abort();
    wire_print(info->body, body, text, sizeof text);
    return 0;
}
