/* Stands in for libnvidia-ml.so.1. GPU i is the folder $FAKE_NVML_DIR/i with the files uuid, name, energy_mj, power_mw,
 * instant_mw, mig, utilisation and memory_utilisation (in %), memory_used, sm_mhz, memory_mhz, temperature_c (for the
 * older call) and temperature_v_c (for the newer), read anew at each call. A file that is missing is NOT_SUPPORTED (3); one that holds "E<n>" makes the
 * call fail with NVML error n. $FAKE_NVML_DIR/init holding "E<n>" makes nvmlInit fail. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_GPUS 8
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };

static int indices[MAX_GPUS] = {0, 1, 2, 3, 4, 5, 6, 7};

static int read_state(const char *path_in_dir, char *text, size_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("FAKE_NVML_DIR"), path_in_dir);
    FILE *file = fopen(path, "r");
    if (file == NULL) return NOT_SUPPORTED;
    if (fgets(text, (int)size, file) == NULL) text[0] = 0;
    fclose(file);
    text[strcspn(text, "\n")] = 0;
    return text[0] == 'E' ? atoi(text + 1) : SUCCESS;
}

static int read_gpu(void *device, const char *what, char *text, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "%d/%s", *(int *)device, what);
    return read_state(path, text, size);
}

static int read_number(void *device, const char *what, unsigned long long *number) {
    char text[64];
    int code = read_gpu(device, what, text, sizeof text);
    if (code == SUCCESS) *number = strtoull(text, NULL, 10);
    return code;
}

EXPORT int nvmlInitWithFlags(unsigned flags) {
    char text[64];
    int code = read_state("init", text, sizeof text);
    (void)flags;
    return code == NOT_SUPPORTED ? SUCCESS : code;
}

EXPORT int nvmlShutdown(void) { return SUCCESS; }

EXPORT int nvmlDeviceGetCount_v2(unsigned *count) {
    char text[128];
    for (*count = 0; *count < MAX_GPUS; ++*count)
        if (read_gpu(&indices[*count], "uuid", text, sizeof text) != SUCCESS) break;
    return SUCCESS;
}

/* The optional file handle holds "E<n>" for a GPU that is listed and gives no handle, such as one that is lost. */
static int give_handle(int index, void **device) {
    char text[64];
    int code = read_gpu(&indices[index], "handle", text, sizeof text);
    *device = &indices[index];
    return code == NOT_SUPPORTED ? SUCCESS : code;
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    char text[128];
    for (int i = 0; i < MAX_GPUS; ++i)
        if (read_gpu(&indices[i], "uuid", text, sizeof text) == SUCCESS && strcmp(text, uuid) == 0)
            return give_handle(i, device);
    return NOT_FOUND;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    unsigned count;
    nvmlDeviceGetCount_v2(&count);
    return index < count ? give_handle((int)index, device) : INVALID_ARGUMENT;
}

EXPORT int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) { return read_gpu(device, "uuid", uuid, length); }

EXPORT int nvmlDeviceGetName(void *device, char *name, unsigned length) { return read_gpu(device, "name", name, length); }

/* Zeus asks it whether there is an energy counter: Volta (5) and later have one. */
EXPORT int nvmlDeviceGetArchitecture(void *device, unsigned *architecture) {
    enum { AMPERE = 7 };
    (void)device;
    *architecture = AMPERE;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    unsigned long long mode = 0;
    int code = read_number(device, "mig", &mode);
    *current = *pending = (unsigned)mode;
    return code;
}

EXPORT int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy_mj) {
    return read_number(device, "energy_mj", energy_mj);
}

EXPORT int nvmlDeviceGetPowerUsage(void *device, unsigned *power_mw) {
    unsigned long long number = 0;
    int code = read_number(device, "power_mw", &number);
    *power_mw = (unsigned)number;
    return code;
}

struct field {
    unsigned id, scope;
    long long timestamp, latency;
    unsigned type;
    int code;
    union { unsigned u32; unsigned long long u64; double f64; } value;
};

EXPORT int nvmlDeviceGetFieldValues(void *device, int count, struct field *fields) {
    for (int i = 0; i < count; ++i) {
        unsigned long long number = 0;
        fields[i].code = INVALID_ARGUMENT;
        if (fields[i].id == 186 && fields[i].scope == 0) fields[i].code = read_number(device, "instant_mw", &number);
        fields[i].value.u64 = 0;
        fields[i].value.u32 = (unsigned)number;
    }
    return SUCCESS;
}

struct utilisation {
    unsigned gpu, memory;
};

EXPORT int nvmlDeviceGetUtilizationRates(void *device, struct utilisation *rates) {
    unsigned long long gpu = 0, memory = 0;
    int code = read_number(device, "utilisation", &gpu);
    if (code == SUCCESS) code = read_number(device, "memory_utilisation", &memory);
    rates->gpu = (unsigned)gpu;
    rates->memory = (unsigned)memory;
    return code;
}

struct memory {
    unsigned long long total, free, used;
};

EXPORT int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory) {
    memory->total = 80ULL << 30;
    memory->used = 0;
    int code = read_number(device, "memory_used", &memory->used);
    memory->free = memory->total - memory->used;
    return code;
}

EXPORT int nvmlDeviceGetClockInfo(void *device, unsigned type, unsigned *clock_mhz) {
    enum { SM = 1, MEMORY = 2 };
    unsigned long long number = 0;
    if (type != SM && type != MEMORY) return INVALID_ARGUMENT;
    int code = read_number(device, type == SM ? "sm_mhz" : "memory_mhz", &number);
    *clock_mhz = (unsigned)number;
    return code;
}

EXPORT int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *temperature_c) {
    unsigned long long number = 0;
    int code = sensor == 0 ? read_number(device, "temperature_c", &number) : INVALID_ARGUMENT;
    *temperature_c = (unsigned)number;
    return code;
}

struct temperature {
    unsigned version, sensor;
    int temperature_c;
};

EXPORT int nvmlDeviceGetTemperatureV(void *device, struct temperature *temperature) {
    unsigned long long number = 0;
    int code = temperature->sensor == 0 ? read_number(device, "temperature_v_c", &number) : INVALID_ARGUMENT;
    temperature->temperature_c = (int)number;
    return code;
}
