//! The derive that declares a KV-cache page, and the macro that declares its reader.
//!
//! ```
//! # use kvrail_layouts::{Bf16, KvLayout as _};
//! # use kvrail_macros::KvLayout;
//! #[derive(KvLayout)]
//! # #[kv(crate = "kvrail_layouts")]
//! #[kv(order(layer, token), layers = 61, tokens = 64)]
//! struct Mla {
//!     latent: [Bf16; 512],
//!     rope: [Bf16; 64],
//! }
//!
//! assert_eq!(Mla::PAGE_BYTES, 4_497_408);
//! ```
//!
//! Each macro works in four steps, one module each. The parser splits attributes and items into
//! keys and values. `check` gives them a meaning and collects every mistake, each on its own token.
//! `ast` is a legal declaration and can hold no other. `expand` writes it as one constant of
//! `kvrail::layouts::Declaration` and one impl. A macro knows no sizes (`[Bf16; N]`):
//! `Declaration::build` checks them in a constant, and its message is shown on the token by its
//! span.

mod attribute;
#[cfg(test)]
mod golden;
mod krate;
mod layout;
mod mistakes;
mod reader;
mod spans;

use proc_macro::TokenStream;

/// Declares a page: implements `KvLayout` for a struct whose fields are one row, and gives the
/// struct a constant for each field (`Mla::LATENT` for `latent`), by which views find it.
///
/// # On the struct
///
/// `#[kv(..)]` takes, in any order and over any number of attributes:
///
/// - `order(..)`, required: the levels of the page, outermost first. A level is
///   - an axis, `layer`, `token`, `part` (K and V), `head`, `block` or one of your own: its indices
///     follow each other densely;
///   - `strided(axis)`: they are a distance apart that is known only at run time;
///   - `regions(axis)`: each is in a region of its own;
///   - `planes`, `strided(planes)` or `regions(planes)`: here the planes split; the levels that
///     follow are within each plane;
///   - `pad(N)`: what follows is padded up to a multiple of N bytes, any number.
/// - `layers = N`, `tokens = N`, `parts = N`, `heads = N`, `blocks = N`: how many; one for each
///   axis in the order.
/// - `axis(tile = N)`: an axis of your own, `tile` in the order. In the fingerprint it is a number:
///   its place among your own axes, from 0, or what `axis(tile = N, tag = 7)` says.
/// - `sharded(head, ranks = N)`: the page holds one of N equal parts of the axis; its extent is
///   that part's. `sharded(head, ranks = N, rank = R)` also says which. `replicated(layer, ranks =
///   N)`: each of N ranks holds all of it.
/// - `stage(layer, first = F, of = N)`: the page holds the indices from F on of an axis that has N
///   in all; how many it holds is the axis's extent. Of the token axis these are states.
/// - `tokens_per_state = N`: a state stands for N tokens; `tokens` counts tokens and must be a
///   multiple.
/// - `align = N`: every region's address and length is a multiple of N.
/// - `bytes = N`: the page's size, checked.
/// - `version = N`, `swizzle = N`: part of the fingerprint.
/// - `name = ".."`: what messages call the page; the struct's name otherwise.
/// - `crate = "path"`: where kvrail is, or `kvrail-layouts`; `::kvrail` otherwise.
///
/// A number is a literal, a constant, a const parameter, or an expression of them, of type `usize`.
/// (A tag is a literal.)
///
/// # On a field
///
/// A field is an element (`F32`) or an array of them (`[Bf16; 64]`).
///
/// - `plane`: a new plane begins with this field; with `order(..)`, it has levels of its own in
///   place of those after `planes`.
/// - `name = ".."`: what the fingerprint calls the field; its own name otherwise.
///
/// # Parameters
///
/// A struct may have const parameters, for lengths and numbers, and type parameters, which are
/// elements:
///
/// ```
/// # use kvrail_layouts::{Bf16, E4m3, KvLayout as _};
/// # use kvrail_macros::KvLayout;
/// #[derive(KvLayout)]
/// # #[kv(crate = "kvrail_layouts")]
/// #[kv(order(planes, token, head), tokens = 64, heads = H)]
/// struct Gqa<const H: usize, E> {
///     k: [E; 128],
///     #[kv(plane)]
///     v: [E; 128],
/// }
///
/// assert_eq!(Gqa::<8, Bf16>::PAGE_BYTES, 262_144);
/// assert_eq!(Gqa::<1, E4m3>::PAGE_BYTES, 16_384);
/// ```
///
/// A mistake in a number that depends on parameters is reported on the number's token, when an
/// instance is used in a constant or compiled. Where all parameters have defaults, the instance of
/// the defaults is checked at once.
#[proc_macro_derive(KvLayout, attributes(kv))]
pub fn derive_kv_layout(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    layout::derive(&input, krate::renamed_here().as_deref()).into()
}

