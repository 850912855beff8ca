/* The calls of libcuda.so.1 that clip_decode makes, without a GPU: its memory is the host's. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int cuInit(unsigned flags) { return getenv("FAKE_GPU_LOST") ? 803 : 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return number ? 101 : 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)0xC0; return 0; }
int cuCtxPushCurrent_v2(void *context) { return context == (void *)0xC0 ? 0 : 201; }
int cuCtxPopCurrent_v2(void **context) { *context = NULL; return 201; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)0x57; return 0; }
int cuStreamDestroy_v2(void *stream) { return stream == (void *)0x57 ? 0 : 400; }
int cuStreamSynchronize(void *stream) { return stream == (void *)0x57 ? 0 : 400; }
int cuMemGetInfo_v2(size_t *available, size_t *total)
{
    const char *megabytes = getenv("FAKE_GPU_MEGABYTES");
    if (getenv("FAKE_GPU_LOST")) return 719;
    *total = (size_t)8 << 30;
    *available = megabytes ? (size_t)atol(megabytes) << 20 : *total;
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *destination, uint64_t source, size_t bytes, void *stream)
{
    memcpy(destination, (void *)(uintptr_t)source, bytes);
    return 0;
}
int cuGetErrorName(int status, const char **name) { *name = "CUDA_ERROR_OF_A_TEST"; return 0; }
