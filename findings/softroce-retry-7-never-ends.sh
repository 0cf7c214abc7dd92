#!/usr/bin/env bash
# SoftRoCE: retry_cnt 7 is no number of retries, it is for ever.
#
# The guess: retry_cnt of a queue pair has three bits, and 7 tries seven times; only rnr_retry gives 7 another meaning. So with
# timeout 14 (67 ms) a READ to a peer that does not answer fails after half a second, with 7 a little later than with 6.
# What happens: with 6 it fails with IBV_WC_RETRY_EXC_ERR, as expected. With 7 it never fails: no completion, no event,
# and the queue pair stays in RTS. Examples and ib_read_bw use 7. A program that relies on the device to find a dead
# peer waits for ever here, and needs a deadline of its own.
#
# Needs Debian, root, gcc, and nothing of RDMA: it boots Debian's kernel in an emulator (QEMU, virtme-ng) by
# engine/verbs/softroce, which installs what is missing (some 400 MB). The READ goes to a queue pair number that does
# not exist, on the only device. Seen with Linux 6.1.0-56, libibverbs 44.0, one to three minutes.
# Exits 1 when the behaviour is another one.
set -euo pipefail
softroce=$(cd "$(dirname "${BASH_SOURCE[0]}")/../engine/verbs/softroce" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$softroce/install" >/dev/null
if ! dpkg -s libibverbs-dev >/dev/null 2>&1; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libibverbs-dev >/dev/null
fi
cat >"$work/retry.c" <<'C'
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void must(int failed, const char *what) {
    if (failed) {
        perror(what);
        exit(2);
    }
}

/* Says how long the READ takes to fail, or -1 if it does not within `limit` seconds. */
static double read_nobody(struct ibv_context *device, int retries, double limit, enum ibv_wc_status *status) {
    static char here[4096];
    struct ibv_pd *pd = ibv_alloc_pd(device);
    struct ibv_cq *cq = ibv_create_cq(device, 4, NULL, NULL, 0);
    must(!pd || !cq, "pd, cq");
    struct ibv_mr *mr = ibv_reg_mr(pd, here, sizeof here, IBV_ACCESS_LOCAL_WRITE);
    struct ibv_qp_init_attr make = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC,
                                    .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};
    struct ibv_qp *qp = ibv_create_qp(pd, &make);
    must(!mr || !qp, "mr, qp");
    union ibv_gid gid;
    must(ibv_query_gid(device, 1, 1, &gid), "gid");
    struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    must(ibv_modify_qp(qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
    struct ibv_qp_attr rtr = {.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = 0xabcdef,
                              .max_dest_rd_atomic = 1, .min_rnr_timer = 12};
    rtr.ah_attr.is_global = 1;
    rtr.ah_attr.port_num = 1;
    rtr.ah_attr.grh.dgid = gid;
    rtr.ah_attr.grh.sgid_index = 1;
    rtr.ah_attr.grh.hop_limit = 64;
    must(ibv_modify_qp(qp, &rtr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                                     IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER), "RTR");
    struct ibv_qp_attr rts = {.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = retries, .rnr_retry = 0,
                              .max_rd_atomic = 1};
    must(ibv_modify_qp(qp, &rts, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                                     IBV_QP_MAX_QP_RD_ATOMIC), "RTS");
    struct ibv_sge sge = {(uintptr_t)here, sizeof here, mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_READ,
                             .send_flags = IBV_SEND_SIGNALED}, *bad;
    wr.wr.rdma.remote_addr = 4096;
    wr.wr.rdma.rkey = 1;
    must(ibv_post_send(qp, &wr, &bad), "post");
    double from = now();
    struct ibv_wc wc;
    while (now() - from < limit) {
        int n = ibv_poll_cq(cq, 1, &wc);
        must(n < 0, "poll");
        if (n == 1) {
            *status = wc.status;
            return now() - from;
        }
    }
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr ignored;
    must(ibv_query_qp(qp, &attr, IBV_QP_STATE, &ignored), "query");
    *status = attr.qp_state == IBV_QPS_RTS ? IBV_WC_SUCCESS : IBV_WC_GENERAL_ERR;
    return -1;
}

int main(void) {
    int n;
    struct ibv_device **list = ibv_get_device_list(&n);
    must(!list || n == 0, "no device");
    struct ibv_context *device = ibv_open_device(list[0]);
    must(!device, "open");
    enum ibv_wc_status six, seven;
    double t6 = read_nobody(device, 6, 60, &six);
    printf("retry_cnt 6, timeout 14: %s after %.2f s\n", t6 < 0 ? "nothing" : ibv_wc_status_str(six), t6);
    must(t6 < 0, "retry_cnt 6 does not end either");
    double limit = t6 * 20 > 20 ? t6 * 20 : 20;
    double t7 = read_nobody(device, 7, limit, &seven);
    if (t7 < 0) {
        printf("retry_cnt 7, timeout 14: nothing within %.0f s, the queue pair is %s\n", limit,
               seven == IBV_WC_SUCCESS ? "in RTS" : "no longer in RTS");
    } else {
        printf("retry_cnt 7, timeout 14: %s after %.2f s\n", ibv_wc_status_str(seven), t7);
    }
    return !(six == IBV_WC_RETRY_EXC_ERR && t7 < 0 && seven == IBV_WC_SUCCESS);
}
C
# Of the host's temporary files the guest sees this folder alone.
mkdir "$work/out"
gcc -Wall -O1 -o "$work/out/retry" "$work/retry.c" -libverbs
status=0
timeout 900 "$softroce/run" --timeout 600 --guest --out "$work/out" fabric bash -c 'uname -r; exec "$OUT/retry"' || status=$?
if [ "$status" -eq 1 ]; then
  echo "CHANGED: retry_cnt 7 no longer behaves as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  exit 2
fi
echo "as described: 7 never gives up"
