/* Layouts of the catalogue, declared in C: their fingerprints are those of the Rust declarations. */
#include "check.h"

#define LAYERS(n) {.kind = KVRAIL_AXIS_LAYER, .extent = n}
#define TOKENS(n) {.kind = KVRAIL_AXIS_TOKEN, .extent = n}
#define ALONG(a) {.kind = KVRAIL_LEVEL_AXIS, .axis = KVRAIL_AXIS_##a}
#define FIELD(n, e, c) {.name = n, .element = KVRAIL_ELEMENT_##e, .count = c}
#define PLANE(f) {.fields = f, .field_count = COUNT(f)}
#define DECLARE(a, o, p)                                                                          \
    {.struct_bytes = sizeof(kvrail_declaration), .name = "mine", .axes = a, .axis_count = COUNT(a), \
     .order = o, .order_count = COUNT(o), .planes = p, .plane_count = COUNT(p)}

static kvrail_layout_info info_of(const kvrail_layout *layout) {
    kvrail_layout_info info = {.struct_bytes = sizeof info};
    OK(kvrail_layout_query(layout, &info));
    return info;
}

/* Fails unless the declaration is that of the catalogue. Returns the layout. */
static const kvrail_layout *same(const kvrail_declaration *declaration, const char *name, uint64_t bytes) {
    const kvrail_layout *mine = NULL, *again = NULL, *known = NULL;
    OK(kvrail_layout_declare(declaration, &mine));
    OK(kvrail_layout_declare(declaration, &again));
    CHECK(mine == again);
    OK(kvrail_layout_named(name, &known));
    kvrail_layout_info a = info_of(mine), b = info_of(known);
    if (memcmp(a.fingerprint, b.fingerprint, 16) != 0) {
        fprintf(stderr, "%s: another fingerprint\n", name);
        failures++;
    }
    CHECK(memcmp(a.fingerprint_of_any_rank, b.fingerprint_of_any_rank, 16) == 0);
    CHECK(a.page_bytes == bytes && b.page_bytes == bytes && a.regions == b.regions);
    CHECK(a.complete == b.complete && a.tokens == b.tokens && a.synthetic == 0);
    return mine;
}

