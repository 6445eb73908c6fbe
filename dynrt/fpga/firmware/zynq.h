/* Registers of the Zynq-7000 that the agent uses (Xilinx UG585, appendix B; ARM DDI 0407). */
#ifndef DYNRT_ZYNQ_H
#define DYNRT_ZYNQ_H

#include <stdint.h>

static inline volatile uint32_t *zynq_register(uint32_t address)
{
    return (volatile uint32_t *)(uintptr_t)address;
}

#define REG(address) (*zynq_register(address))

/* UART0 is the marker line, UART1 the link (the ZedBoard's USB-UART). */
#define UART0 0xE0000000u
#define UART1 0xE0001000u
#define UART_CONTROL 0x00u
#define UART_MODE 0x04u
#define UART_INTERRUPT_ENABLE 0x08u
#define UART_INTERRUPT_DISABLE 0x0Cu
#define UART_INTERRUPT_STATUS 0x14u
#define UART_BAUD_GENERATOR 0x18u
#define UART_RECEIVE_TRIGGER 0x20u
#define UART_STATUS 0x2Cu
#define UART_FIFO 0x30u
#define UART_BAUD_DIVIDER 0x34u
#define UART_RECEIVE_EMPTY (1u << 1)
#define UART_SEND_EMPTY (1u << 3)
#define UART_SEND_FULL (1u << 4)
#define UART_SENDING (1u << 11)
#define UART_RECEIVE_INTERRUPT 1u

#define GPIO_DATA_LOW 0xE000A000u /* of MIO 0..15: mask << 16 | value */
#define GPIO_DIRECTION 0xE000A204u
#define GPIO_OUTPUT_ENABLE 0xE000A208u

#define SLCR_UNLOCK 0xF8000008u
#define SLCR_UNLOCK_KEY 0xDF0Du
#define SLCR_IO_PLL 0xF8000108u /* multiplier: bits 12..18 */
#define SLCR_APER_CLOCKS 0xF800012Cu
#define SLCR_UART_CLOCK 0xF8000154u
#define SLCR_SOFT_RESET 0xF8000200u
#define SLCR_REBOOT_STATUS 0xF8000258u
#define SLCR_IDCODE 0xF8000530u
#define SLCR_PIN(mio) (0xF8000700u + 4u * (mio))
#define SLCR_L2_RAM 0xF8000A1Cu

#define XADC 0xF8007100u

#define GIC_CPU 0xF8F00100u
#define GIC_DISTRIBUTOR 0xF8F01000u
#define GLOBAL_TIMER 0xF8F00200u
#define WATCHDOG 0xF8F00620u
#define L2_CACHE 0xF8F02000u

#define IRQ_GLOBAL_TIMER 27u
#define IRQ_UART1 82u

/* Switch the MMU and the caches on: memory cached, devices not, all else faulting. */
void zynq_enable_caches(void);
void zynq_invalidate_data_cache(void);

/* Called by start.S. */
void zynq_interrupt(void);
void zynq_fault(uint32_t kind, uint32_t address);

/* The clocks, pins and units that the agent uses. */
void zynq_enable_units(void);

#endif
