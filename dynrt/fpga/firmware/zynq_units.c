/* Clocks, pins, UARTs, interrupts, watchdog and XADC of the Zynq-7000. */
#include "memory.h"
#include "platform.h"
#include "zynq.h"

/* The crystal at PS_CLK, the UARTs' clock (about), and what a bit takes of it:
 * (divider + 1) * generator. */
#define CRYSTAL_HERTZ 33333333u
#define UART_HERTZ 50000000u
#define BAUD_DIVIDER 5u
#define LINK_BAUD 115200u

#define PIN_UART 0x000016E0u /* LVCMOS33, pull-up, multiplexer 7: UART */
#define PIN_GPIO 0x00000600u /* LVCMOS33, no multiplexer: GPIO */
#define PIN_INPUT 1u         /* tri-state: the pin is driven from outside */

#define WATCHDOG_LOAD (WATCHDOG + 0x00u)
#define WATCHDOG_CONTROL (WATCHDOG + 0x08u)
#define WATCHDOG_DISABLE (WATCHDOG + 0x14u)
#define WATCHDOG_SECONDS 30u
#define WATCHDOG_PRESCALER 255u

#define XADC_CONFIG (XADC + 0x00u)
#define XADC_STATUS (XADC + 0x0Cu)
#define XADC_COMMAND (XADC + 0x10u)
#define XADC_READ (XADC + 0x14u)
#define XADC_CONTROL (XADC + 0x18u)
#define XADC_READ_EMPTY (1u << 8)
#define XADC_REGISTERS 64u

/* Divide the IO PLL, as the FSBL has set it, down to about UART_HERTZ for both UARTs; what it gives. */
static uint32_t enable_uart_clocks(void)
{
    const uint32_t pll = CRYSTAL_HERTZ * (REG(SLCR_IO_PLL) >> 12 & 127u);
    uint32_t divisor = (pll + UART_HERTZ / 2u) / UART_HERTZ;
    divisor = divisor == 0 ? 1u : divisor;
    REG(SLCR_UART_CLOCK) = divisor << 8 | 3u;
    return pll / divisor;
}

static void enable_uart(uint32_t uart, uint32_t hertz)
{
    REG(uart + UART_CONTROL) = 0x28u; /* off */
    REG(uart + UART_MODE) = 0x20u;    /* 8N1 */
    REG(uart + UART_BAUD_GENERATOR) =
        (hertz / (BAUD_DIVIDER + 1u) + LINK_BAUD / 2u) / LINK_BAUD;
    REG(uart + UART_BAUD_DIVIDER) = BAUD_DIVIDER;
    REG(uart + UART_CONTROL) = 0x03u; /* reset both ways */
    while ((REG(uart + UART_CONTROL) & 0x03u) != 0) {
    }
    REG(uart + UART_CONTROL) = 0x14u; /* on */
    REG(uart + UART_RECEIVE_TRIGGER) = 1u;
    REG(uart + UART_INTERRUPT_DISABLE) = 0x1FFFu;
}

static void enable_interrupt(uint32_t number)
{
    const uint32_t priorities = GIC_DISTRIBUTOR + 0x400u + (number & ~3u);
    REG(priorities) &= ~(0xFFu << (number % 4u * 8u));
    if (number >= 32u) { /* shared: sent to the first core */
        const uint32_t targets = GIC_DISTRIBUTOR + 0x800u + (number & ~3u);
        const uint32_t shift = number % 4u * 8u;
        REG(targets) = (REG(targets) & ~(0xFFu << shift)) | 1u << shift;
    }
    REG(GIC_DISTRIBUTOR + 0x100u + number / 32u * 4u) = 1u << number % 32u;
}

void zynq_enable_units(void)
{
    REG(SLCR_UNLOCK) = SLCR_UNLOCK_KEY;
    REG(SLCR_APER_CLOCKS) |= 1u << 20 | 1u << 21 | 1u << 22; /* UART0, UART1, GPIO */
    REG(SLCR_PIN(10)) = PIN_UART | PIN_INPUT; /* JE2: UART0 receives */
    REG(SLCR_PIN(11)) = PIN_UART;             /* JE3: UART0 sends */
    REG(SLCR_PIN(13)) = PIN_GPIO;             /* JE1: high in a window */
    REG(GPIO_DIRECTION) |= 1u << 13;
    REG(GPIO_OUTPUT_ENABLE) |= 1u << 13;
    platform_marker_pin(false);
    const uint32_t hertz = enable_uart_clocks();
    enable_uart(UART0, hertz);
    enable_uart(UART1, hertz);
    REG(GLOBAL_TIMER + 0x08u) = 1u;
    REG(XADC_CONTROL) = 0;
    REG(XADC_CONFIG) |= 1u << 31;
    enable_interrupt(IRQ_GLOBAL_TIMER);
    enable_interrupt(IRQ_UART1);
    REG(GIC_CPU + 0x04u) = 0xFFu; /* all priorities */
    REG(GIC_CPU + 0x00u) = 1u;
    REG(GIC_DISTRIBUTOR) = 1u;
    REG(UART1 + UART_INTERRUPT_ENABLE) = UART_RECEIVE_INTERRUPT;
    __asm__ volatile("cpsie i" : : : "memory");
}

void platform_watchdog_arm(void)
{
    REG(WATCHDOG_LOAD) = TICKS_PER_S / (WATCHDOG_PRESCALER + 1u) * WATCHDOG_SECONDS;
    REG(WATCHDOG_CONTROL) = WATCHDOG_PRESCALER << 8 | 1u << 3 | 1u; /* watchdog mode, on */
}

void platform_watchdog_feed(void)
{
    REG(WATCHDOG_LOAD) = TICKS_PER_S / (WATCHDOG_PRESCALER + 1u) * WATCHDOG_SECONDS;
}

void platform_watchdog_disarm(void)
{
    REG(WATCHDOG_DISABLE) = 0x12345678u;
    REG(WATCHDOG_DISABLE) = 0x87654321u;
    REG(WATCHDOG_CONTROL) = 0;
}

static uint32_t xadc_command(uint32_t command, uint32_t reg)
{
    REG(XADC_COMMAND) = command << 26 | reg << 16;
    for (uint32_t tries = 0; tries < 100000u; tries++) {
        if ((REG(XADC_STATUS) & XADC_READ_EMPTY) == 0) {
            break;
        }
    }
    return REG(XADC_READ) & 0xFFFFu;
}

/* A DRP register; 0 where there is none. A read's value comes with the next command. */
uint32_t platform_xadc(uint32_t reg)
{
    if (reg >= XADC_REGISTERS) {
        return 0;
    }
    (void)xadc_command(1u, reg);
    return xadc_command(0, 0);
}

uint32_t platform_cpu_id(void)
{
    uint32_t id;
    __asm__("mrc p15, 0, %0, c0, c0, 0" : "=r"(id));
    return id;
}

uint32_t platform_device_id(void)
{
    return REG(SLCR_IDCODE);
}

uint32_t platform_reset_reason(void)
{
    return REG(SLCR_REBOOT_STATUS);
}

/* Leave the kind of fault in the reset's user byte, and reset: the host sees its session gone. */
void zynq_fault(uint32_t kind, uint32_t address)
{
    (void)address;
    REG(SLCR_UNLOCK) = SLCR_UNLOCK_KEY;
    REG(SLCR_REBOOT_STATUS) = (REG(SLCR_REBOOT_STATUS) & 0x00FFFFFFu) | kind << 24;
    REG(SLCR_SOFT_RESET) = 1u;
    for (;;) {
        __asm__ volatile("wfi");
    }
}
