/* What CodeCarbon and Zeus ask of NVML beside tests/simulated/nvml_stub.c, weak so that the stub may learn it, too: an
 * Ampere board of 400 W, without processes. */
#define EXPORT __attribute__((weak, visibility("default")))
enum { SUCCESS = 0, AMPERE = 7, LOWEST_MW = 100000, HIGHEST_MW = 400000 };

static int answer(unsigned *place, unsigned number) {
    *place = number;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetArchitecture(void *device, unsigned *architecture) {
    (void)device;
    return answer(architecture, AMPERE);
}

EXPORT int nvmlDeviceGetComputeMode(void *device, unsigned *mode) {
    (void)device;
    return answer(mode, 0);
}

EXPORT int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *limit_mw) {
    (void)device;
    return answer(limit_mw, HIGHEST_MW);
}

EXPORT int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *lowest_mw, unsigned *highest_mw) {
    (void)device;
    *lowest_mw = LOWEST_MW;
    return answer(highest_mw, HIGHEST_MW);
}

EXPORT int nvmlDeviceGetPowerManagementDefaultLimit(void *device, unsigned *limit_mw) {
    (void)device;
    return answer(limit_mw, HIGHEST_MW);
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, void *processes) {
    (void)device;
    (void)processes;
    return answer(count, 0);
}

EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, void *processes) {
    (void)device;
    (void)processes;
    return answer(count, 0);
}
