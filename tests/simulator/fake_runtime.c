/* A FAKE of the CUDA runtime's library for tests: device memory is the host's. */
#include <stdlib.h>
#include <string.h>

int cudaMalloc(void **memory, size_t size) {
  *memory = malloc(size ? size : 1);
  return *memory ? 0 : 2;
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
