// Preloaded into a program, it hides instruction sets from it: CPUID is made to fault (Linux, Intel from Ivy Bridge on), and
// the handler answers as an older processor would. What is not asked for by CPUID still runs, so this shows what libraries
// choose on such a processor and what that computes, not how fast it is.
//
// OTHER_PROCESSOR is one of
//   avx512-bf16  AVX-512 with VNNI and BF16, no AMX (AMD from Zen 4 on)
//   avx512-vnni  AVX-512 with VNNI, no BF16, no AMX (Intel from Cascade Lake to Ice Lake)
//   avx512       AVX-512 without VNNI (Intel Skylake server)
//   avx2-vnni    AVX2 with AVX-VNNI (Intel from Alder Lake on)
//   avx2         AVX2 alone
// A processor can lose what it has, and gains nothing: the caller checks that the host has what is kept.
// Programs that Python starts (compilers, which handle SIGSEGV themselves) see the processor as it is.
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define SET_CPUID 0x1012 /* arch_prctl's ARCH_SET_CPUID */
#define BIT(n) (1u << (n))

static int active, without_avx512, without_avx512_vnni, without_avx_vnni, without_bf16;

// Intel's manual, CPUID: leaf 7 (EBX, ECX, EDX), 7.1 (EAX), 13 (states), 29 and 30 (AMX).
static void hide(unsigned leaf, unsigned sub, unsigned* a, unsigned* b, unsigned* c, unsigned* d)
{
    if (leaf == 7 && sub == 0) {
        *d &= ~(BIT(22) | BIT(23) | BIT(24) | BIT(25));  /* AMX-BF16, AVX512-FP16, AMX */
        if (without_avx512_vnni) *c &= ~BIT(11);
        if (without_avx512) {
            *b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
            *c &= ~(BIT(1) | BIT(6) | BIT(12) | BIT(14));
            *d &= ~(BIT(2) | BIT(3) | BIT(8));
        }
    } else if (leaf == 7 && sub == 1) {
        *a &= ~BIT(21); /* AMX-FP16 */
        if (without_bf16) *a &= ~BIT(5);
        if (without_avx_vnni) *a &= ~BIT(4), *d = 0; /* AVX-VNNI, and its kin */
    } else if (leaf == 13 && sub == 0) {
        *a &= ~(BIT(17) | BIT(18) | (without_avx512 ? 0xe0u : 0u));
    } else if (leaf == 29 || leaf == 30 || (leaf == 36 && without_avx512)) {
        *a = *b = *c = *d = 0;
    }
}

static void answer(int number, siginfo_t* info, void* context)
{
    greg_t* r = ((ucontext_t*)context)->uc_mcontext.gregs;
    const unsigned char* at = (const unsigned char*)r[REG_RIP];
    unsigned a, b, c, d;
    (void)number, (void)info;
    if (at[0] != 0x0f || at[1] != 0xa2) { /* another fault: it comes again, to the system's own handler */
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    syscall(SYS_arch_prctl, SET_CPUID, 1);
    __cpuid_count((unsigned)r[REG_RAX], (unsigned)r[REG_RCX], a, b, c, d);
    syscall(SYS_arch_prctl, SET_CPUID, 0);
    hide((unsigned)r[REG_RAX], (unsigned)r[REG_RCX], &a, &b, &c, &d);
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
    r[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void)
{
    const char* name = getenv("OTHER_PROCESSOR");
    struct sigaction how;
    if (name == NULL) return;
    if (strncmp(program_invocation_short_name, "python", 6) != 0) return;
    without_avx512 = strncmp(name, "avx512", 6) != 0;
    without_bf16 = strcmp(name, "avx512-bf16") != 0;
    without_avx512_vnni = without_bf16 && strcmp(name, "avx512-vnni") != 0;
    without_avx_vnni = strcmp(name, "avx2-vnni") != 0;
    memset(&how, 0, sizeof how);
    how.sa_sigaction = answer, how.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &how, NULL);
    if (syscall(SYS_arch_prctl, SET_CPUID, 0) != 0) {
        fprintf(stderr, "CPUID cannot be made to fault here\n");
        _exit(77);
    }
    active = 1;
}

// Others who want the signal (Python's faulthandler, compilers) do without it.
int sigaction(int number, const struct sigaction* how, struct sigaction* before)
{
    static int (*real)(int, const struct sigaction*, struct sigaction*);
    if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "sigaction");
    if (active && number == SIGSEGV && how != NULL) {
        if (before != NULL) memset(before, 0, sizeof *before);
        return 0;
    }
    return real(number, how, before);
}