int main(void) {
    kvrail_axis mla_axes[] = {LAYERS(61), TOKENS(64)};
    kvrail_field mla[] = {FIELD("latent", BF16, 512), FIELD("rope", BF16, 64)};
    kvrail_plane mla_planes[] = {PLANE(mla)};
    {
        kvrail_level order[] = {ALONG(TOKEN), ALONG(LAYER)};
        kvrail_declaration d = DECLARE(mla_axes, order, mla_planes);
        const kvrail_layout *layout = same(&d, "sgl_mla_page_first", 4497408);
        uint64_t indices[] = {2, 3}, offset = 0;
        uint32_t region = 9;
        OK(kvrail_layout_offset(layout, "rope", indices, 2, &region, &offset));
        CHECK(region == 0 && offset == (3 * 61 + 2) * 1152 + 1024);
        EXPECT(1040, kvrail_layout_offset(layout, "none", indices, 2, &region, &offset));
        EXPECT(1041, kvrail_layout_offset(layout, "rope", indices, 1, &region, &offset));
        char text[64];
        OK(kvrail_layout_text(layout, text, sizeof text));
        CHECK(strcmp(text, "mine (4497408 bytes a page)") == 0);
        /* The same size in another order is another page. */
        kvrail_level other[] = {ALONG(LAYER), ALONG(TOKEN)};
        kvrail_declaration e = DECLARE(mla_axes, other, mla_planes);
        const kvrail_layout *direct = same(&e, "sgl_mla_page_first_direct", 4497408);
        kvrail_layout_info a = info_of(layout), b = info_of(direct);
        CHECK(memcmp(a.fingerprint, b.fingerprint, 16) != 0);
    }
    {
        kvrail_level order[] = {
            {.kind = KVRAIL_LEVEL_REGION_PLANES},
            {.kind = KVRAIL_LEVEL_REGIONS, .axis = KVRAIL_AXIS_LAYER},
            ALONG(TOKEN),
        };
        kvrail_field data[] = {FIELD("latent", FP4X2, 256), FIELD("rope", FP4X2, 32)};
        kvrail_field scales[] = {FIELD("scales", UE8M0, 36)};
        kvrail_plane planes[] = {PLANE(data), PLANE(scales)};
        kvrail_declaration d = DECLARE(mla_axes, order, planes);
        const kvrail_layout *layout = same(&d, "sgl_mla_fp4_layer_first", 61 * 20736);
        uint64_t bytes = 0;
        CHECK(info_of(layout).regions == 122);
        OK(kvrail_layout_region_bytes(layout, 61, &bytes));
        CHECK(bytes == 2304);
        EXPECT(KVRAIL_ERROR_VALUE, kvrail_layout_region_bytes(layout, 122, &bytes));
    }
    {
        kvrail_level order[] = {ALONG(LAYER), {.kind = KVRAIL_LEVEL_PLANES}, ALONG(TOKEN)};
        kvrail_field keys[] = {FIELD("keys", U8, 128)}, scale[] = {FIELD("scale", F32, 1)};
        kvrail_plane planes[] = {PLANE(keys), PLANE(scale)};
        kvrail_declaration d = DECLARE(mla_axes, order, planes);
        same(&d, "sgl_v32_indexer", 515328);
    }
    {
        /* Padding, a plane with an order of its own, several tokens to a state. */
        kvrail_axis axes[] = {LAYERS(21), TOKENS(64)};
        kvrail_level order[] = {
            ALONG(LAYER),
            {.kind = KVRAIL_LEVEL_PAD, .pad = 576},
            {.kind = KVRAIL_LEVEL_PLANES},
            ALONG(TOKEN),
        };
        kvrail_level own[] = {ALONG(TOKEN), {.kind = KVRAIL_LEVEL_PAD, .pad = 8}};
        kvrail_field data[] = {FIELD("latent", E4M3, 448), FIELD("rope", BF16, 64)};
        kvrail_field scales[] = {FIELD("scales", UE8M0, 7)};
        kvrail_plane planes[] = {
            PLANE(data),
            {.fields = scales, .field_count = 1, .order = own, .order_count = 2},
        };
        kvrail_declaration d = DECLARE(axes, order, planes);
        d.tokens_per_state = 4;
        d.bytes = 786240;
        same(&d, "v4_c4", 786240);
        d.bytes++;
        const kvrail_layout *layout;
        EXPECT(1020, kvrail_layout_declare(&d, &layout));
    }
    {
        kvrail_axis axes[] = {TOKENS(64)};
        kvrail_level order[] = {ALONG(TOKEN)};
        kvrail_field fields[] = {
            FIELD("latent", FP4X2, 256), FIELD("rope", E4M3, 64), FIELD("scales", E4M3, 32),
        };
        kvrail_plane planes[] = {PLANE(fields)};
        kvrail_declaration d = DECLARE(axes, order, planes);
        d.swizzle = 84;
        same(&d, "vllm_nvfp4_ds_mla", 22528);
    }
    {
        /* One of eight ranks: the rank is left open, and then given. */
        kvrail_axis axes[] = {
            LAYERS(80), TOKENS(64),
            {.kind = KVRAIL_AXIS_HEAD, .spread = KVRAIL_SPREAD_SHARDED, .extent = 1, .ranks = 8,
             .rank = KVRAIL_RANK_OPEN},
        };
        kvrail_level order[] = {{.kind = KVRAIL_LEVEL_REGION_PLANES}, ALONG(HEAD), ALONG(TOKEN), ALONG(LAYER)};
        kvrail_field k[] = {FIELD("k", BF16, 128)}, v[] = {FIELD("v", BF16, 128)};
        kvrail_plane planes[] = {PLANE(k), PLANE(v)};
        kvrail_declaration d = DECLARE(axes, order, planes);
        const kvrail_layout *open = same(&d, "sgl_llama3_70b_tp8_page_head", 2 * 1310720);
        CHECK(info_of(open).complete == 0);
        const kvrail_layout *known, *a, *b, *c;
        OK(kvrail_layout_named("sgl_llama3_70b_tp8_page_head", &known));
        OK(kvrail_layout_at_rank(open, KVRAIL_AXIS_HEAD, 3, &a));
        OK(kvrail_layout_at_rank(known, KVRAIL_AXIS_HEAD, 3, &b));
        OK(kvrail_layout_at_rank(known, KVRAIL_AXIS_HEAD, 4, &c));
        kvrail_layout_info ia = info_of(a), ib = info_of(b), ic = info_of(c);
        CHECK(ia.complete == 1 && memcmp(ia.fingerprint, ib.fingerprint, 16) == 0);
        CHECK(memcmp(ia.fingerprint, ic.fingerprint, 16) != 0);
        EXPECT(1005, kvrail_layout_at_rank(known, KVRAIL_AXIS_HEAD, 8, &c));
        EXPECT(1004, kvrail_layout_at_rank(known, KVRAIL_AXIS_LAYER, 0, &c));
    }
    {
        /* A distance that is known at run time only. */
        kvrail_level order[] = {{.kind = KVRAIL_LEVEL_STRIDED, .axis = KVRAIL_AXIS_LAYER}, ALONG(TOKEN)};
        kvrail_declaration d = DECLARE(mla_axes, order, mla_planes);
        kvrail_distance distance = {.kind = KVRAIL_DISTANCE_STRIDE, .axis = KVRAIL_AXIS_LAYER, .bytes = 81920};
        const kvrail_layout *open, *placed;
        OK(kvrail_layout_declare(&d, &open));
        CHECK(info_of(open).complete == 0);
        d.distances = &distance;
        d.distance_count = 1;
        OK(kvrail_layout_declare(&d, &placed));
        CHECK(info_of(placed).complete == 1);
        uint64_t indices[] = {2, 1}, offset = 0;
        uint32_t region;
        OK(kvrail_layout_offset(placed, "latent", indices, 2, &region, &offset));
        CHECK(offset == 2 * 81920 + 1152);
        distance.bytes = 1;
        EXPECT(1076, kvrail_layout_declare(&d, &placed));
    }
    const kvrail_layout *opaque;
    OK(kvrail_layout_opaque(131072, &opaque));
    CHECK(info_of(opaque).page_bytes == 131072 && info_of(opaque).synthetic == 1);
    return verdict("layouts");
}
