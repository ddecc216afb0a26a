/* A CUDA driver without a device: two devices of host memory, on which kernels do nothing. It writes down, in order,
   what was asked of each stream, so that the real Numba and the real bindings can be tested against it. */

#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default"))) CUresult
#define DONE return CUDA_SUCCESS
/* What the real one says where the thread has no current context. */
#define NEEDS_CONTEXT if (!contexts[depth]) return CUDA_ERROR_INVALID_CONTEXT
#define CONTEXTS 0x10

typedef struct Block {
    struct Block *next;
    CUdeviceptr address;
    size_t size;
    int device;
} Block;

static struct {
    char text[1 << 20];
    size_t size;
} record, graph;

static Block *blocks;
static CUstream recording;
static uintptr_t handles = 0x1000;
static __thread CUcontext contexts[16];
static __thread int depth;

/* What the tests may set; graphs are refused when they are begun (1), or when a kernel is to be recorded (2). */
int driver_version = 13000, driver_refuses_graphs, driver_is_busy, driver_fails;
size_t driver_memory = (size_t)1 << 30;

const char *driver_record(void) { return record.text; }

void driver_forget(void) { record.text[record.size = 0] = 0; }

static void *new_handle(void) { return (void *)(handles += 0x10); }

static void put(CUstream stream, const char *format, ...) {
    int here = stream && stream == recording;
    char *text = here ? graph.text + graph.size : record.text + record.size;
    va_list values;
    va_start(values, format);
    int size = vsprintf(text, format, values);
    va_end(values);
    size += sprintf(text + size, " on %lu\n", (unsigned long)stream);
    *(here ? &graph.size : &record.size) += size;
}

static int current(void) { return (int)(uintptr_t)contexts[depth] - CONTEXTS; }

static Block *block_of(CUdeviceptr address, size_t size) {
    for (Block *block = blocks; block; block = block->next)
        if (block->address <= address && address + size <= block->address + block->size) return block;
    return NULL;
}

static size_t used(void) {
    size_t size = 0;
    for (Block *block = blocks; block; block = block->next) size += block->size;
    return size;
}

EXPORT cuGetProcAddress_v2(const char *symbol, void **function, int version, cuuint64_t flags,
                           CUdriverProcAddressQueryResult *status) {
    static const char *const suffixes[] = {"_v4", "_v3", "_v2", ""};
    void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    char name[200];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s%s", symbol, suffixes[i]);
        *function = dlsym(self, name);
        if (*function) {
            if (status) *status = CU_GET_PROC_ADDRESS_SUCCESS;
            DONE;
        }
    }
    if (status) *status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return CUDA_ERROR_NOT_FOUND;
}

EXPORT cuGetErrorName(CUresult error, const char **name) {
    *name = error == CUDA_ERROR_OUT_OF_MEMORY    ? "CUDA_ERROR_OUT_OF_MEMORY"
            : error == CUDA_ERROR_NOT_SUPPORTED  ? "CUDA_ERROR_NOT_SUPPORTED"
            : error == CUDA_ERROR_LAUNCH_FAILED  ? "CUDA_ERROR_LAUNCH_FAILED"
            : error == CUDA_ERROR_INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT"
                                                 : "CUDA_ERROR_OF_ANOTHER_NAME";
    DONE;
}

EXPORT cuGetErrorString(CUresult error, const char **text) { *text = "as its name says"; DONE; }
EXPORT cuInit(unsigned flags) { DONE; }
EXPORT cuDriverGetVersion(int *version) { *version = driver_version; DONE; }

/* Devices and contexts. */
EXPORT cuDeviceGetCount(int *count) { *count = 2; DONE; }
EXPORT cuDeviceGet(CUdevice *device, int index) { *device = index; DONE; }
EXPORT cuDeviceGetName(char *name, int size, CUdevice device) { snprintf(name, size, "no device"); DONE; }
EXPORT cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) { memset(uuid, device, sizeof *uuid); DONE; }

EXPORT cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR   ? 9
             : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? 0
                                                                         : 100;
    DONE;
}

EXPORT cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    *context = (CUcontext)(uintptr_t)(CONTEXTS + device);
    DONE;
}

EXPORT cuDevicePrimaryCtxRelease_v2(CUdevice device) { DONE; }
EXPORT cuCtxPushCurrent_v2(CUcontext context) { contexts[++depth] = context; DONE; }
EXPORT cuCtxGetCurrent(CUcontext *context) { *context = contexts[depth]; DONE; }
EXPORT cuCtxSetCurrent(CUcontext context) { contexts[depth ? depth : ++depth] = context; DONE; }

