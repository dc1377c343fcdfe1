/*
 * The smallest VMM that keeps a hypervisor busy: it makes VMs with KVM, runs the guest of guest.S in them, and says
 * on its standard output everything that a debugger outside may be asked to find out: where the memory slots are,
 * what the guest's stage 1 maps, which page backs what, and each exit with the IPA that the kernel reported.
 *
 * usage: vmm [--vms N] [--vcpus N] [--memory MIB] [--step MIB] [--mmu 0|1] [--wfi 0|1] [--spin N] [--tick-ms N]
 *            [--mmio-lines N] [--mmio-rate N] [--seconds N] [--rounds N]
 *
 * --step MIB: each VM has this much more memory than the one before it.
 * --mmio-lines N: the first N exits of each vCPU get a line (0: all do), later ones --mmio-rate a second.
 * --seconds N, --rounds N: end after this time, or when each vCPU has made so many rounds of its loop.
 *
 * Lines (all begin with "VMM ", numbers with 0x are hexadecimal):
 *   slot vm= slot= ipa= size= hva= flags=              a memory slot, KVM's flags
 *   map vm= va= ipa= size= block=                      a range of the guest's own stage 1
 *   code vm= spun=                                     the VA of an instruction that each round passes
 *   host exit=                                         the VA of the function in this program that handles MMIO exits
 *   page vm= ipa= pa=                                  the physical page behind an IPA, from /proc/self/pagemap
 *   mmio vm= vcpu= seq= ipa= len= write= data= pc=     a KVM_EXIT_MMIO; seq counts those of the vCPU from 1
 *   count vm= vcpu= mmio= intr= rounds=                so far; every two seconds, and at the end
 *   kernel exits= hvc= wfi= wfe= mmio= signal=         at the end, when no vCPU runs any more: KVM's own counters of
 *                                                      all VMs, from debugfs
 * and "RIG READY" when every vCPU has made its first rounds, or "RIG FAILED: why".
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

/* The guest-physical map, the same in every VM. */
#define PAGE 0x1000ULL
#define BLOCK 0x200000ULL
#define IPA_MMIO 0x09000000ULL /* no slot: this is the point of it */
#define IPA_RAM 0x40000000ULL
#define IPA_ROM 0x90000000ULL
#define IPA_LOG 0xa0000000ULL
#define IPA_TABLES 0xb0000000ULL
#define IPA_HIGH 0x8000200000ULL /* above 512 GiB */

#define PARAMETERS 0x10000ULL /* in RAM: one block of P_SIZE for each vCPU */
#define FRESH BLOCK           /* in RAM: after the first 2 MiB */
#define TABLE_PAGES 32

/* Where the guest's stage 1 puts them; each VM has its own 4 GiB of VAs. */
#define VA_RAM 0xffff800010000000ULL
#define VA_MMIO 0xffff800029000000ULL
#define VA_ROM 0x0000555500003000ULL
#define VA_LOG 0x0000555580005000ULL
#define VA_HIGH 0xffff900000200000ULL
#define VA_OF_VM (1ULL << 32)

/* Stage-1 descriptors, VMSAv8-64 with the 4 KiB granule. */
#define D_TABLE 3ULL
#define D_PAGE 3ULL
#define D_BLOCK 1ULL
#define D_AF (1ULL << 10)
#define D_INNER_SHAREABLE (3ULL << 8)
#define D_PXN (1ULL << 53)
#define D_UXN (1ULL << 54)
#define D_DEVICE (0ULL << 2) /* attribute 0 of MAIR_VALUE */
#define D_NORMAL (1ULL << 2)
#define D_ADDRESS 0x0000fffffffff000ULL
#define MAIR_VALUE 0xff04ULL

#define DATA (D_NORMAL | D_AF | D_INNER_SHAREABLE | D_PXN | D_UXN)
#define CODE (D_NORMAL | D_AF | D_INNER_SHAREABLE | D_UXN)
#define DEVICE (D_DEVICE | D_AF | D_PXN | D_UXN)

