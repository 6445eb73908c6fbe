/* A flat map in sections of 1 MiB, and both levels of cache. */
#include "zynq.h"

#define SECTIONS 4096u
#define SECTION_MEMORY 0x00001C0Eu /* full access; write-back, write-allocate; executable */
#define SECTION_DEVICE 0x00000C16u /* full access; device; never executed */
#define SECTION_FAULT 0u
#define DEVICES_FROM 0xE00u

#define L2_CONTROL (L2_CACHE + 0x100u)
#define L2_AUXILIARY (L2_CACHE + 0x104u)
#define L2_TAG_LATENCY (L2_CACHE + 0x108u)
#define L2_DATA_LATENCY (L2_CACHE + 0x10Cu)
#define L2_INTERRUPT_CLEAR (L2_CACHE + 0x220u)
#define L2_SYNC (L2_CACHE + 0x730u)
#define L2_INVALIDATE_WAYS (L2_CACHE + 0x77Cu)

static uint32_t pages[SECTIONS] __attribute__((section(".pages"), aligned(16384)));

/* The PL310, with the latencies that UG585 (3.4.10) gives. */
static void enable_second_level(void)
{
    if ((REG(L2_CONTROL) & 1u) != 0) {
        return;
    }
    REG(SLCR_L2_RAM) = 0x00020202u;
    REG(L2_TAG_LATENCY) = 0x111u;
    REG(L2_DATA_LATENCY) = 0x121u;
    REG(L2_AUXILIARY) |= 3u << 28; /* prefetch of instructions and data */
    REG(L2_INVALIDATE_WAYS) = 0xFFFFu;
    while ((REG(L2_INVALIDATE_WAYS) & 0xFFFFu) != 0) {
    }
    REG(L2_SYNC) = 0;
    REG(L2_INTERRUPT_CLEAR) = 0x1FFu;
    REG(L2_CONTROL) = 1u;
}

void zynq_enable_caches(void)
{
    pages[0] = SECTION_FAULT; /* so that a null pointer is noticed */
    for (uint32_t i = 1; i < SECTIONS; i++) {
        const uint32_t base = i << 20;
        if (i < DDR_BYTES >> 20) {
            pages[i] = base | SECTION_MEMORY;
        } else {
            pages[i] = i >= DEVICES_FROM ? base | SECTION_DEVICE : SECTION_FAULT;
        }
    }
    zynq_invalidate_data_cache();
    enable_second_level();
    uint32_t control;
    __asm__ volatile("mcr p15, 0, %0, c8, c7, 0\n\t"  /* TLB */
                     "mcr p15, 0, %0, c7, c5, 0\n\t"  /* instruction cache */
                     "mcr p15, 0, %0, c7, c5, 6\n\t"  /* branch predictor */
                     "mcr p15, 0, %0, c2, c0, 2"      /* TTBCR: TTBR0 alone */
                     :
                     : "r"(0)
                     : "memory");
    __asm__ volatile("mcr p15, 0, %0, c2, c0, 0\n\t"  /* TTBR0; walks by-pass the caches */
                     "mcr p15, 0, %1, c3, c0, 0\n\t"  /* domain 0: permissions are checked */
                     "dsb\n\tisb"
                     :
                     : "r"(pages), "r"(1u)
                     : "memory");
    __asm__ volatile("mrc p15, 0, %0, c1, c0, 0" : "=r"(control));
    control |= 1u << 0 | 1u << 2 | 1u << 11 | 1u << 12; /* MMU, data, prediction, instructions */
    __asm__ volatile("mcr p15, 0, %0, c1, c0, 0\n\tdsb\n\tisb" : : "r"(control) : "memory");
}
