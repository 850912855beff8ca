/* The calls of libcuda.so.1 that clip_decode makes, without a GPU: its memory is the host's. As in the driver, most calls
   need a context that the thread has pushed, and after some errors all calls fail. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static __thread int pushed;
static int streams, flags_of_context;

static int check_context(void) { return getenv("FAKE_GPU_LOST") ? 719 : pushed ? 0 : 201; }
static int check_stream(void *stream) { return check_context() ? check_context() : stream == (void *)0x57 ? 0 : 400; }

/* Streams that were created and not destroyed. */
int fake_streams(void) { return streams; }
/* Contexts that the calling thread has pushed and not popped. */
int fake_contexts(void) { return pushed; }

int cuInit(unsigned flags) { return getenv("FAKE_GPU_LOST") ? 803 : 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return number ? 101 : 0; }
int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) { flags_of_context = flags; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)0xC0; return 0; }
int cuCtxPushCurrent_v2(void *context)
{
    if (context != (void *)0xC0) return 201;
    pushed++;
    return 0;
}
int cuCtxPopCurrent_v2(void **context)
{
    *context = pushed ? (void *)0xC0 : NULL;
    if (!pushed) return 201;
    pushed--;
    return 0;
}
int cuStreamCreate(void **stream, unsigned flags)
{
    int status = check_context();
    if (status) return status;
    *stream = (void *)0x57;
    __atomic_add_fetch(&streams, 1, __ATOMIC_SEQ_CST);
    return 0;
}
int cuStreamDestroy_v2(void *stream)
{
    int status = check_stream(stream);
    if (!status) __atomic_sub_fetch(&streams, 1, __ATOMIC_SEQ_CST);
    return status;
}
/* Only waiting without a spin, CU_CTX_SCHED_BLOCKING_SYNC, is allowed. */
int cuStreamSynchronize(void *stream) { return flags_of_context == 4 ? check_stream(stream) : 1; }
int cuMemGetInfo_v2(size_t *available, size_t *total)
{
    const char *megabytes = getenv("FAKE_GPU_MEGABYTES"), *decoder = getenv("FAKE_DECODER_MEGABYTES");
    if (check_context()) return check_context();
    *total = (size_t)8 << 30;
    *available = megabytes ? (size_t)(atol(megabytes) - (decoder ? streams * atol(decoder) : 0)) << 20 : *total;
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *destination, uint64_t source, size_t bytes, void *stream)
{
    if (check_stream(stream)) return check_stream(stream);
    memcpy(destination, (void *)(uintptr_t)source, bytes);
    return 0;
}
int cuGetErrorName(int status, const char **name) { *name = "CUDA_ERROR_OF_A_TEST"; return 0; }