/* Two 48-bit halves, 4 KiB granules, write-back inner-shareable walks, 40-bit IPAs. */
#define TCR_VALUE                                                                                                    \
    (16ULL | 1ULL << 8 | 1ULL << 10 | 3ULL << 12 | 16ULL << 16 | 1ULL << 24 | 1ULL << 26 | 3ULL << 28 | 2ULL << 30 | \
     2ULL << 32)

#define MAX_VMS 4
#define MAX_VCPUS 4

enum { SLOT_RAM, SLOT_ROM, SLOT_LOG, SLOT_TABLES, SLOT_HIGH, SLOTS };

struct slot {
    uint64_t ipa, size;
    uint32_t flags;
    uint8_t *host;
};

struct vm {
    int number, fd;
    struct slot slots[SLOTS];
    unsigned tables_used;
};

struct vcpu {
    struct vm *vm;
    int number, fd;
    struct kvm_run *run;
    pthread_t thread;
    volatile unsigned long mmio, interrupted, round;
    long lines;            /* of the first ones, still to be printed */
    struct timespec next;  /* and then no earlier than this */
};

extern const uint8_t guest_image[], guest_image_end[], guest_spun[];

static long vms = 1, vcpus = 1, memory_mib = 16, step_mib, mmu = 1, wfi = 1, spin = 300000, tick_ms = 10;
static long mmio_lines = 64, mmio_rate = 20, seconds, rounds;
static int kvm_fd;
static volatile int ending;

/* A line in one write that no tick cuts short, so that two threads do not mix theirs. */
static void say(const char *format, ...)
{
    char line[256];
    sigset_t ticks, before;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    sigemptyset(&ticks);
    sigaddset(&ticks, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &ticks, &before);
    ssize_t written = write(1, line, length);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (written != length)
        _exit(3); /* nobody can be told */
}

