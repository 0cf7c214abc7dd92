#[allow(unused_braces, unused_parens)]
const _: () = {
    const __KVRAIL_BUILT: ::core::result::Result<
        ::kvrail::layouts::Geometry,
        ::kvrail::layouts::DeclarationErrors,
    > = ::kvrail::layouts::Declaration {
        axes: &[
            ::kvrail::layouts::Axis::whole(::kvrail::layouts::AxisKind::Layer, 61u64),
            ::kvrail::layouts::Axis::whole(::kvrail::layouts::AxisKind::Token, 64u64),
        ],
        order: &[
            ::kvrail::layouts::Level::Axis(::kvrail::layouts::AxisKind::Layer),
            ::kvrail::layouts::Level::Axis(::kvrail::layouts::AxisKind::Token),
        ],
        planes: &[
            ::kvrail::layouts::PlaneDecl {
                fields: &[
                    ::kvrail::layouts::FieldDecl::of::<Bf16>("latent", 512),
                    ::kvrail::layouts::FieldDecl::of::<Bf16>("rope", 64),
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
    /// `order(layer, token)`, `layers = 61`, `tokens = 64`.
    #[automatically_derived]
    impl ::kvrail::layouts::KvLayout for Mla {
        const NAME: &'static ::core::primitive::str = "Mla";
        const GEOMETRY: &'static ::kvrail::layouts::Geometry = &::kvrail::layouts::macro_support::geometry_or_stub(
            &__KVRAIL_BUILT,
        );
    }
    const _: () = ::kvrail::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Order,
    );
    const _: () = ::kvrail::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::TokensPerState,
    );
    const _: () = ::kvrail::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Align,
    );
    const _: () = ::kvrail::layouts::macro_support::accept_axis(
        &__KVRAIL_BUILT,
        0usize,
        "layer",
    );
    const _: () = ::kvrail::layouts::macro_support::accept_axis(
        &__KVRAIL_BUILT,
        1usize,
        "token",
    );
    const _: () = ::kvrail::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Level(0usize),
    );
    const _: () = ::kvrail::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Level(1usize),
    );
    const _: () = ::kvrail::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Plane(0usize),
    );
    const _: () = ::kvrail::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Field(0usize),
    );
    const _: () = ::kvrail::layouts::macro_support::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Field(1usize),
    );
    const _: () = ::kvrail::layouts::macro_support::cross_check(
        &__KVRAIL_BUILT,
        &[::core::mem::size_of::<[Bf16; 512]>(), ::core::mem::size_of::<[Bf16; 64]>()],
    );
    #[allow(dead_code)]
    impl Mla {
        /// Field `latent` of a row: 512 × `Bf16`.
        const LATENT: ::kvrail::layouts::FieldOf<Self, Bf16> = ::kvrail::layouts::macro_support::field(
            0usize,
        );
        /// Field `rope` of a row: 64 × `Bf16`.
        const ROPE: ::kvrail::layouts::FieldOf<Self, Bf16> = ::kvrail::layouts::macro_support::field(
            1usize,
        );
    }
    #[allow(dead_code)]
    fn __kvrail_reads(row: &Mla) {
        let _ = (&row.latent, &row.rope);
    }
};
