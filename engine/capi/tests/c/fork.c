/* Children of forks, while a thread of the parent is in calls: they wait for no lock of it. */
#define _GNU_SOURCE
#include "both.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

/* CapiError::OtherProcess */
enum { OTHER_PROCESS = 8018, CHILDREN = 20 };

static struct both b;
static const kvrail_key_tag tag = {.low = 1};
static atomic_int stop;

static void *work(void *unused) {
    kvrail_slot_bytes page;
    kvrail_location at;
    while (!stop) {
        OK(kvrail_publisher_begin(b.publisher, 0, 1, &tag, &page));
        OK(kvrail_publisher_publish(b.publisher, 0, 1, &at));
        /* A handle that comes and goes, so that the lock of all handles is taken at times. */
        kvrail_memory *memory;
        OK(kvrail_memory_host((uint8_t *)b.memory, 64, &memory));
        OK(kvrail_memory_release(memory));
    }
    return unused;
}

static void child(const kvrail_layout *layout, int number) {
    kvrail_slot_bytes page;
    alarm(60);
    EXPECT(OTHER_PROCESS, kvrail_publisher_begin(b.publisher, 0, 2, &tag, &page));
    OK(kvrail_publisher_close(b.publisher));
    /* The memory of the copy stays: nothing here knows what the rails' threads were doing. That takes
     * some seconds, so one child does it. */
    if (number == 0) EXPECT(KVRAIL_ERROR_STILL_READING, kvrail_reader_close(b.reader));
    /* What it starts itself is like any, and its handles are no others'. */
    kvrail_publisher *of_parent = b.publisher;
    b = start("shm:1", layout);
    CHECK(b.publisher != of_parent);
    OK(kvrail_publisher_begin(b.publisher, 0, 2, &tag, &page));
    OK(kvrail_publisher_abandon(b.publisher, 0, 2));
    end(b);
    _exit(failures != 0);
}

int main(void) {
    const kvrail_layout *layout = pages_of(KVRAIL_AXIS_LAYER, KVRAIL_AXIS_TOKEN);
    b = start("shm:1", layout);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = fork();
        if (pid == 0) child(layout, i);
        int status = 0;
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    stop = 1;
    pthread_join(thread, NULL);
    /* The parent's reader and publisher are as they were. */
    kvrail_destination to = {.address = malloc(SLOTS * PAGE), .bytes = SLOTS * PAGE};
    uint32_t region, published;
    OK(kvrail_reader_register(b.reader, NULL, &to, 1, -1, &region, NULL));
    kvrail_read read = {.peer = b.peer, .region = region, .slot = 0};
    OK(kvrail_publisher_location(b.publisher, 0, 1, &read.location, &published));
    CHECK(published == 1);
    OK(fetch(b, &read));
    OK(kvrail_reader_unregister(b.reader, region));
    end(b);
    free(to.address);
    return verdict("fork");
}
