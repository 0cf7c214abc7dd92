//! The file as it is written, before its values are checked.

use serde::Deserialize;
use toml::Spanned;

type Text = Spanned<String>;
type Seconds = Spanned<f64>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) name: Text,
    pub(super) listen: Option<Text>,
    pub(super) advertise: Option<Text>,
    pub(super) zone: Option<Text>,
    pub(super) psk_file: Text,
    pub(super) tag_secret_file: Text,
    pub(super) metrics: Option<Text>,
    pub(super) slow_request_seconds: Option<Seconds>,
    pub(super) transport: Option<RawTransport>,
    #[serde(default)]
    pub(super) layouts: Vec<Text>,
    #[serde(default)]
    pub(super) pool: Vec<RawPool>,
    pub(super) directory: Option<RawDirectory>,
    pub(super) timeouts: Option<RawTimeouts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTransport {
    pub(super) kind: Text,
    #[serde(default)]
    pub(super) rails: Vec<Text>,
    pub(super) readers: Option<Spanned<i64>>,
    pub(super) peers: Option<Spanned<i64>>,
    pub(super) near_nics: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPool {
    pub(super) layout: Text,
    pub(super) pages: Option<Spanned<i64>>,
    pub(super) bytes: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDirectory {
    pub(super) kind: Text,
    pub(super) candidates: Option<Vec<Text>>,
    pub(super) prefix: Option<Text>,
    pub(super) lease_seconds: Option<Seconds>,
    pub(super) cache_seconds: Option<Seconds>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTimeouts {
    pub(super) connect_seconds: Option<Seconds>,
    pub(super) request_seconds: Option<Seconds>,
}
