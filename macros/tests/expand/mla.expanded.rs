const _: () = {
    const __KVRAIL_BUILT: ::core::result::Result<
        ::kvrail::layouts::Geometry,
        ::kvrail::layouts::Refusals,
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
    impl ::kvrail::layouts::KvLayout for Mla {
        const NAME: &'static ::core::primitive::str = "Mla";
        const GEOMETRY: &'static ::kvrail::layouts::Geometry = &::kvrail::layouts::expand::geometry_or_stub(
            &__KVRAIL_BUILT,
        );
    }
    const _: () = ::kvrail::layouts::expand::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Order,
    );
    const _: () = ::kvrail::layouts::expand::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::TokensPerState,
    );
    const _: () = ::kvrail::layouts::expand::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Align,
    );
    const _: () = ::kvrail::layouts::expand::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Axis(0usize),
    );
    const _: () = ::kvrail::layouts::expand::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Axis(1usize),
    );
    const _: () = ::kvrail::layouts::expand::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Level(0usize),
    );
    const _: () = ::kvrail::layouts::expand::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Level(1usize),
    );
    const _: () = ::kvrail::layouts::expand::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Plane(0usize),
    );
    const _: () = ::kvrail::layouts::expand::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Field(0usize),
    );
    const _: () = ::kvrail::layouts::expand::accept(
        &__KVRAIL_BUILT,
        ::kvrail::layouts::Spot::Field(1usize),
    );
    const _: fn(&Mla) = |row| {
        let _ = (&row.latent, &row.rope);
    };
};
