/* Runs single instructions on the host processor, in 64-, 32- and 16-bit code, for test_native.py.
 *
 * Standard input: 64 KiB of random bytes (the pool), then cases. Standard output: an answer a case. Everything lies below
 * 4 GiB so that all three kinds of code reach it: 64-bit code runs in the process as it is, 32-bit code in the flat segment
 * with selector 23h, 16-bit code in segments of an LDT whose base is SEGMENT_BASE. After the instruction, and at the place
 * that a branch is to take, stands a far jump back into 64-bit code. Faults come as signals; the kernel says which vector.
 * x86-64 Linux only. */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define SEGMENT_BASE 0x20000u
#define SEGMENT_SIZE 0x10000u
#define WINDOW 0x24000u /* the memory that instructions work on */
#define WINDOW_SIZE 2048u
#define POOL_SIZE 65536u

#define CODE64 0x33
#define CODE32 0x23
#define DATA32 0x2b
#define CODE16 0x07 /* LDT entry 0, RPL 3 */
#define DATA16 0x0f

struct Case {
    uint64_t registers[16]; /* in the order of their encoding */
    uint32_t flags;
    uint32_t code;   /* linear address of the instruction */
    uint32_t taken;  /* linear address of the second way out, 0 for none */
    uint16_t pool;   /* the window is filled from here in the pool */
    uint16_t patch;  /* then these bytes go to this offset of it */
    uint8_t patch_size;
    uint8_t bits;
    uint8_t length;
    uint8_t bytes[16];
    uint8_t patch_bytes[16];
    uint8_t padding[5];
} __attribute__((packed));

enum { WENT_ON, TAKEN, FAULTED };

struct Answer {
    uint64_t registers[16];
    uint64_t rip; /* of a fault */
    uint32_t flags;
    uint8_t outcome;
    uint8_t vector;
    uint16_t changes; /* so many pairs of u16 offset, u16 value follow: bytes of the window that changed */
} __attribute__((packed));

/* What the assembly below works on. */
struct State {
    uint64_t registers[16];
    uint64_t flags;
    uint64_t host_rsp;
    uint32_t target;
    uint16_t target_cs;
    uint16_t data_segment;
    uint32_t outcome;
} state;

void enter_guest(void);
extern char leave_on[], leave_taken[], leave_faulted[];

__asm__(
    ".text\n"
    "enter_guest:\n"
    " push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp, state+136\n"
    " pushq state+128\n popfq\n"
    " mov state+150, %ax\n mov %ax, %ds\n mov %ax, %es\n"
    " mov state+8, %rcx\n mov state+16, %rdx\n mov state+24, %rbx\n mov state+40, %rbp\n mov state+48, %rsi\n"
    " mov state+56, %rdi\n mov state+64, %r8\n mov state+72, %r9\n mov state+80, %r10\n mov state+88, %r11\n"
    " mov state+96, %r12\n mov state+104, %r13\n mov state+112, %r14\n mov state+120, %r15\n"
    " mov %ax, %ss\n"
    " mov state+32, %rsp\n"
    " mov state, %rax\n"
    " ljmp *state+144\n"
    "leave_on:\n movl $0, state+152\n jmp leave\n"
    "leave_taken:\n movl $1, state+152\n"
    "leave:\n"
    " mov %rax, state\n mov %rcx, state+8\n mov %rdx, state+16\n mov %rbx, state+24\n mov %rsp, state+32\n"
    " mov %rbp, state+40\n mov %rsi, state+48\n mov %rdi, state+56\n mov %r8, state+64\n mov %r9, state+72\n"
    " mov %r10, state+80\n mov %r11, state+88\n mov %r12, state+96\n mov %r13, state+104\n mov %r14, state+112\n"
    " mov %r15, state+120\n"
    " mov state+136, %rsp\n"
    " pushfq\n popq state+128\n"
    " cld\n"
    " mov $0x2b, %eax\n mov %ax, %ss\n"
    "leave_faulted:\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
    " ret\n");

static struct Answer answer;

