#!/usr/bin/env bash
# libibverbs: a rate of 100,000 Mb/s is no rate, and means "no limit".
#
# The guess: mbps_to_ibv_rate(100000) gives IBV_RATE_100_GBPS, and
# ibv_rate_to_mbps(IBV_RATE_400_GBPS) gives 400000.
# What happens: the names are rounded, the numbers are not. They count signalling with its coding,
# in exact steps: 103,125 Mb/s for 100 Gb/s, 206,250 for 200, 25,781 for 25, and, by another rule,
# 425,000 for 400. Every number that is not in the list becomes IBV_RATE_MAX, which is 0: a static
# rate limit that was asked for by its round number is no limit. And ibv_rate_to_mult, in steps of
# 2.5 Gb/s, knows 400 and not 100 or 200.
#
# Needs gcc, root for apt, and Debian 12 (ANY_VERSION=1 for another); no RDMA device. Seen with
# libibverbs-dev 44.0 of Debian 12, about 2 s. Exits 1 when the behaviour is another one.
#
# Output, with long lines broken:
#
#    libibverbs 44.0-2
#    IBV_RATE_25_GBPS   = 15:  25781 Mb/s, multiplier  -1; mbps_to_ibv_rate(25000) = 0
#        (IBV_RATE_MAX), (25781) = 15
#    IBV_RATE_100_GBPS  = 16: 103125 Mb/s, multiplier  -1; mbps_to_ibv_rate(100000) = 0
#        (IBV_RATE_MAX), (103125) = 16
#    IBV_RATE_200_GBPS  = 17: 206250 Mb/s, multiplier  -1; mbps_to_ibv_rate(200000) = 0
#        (IBV_RATE_MAX), (206250) = 17
#    IBV_RATE_400_GBPS  = 21: 425000 Mb/s, multiplier 160; mbps_to_ibv_rate(400000) = 0
#        (IBV_RATE_MAX), (425000) = 21
#    as described: round numbers of Mb/s are IBV_RATE_MAX, which limits nothing
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
. "$(dirname "${BASH_SOURCE[0]}")/apt-package"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
apt_package libibverbs-dev 44.0
cat >"$work/rates.c" <<'C'
#include <infiniband/verbs.h>
#include <stdio.h>

int main(void) {
    static const struct { const char *name; enum ibv_rate rate; int round, exact, mult; } rates[] = {
        {"IBV_RATE_25_GBPS", IBV_RATE_25_GBPS, 25000, 25781, -1},
        {"IBV_RATE_100_GBPS", IBV_RATE_100_GBPS, 100000, 103125, -1},
        {"IBV_RATE_200_GBPS", IBV_RATE_200_GBPS, 200000, 206250, -1},
        {"IBV_RATE_400_GBPS", IBV_RATE_400_GBPS, 400000, 425000, 160},
    };
    int changed = IBV_RATE_MAX != 0;
    for (unsigned i = 0; i < sizeof rates / sizeof *rates; i++) {
        int mbps = ibv_rate_to_mbps(rates[i].rate), mult = ibv_rate_to_mult(rates[i].rate);
        enum ibv_rate round = mbps_to_ibv_rate(rates[i].round), exact = mbps_to_ibv_rate(mbps);
        printf("%-18s = %2d: %6d Mb/s, multiplier %3d; mbps_to_ibv_rate(%d) = %d%s, (%d) = %d\n", rates[i].name,
               rates[i].rate, mbps, mult, rates[i].round, round, round == IBV_RATE_MAX ? " (IBV_RATE_MAX)" : "", mbps,
               exact);
        changed |= mbps != rates[i].exact || mult != rates[i].mult || round != IBV_RATE_MAX || exact != rates[i].rate;
    }
    return changed ? 10 : 0;
}
C
gcc -Wall -o "$work/rates" "$work/rates.c" -libverbs
echo "libibverbs $(dpkg-query -W -f '${Version}' libibverbs-dev)"
status=0
"$work/rates" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: the rates are no longer those described"
  exit 1
elif [ "$status" -ne 0 ]; then
  exit 2
fi
echo "as described: round numbers of Mb/s are IBV_RATE_MAX, which limits nothing"
