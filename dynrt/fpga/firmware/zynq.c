/* The platform of the Zynq-7000, on a ZedBoard or in QEMU: link, clock and sleep. */
#include "zynq.h"

#include "platform.h"

#define TIMER_LOW (GLOBAL_TIMER + 0x00u)
#define TIMER_HIGH (GLOBAL_TIMER + 0x04u)
#define TIMER_CONTROL (GLOBAL_TIMER + 0x08u)
#define TIMER_STATUS (GLOBAL_TIMER + 0x0Cu)
#define TIMER_COMPARE_LOW (GLOBAL_TIMER + 0x10u)
#define TIMER_COMPARE_HIGH (GLOBAL_TIMER + 0x14u)
#define TIMER_ON 1u
#define TIMER_ALARM (1u << 1 | 1u << 2) /* compare, interrupt */

/* Ticks between the order to settle and the start of a window. */
#define SETTLE_TICKS 1048576u

/* What has come and was not read yet. Only the interrupt moves `received_end`. */
#define RECEIVED 16384u
static volatile uint8_t received[RECEIVED];
static volatile uint32_t received_end;
static uint32_t received_at;

static uint64_t timer_ticks(void)
{
    uint32_t high;
    uint32_t low;
    do {
        high = REG(TIMER_HIGH);
        low = REG(TIMER_LOW);
    } while (high != REG(TIMER_HIGH));
    return (uint64_t)high << 32 | low;
}

#if defined(DYNRT_EMULATED)

/* QEMU's global timer counts ten nanoseconds, which no whole number of emulated instructions takes:
 * the same instructions take a tick more or less. Rounded to instructions, which last 2^n ns, they
 * take the same time always, if an instruction lasts longer than two ticks. */
#define TIMER_TICK 10u
#define TIMED_LOOPS 4096u

static uint64_t instruction_ns(void)
{
    const uint64_t start = timer_ticks();
    __asm__ volatile("mov r0, %0\n\t"
                     "1: subs r0, r0, #1\n\t"
                     "bne 1b"
                     :
                     : "r"(TIMED_LOOPS)
                     : "r0", "cc");
    const uint64_t ns = (timer_ticks() - start) * TIMER_TICK / (2u * TIMED_LOOPS);
    uint64_t power = 1;
    while (power * 3u / 2u < ns) {
        power *= 2u;
    }
    return power;
}

uint64_t platform_ticks(void)
{
    return timer_ticks() * TIMER_TICK;
}

uint64_t platform_since(uint64_t start)
{
    static uint64_t step;
    const uint64_t span = platform_ticks() - start;
    if (step == 0) {
        step = instruction_ns();
    }
    return step < 2u * TIMER_TICK ? span : (span + step / 2u) / step * step;
}

#else

#define TIMER_TICK 1u

uint64_t platform_ticks(void)
{
    return timer_ticks();
}

uint64_t platform_since(uint64_t start)
{
    return timer_ticks() - start;
}

#endif

uint32_t platform_ticks_per_s(void)
{
    return TICKS_PER_S;
}

int platform_read(void)
{
    if (received_at == received_end) {
        return -1;
    }
    const int byte = received[received_at % RECEIVED];
    received_at++;
    return byte;
}

static void send(uint32_t uart, uint8_t byte)
{
    while ((REG(uart + UART_STATUS) & UART_SEND_FULL) != 0) {
    }
    REG(uart + UART_FIFO) = byte;
}

static void drain(uint32_t uart)
{
    while ((REG(uart + UART_STATUS) & UART_SEND_EMPTY) == 0 ||
           (REG(uart + UART_STATUS) & UART_SENDING) != 0) {
    }
}

void platform_write(const uint8_t *bytes, size_t count)
{
    while (count-- != 0) {
        send(UART1, *bytes++);
    }
}

void platform_flush(void)
{
    drain(UART1);
}

void platform_marker(const char *text, size_t count)
{
    while (count-- != 0) {
        send(UART0, (uint8_t)*text++);
    }
    drain(UART0);
}

void platform_marker_pin(bool high)
{
    const uint32_t mask = 0xFFFFu & ~(1u << 13);
    REG(GPIO_DATA_LOW) = mask << 16 | (high ? 1u << 13 : 0u);
}

/* With interrupts masked: WFI ends at a pending one all the same, which is taken afterwards. So no
 * interrupt can come between the question and the sleep. */
static inline void mask_interrupts(void)
{
    __asm__ volatile("cpsid i" : : : "memory");
}

static inline void unmask_interrupts(void)
{
    __asm__ volatile("cpsie i" : : : "memory");
}

static void set_alarm(uint64_t until)
{
    const uint64_t at = until / TIMER_TICK + 1u;
    REG(TIMER_CONTROL) = TIMER_ON;
    REG(TIMER_STATUS) = 1u;
    REG(TIMER_COMPARE_LOW) = (uint32_t)at;
    REG(TIMER_COMPARE_HIGH) = (uint32_t)(at >> 32);
    REG(TIMER_CONTROL) = TIMER_ON | TIMER_ALARM;
}

static void clear_alarm(void)
{
    REG(TIMER_CONTROL) = TIMER_ON;
    REG(TIMER_STATUS) = 1u;
}

bool platform_wait(uint64_t until)
{
    if (until != PLATFORM_FOREVER) {
        set_alarm(until);
    }
    mask_interrupts();
    if (received_at == received_end && (until == PLATFORM_FOREVER || platform_ticks() < until)) {
        __asm__ volatile("dsb\n\twfi" : : : "memory");
    }
    unmask_interrupts();
    clear_alarm();
    return true;
}

void platform_settle(void)
{
    const uint64_t until = platform_ticks() + SETTLE_TICKS;
    while (platform_ticks() < until) {
        set_alarm(until);
        mask_interrupts();
        if (platform_ticks() < until) {
            __asm__ volatile("dsb\n\twfi" : : : "memory");
        }
        unmask_interrupts();
    }
    clear_alarm();
}

void zynq_interrupt(void)
{
    const uint32_t number = REG(GIC_CPU + 0x0Cu);
    if ((number & 1023u) == IRQ_UART1) {
        REG(UART1 + UART_INTERRUPT_STATUS) = UART_RECEIVE_INTERRUPT;
        while ((REG(UART1 + UART_STATUS) & UART_RECEIVE_EMPTY) == 0) {
            const uint8_t byte = (uint8_t)REG(UART1 + UART_FIFO);
            if (received_end - received_at < RECEIVED) { /* else lost; the host asks again */
                received[received_end % RECEIVED] = byte;
                received_end++;
            }
        }
    } else if ((number & 1023u) == IRQ_GLOBAL_TIMER) {
        clear_alarm();
    }
    REG(GIC_CPU + 0x10u) = number;
}
