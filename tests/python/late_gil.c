/* A library to preload before Python: threads that are not the main one get the GIL late, and are
 * counted when they ask for it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_long asked;

long late_gil_asked(void) {
  return atomic_load(&asked);
}

static void be_late(void) {
  if (syscall(SYS_gettid) == getpid()) return;
  atomic_fetch_add(&asked, 1);
  const struct timespec late = {0, 3000000};
  nanosleep(&late, NULL);
}

int PyGILState_Ensure(void) {
  static int (*real)(void);
  if (real == NULL) real = (int (*)(void))dlsym(RTLD_NEXT, "PyGILState_Ensure");
  be_late();
  return real();
}

void PyEval_RestoreThread(void* state) {
  static void (*real)(void*);
  if (real == NULL) real = (void (*)(void*))dlsym(RTLD_NEXT, "PyEval_RestoreThread");
  be_late();
  real(state);
}
