/*
 * A TCG plugin for QEMU (9.1 and later) that records world switches: each exception taken to EL2, each return from
 * it, and each TLB maintenance instruction executed there, as fixed records in a ring of shared memory.
 *
 * usage: qemu-system-aarch64 -plugin gdbhyp-trace.so[,records=N][,ring=PATH][,on=on] ...
 *
 *   records=N   how many records the ring holds, a power of two; 262144 (28 MiB) if not said
 *   ring=PATH   keep the ring in a file, which stays and which "gdbhyp trace stat PATH" reads; else it is in memory
 *               that "hyp-trace start" finds
 *   on=on       record from the beginning; else nothing is recorded until "hyp-trace start"
 *
 * How an exception is found: its vector is where a translation block begins, at VBAR_EL2 plus a multiple of 0x80. Such
 * blocks compare their own base with the CPU's VBAR_EL2, which is kept up to date where the register is written, in
 * generated code; only a match makes a call, which then looks whether the CPU is in EL2. ERET and TLBI instructions
 * make a call only on a CPU that may be in EL2.
 *
 * The layout of the ring is read by tcg_ring.py. The prototypes are what this needs of QEMU's plugin API, version 3, and
 * of GLib's byte arrays, for neither's headers are needed to build it: cc -shared -fPIC -O2 -o gdbhyp-trace.so
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- QEMU's plugin API, and GLib ---- */

typedef uint64_t qemu_plugin_id_t;

typedef struct {
    const char *target_name;
    struct {
        int min, cur;
    } version;
    bool system_emulation;
    struct {
        int smp_vcpus, max_vcpus;
    } system;
} qemu_info_t;

typedef struct {
    char *data;
    unsigned len;
} GArray;

typedef struct {
    uint8_t *data;
    unsigned len;
} GByteArray;

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_register;
struct qemu_plugin_scoreboard;

typedef struct {
    struct qemu_plugin_register *handle;
    const char *name, *feature;
} qemu_plugin_reg_descriptor;

typedef struct {
    struct qemu_plugin_scoreboard *score;
    size_t offset;
} qemu_plugin_u64;

enum qemu_plugin_cb_flags { CB_NO_REGS, CB_R_REGS, CB_RW_REGS };
enum qemu_plugin_cond { COND_NEVER, COND_ALWAYS, COND_EQ, COND_NE, COND_LT, COND_LE, COND_GT, COND_GE };

typedef void (*vcpu_cb)(qemu_plugin_id_t, unsigned cpu);
typedef void (*udata_cb)(unsigned cpu, void *userdata);
typedef void (*trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);

/* Weak, so that a QEMU that lacks one still gets as far as comparing versions, and says so. */
#define API __attribute__((weak))
API void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t, vcpu_cb);
API void qemu_plugin_register_vcpu_resume_cb(qemu_plugin_id_t, vcpu_cb);
API void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, trans_cb);
API void qemu_plugin_register_vcpu_tb_exec_cond_cb(struct qemu_plugin_tb *, udata_cb, enum qemu_plugin_cb_flags,
                                                   enum qemu_plugin_cond, qemu_plugin_u64, uint64_t, void *);
API void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, udata_cb, enum qemu_plugin_cb_flags, void *);
API void qemu_plugin_register_vcpu_insn_exec_cond_cb(struct qemu_plugin_insn *, udata_cb, enum qemu_plugin_cb_flags,
                                                     enum qemu_plugin_cond, qemu_plugin_u64, uint64_t, void *);
API size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
API uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
API struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
API size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
API struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t);
API void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *, unsigned cpu);
API GArray *qemu_plugin_get_registers(void);
API int qemu_plugin_read_register(struct qemu_plugin_register *, GByteArray *);
API GByteArray *g_byte_array_new(void);
API GByteArray *g_byte_array_set_size(GByteArray *, unsigned);
API char *g_array_free(GArray *, int);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 3;

/* ---- the ring, shared with tcg_ring.py ---- */

enum { KIND_TAKEN = 1, KIND_RETURNED = 2, KIND_TLBI = 3 };