__attribute__((noreturn)) static void die(const char *what)
{
    say("RIG FAILED: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Memory for a slot, aligned so that a 2 MiB host page can back a 2 MiB stage-2 block, or kept in small pages. */
static uint8_t *allocate(uint64_t size, int huge)
{
    uint8_t *p = mmap(NULL, size + BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        die("mmap");
    p = (uint8_t *)(((uintptr_t)p + BLOCK - 1) & ~(BLOCK - 1));
    if (madvise(p, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
        die("madvise");
    return p;
}

static void add_slot(struct vm *vm, int index, uint64_t ipa, uint64_t size, uint32_t flags, int huge)
{
    struct slot *slot = &vm->slots[index];
    *slot = (struct slot){ipa, size, flags, allocate(size, huge)};
    /* What a "page" line says has to stay true: no zero page, and none that the kernel moves (init sees to that). */
    if (mlock(slot->host, index == SLOT_RAM ? FRESH : size))
        die("mlock");
    struct kvm_userspace_memory_region region = {
        .slot = index,
        .flags = flags,
        .guest_phys_addr = ipa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)slot->host,
    };
    if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region))
        die("KVM_SET_USER_MEMORY_REGION");
    say("VMM slot vm=%d slot=%d ipa=0x%llx size=0x%llx hva=0x%llx flags=0x%x\n", vm->number, index,
        (unsigned long long)ipa, (unsigned long long)size, (unsigned long long)(uintptr_t)slot->host, flags);
}

/* A new zeroed table of the guest's stage 1: its IPA. */
static uint64_t new_table(struct vm *vm)
{
    if (vm->tables_used == TABLE_PAGES)
        die("too many stage-1 tables");
    return IPA_TABLES + PAGE * vm->tables_used++;
}

/* The entry for va at a level (1, 2 or 3) below a root at level 0, with the tables above it made as needed. */
static uint64_t *entry(struct vm *vm, uint64_t root, uint64_t va, int level)
{
    uint64_t table = root;
    for (int l = 0;; l++) {
        uint64_t *e = (uint64_t *)(vm->slots[SLOT_TABLES].host + (table - IPA_TABLES)) + (va >> (39 - 9 * l) & 511);
        if (l == level)
            return e;
        if (!*e)
            *e = new_table(vm) | D_TABLE;
        table = *e & D_ADDRESS;
    }
}

static void map(struct vm *vm, uint64_t root, uint64_t va, uint64_t ipa, uint64_t size, uint64_t attributes)
{
    int block = !((va | ipa | size) & (BLOCK - 1));
    uint64_t step = block ? BLOCK : PAGE;
    for (uint64_t offset = 0; offset < size; offset += step)
        *entry(vm, root, va + offset, block ? 2 : 3) = (ipa + offset) | attributes | (block ? D_BLOCK : D_PAGE);
    say("VMM map vm=%d va=0x%llx ipa=0x%llx size=0x%llx block=%d\n", vm->number, (unsigned long long)va,
        (unsigned long long)ipa, (unsigned long long)size, block);
}

/* Fill the parameter block of a vCPU: the addresses are VAs when the guest will turn its stage 1 on. */
static void parameters(struct vm *vm, int vcpu, uint64_t lower, uint64_t upper)
{
    uint64_t own = VA_OF_VM * vm->number, code = mmu ? VA_RAM + own : IPA_RAM;
    uint64_t values[P_SIZE / 8] = {
        [P_MMU / 8] = mmu,
        [P_MAIR / 8] = MAIR_VALUE,
        [P_TCR / 8] = TCR_VALUE,
        [P_TTBR0 / 8] = lower,
        [P_TTBR1 / 8] = upper,
        [P_CODE / 8] = code,
        [P_MMIO / 8] = mmu ? VA_MMIO + own : IPA_MMIO,
        [P_ROM / 8] = mmu ? VA_ROM + own : IPA_ROM,
        [P_LOG / 8] = mmu ? VA_LOG + own : IPA_LOG,
        [P_HIGH / 8] = mmu ? VA_HIGH + own : IPA_HIGH,
        [P_FRESH / 8] = code + FRESH,
        [P_SPIN / 8] = spin,
        [P_WFI / 8] = wfi,
        [P_SELF / 8] = code + PARAMETERS + P_SIZE * vcpu,
    };
    memcpy(vm->slots[SLOT_RAM].host + PARAMETERS + P_SIZE * vcpu, values, sizeof values);
}

/* Slots, code, the guest's stage-1 tables and its parameters. */
static void make_vm(struct vm *vm, int number)
{
    vm->number = number;
    vm->fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    if (vm->fd < 0)
        die("KVM_CREATE_VM");
    uint64_t ram = (uint64_t)(memory_mib + step_mib * number) << 20, own = VA_OF_VM * number;
    add_slot(vm, SLOT_RAM, IPA_RAM, ram, 0, 0);
    add_slot(vm, SLOT_ROM, IPA_ROM, PAGE * ROM_PAGES, KVM_MEM_READONLY, 0);
    add_slot(vm, SLOT_LOG, IPA_LOG, PAGE * LOG_PAGES, KVM_MEM_LOG_DIRTY_PAGES, 0);
    add_slot(vm, SLOT_TABLES, IPA_TABLES, PAGE * TABLE_PAGES, 0, 0);
    add_slot(vm, SLOT_HIGH, IPA_HIGH, BLOCK, 0, 1);

    memset(vm->slots[SLOT_TABLES].host, 0, PAGE * TABLE_PAGES);
    memcpy(vm->slots[SLOT_RAM].host, guest_image, guest_image_end - guest_image);
    say("VMM code vm=%d spun=0x%llx\n", number,
        (unsigned long long)((mmu ? VA_RAM + own : IPA_RAM) + (guest_spun - guest_image)));
    uint64_t lower = new_table(vm), upper = new_table(vm);
    if (mmu) {
        map(vm, lower, IPA_RAM, IPA_RAM, PAGE, CODE); /* where the guest stands when it turns its MMU on */
        map(vm, lower, VA_ROM + own, IPA_ROM, PAGE * ROM_PAGES, DATA);
        map(vm, lower, VA_LOG + own, IPA_LOG, PAGE * LOG_PAGES, DATA);
        map(vm, upper, VA_RAM + own, IPA_RAM, ram, CODE);
        map(vm, upper, VA_MMIO + own, IPA_MMIO, PAGE, DEVICE);
        map(vm, upper, VA_HIGH + own, IPA_HIGH, BLOCK, DATA);
    }
    for (int i = 0; i < vcpus; i++)
        parameters(vm, i, lower, upper);
}

static void set_core(int fd, uint64_t offset, uint64_t value)
{
    struct kvm_one_reg reg = {
        .id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | offset / 4,
        .addr = (uintptr_t)&value,
    };
    if (ioctl(fd, KVM_SET_ONE_REG, &reg))
        die("KVM_SET_ONE_REG");
}

static void make_vcpu(struct vcpu *vcpu, struct vm *vm, int number)
{
    struct kvm_vcpu_init init;
    *vcpu = (struct vcpu){.vm = vm, .number = number, .lines = mmio_lines};
    vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, number);
    if (vcpu->fd < 0)
        die("KVM_CREATE_VCPU");
    if (ioctl(vm->fd, KVM_ARM_PREFERRED_TARGET, &init))
        die("KVM_ARM_PREFERRED_TARGET");
    init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    if (ioctl(vcpu->fd, KVM_ARM_VCPU_INIT, &init))
        die("KVM_ARM_VCPU_INIT");
    vcpu->run = mmap(NULL, ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED)
        die("mmap of the vCPU");
    set_core(vcpu->fd, offsetof(struct kvm_regs, regs.pc), IPA_RAM);
    set_core(vcpu->fd, offsetof(struct kvm_regs, regs.regs[0]), IPA_RAM + PARAMETERS + P_SIZE * number);
}

static uint64_t get_core(int fd, uint64_t offset)
{
    uint64_t value;
    struct kvm_one_reg reg = {
        .id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | offset / 4,
        .addr = (uintptr_t)&value,
    };
    if (ioctl(fd, KVM_GET_ONE_REG, &reg))
        die("KVM_GET_ONE_REG");
    return value;
}

/* True when this exit may have its line: the first ones, and after them a few a second. */
static int may_say(struct vcpu *vcpu)
{
    if (!mmio_lines || vcpu->lines > 0) {
        vcpu->lines--;
        return 1;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec < vcpu->next.tv_sec || (now.tv_sec == vcpu->next.tv_sec && now.tv_nsec < vcpu->next.tv_nsec))
        return 0;
    long pause = 1000000000L / mmio_rate;
    vcpu->next.tv_sec = now.tv_sec + (now.tv_nsec + pause) / 1000000000L;
    vcpu->next.tv_nsec = (now.tv_nsec + pause) % 1000000000L;
    return 1;
}

/*
 * The doorbell: make the kernel unmap what the guest is about to touch again. The fresh memory is given back, the
 * logged pages become read-only at stage 2, and changing the protection of the guest's tables to and fro unmaps them
 * with their contents kept, so that the next stage-1 walk faults at stage 2.
 */
static void doorbell(struct vm *vm)
{
    static unsigned long bitmap[MAX_VMS][LOG_PAGES / (8 * sizeof(long))];
    struct kvm_dirty_log log = {.slot = SLOT_LOG, .dirty_bitmap = bitmap[vm->number]};
    uint8_t *tables = vm->slots[SLOT_TABLES].host;
    if (madvise(vm->slots[SLOT_RAM].host + FRESH, (uint64_t)FRESH_STRIDE * FRESH_TOUCHES, MADV_DONTNEED))
        die("MADV_DONTNEED");
    if (ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log))
        die("KVM_GET_DIRTY_LOG");
    if (mprotect(tables, PAGE * TABLE_PAGES, PROT_READ) || mprotect(tables, PAGE * TABLE_PAGES, PROT_READ | PROT_WRITE))
        die("mprotect");
}

