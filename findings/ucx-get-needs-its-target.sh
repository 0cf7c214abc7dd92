#!/usr/bin/env bash
# UCX over TCP: a one-sided get needs the target's thread, and a put is complete before a byte has
# moved.
#
# The guess: ucp_get_nbx and ucp_put_nbx are one-sided, so the target's program need not do
# anything, and a put that returned NULL ("complete") has reached the target.
# What happens: over the tcp transport both are emulated by messages that the target's
# ucp_worker_progress answers. A target that does not call it (it computes, it sleeps, it is
# stopped) is never read. A put returns NULL at once, and the target's memory still holds the old
# bytes a second later. Only a flush tells, and it waits for the target, too.
#
# Needs gcc, root for apt, and Debian 12 (ANY_VERSION=1 for another). Seen with libucx-dev 1.13.1 of
# Debian 12, about 5 s. Exits 1 when the behaviour is another one.
#
# Output:
#
#    UCX 1.13.1-1, UCX_TLS=tcp, one origin and one target
#    put:   complete without the target: yes, the target then holds 'o' (old 'o', new 'n')
#    flush: complete without the target: no, with it: yes, the target then holds 'n'
#    get:   complete without the target: no, with it: yes
#    as described: the target's thread takes part in every one-sided operation
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
. "$(dirname "${BASH_SOURCE[0]}")/apt-package"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
apt_package libucx-dev 1.13.1
cat >"$work/rma.c" <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucp/api/ucp.h>

#define BYTES 4096
#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        ucs_status_t status_ = (call);                                                                                 \
        if (status_ != UCS_OK) {                                                                                       \
            fprintf(stderr, "%s: %s\n", #call, ucs_status_string(status_));                                            \
            exit(2);                                                                                                   \
        }                                                                                                              \
    } while (0)

static ucp_worker_h origin, target;
static volatile char there[BYTES];
static char here[BYTES];

static ucp_context_h context(void) {
    ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_RMA};
    ucp_context_h context;
    MUST(ucp_init(&params, NULL, &context));
    return context;
}

static ucp_worker_h worker(ucp_context_h context) {
    ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                  .thread_mode = UCS_THREAD_MODE_SINGLE};
    ucp_worker_h worker;
    MUST(ucp_worker_create(context, &params, &worker));
    return worker;
}

/* Progresses the origin, and the target if `both`, until the request is complete, for a second at
 * most. */
static int completes(void *request, int both) {
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    do {
        ucp_worker_progress(origin);
        if (both) {
            ucp_worker_progress(target);
        }
        if (request == NULL || ucp_request_check_status(request) != UCS_INPROGRESS) {
            return 1;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - from.tv_sec) * 1000 + (now.tv_nsec - from.tv_nsec) / 1000000 < 1000);
    return 0;
}

int main(void) {
    ucp_context_h ours = context(), theirs = context();
    ucp_request_param_t none = {0};
    origin = worker(ours);
    target = worker(theirs);
    memset((char *)there, 'o', BYTES);
    memset(here, 'n', BYTES);

    ucp_mem_map_params_t map = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH,
                                .address = (char *)there,
                                .length = BYTES};
    ucp_mem_h memory;
    void *packed;
    size_t size;
    MUST(ucp_mem_map(theirs, &map, &memory));
    MUST(ucp_rkey_pack(theirs, memory, &packed, &size));
    ucp_address_t *address;
    MUST(ucp_worker_get_address(target, &address, &size));
    ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS, .address = address};
    ucp_ep_h ep;
    ucp_rkey_h key;
    MUST(ucp_ep_create(origin, &params, &ep));
    MUST(ucp_ep_rkey_unpack(ep, packed, &key));
    if (!completes(ucp_ep_flush_nbx(ep, &none), 1)) {
        fprintf(stderr, "the two are not connected after a second\n");
        return 2;
    }

    void *put = ucp_put_nbx(ep, here, BYTES, (uint64_t)there, key, &none);
    if (UCS_PTR_IS_ERR(put)) {
        fprintf(stderr, "put: %s\n", ucs_status_string(UCS_PTR_STATUS(put)));
        return 2;
    }
    int put_done = completes(put, 0);
    void *flush = ucp_ep_flush_nbx(ep, &none);
    int flush_alone = completes(flush, 0);
    char after_put = there[0];
    int flush_both = completes(flush, 1);
    char after_flush = there[0];
    printf("put:   complete without the target: %s, the target then holds '%c' (old 'o', new 'n')\n",
           put_done ? "yes" : "no", after_put);
    printf("flush: complete without the target: %s, with it: %s, the target then holds '%c'\n",
           flush_alone ? "yes" : "no", flush_both ? "yes" : "no", after_flush);

    void *get = ucp_get_nbx(ep, here, BYTES, (uint64_t)there, key, &none);
    int get_alone = completes(get, 0), get_both = completes(get, 1);
    printf("get:   complete without the target: %s, with it: %s\n", get_alone ? "yes" : "no", get_both ? "yes" : "no");
    int same = put_done && after_put == 'o' && !flush_alone && flush_both && after_flush == 'n' && !get_alone && get_both;
    return same ? 0 : 10;
}
C
gcc -Wall -O1 -o "$work/rma" "$work/rma.c" -lucp -lucs
echo "UCX $(dpkg-query -W -f '${Version}' libucx-dev), UCX_TLS=tcp, one origin and one target"
status=0
UCX_TLS=tcp timeout 60 "$work/rma" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: get and put over tcp no longer behave as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  exit 2
fi
echo "as described: the target's thread takes part in every one-sided operation"
