/* Start-up of the Zynq-7000's first Cortex-A9, from QEMU's -kernel or from the FSBL. */
    .section .note.GNU-stack, "", %progbits
    .syntax unified
    .arm

    .section .vectors, "ax"
    .global _start
_start:
    b   reset
    b   undefined
    b   supervisor
    b   prefetch_abort
    b   data_abort
    b   .
    b   interrupt
    b   .

    .text
reset:
    cpsid if
    mrc p15, 0, r0, c0, c0, 5       @ MPIDR: the second core sleeps
    ands r0, r0, #3
    bne park

    ldr r0, =_start                 @ VBAR
    mcr p15, 0, r0, c12, c0, 0

    mrc p15, 0, r0, c1, c0, 0       @ SCTLR: MMU and caches off, low vectors by VBAR
    bic r0, r0, #0x3000             @ V, I
    bic r0, r0, #0x0007             @ C, A, M
    mcr p15, 0, r0, c1, c0, 0
    isb

    msr cpsr_c, #0xD2               @ a stack each: interrupts, faults, main
    ldr sp, =__irq_stack_top
    msr cpsr_c, #0xD7
    ldr sp, =__fault_stack_top
    msr cpsr_c, #0xDB
    ldr sp, =__fault_stack_top
    msr cpsr_c, #0xDF
    ldr sp, =__stack_top

    mrc p15, 0, r0, c1, c0, 2       @ CPACR: NEON and VFP on
    orr r0, r0, #(0xF << 20)
    mcr p15, 0, r0, c1, c0, 2
    isb
    mov r0, #0x40000000
    vmsr fpexc, r0
    mov r0, #(1 << 24)              @ FPSCR.FZ: VFP flushes denormals as NEON does
    vmsr fpscr, r0

    ldr r0, =__bss_start
    ldr r1, =__bss_end
    mov r2, #0
1:  cmp r0, r1
    strlo r2, [r0], #4
    blo 1b

    bl  main
park:
    wfi
    b   park

/* A fault: what it was and where, then a reset. */
undefined:
    sub r1, lr, #4
    mov r0, #1
    b   fault
supervisor:
    sub r1, lr, #4
    mov r0, #2
    b   fault
prefetch_abort:
    sub r1, lr, #4
    mov r0, #3
    b   fault
data_abort:
    sub r1, lr, #8
    mov r0, #4
fault:
    ldr sp, =__fault_stack_top
    bl  zynq_fault
    b   park

/* The handler is compiled without VFP registers: nothing else is to be saved. */
interrupt:
    sub lr, lr, #4
    push {r0-r3, r12, lr}
    bl  zynq_interrupt
    ldm sp!, {r0-r3, r12, pc}^

/* void zynq_invalidate_data_cache(void): all of L1, without writing back; before it is switched on. */
    .global zynq_invalidate_data_cache
zynq_invalidate_data_cache:
    mov r0, #0
    mcr p15, 2, r0, c0, c0, 0       @ CSSELR: L1 data
    isb
    mrc p15, 1, r0, c0, c0, 0       @ CCSIDR
    ubfx r1, r0, #13, #15           @ sets - 1; 4 ways of 32-byte lines
1:  mov r2, #3
2:  lsl r3, r2, #30
    orr r3, r3, r1, lsl #5
    mcr p15, 0, r3, c7, c6, 2       @ DCISW
    subs r2, r2, #1
    bpl 2b
    subs r1, r1, #1
    bpl 1b
    dsb
    bx  lr