/* Which fields of a record were read. */
enum {
    HAS_ESR = 1 << 0,
    HAS_FAR = 1 << 1,
    HAS_HPFAR = 1 << 2,
    HAS_ELR = 1 << 3,
    HAS_SPSR = 1 << 4,
    HAS_HCR = 1 << 5,
    HAS_VTTBR = 1 << 6,
    HAS_VBAR = 1 << 7,
    HAS_VTCR = 1 << 8,
    HAS_X0 = 1 << 9,
};

struct record {
    uint64_t number; /* its place in the stream from 1; 0 while it is being written */
    uint64_t time;   /* CLOCK_MONOTONIC, nanoseconds */
    uint16_t cpu;
    uint8_t kind;
    uint8_t el;   /* where the exception came from, or where the return goes */
    uint32_t has; /* HAS_… */
    uint64_t pc;  /* the vector, or the ERET or TLBI instruction */
    uint64_t esr; /* of a TLBI: the instruction */
    uint64_t far, hpfar, elr, spsr, hcr, vttbr, vbar, vtcr;
    uint64_t x0; /* at HVC and SMC; a TLBI's operand */
};

_Static_assert(sizeof(struct record) == 112, "tcg_ring.py knows the size of a record");

#define HEADER 4096
#define LAYOUT 1
#define MAGIC "GDBHYPTR"
#define ANY_VMID 0xffffffffU

struct header {
    char magic[8];
    uint32_t layout, record_size;
    uint64_t capacity; /* records; a power of two */
    uint64_t begun;    /* records ever begun: the next one is number begun + 1 */
    uint64_t passed;   /* exceptions and returns that a filter left out */
    uint64_t loaded;   /* CLOCK_MONOTONIC when the plugin was loaded */
    uint32_t cpus;
    uint32_t ready; /* once registers are known: READY_… */
    /* Written by who reads. */
    uint32_t enabled;
    uint32_t returns;  /* record returns */
    uint32_t tlbis;    /* record TLB maintenance */
    uint32_t vmid;     /* only this VM's exceptions and returns, or ANY_VMID */
    uint64_t classes;  /* bit n: record synchronous exceptions of EC n */
    uint64_t cpu_mask; /* bit n: record CPU n; CPUs from 64 on always are */
    uint32_t kinds;    /* bits 1 to 3: record IRQ, FIQ, SError */
    uint32_t owner;    /* the process that switched it on */
};

enum { READY = 1, READY_NO_EL2 = 2, READY_ONE_THREAD = 3 };

static struct header *header;
static struct record *ring;

/* ---- what is known of each CPU ---- */

#define MOST_CPUS 4096

struct cpu_state {
    uint64_t vbar;    /* VBAR_EL2 */
    uint64_t in_el2;  /* 0: surely below EL2 */
    uint64_t resumes; /* where an ERET within EL2 goes; a vector there is no new exception */
    GByteArray *buffer;
};

static struct qemu_plugin_scoreboard *score;
static qemu_plugin_u64 vbar_of_cpu, in_el2_of_cpu;
static uint32_t has_el3;
static bool known[MOST_CPUS];

/* One thread runs several CPUs (thread=single, -icount). There QEMU (10.0) takes the number of a CPU for a constant of
 * the code it translates, and so confuses CPUs, and what a callback's condition multiplies. Nothing is recorded then. */
static bool one_thread;

static struct cpu_state *state_of(unsigned cpu)
{
    return qemu_plugin_scoreboard_find(score, cpu);
}

/* ---- registers ---- */

enum reg { CPSR, ESR, FAR, HPFAR, ELR, SPSR, HCR, VTTBR, VBAR, VTCR, X0, REGISTERS = X0 + 31 };

static const char *const names[] = {"cpsr",     "ESR_EL2", "FAR_EL2",   "HPFAR_EL2", "ELR_EL2",
                                    "SPSR_EL2", "HCR_EL2", "VTTBR_EL2", "VBAR_EL2",  "VTCR_EL2"};
static struct qemu_plugin_register *handles[REGISTERS];

