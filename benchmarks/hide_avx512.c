/* Hides AVX-512, VNNI and AMX from a process, so that what it runs takes its AVX2 path:
 *
 *     cc -O2 -shared -fPIC -o hide_avx512.so benchmarks/hide_avx512.c
 *     LD_PRELOAD=./hide_avx512.so GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW python ...
 *
 * Linux makes CPUID fault for a thread (arch_prctl(2), ARCH_CPUID; needs the flag cpuid_fault in
 * /proc/cpuinfo); the handler answers it with these bits cleared. Threads and children inherit the setting.
 * What was compiled for AVX-512 (llama.cpp with GGML_NATIVE) uses it all the same.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012

/* Intel SDM, volume 2A, CPUID: leaf 7. */
static const uint32_t LEAF_7_EBX = 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31;
static const uint32_t LEAF_7_ECX = 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14;
static const uint32_t LEAF_7_EDX = 1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25;
static const uint32_t LEAF_7_1_EAX = 1u << 4 | 1u << 5 | 1u << 21 | 1u << 23; /* AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA */
static const uint32_t LEAF_7_1_EDX = 1u << 4 | 1u << 10 | 1u << 19;           /* AVX-VNNI-INT8, -INT16, AVX10 */

static void answer(int signal_number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)registers[REG_RIP];
    uint32_t leaf = registers[REG_RAX], subleaf = registers[REG_RCX], eax, ebx, ecx, edx;
    (void)info;
    if (code[0] != 0x0f || code[1] != 0xa2) { /* a fault of the program's own: again, unhandled */
        signal(signal_number, SIG_DFL);
        return;
    }
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    __asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(leaf), "c"(subleaf));
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    if (leaf == 7 && subleaf == 0) {
        ebx &= ~LEAF_7_EBX, ecx &= ~LEAF_7_ECX, edx &= ~LEAF_7_EDX;
    } else if (leaf == 7 && subleaf == 1) {
        eax &= ~LEAF_7_1_EAX, edx &= ~LEAF_7_1_EDX;
    }
    registers[REG_RAX] = eax, registers[REG_RBX] = ebx, registers[REG_RCX] = ecx, registers[REG_RDX] = edx;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void hide(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) != 0) {
        fprintf(stderr, "hide_avx512: this machine cannot make CPUID fault\n");
        exit(2);
    }
}
