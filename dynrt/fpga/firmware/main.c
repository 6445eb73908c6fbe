#include "agent.h"
#include "zynq.h"

int main(void)
{
    zynq_enable_caches();
    zynq_enable_units();
    for (;;) {
        agent_serve();
    }
}
