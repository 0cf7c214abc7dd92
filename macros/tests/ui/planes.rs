//! Planes that do not fit the order.
use kvrail_layouts::F32;
use kvrail_macros::KvLayout;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64)]
struct NoSplit {
    keys: [u8; 128],
    #[kv(plane)]
    scale: F32,
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(planes, token), tokens = 64)]
struct NoPlane {
    keys: [u8; 128],
    scale: F32,
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(planes, planes, token), tokens = 64)]
struct TwoSplits {
    keys: [u8; 128],
    #[kv(plane = "scales")]
    scale: F32,
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(planes, token), tokens = 64, plane)]
struct OwnOrder {
    #[kv(order(token))]
    keys: [u8; 128],
    #[kv(plane, order(planes, regions(token)))]
    scale: F32,
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64)]
struct OnePlane {
    #[kv(plane, order(token))]
    keys: [u8; 128],
}

fn main() {}