/* A debugger that stops here has the vCPU in its first argument, and in its second one KVM's word for its guest's PC. */
__attribute__((noinline)) static void mmio_exit(struct vcpu *vcpu, uint64_t pc)
{
    struct kvm_run *run = vcpu->run;
    uint64_t data = 0, ipa = run->mmio.phys_addr;
    vcpu->mmio++;
    if (!run->mmio.is_write) {
        data = 0x5152535400000000ULL | vcpu->mmio;
        memcpy(run->mmio.data, &data, sizeof data);
    } else {
        memcpy(&data, run->mmio.data, run->mmio.len);
    }
    if (may_say(vcpu))
        say("VMM mmio vm=%d vcpu=%d seq=%lu ipa=0x%llx len=%u write=%d data=0x%llx pc=0x%llx\n", vcpu->vm->number,
            vcpu->number, vcpu->mmio, (unsigned long long)ipa, run->mmio.len, run->mmio.is_write,
            (unsigned long long)data, (unsigned long long)pc);
    if (!run->mmio.is_write)
        return;
    if (ipa == IPA_MMIO + MMIO_PANIC) {
        say("RIG FAILED: vm=%d vcpu=%d took an exception, ESR_EL1 0x%llx\n", vcpu->vm->number, vcpu->number,
            (unsigned long long)data);
        exit(1);
    }
    vcpu->round = data;
    if (ipa == IPA_MMIO + MMIO_DOORBELL && vcpu->number == 0)
        doorbell(vcpu->vm);
}