static void find_registers(void)
{
    GArray *all = qemu_plugin_get_registers();
    const qemu_plugin_reg_descriptor *items = (const void *)all->data;
    for (unsigned i = 0; i < all->len; i++) {
        for (int r = 0; r < X0; r++)
            if (!strcmp(items[i].name, names[r]))
                handles[r] = items[i].handle;
        char *end;
        unsigned long x = items[i].name[0] == 'x' ? strtoul(items[i].name + 1, &end, 10) : 31;
        if (x < 31 && !*end)
            handles[X0 + x] = items[i].handle;
    }
    g_array_free(all, 1);
}

static uint64_t get(struct cpu_state *state, int reg)
{
    uint64_t value = 0;
    if (!handles[reg])
        return 0;
    g_byte_array_set_size(state->buffer, 0);
    int size = qemu_plugin_read_register(handles[reg], state->buffer);
    if (size > 0 && (unsigned)size <= state->buffer->len)
        memcpy(&value, state->buffer->data, size < 8 ? size : 8); /* target bytes are little-endian, as ours */
    return value;
}

static unsigned current_el(struct cpu_state *state)
{
    uint64_t pstate = get(state, CPSR);
    return pstate & 0x10 ? 1 : pstate >> 2 & 3; /* AArch32 code is never at EL2 here */
}

/* The exception level in SPSR.M; one that an ERET from EL2 may not go to counts as 2, for the CPU stays there. */
static unsigned level_of(uint64_t spsr)
{
    if (spsr & 0x10)
        return (spsr & 0xf) != 0;
    unsigned el = spsr >> 2 & 3;
    return el > 2 ? 2 : el;
}

