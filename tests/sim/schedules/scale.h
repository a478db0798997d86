/* How far one scheduler reaches: executors whose steps take modelled time, and the scheduler's own time measured. */
#ifndef TROUPE_TESTS_SIM_SCALE_H
#define TROUPE_TESTS_SIM_SCALE_H

/* Prints a table, and where the limit lies. */
void scale_print(void);

#endif