/* True when this vCPU has made as many rounds as were asked for. */
static int made_all(const struct vcpu *vcpu)
{
    return rounds && vcpu->round >= (unsigned long)rounds;
}

static void *run_vcpu(void *argument)
{
    struct vcpu *vcpu = argument;
    while (!ending && !made_all(vcpu)) {
        if (ioctl(vcpu->fd, KVM_RUN, 0) && errno != EINTR)
            die("KVM_RUN");
        if (vcpu->run->exit_reason == KVM_EXIT_MMIO) {
            mmio_exit(vcpu, get_core(vcpu->fd, offsetof(struct kvm_regs, regs.pc)));
        } else if (vcpu->run->exit_reason == KVM_EXIT_INTR) {
            vcpu->interrupted++;
        } else {
            say("RIG FAILED: vm=%d vcpu=%d exit reason %u\n", vcpu->vm->number, vcpu->number, vcpu->run->exit_reason);
            exit(1);
        }
    }
    return NULL;
}

/* What backs an IPA: the second opinion for every stage-2 walk. Bit 63 of a pagemap entry: present. */
static void say_page(struct vm *vm, int pagemap, uint64_t ipa, uint8_t *host)
{
    uint64_t value;
    if (pread(pagemap, &value, sizeof value, (uintptr_t)host / PAGE * sizeof value) != sizeof value)
        die("pagemap");
    if (value >> 63)
        say("VMM page vm=%d ipa=0x%llx pa=0x%llx\n", vm->number, (unsigned long long)ipa,
            (unsigned long long)((value & ((1ULL << 55) - 1)) * PAGE));
}

static void say_pages(struct vm *vm)
{
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    if (pagemap < 0)
        die("/proc/self/pagemap");
    for (int i = 0; i < SLOTS; i++)
        for (int page = 0; page < 3; page++)
            say_page(vm, pagemap, vm->slots[i].ipa + PAGE * page, vm->slots[i].host + PAGE * page);
    close(pagemap);
}

static void say_counts(struct vcpu *vcpu)
{
    say("VMM count vm=%d vcpu=%d mmio=%lu intr=%lu rounds=%lu\n", vcpu->vm->number, vcpu->number, vcpu->mmio,
        vcpu->interrupted, vcpu->round);
}

/* One of KVM's counters, summed over its VMs. */
static unsigned long kernel_counter(const char *name)
{
    char path[64], text[32] = "";
    snprintf(path, sizeof path, "/sys/kernel/debug/kvm/%s", name);
    int file = open(path, O_RDONLY);
    if (file < 0 || read(file, text, sizeof text - 1) <= 0)
        die(path);
    close(file);
    return strtoul(text, NULL, 0);
}

