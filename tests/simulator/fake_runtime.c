/* A FAKE of the CUDA runtime's library for tests: device memory is the host's. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

int cudaMalloc(void **memory, size_t size) {
  *memory = malloc(size ? size : 1);
  return *memory ? 0 : 2;
}
int cudaMemGetInfo(size_t *unused, size_t *total) {
  *unused = 1u << 30;
  *total = 1u << 31;
  return 0;
}
int cudaFree(void *memory) { free(memory); return 0; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
  (void)kind;
  memcpy(to, from, size);
  return 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  (void)stream;
  return cudaMemcpy(to, from, size, kind);
}
int cudaStreamCreate(void **stream) { *stream = malloc(1); return *stream ? 0 : 2; }
int cudaStreamDestroy(void *stream) { free(stream); return 0; }
int cudaStreamSynchronize(void *stream) { (void)stream; return 0; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetLastError(void) { return 0; }

int cudaHostAlloc(void **memory, size_t size, unsigned flags) {
  (void)flags;
  return cudaMalloc(memory, size);
}
int cudaFreeHost(void *memory) { free(memory); return 0; }
const char *cudaGetErrorString(int status) { (void)status; return "said by the fake"; }
int cudaDeviceGetPCIBusId(char *text, int length, int device) {
  (void)device;
  strncpy(text, "0000:00:00.0", length - 1);
  text[length - 1] = 0;
  return 0;
}
int cudaEventCreate(void **event) {
  *event = calloc(1, sizeof(struct timespec));
  return *event ? 0 : 2;
}
int cudaEventDestroy(void *event) { free(event); return 0; }
int cudaEventRecord(void *event, void *stream) {
  (void)stream;
  return clock_gettime(CLOCK_MONOTONIC, event);
}
int cudaEventElapsedTime(float *milliseconds, void *first, void *second) {
  const struct timespec *a = first, *b = second;
  *milliseconds = (b->tv_sec - a->tv_sec) * 1e3f + (b->tv_nsec - a->tv_nsec) / 1e6f;
  return 0;
}
/* What runs on the fake is no kernel, so nothing can be captured: cudaErrorStreamCaptureUnsupported. */
int cudaStreamBeginCapture(void *stream, int mode) { (void)stream; (void)mode; return 900; }