EXPORT cuCtxPopCurrent_v2(CUcontext *context) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    *context = contexts[depth--];
    DONE;
}

EXPORT cuCtxGetDevice(CUdevice *device) {
    NEEDS_CONTEXT;
    *device = current();
    DONE;
}

EXPORT cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = *greatest = 0; DONE; }
EXPORT cuCtxSynchronize(void) { put(0, "synchronize the context"); DONE; }

/* Memory: poisoned when it is new; a copy must stay within one allocation. */
EXPORT cuMemGetInfo_v2(size_t *unused, size_t *all) {
    NEEDS_CONTEXT;
    *unused = driver_memory - used();
    *all = driver_memory;
    DONE;
}

EXPORT cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    NEEDS_CONTEXT;
    if (used() + size > driver_memory) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = (CUdeviceptr)memset(aligned_alloc(256, (size + 255) / 256 * 256), 0xb7, size);
    Block *block = malloc(sizeof *block);
    *block = (Block){blocks, *address, size, current()};
    blocks = block;
    DONE;
}

EXPORT cuMemFree_v2(CUdeviceptr address) {
    for (Block **at = &blocks; *at; at = &(*at)->next)
        if ((*at)->address == address) {
            Block *block = *at;
            *at = block->next;
            free((void *)address);
            free(block);
            DONE;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

EXPORT cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    NEEDS_CONTEXT;
    if (!block_of(to, size)) return CUDA_ERROR_INVALID_VALUE;
    put(stream, "upload %zu bytes", size);
    memcpy((void *)to, from, size);
    DONE;
}

EXPORT cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    NEEDS_CONTEXT;
    if (!block_of(from, size)) return CUDA_ERROR_INVALID_VALUE;
    put(stream, "download %zu bytes", size);
    memcpy(to, (void *)from, size);
    DONE;
}

EXPORT cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size) { return cuMemcpyHtoDAsync_v2(to, from, size, 0); }
EXPORT cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size) { return cuMemcpyDtoHAsync_v2(to, from, size, 0); }

EXPORT cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    NEEDS_CONTEXT;
    if (!block_of(to, size) || !block_of(from, size)) return CUDA_ERROR_INVALID_VALUE;
    put(stream, "copy %zu bytes", size);
    memcpy((void *)to, (void *)from, size);
    DONE;
}

EXPORT cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr address) {
    Block *block = block_of(address, 0);
    int known = attribute == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL || attribute == CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
    if (!block || !known) return CUDA_ERROR_INVALID_VALUE;
    *(int *)value = attribute == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL ? block->device : CU_MEMORYTYPE_DEVICE;
    DONE;
}

EXPORT cuPointerGetAttributes(unsigned count, CUpointer_attribute *attributes, void **values, CUdeviceptr address) {
    for (unsigned i = 0; i < count; i++)
        if (cuPointerGetAttribute(values[i], attributes[i], address)) *(int *)values[i] = 0;
    DONE;
}

/* Streams and events. */
EXPORT cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority) {
    NEEDS_CONTEXT;
    *stream = new_handle();
    DONE;
}

EXPORT cuStreamCreate(CUstream *stream, unsigned flags) { return cuStreamCreateWithPriority(stream, flags, 0); }
EXPORT cuStreamDestroy_v2(CUstream stream) { DONE; }
EXPORT cuStreamGetCtx(CUstream stream, CUcontext *context) { *context = contexts[depth]; DONE; }

EXPORT cuStreamGetCtx_v2(CUstream stream, CUcontext *context, CUgreenCtx *green) {
    if (green) *green = NULL;
    return cuStreamGetCtx(stream, context);
}

EXPORT cuStreamSynchronize(CUstream stream) {
    put(stream, "synchronize");
    return driver_fails ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}

EXPORT cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
    put(stream, "wait for event %lu", (unsigned long)event);
    DONE;
}

EXPORT cuEventCreate(CUevent *event, unsigned flags) {
    NEEDS_CONTEXT;
    *event = new_handle();
    DONE;
}

EXPORT cuEventDestroy_v2(CUevent event) { DONE; }
EXPORT cuEventQuery(CUevent event) { return driver_is_busy ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS; }
EXPORT cuEventElapsedTime_v2(float *ms, CUevent from, CUevent to) { *ms = 1; DONE; }

EXPORT cuEventSynchronize(CUevent event) {
    put(0, "synchronize event %lu", (unsigned long)event);
    DONE;
}