static void say_kernel_counters(void)
{
    say("VMM kernel exits=%lu hvc=%lu wfi=%lu wfe=%lu mmio=%lu signal=%lu\n", kernel_counter("exits"),
        kernel_counter("hvc_exit_stat"), kernel_counter("wfi_exit_stat"), kernel_counter("wfe_exit_stat"),
        kernel_counter("mmio_exit_user"), kernel_counter("signal_exits"));
}

static void ignore_signal(int number)
{
    (void)number;
}

static const struct option {
    const char *name;
    long *value, least, most;
} options[] = {
    {"--vms", &vms, 1, MAX_VMS},
    {"--vcpus", &vcpus, 1, MAX_VCPUS},
    {"--memory", &memory_mib, 8, 256},
    {"--step", &step_mib, 0, 64},
    {"--mmu", &mmu, 0, 1},
    {"--wfi", &wfi, 0, 1},
    {"--spin", &spin, 0, 1L << 40},
    {"--tick-ms", &tick_ms, 1, 10000},
    {"--mmio-lines", &mmio_lines, 0, 1L << 40},
    {"--mmio-rate", &mmio_rate, 1, 1000000},
    {"--seconds", &seconds, 0, 1L << 40},
    {"--rounds", &rounds, 0, 1L << 40},
};

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        const struct option *option = options, *end = options + sizeof options / sizeof *options;
        while (option < end && strcmp(option->name, argv[i]))
            option++;
        if (option == end || i + 1 == argc) {
            say("RIG FAILED: vmm: unknown option, or one without its number: %s\n", argv[i]);
            exit(2);
        }
        *option->value = strtol(argv[i + 1], NULL, 0);
        if (*option->value < option->least || *option->value > option->most) {
            say("RIG FAILED: vmm: %s takes %ld to %ld\n", option->name, option->least, option->most);
            exit(2);
        }
    }
}

/* A signal to each vCPU thread ends KVM_RUN, and with it the guest's WFI: the only interrupt this guest ever sees. */
static void tick(struct vcpu *all, int count)
{
    usleep(tick_ms * 1000);
    for (int i = 0; i < count; i++)
        pthread_kill(all[i].thread, SIGUSR1);
}

int main(int argc, char **argv)
{
    static struct vm machines[MAX_VMS];
    static struct vcpu all[MAX_VMS * MAX_VCPUS];
    int count = 0, ready = 0;

    parse(argc, argv);
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = ignore_signal}, NULL);
    kvm_fd = open("/dev/kvm", O_RDWR);
    if (kvm_fd < 0)
        die("/dev/kvm");
    say("VMM host exit=0x%llx\n", (unsigned long long)(uintptr_t)mmio_exit);
    for (int i = 0; i < vms; i++) {
        make_vm(&machines[i], i);
        for (int j = 0; j < vcpus; j++)
            make_vcpu(&all[count++], &machines[i], j);
    }
    for (int i = 0; i < count; i++)
        if ((errno = pthread_create(&all[i].thread, NULL, run_vcpu, &all[i])))
            die("pthread_create");
    while (!ready) {
        tick(all, count);
        ready = 1;
        for (int i = 0; i < count; i++)
            ready &= all[i].round >= 2;
    }
    for (int i = 0; i < vms; i++)
        say_pages(&machines[i]);
    say("RIG READY\n");

    struct timespec start, now, said;
    clock_gettime(CLOCK_MONOTONIC, &start);
    said = now = start;
    for (int made = 0; made < count && (!seconds || now.tv_sec - start.tv_sec < seconds);) {
        tick(all, count);
        for (made = 0; made < count && made_all(&all[made]);)
            made++;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - said.tv_sec < 2)
            continue;
        said = now;
        for (int i = 0; i < count; i++)
            say_counts(&all[i]);
    }
    ending = 1;
    for (int i = 0; i < count; i++)
        while (pthread_tryjoin_np(all[i].thread, NULL))
            tick(&all[i], 1);
    for (int i = 0; i < count; i++)
        say_counts(&all[i]);
    say_kernel_counters();
    say("RIG DONE\n");
    exit(0);
}