/* ---- recording ---- */

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void record(struct record *made)
{
    uint64_t number = __atomic_fetch_add(&header->begun, 1, __ATOMIC_RELAXED);
    struct record *slot = &ring[number & (header->capacity - 1)];
    __atomic_store_n(&slot->number, 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(&slot->time, &made->time, sizeof *slot - offsetof(struct record, time));
    __atomic_store_n(&slot->number, number + 1, __ATOMIC_RELEASE);
}

/* The VMID of what runs below EL2: 0 for a host. HCR_EL2: VM [0], DC [12], TGE [27]. */
static uint64_t vmid_of(const struct record *r)
{
    if (r->hcr >> 27 & 1 || !(r->hcr & 1 || r->hcr >> 12 & 1))
        return 0;
    return r->vttbr >> 48 & (r->vtcr >> 19 & 1 ? 0xffff : 0xff);
}

static bool wanted_cpu(unsigned cpu)
{
    return cpu >= 64 || header->cpu_mask >> cpu & 1;
}

static bool wanted_vm(const struct record *r)
{
    return header->vmid == ANY_VMID || header->vmid == vmid_of(r);
}

/* HCR_EL2, VTTBR_EL2 and, where it says how wide a VMID is, VTCR_EL2. */
static void read_world(struct cpu_state *state, struct record *r)
{
    r->hcr = get(state, HCR);
    r->vttbr = get(state, VTTBR);
    r->has |= HAS_HCR | HAS_VTTBR;
    if (r->vttbr >> 56) {
        r->vtcr = get(state, VTCR);
        r->has |= HAS_VTCR;
    }
}

/* Classes (ESR_EL2.EC) by what else is worth reading: aborts and PC alignment have FAR_EL2, those from below HPFAR_EL2
 * and HVC and SMC name a function in x0. */
#define BIT(n) (1ULL << (n))
#define WITH_HPFAR (BIT(0x20) | BIT(0x24))
#define WITH_FAR (WITH_HPFAR | BIT(0x21) | BIT(0x22) | BIT(0x25) | BIT(0x34) | BIT(0x35))
#define CALLS (BIT(0x12) | BIT(0x13) | BIT(0x16) | BIT(0x17))

static void at_vector(unsigned cpu, void *vector)
{
    struct cpu_state *state = state_of(cpu);
    struct record r = {.kind = KIND_TAKEN, .cpu = cpu, .pc = (uintptr_t)vector};
    if (current_el(state) != 2)
        return;
    state->in_el2 = 1;
    bool resumed = state->resumes == r.pc;
    state->resumes = ~0ULL;
    if (resumed || !header->enabled)
        return;
    unsigned kind = r.pc >> 7 & 3;
    r.time = now();
    read_world(state, &r);
    uint64_t class = 0;
    if (kind == 0 || kind == 3) {
        r.esr = get(state, ESR);
        r.has |= HAS_ESR;
        class = kind == 0 ? BIT(r.esr >> 26 & 0x3f) : 0;
    }
    bool wanted = kind ? header->kinds >> kind & 1 : (header->classes & class) != 0;
    if (!wanted || !wanted_cpu(cpu) || !wanted_vm(&r)) {
        __atomic_fetch_add(&header->passed, 1, __ATOMIC_RELAXED);
        return;
    }
    r.elr = get(state, ELR);
    r.spsr = get(state, SPSR);
    r.has |= HAS_ELR | HAS_SPSR;
    r.el = r.pc & 0x400 ? level_of(r.spsr) : 2;
    if (class & WITH_FAR) {
        r.far = get(state, FAR);
        r.has |= HAS_FAR;
    }
    if (class & WITH_HPFAR) {
        r.hpfar = get(state, HPFAR);
        r.has |= HAS_HPFAR;
    }
    if (class & CALLS) {
        r.x0 = get(state, X0);
        r.has |= HAS_X0;
    }
    record(&r);
}

/* An ERET on a CPU that may be in EL2. Where there is an EL3, EL2 may be entered from there at any time. */
static void at_eret(unsigned cpu, void *pc)
{
    struct cpu_state *state = state_of(cpu);
    unsigned el = current_el(state);
    if (el == 3)
        has_el3 = 1;
    if (el < 2)
        state->in_el2 = has_el3;
    if (el != 2)
        return;
    struct record r = {.kind = KIND_RETURNED, .cpu = cpu, .pc = (uintptr_t)pc};
    r.spsr = get(state, SPSR);
    r.elr = get(state, ELR);
    r.el = level_of(r.spsr);
    r.vbar = get(state, VBAR);
    r.has = HAS_ELR | HAS_SPSR | HAS_VBAR;
    state->vbar = r.vbar & ~0x7ffULL;
    state->in_el2 = has_el3 || r.el == 2;
    state->resumes = r.el == 2 ? r.elr : ~0ULL;
    if (!header->enabled || !header->returns)
        return;
    r.time = now();
    read_world(state, &r);
    if (!wanted_cpu(cpu) || !wanted_vm(&r)) {
        __atomic_fetch_add(&header->passed, 1, __ATOMIC_RELAXED);
        return;
    }
    record(&r);
}

/* Userdata of an instruction that needs its own words later. */
struct place {
    uint64_t pc;
    uint32_t instruction;
};

static struct place *new_place(uint64_t pc, uint32_t instruction)
{
    /* Translated again and again, an instruction has the same place each time. Called with QEMU's translation lock not
     * held, so this has its own. */
    static struct place *known[1 << 12];
    static char lock;
    unsigned bucket = (pc >> 2 ^ pc >> 14 ^ instruction * 31) & ((1 << 12) - 1);
    struct place *found = NULL;
    while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE))
        ;
    for (unsigned i = 0; !found && i < 1 << 12; i++, bucket = (bucket + 1) & ((1 << 12) - 1)) {
        if (!known[bucket])
            known[bucket] = malloc(sizeof *found), *known[bucket] = (struct place){pc, instruction};
        if (known[bucket]->pc == pc && known[bucket]->instruction == instruction)
            found = known[bucket];
    }
    __atomic_clear(&lock, __ATOMIC_RELEASE);
    return found;
}

static uint64_t operand(struct cpu_state *state, uint32_t instruction)
{
    unsigned rt = instruction & 31;
    return rt == 31 ? 0 : get(state, X0 + rt);
}

/* TLB maintenance on a CPU that may be in EL2. A host that is EL2 (HCR_EL2.{E2H, TGE} = {1, 1}) maintains its own TLB
 * entries all the time: of its instructions only those for stage 2 (op1 = 4) count. */
