//! The path of kvrail where `crate = ".."` does not give it.
//!
//! A dependency may be renamed (`kv = { package = "kvrail" }`). Then `::kvrail` names nothing, and
//! the compiler would report every path of an expansion without the remedy. So this module reads
//! the manifest. Where it renames kvrail, one error says what to write, and the expansion uses
//! kvrail's actual name, so that nothing else is reported.

use std::path::PathBuf;

use proc_macro2::Ident;
use syn::{Path, parse_quote};

/// The name that the compiled crate's manifest gives to kvrail, if it is another one.
pub(crate) fn renamed_here() -> Option<String> {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR")?;
    renamed(&std::fs::read_to_string(PathBuf::from(folder).join("Cargo.toml")).ok()?)
}

/// The path of kvrail where `crate = ".."` does not give it, and a mistake if the dependency is
/// renamed.
pub(crate) fn default_path(renamed: Option<&str>, ident: &Ident) -> (Path, Option<syn::Error>) {
    let found = renamed.and_then(|name| Some((name, syn::parse_str::<Ident>(name).ok()?)));
    let Some((name, known)) = found else { return (parse_quote!(::kvrail), None) };
    let text = format!(
        "this crate's Cargo.toml calls kvrail `{name}`, and the macro looks for `::kvrail`: add \
         `#[kv(crate = \"::{name}\")]`"
    );
    (parse_quote!(::#known), Some(syn::Error::new(ident.span(), text)))
}

/// The name under which a manifest has kvrail, if it is not `kvrail`. The manifest is read line by
/// line. An unusual spelling is not found; then the compiler reports the path by itself.
fn renamed(manifest: &str) -> Option<String> {
    let mut table = "";
    let mut name = None;
    for line in manifest.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']);
        }
        // `[dependencies]`, or `[dependencies.kv]`, of any target or purpose.
        let (of, entry) = match table.rsplit_once('.') {
            Some((of, entry)) if of.ends_with("dependencies") => (of, Some(entry)),
            _ => (table, None),
        };
        if !of.ends_with("dependencies") {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let key = entry.unwrap_or(key).trim().trim_matches('"');
        // `kvrail.workspace = true`
        let key = key.split('.').next().unwrap_or(key);
        let compact = |text: &str| text.split_whitespace().collect::<String>();
        let (line, value) = (compact(line), compact(value));
        let renames = match entry {
            Some(_) => line == "package=\"kvrail\"",
            None => value.contains("package=\"kvrail\""),
        };
        match (key, renames) {
            ("kvrail", _) => return None,
            (key, true) => name = Some(key.replace('-', "_")),
            _ => {}
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::renamed;

    #[test]
    fn a_name_is_found_where_people_write_it() {
        for (manifest, name) in [
            ("[dependencies]\nkv = { package = \"kvrail\", version = \"0.1\" }", Some("kv")),
            (
                "[dependencies]\nserde = \"1\"\nmy-kv = {version=\"0.1\",package=\"kvrail\"} # renamed",
                Some("my_kv"),
            ),
            ("[dev-dependencies.kv]\nversion = \"0.1\"\npackage = \"kvrail\"", Some("kv")),
            ("[target.'cfg(unix)'.dependencies]\nkv = { package = \"kvrail\" }", Some("kv")),
            // Under its own name, whatever other names it has.
            ("[dependencies]\nkvrail = \"0.1\"", None),
            ("[dependencies]\nkvrail.workspace = true\nkv = { package = \"kvrail\" }", None),
            ("[dependencies.kvrail]\npath = \"..\"", None),
            // Other packages, other tables, nothing.
            ("[dependencies]\nkv = { package = \"kvrail-layouts\" }", None),
            ("[package]\nname = \"kvrail\"\n[dependencies]\nserde = \"1\"", None),
            ("[package.metadata.x]\nkv = { package = \"kvrail\" }", None),
            ("", None),
        ] {
            assert_eq!(renamed(manifest).as_deref(), name, "{manifest}");
        }
    }
}
