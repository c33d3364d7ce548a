/* Preloaded into a process, makes its reads of simulated counters fail. FAILING_READS is "<what> <from> <seed>": from
 * that nanosecond of the monotonic clock on,
 *   lost     one millisecond in ten, drawn from the seed, in which no counter of the powercap tree or the GPU answers;
 *   package  the package's counter answers no more;
 *   gpu      the GPU answers no more: it is lost (NVML error 15).
 * The moments depend on the clock alone, so that all processes suffer the same ones. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { ONE_IN = 10, NS_PER_MS = 1000000 };

static int ends_with(const char *text, const char *end) {
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static uint64_t mixed(uint64_t x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static int fails(const char *who) {
    const char *plan = getenv("FAILING_READS");
    char what[16];
    unsigned long long from_ns, seed;
    struct timespec now;
    if (plan == NULL || sscanf(plan, "%15s %llu %llu", what, &from_ns, &seed) != 3) return 0;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
    if (now_ns < from_ns) return 0;
    if (strcmp(what, "lost") == 0) return mixed(seed ^ mixed(now_ns / NS_PER_MS)) % ONE_IN == 0;
    return strcmp(what, who) == 0;
}

static int counter_fails(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!ends_with(path, "/energy_uj")) return 0;
    return fails(ends_with(path, "intel-rapl:0/energy_uj") ? "package" : "dram");
}

EXPORT ssize_t read(int file, void *buffer, size_t size) {
    static ssize_t (*next)(int, void *, size_t);
    int before = errno;
    if (next == NULL) next = dlsym(RTLD_NEXT, "read");
    if (counter_fails(file)) return errno = EIO, -1;
    errno = before;
    return next(file, buffer, size);
}

EXPORT ssize_t pread64(int file, void *buffer, size_t size, off64_t offset) {
    static ssize_t (*next)(int, void *, size_t, off64_t);
    int before = errno;
    if (next == NULL) next = dlsym(RTLD_NEXT, "pread64");
    if (counter_fails(file)) return errno = EIO, -1;
    errno = before;
    return next(file, buffer, size, offset);
}

EXPORT ssize_t pread(int file, void *buffer, size_t size, off_t offset) { return pread64(file, buffer, size, offset); }

/* The stand-in for libnvidia-ml opens a file at each call, and takes "E<n>" in it for NVML's error n. */
EXPORT FILE *fopen(const char *path, const char *mode) {
    static FILE *(*next)(const char *, const char *);
    static char lost[] = "E15\n", unknown[] = "E999\n";
    const char *gpus = getenv("FAKE_NVML_DIR");
    if (next == NULL) next = dlsym(RTLD_NEXT, "fopen");
    if (gpus != NULL && strncmp(path, gpus, strlen(gpus)) == 0 && fails("gpu"))
        if (ends_with(path, "/energy_mj") || ends_with(path, "/power_mw") || ends_with(path, "/instant_mw")) {
            char *said = strncmp(getenv("FAILING_READS"), "gpu", 3) == 0 ? lost : unknown;
            return fmemopen(said, strlen(said), "r");
        }
    return next(path, mode);
}
