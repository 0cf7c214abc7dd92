//! Fields that are asked for by a wrong name, or as something else.
use kvrail_layouts::catalogue::VllmFp8DsMla;
use kvrail_layouts::{Bf16, F32, FieldOf};

const NAME: FieldOf<VllmFp8DsMla, Bf16> = FieldOf::named("ropes");
const KIND: FieldOf<VllmFp8DsMla, F32> = FieldOf::named("rope");

fn main() {}
