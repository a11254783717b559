/* A FAKE of the NVIDIA driver's library for tests: one device that is no GPU.
   TRT_SIMULATED_CAPABILITY ("8.6") changes its compute capability. */
#include <stdlib.h>
#include <string.h>

int cuInit(unsigned flags) { (void)flags; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return index == 0 ? 0 : 101; }

int cuDeviceGetName(char *name, int length, int device) {
  (void)device;
  strncpy(name, "Simulated GPU", length - 1);
  name[length - 1] = 0;
  return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  const char *given = getenv("TRT_SIMULATED_CAPABILITY");
  const char *text = given ? given : "8.9";
  const char *dot = strchr(text, '.');
  (void)device;
  *value = 0;
  if (attribute == 75) *value = atoi(text);
  if (attribute == 76) *value = dot ? atoi(dot + 1) : 0;
  return 0;
}
