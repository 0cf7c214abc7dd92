#[allow(unused_braces, unused_parens)]
const _: () = {
    /// `order(layer, token)`, `layers = COUNT`, `tokens = 16`,
    /// `stage(layer, first = FIRST, of = 61)`.
    #[automatically_derived]
    impl<const FIRST: usize, const COUNT: usize> ::kvrail::layouts::KvLayout
    for Stage<FIRST, COUNT> {
        const NAME: &'static ::core::primitive::str = "Stage";
        const GEOMETRY: &'static ::kvrail::layouts::Geometry = &{
            #[allow(non_snake_case)]
            let __KVRAIL_0: ::core::primitive::usize = COUNT;
            #[allow(non_snake_case)]
            let __KVRAIL_1: ::core::primitive::usize = FIRST;
            #[allow(non_snake_case)]
            let __KVRAIL_BUILT = ::kvrail::layouts::Declaration {
                axes: &[
                    ::kvrail::layouts::Axis::stage(
                        ::kvrail::layouts::AxisKind::Layer,
                        ::kvrail::layouts::macro_support::number(__KVRAIL_1),
                        ::kvrail::layouts::macro_support::number(__KVRAIL_0),
                        61u64,
                    ),
                    ::kvrail::layouts::Axis::whole(
                        ::kvrail::layouts::AxisKind::Token,
                        16u64,
                    ),
                ],
                order: &[
                    ::kvrail::layouts::Level::Axis(::kvrail::layouts::AxisKind::Layer),
                    ::kvrail::layouts::Level::Axis(::kvrail::layouts::AxisKind::Token),
                ],
                planes: &[
                    ::kvrail::layouts::PlaneDecl {
                        fields: &[
                            ::kvrail::layouts::FieldDecl::of::<Bf16>("latent", 512),
                        ],
                        order: ::core::option::Option::None,
                    },
                ],
                tokens_per_state: 1u64,
                align: 1u64,
                bytes: ::core::option::Option::None,
                version: 0u32,
                swizzle: 0u32,
            }
                .build();
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Order,
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::TokensPerState,
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Align,
            );
            ::kvrail::layouts::macro_support::accept_axis(
                &__KVRAIL_BUILT,
                0usize,
                "layer",
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Spread(0usize),
            );
            ::kvrail::layouts::macro_support::accept_axis(
                &__KVRAIL_BUILT,
                1usize,
                "token",
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Level(0usize),
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Level(1usize),
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Plane(0usize),
            );
            ::kvrail::layouts::macro_support::accept(
                &__KVRAIL_BUILT,
                ::kvrail::layouts::Spot::Field(0usize),
            );
            ::kvrail::layouts::macro_support::cross_check(
                &__KVRAIL_BUILT,
                &[::core::mem::size_of::<[Bf16; 512]>()],
            );
            ::kvrail::layouts::macro_support::geometry_or_stub(&__KVRAIL_BUILT)
        };
    }
    #[allow(dead_code)]
    impl<const FIRST: usize, const COUNT: usize> Stage<FIRST, COUNT> {
        /// Field `latent` of a row: 512 × `Bf16`.
        const LATENT: ::kvrail::layouts::FieldOf<Self, Bf16> = ::kvrail::layouts::macro_support::field(
            0usize,
        );
    }
    #[allow(dead_code)]
    fn __kvrail_reads<const FIRST: usize, const COUNT: usize>(
        row: &Stage<FIRST, COUNT>,
    ) {
        let _ = (&row.latent,);
    }
};
