::core::compile_error! {
    "`layer` is the axis; how many of it is `layers = N`"
}
::core::compile_error! {
    "a page is one layout, known in full: take the parameter away, or derive for each value"
}
impl<const N: usize> ::kvrail::layouts::KvLayout for Wrong<N> {
    const NAME: &'static ::core::primitive::str = "Wrong";
    const GEOMETRY: &'static ::kvrail::layouts::Geometry = &::kvrail::layouts::expand::STUB;
}