static void at_tlbi(unsigned cpu, void *userdata)
{
    const struct place *place = userdata;
    struct cpu_state *state = state_of(cpu);
    if (!header->enabled || !header->tlbis || current_el(state) != 2 || !wanted_cpu(cpu))
        return;
    struct record r = {.kind = KIND_TLBI, .cpu = cpu, .pc = place->pc, .esr = place->instruction, .el = 2};
    r.time = now();
    read_world(state, &r);
    bool host_is_el2 = r.hcr >> 27 & 1 && r.hcr >> 34 & 1;
    if (host_is_el2 && (place->instruction >> 16 & 7) != 4)
        return;
    r.x0 = operand(state, place->instruction);
    r.has |= HAS_X0;
    record(&r);
}

/* MSR VBAR_EL2, or VBAR_EL1, which is the same register at EL2 with HCR_EL2.E2H set, about to be executed. */
static void at_vbar(unsigned cpu, void *userdata)
{
    uint32_t instruction = (uintptr_t)userdata;
    struct cpu_state *state = state_of(cpu);
    unsigned el = current_el(state);
    bool names_el2 = (instruction >> 16 & 7) == 4;
    if (el == 3 && names_el2)
        has_el3 = 1;
    if (el < 2 || (!names_el2 && (el == 3 || !(get(state, HCR) >> 34 & 1))))
        return;
    state->vbar = operand(state, instruction) & ~0x7ffULL;
    state->in_el2 = 1;
}

/* ---- what QEMU calls ---- */

/* Op0 = 1, CRn = 8, or 9 for nXS, L = 0: SYS instructions that are TLB maintenance. */
static bool is_tlbi(uint32_t i)
{
    return (i & 0xfff8f000) == 0xd5088000 || (i & 0xfff8f000) == 0xd5089000;
}

static bool is_eret(uint32_t i)
{
    return i == 0xd69f03e0 || i == 0xd69f0bff || i == 0xd69f0fff;
}

static bool is_msr_vbar(uint32_t i)
{
    return (i & ~31U) == 0xd51cc000 || (i & ~31U) == 0xd518c000;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    if (one_thread)
        return;
    uint64_t vaddr = qemu_plugin_tb_vaddr(tb);
    if (!(vaddr & 0x7f))
        qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, at_vector, CB_R_REGS, COND_EQ, vbar_of_cpu, vaddr & ~0x7ffULL,
                                                  (void *)(uintptr_t)vaddr);
    size_t count = qemu_plugin_tb_n_insns(tb);
    for (size_t n = 0; n < count; n++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, n);
        uint32_t word = 0;
        if (qemu_plugin_insn_data(insn, &word, sizeof word) != sizeof word || word >> 24 < 0xd5 || word >> 24 > 0xd6)
            continue;
        if (is_eret(word)) {
            qemu_plugin_register_vcpu_insn_exec_cond_cb(insn, at_eret, CB_R_REGS, COND_EQ, in_el2_of_cpu, 1,
                                                        (void *)(uintptr_t)(vaddr + 4 * n));
        } else if (is_msr_vbar(word)) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, at_vbar, CB_R_REGS, (void *)(uintptr_t)word);
        } else if (is_tlbi(word)) {
            struct place *place = new_place(vaddr + 4 * n, word);
            if (place)
                qemu_plugin_register_vcpu_insn_exec_cond_cb(insn, at_tlbi, CB_R_REGS, COND_EQ, in_el2_of_cpu, 1, place);
        }
    }
}

static void cpu_begins(qemu_plugin_id_t id, unsigned cpu)
{
    (void)id;
    static char once;
    static _Atomic pid_t first_thread;
    struct cpu_state *state = state_of(cpu);
    known[cpu] = true;
    state->in_el2 = 1;
    state->vbar = state->resumes = ~0ULL;
    if (!state->buffer)
        state->buffer = g_byte_array_new();
    if (!__atomic_test_and_set(&once, __ATOMIC_ACQ_REL)) {
        first_thread = gettid();
        find_registers();
        __atomic_store_n(&header->ready, handles[VBAR] && handles[CPSR] ? READY : READY_NO_EL2, __ATOMIC_RELEASE);
    } else if (first_thread == gettid()) {
        one_thread = true;
        __atomic_store_n(&header->ready, READY_ONE_THREAD, __ATOMIC_RELEASE);
    }
}

