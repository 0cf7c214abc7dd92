::core::compile_error! {
    "`layer` is the axis; how many of it is `layers = N`"
}
#[automatically_derived]
impl<const N: usize> ::kvrail::layouts::KvLayout for Wrong<N> {
    const NAME: &'static ::core::primitive::str = "Wrong";
    const GEOMETRY: &'static ::kvrail::layouts::Geometry = &::kvrail::layouts::macro_support::STUB;
}
#[allow(dead_code, missing_docs)]
impl<const N: usize> Wrong<N> {
    const LATENT: ::kvrail::layouts::FieldOf<Self, Bf16> = ::kvrail::layouts::macro_support::field(
        0,
    );
}
