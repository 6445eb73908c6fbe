/* The agent: answers requests, one at a time, and runs windows. */
#ifndef DYNRT_AGENT_H
#define DYNRT_AGENT_H

#include <stdbool.h>
#include <stdint.h>

/* Take one byte of the link; a completed request is answered at once. */
void agent_take(uint8_t byte);

/* Run the window that a request has started, if any, and send its DONE. */
void agent_work(void);

/* Answer requests until the link ends (on a board it never does). */
void agent_serve(void);

#endif
