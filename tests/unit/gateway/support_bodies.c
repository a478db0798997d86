#include "support_bodies.h"

arena *memory;

int bodies_prepare(void **state)
{
    (void)state;
    memory = arena_new(64 << 20, NULL);
    return memory ? 0 : -1;
}

int bodies_clean_up(void **state)
{
    (void)state;
    arena_free(&memory);
    return 0;
}