/* The registers at the fault go to the answer; the program goes on as if the guest had come back. */
static void faulted(int number, siginfo_t *info, void *context)
{
    greg_t *greg = ((ucontext_t *)context)->uc_mcontext.gregs;
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    (void)number;
    (void)info;
    for (int i = 0; i < 16; i++)
        state.registers[i] = (uint64_t)greg[order[i]];
    state.flags = (uint64_t)greg[REG_EFL];
    state.outcome = FAULTED;
    answer.vector = (uint8_t)greg[REG_TRAPNO];
    answer.rip = (uint64_t)greg[REG_RIP];
    greg[REG_RIP] = (greg_t)leave_faulted;
    greg[REG_RSP] = (greg_t)state.host_rsp;
    greg[REG_EFL] = 0x202;
    greg[REG_CSGSFS] = (greg_t)((uint64_t)DATA32 << 48 | CODE64);
}

/* A far jump to 64-bit code. */
static void put_way_out(uint32_t at, unsigned bits, const char *to)
{
    uint8_t *code = (uint8_t *)(uintptr_t)at;
    if (bits == 64) {
        static const uint8_t jump[6] = {0xff, 0x25, 0, 0, 0, 0};
        memcpy(code, jump, 6);
        memcpy(code + 6, &to, 8);
    } else {
        const uint32_t offset = (uint32_t)(uintptr_t)to;
        const uint16_t selector = CODE64;
        if (bits == 16)
            *code++ = 0x66;
        *code++ = 0xea;
        memcpy(code, &offset, 4);
        memcpy(code + 4, &selector, 2);
    }
}

static void set_ldt(unsigned entry, unsigned contents)
{
    struct user_desc descriptor = {.entry_number = entry, .base_addr = SEGMENT_BASE, .limit = SEGMENT_SIZE - 1,
                                   .contents = contents, .useable = 1};
    if (syscall(SYS_modify_ldt, 1, &descriptor, sizeof descriptor)) {
        fprintf(stderr, "modify_ldt is not allowed here\n");
        exit(3);
    }
}

static void check_read(void *data, size_t size)
{
    if (fread(data, size, 1, stdin) != 1)
        exit(4);
}

int main(void)
{
    static uint8_t pool[POOL_SIZE], before[WINDOW_SIZE];
    static uint8_t signal_stack[65536];
    const stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    struct sigaction action = {.sa_sigaction = faulted, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    uint8_t *const window = (uint8_t *)(uintptr_t)WINDOW;
    struct Case test;

    if (mmap((void *)(uintptr_t)SEGMENT_BASE, SEGMENT_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
        fprintf(stderr, "low memory cannot be mapped here\n");
        return 3;
    }
    set_ldt(0, 2);
    set_ldt(1, 0);
    sigaltstack(&stack, NULL);
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
    static char out[1 << 20];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    check_read(pool, sizeof pool);
    while (fread(&test, sizeof test, 1, stdin) == 1) {
        memcpy(before, pool + test.pool, WINDOW_SIZE);
        memcpy(before + test.patch, test.patch_bytes, test.patch_size);
        memcpy(window, before, WINDOW_SIZE);
        memcpy((void *)(uintptr_t)test.code, test.bytes, test.length);
        put_way_out(test.code + test.length, test.bits, leave_on);
        if (test.taken)
            put_way_out(test.taken, test.bits, leave_taken);
        memcpy(state.registers, test.registers, sizeof state.registers);
        state.flags = test.flags;
        state.target = test.bits == 16 ? test.code - SEGMENT_BASE : test.code;
        state.target_cs = test.bits == 64 ? CODE64 : test.bits == 32 ? CODE32 : CODE16;
        state.data_segment = test.bits == 16 ? DATA16 : DATA32;
        answer.vector = 0;
        answer.rip = 0;
        enter_guest();
        memcpy(answer.registers, state.registers, sizeof answer.registers);
        answer.flags = (uint32_t)state.flags;
        answer.outcome = (uint8_t)state.outcome;
        static uint16_t changes[WINDOW_SIZE * 2];
        answer.changes = 0;
        for (uint16_t i = 0; i < WINDOW_SIZE; i++)
            if (window[i] != before[i]) {
                changes[answer.changes * 2] = i;
                changes[answer.changes * 2 + 1] = window[i];
                answer.changes++;
            }
        fwrite(&answer, sizeof answer, 1, stdout);
        fwrite(changes, 4, answer.changes, stdout);
    }
    return fflush(stdout) != 0;
}
