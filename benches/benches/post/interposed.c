/* Counts calls of the allocator and of locks by the program's first thread, for
 * benches/check-hot-path, which preloads it: the numbers are printed when the program ends.
 *
 * dlsym may allocate itself before `real_malloc` is known; that memory comes out of `early` and is
 * never freed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);
static int (*real_posix_memalign)(void **, size_t, size_t);
static int (*real_lock)(pthread_mutex_t *);
static unsigned long allocations, locks;
static char early[1 << 16];
static size_t early_used;

static int first_thread(void) { return syscall(SYS_gettid) == getpid(); }

static void *from_early(size_t bytes) {
    void *memory = early + early_used;
    early_used += (bytes + 15) & ~(size_t)15;
    return early_used <= sizeof early ? memory : NULL;
}
static int is_early(const void *memory) {
    return (const char *)memory >= early && (const char *)memory < early + sizeof early;
}

__attribute__((constructor)) static void find(void) {
    real_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
    real_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
    real_free = (void (*)(void *))dlsym(RTLD_NEXT, "free");
    real_posix_memalign = (int (*)(void **, size_t, size_t))dlsym(RTLD_NEXT, "posix_memalign");
    real_lock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
    real_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
}

__attribute__((destructor)) static void tell(void) {
    fprintf(stderr, "interposed: %lu allocator calls, %lu locks\n", allocations, locks);
}

static void count(unsigned long *of) {
    if (first_thread()) ++*of;
}

void *malloc(size_t bytes) {
    if (!real_malloc) return from_early(bytes);
    count(&allocations);
    return real_malloc(bytes);
}
void *calloc(size_t number, size_t bytes) {
    if (!real_malloc) return from_early(number * bytes);
    count(&allocations);
    return real_calloc(number, bytes);
}
void *realloc(void *memory, size_t bytes) {
    if (!real_malloc || is_early(memory)) {
        void *moved = real_malloc ? real_malloc(bytes) : from_early(bytes);
        if (moved && memory) {
            size_t rest = (size_t)(early + sizeof early - (char *)memory);
            memcpy(moved, memory, bytes < rest ? bytes : rest);
        }
        return moved;
    }
    count(&allocations);
    return real_realloc(memory, bytes);
}
void free(void *memory) {
    if (!memory || is_early(memory)) return;
    count(&allocations);
    real_free(memory);
}
int posix_memalign(void **memory, size_t alignment, size_t bytes) {
    count(&allocations);
    return real_posix_memalign(memory, alignment, bytes);
}
int pthread_mutex_lock(pthread_mutex_t *mutex) {
    if (!real_lock) return 0;
    count(&locks);
    return real_lock(mutex);
}