/* A CPU that stood may have been started anew, which is at its highest exception level. Where one thread runs all CPUs,
 * QEMU tells this of a CPU before it tells that it begins, and knows no state of it yet. */
static void cpu_goes_on(qemu_plugin_id_t id, unsigned cpu)
{
    (void)id;
    if (cpu < MOST_CPUS && known[cpu])
        state_of(cpu)->in_el2 = 1;
}

static int complain(const char *what, const char *about)
{
    fprintf(stderr, "gdbhyp-trace: %s: %s\n", what, about);
    return -1;
}

/* Open the file for the ring: a new one, or a ring of before. A device, a link, or a file that holds anything else is
 * left as it is. */
static int open_ring(const char *path, bool *made)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    *made = fd >= 0;
    if (fd >= 0 || errno != EEXIST)
        return fd;
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return fd;
    struct stat about;
    char magic[sizeof header->magic];
    bool ours = !fstat(fd, &about) && S_ISREG(about.st_mode) &&
        (!about.st_size || (pread(fd, magic, sizeof magic, 0) == sizeof magic && !memcmp(magic, MAGIC, sizeof magic)));
    if (ours && !ftruncate(fd, 0))
        return fd;
    close(fd);
    errno = EEXIST;
    return -1;
}

/* Map the ring, all of whose memory is there, so that a full disk is met here and not by a running machine. */
static int make_ring(uint64_t records, const char *path)
{
    size_t size = HEADER + records * sizeof(struct record);
    bool made = false;
    int fd = path ? open_ring(path, &made) : memfd_create("gdbhyp-trace", MFD_CLOEXEC);
    if (fd < 0)
        return complain(path ? path : "memfd_create", strerror(errno));
    int error = path ? posix_fallocate(fd, 0, size) : ftruncate(fd, size) ? errno : 0;
    if (error) {
        if (made)
            unlink(path);
        return complain(path ? path : "the ring", strerror(error));
    }
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return complain("mmap", strerror(errno));
    header = memory; /* the descriptor stays open: this is how a reader finds the ring */
    ring = (struct record *)((char *)memory + HEADER);
    return 0;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    uint64_t records = 1 << 18;
    const char *path = NULL;
    bool on = false;
    for (int i = 0; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        size_t length = value ? (size_t)(value++ - argv[i]) : 0;
        if (length == 7 && !strncmp(argv[i], "records", 7))
            records = strtoull(value, NULL, 0);
        else if (length == 4 && !strncmp(argv[i], "ring", 4))
            path = value;
        else if (length == 2 && !strncmp(argv[i], "on", 2))
            on = !strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "true");
        else
            return complain(argv[i], "the options are records=N, ring=PATH and on=on");
    }
    if (records < 1024 || records > 1 << 28 || records & (records - 1))
        return complain("records", "a power of two from 1024 to 268435456 is needed");
    if (!info->system_emulation || strcmp(info->target_name, "aarch64"))
        return complain(info->target_name, "this plugin is for qemu-system-aarch64");
    if (info->system.max_vcpus > MOST_CPUS)
        return complain("CPUs", "there are too many");
    if (make_ring(records, path))
        return -1;
    *header = (struct header){
        .layout = LAYOUT,
        .record_size = sizeof(struct record),
        .capacity = records,
        .loaded = now(),
        .cpus = info->system.smp_vcpus,
        .enabled = on,
        .returns = 1,
        .tlbis = 1,
        .vmid = ANY_VMID,
        .classes = ~0ULL,
        .cpu_mask = ~0ULL,
        .kinds = 0xe,
    };
    memcpy(header->magic, MAGIC, sizeof header->magic);
    score = qemu_plugin_scoreboard_new(sizeof(struct cpu_state));
    vbar_of_cpu = (qemu_plugin_u64){score, offsetof(struct cpu_state, vbar)};
    in_el2_of_cpu = (qemu_plugin_u64){score, offsetof(struct cpu_state, in_el2)};
    qemu_plugin_register_vcpu_init_cb(id, cpu_begins);
    qemu_plugin_register_vcpu_resume_cb(id, cpu_goes_on);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