EXPORT cuEventRecord(CUevent event, CUstream stream) {
    put(stream, "event %lu", (unsigned long)event);
    DONE;
}

/* Kernels. */
EXPORT cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *a, void **b, unsigned c,
                         CUlibraryOption *d, void **e, unsigned f) {
    NEEDS_CONTEXT;
    *library = new_handle();
    DONE;
}

EXPORT cuLibraryUnload(CUlibrary library) { DONE; }

/* A kernel is the bytes of shared memory that its launches may ask for. */
EXPORT cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name) {
    int *bytes = malloc(sizeof *bytes);
    *bytes = 48 * 1024;
    *kernel = (CUkernel)bytes;
    DONE;
}

EXPORT cuKernelGetFunction(CUfunction *function, CUkernel kernel) { *function = (CUfunction)kernel; DONE; }

EXPORT cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel kernel, CUdevice device) {
    *value = 64;
    DONE;
}

EXPORT cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel kernel, CUdevice device) {
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_INVALID_VALUE;
    *(int *)kernel = value;
    DONE;
}

static CUresult run(CUfunction function, CUstream stream, unsigned grid, unsigned block, unsigned shared) {
    NEEDS_CONTEXT;
    if (shared > (unsigned)*(int *)function) return CUDA_ERROR_INVALID_VALUE;
    if (driver_refuses_graphs && recording) return CUDA_ERROR_NOT_SUPPORTED;
    put(stream, "launch %u x %u", grid, block);
    DONE;
}

EXPORT cuLaunchKernelEx(const CUlaunchConfig *launch, CUfunction function, void **values, void **more) {
    return run(function, launch->hStream, launch->gridDimX, launch->blockDimX, launch->sharedMemBytes);
}

EXPORT cuLaunchKernel(CUfunction function, unsigned grid, unsigned grid_y, unsigned grid_z, unsigned block,
                      unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **values,
                      void **more) {
    return run(function, stream, grid, block, shared);
}

/* Graphs: the text of what was asked meanwhile. */
EXPORT cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
    if (driver_refuses_graphs == 1) return CUDA_ERROR_NOT_SUPPORTED;
    put(stream, "record in mode %d", mode);
    recording = stream;
    graph.text[graph.size = 0] = 0;
    DONE;
}

EXPORT cuStreamEndCapture(CUstream stream, CUgraph *result) {
    recording = NULL;
    *result = (CUgraph)&graph;
    DONE;
}

EXPORT cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
    int here = stream && stream == recording;
    *status = here ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
    DONE;
}

EXPORT cuStreamGetCaptureInfo_v3(CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *result,
                                 const CUgraphNode **nodes, const CUgraphEdgeData **edges, size_t *count) {
    if (id) *id = 1;
    if (result) *result = (CUgraph)&graph;
    if (nodes) *nodes = NULL;
    if (edges) *edges = NULL;
    if (count) *count = 0;
    return cuStreamIsCapturing(stream, status);
}

EXPORT cuGraphInstantiateWithParams(CUgraphExec *result, CUgraph source, CUDA_GRAPH_INSTANTIATE_PARAMS *about) {
    *result = (CUgraphExec)strdup(graph.text);
    about->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
    DONE;
}

EXPORT cuGraphLaunch(CUgraphExec executable, CUstream stream) {
    put(stream, "graph\n%send", (const char *)executable);
    DONE;
}

EXPORT cuGraphClone(CUgraph *clone, CUgraph source) { *clone = source; DONE; }
EXPORT cuGraphGetNodes(CUgraph source, CUgraphNode *nodes, size_t *count) { *count = 0; DONE; }
EXPORT cuGraphDestroy(CUgraph source) { DONE; }
EXPORT cuGraphExecDestroy(CUgraphExec executable) { DONE; }
EXPORT cuGraphExecUpdate_v2(CUgraphExec executable, CUgraph source, CUgraphExecUpdateResultInfo *info) { DONE; }
EXPORT cuGraphNodeFindInClone(CUgraphNode *node, CUgraphNode original, CUgraph clone) { DONE; }
EXPORT cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *child) { DONE; }
EXPORT cuUserObjectCreate(CUuserObject *object, void *pointer, CUhostFn destroy, unsigned count, unsigned flags) {
    *object = new_handle();
    DONE;
}
EXPORT cuUserObjectRelease(CUuserObject object, unsigned count) { DONE; }
EXPORT cuGraphRetainUserObject(CUgraph source, CUuserObject object, unsigned count, unsigned flags) { DONE; }
EXPORT cuGraphReleaseUserObject(CUgraph source, CUuserObject object, unsigned count) { DONE; }