/// Declares a type of reader: its pages, and the maxima of everything that it holds.
///
/// ```
/// use kvrail::{Config, KvLayout, Storage, engine, shm};
/// # use kvrail::layouts::Bf16;
///
/// #[derive(KvLayout)]
/// #[kv(order(layer, token), layers = 61, tokens = 64)]
/// struct Mla { latent: [Bf16; 512], rope: [Bf16; 64] }
///
/// engine! { pub Reader { page: Mla, max_rails: 8, max_peers: 256, max_batch: 64 } }
/// static STORAGE: Storage<Reader> = Storage::new();
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let reader = Reader::start(STORAGE.take()?, shm::rails(2)?, Config::default())?;
/// assert_eq!(reader.layout().page_bytes(), 4_497_408);
/// # Ok(())
/// # }
/// ```
///
/// `Reader` is `Reader<N = ShmRails>` for any rails `N`, and derefs to kvrail's own `Reader`. Its
/// whole state is `Reader::STATE_BYTES` large and lives in a `Storage`: in a `static`, which takes
/// no room in the program's file. How many rails and lanes are in use, and the
/// chunk where none is declared, is set at run time, within the maxima. `Config::engine` must not
/// contradict a declared number.
///
/// # Keys
///
/// | key | unless given | what |
/// |---|---|---|
/// | `page` | | a type that derives `KvLayout`; `sharded` without a rank: see `start_as` |
/// | `pages` | `[]` | other layouts of which it asks peers for pools: `[Indexer, Window]` |
/// | `max_rails` | 8 | local rails, up to 16 |
/// | `max_peers` | 64 | peers connected at a time |
/// | `max_pools` | 2 per peer | pools of all peers together |
/// | `max_regions` | those of the pools, and their tables | regions of all peers and their tables |
/// | `max_lanes` | 2 per rail and peer, 16,384 at most | lanes to all peers together |
/// | `max_depth` | 128 | send queue entries of a lane, a power of two |
/// | `max_batch` | 256 | pages of one batch |
/// | `max_batches` | 64 | batches being filled, in flight, or done |
/// | `max_submitters` | 0 | other threads that feed the reader, up to 64 |
/// | `max_plans` | 1,023 | copy plans known at a time, up to 1,023 |
/// | `chunk` | what suits the rails | bytes that travel as one work request |
/// | `rail_bytes`, `rail_wrs` | what suits the rails | bytes and wrs outstanding on a rail |
/// | `deadline_ms` | 1000 | milliseconds from now to `reader.deadline()` |
/// | `max_message` | 2^30 | the longest message of the device, for `chunk` |
/// | `max_cq` | | the largest completion queue of the device, for lanes and depth |
/// | `plan`, `max_sges` | | a copy plan, and the pieces of a work request that the device takes |
///
/// A value is any constant of type `usize`. Numbers that cannot work together are a compile error
/// on the one to change: "chunk is 262144, page has only 41984: lower chunk, or leave it out".
///
/// `#[kv(crate = "..")]` on the declaration says where kvrail is, if not at `::kvrail`, as it does
/// on a page; documentation goes to the type.
///
/// `#[kv(bare)]` declares an engine without a reader around it, for programs without std: see
/// `kvrail::bare`. It takes all keys but `max_submitters` and `max_plans`.
#[proc_macro]
pub fn engine(input: TokenStream) -> TokenStream {
    reader::engine(input.into(), krate::renamed_here().as_deref()).into()
}
