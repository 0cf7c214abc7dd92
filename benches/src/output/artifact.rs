//! Reports that earlier runs wrote, read back.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::output::json::{Report, SCHEMA};

/// The most bytes of a report. A sweep of 64 rows over 16 rails has less than one of them.
const LONGEST: u64 = 64 << 20;

/// The formats that are read: this one, and the one before it, which lacks what is optional now.
const KNOWN: [&str; 2] = [SCHEMA, "kvrail-bench/2"];

/// A report that was read.
#[derive(Debug)]
pub(crate) struct Artifact {
    /// The name of its file, without folder and ending.
    pub(crate) name: String,
    pub(crate) report: Report<Value>,
}

/// Why a file is no report that can be drawn.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactError {
    /// It cannot be read.
    #[error("cannot read {}: {source}; give the file that --json wrote", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// It is longer than any report.
    #[error("{} has more than {LONGEST} bytes, which no report has: give the file that --json wrote", path.display())]
    TooLong { path: PathBuf },
    /// It has no content.
    #[error("{} is empty: the run that was to write it has not ended, or was killed; run it again", path.display())]
    Empty { path: PathBuf },
    /// It ends too early.
    #[error(
        "{} ends in the middle of the report, after {bytes} bytes: the disk was full, or the copy is not whole; copy it again, or run it again",
        path.display()
    )]
    Truncated { path: PathBuf, bytes: usize },
    /// It is no report.
    #[error("{} is no report of kvrail-bench: {why}; give the file that --json wrote", path.display())]
    Malformed { path: PathBuf, why: String },
    /// It is in a format that is not known.
    #[error(
        "{} has the format `{schema}`, and this kvrail-bench reads {}: use the kvrail-bench that wrote it, or run it again",
        path.display(), KNOWN.join(" and ")
    )]
    UnknownSchema { path: PathBuf, schema: String },
    /// It is of another command.
    #[error(
        "{} is a report in the format `{schema}`, which has no rows to draw: give reports of demo, ladder and drive",
        path.display()
    )]
    OtherCommand { path: PathBuf, schema: String },
    /// Its run was stopped.
    #[error(
        "{} is of a run that was stopped before its end: rows are missing or short; run it again, or take what there is by `report --partial`",
        path.display()
    )]
    Partial { path: PathBuf },
}

/// Reads a report. `partial`: that of a run that was stopped is taken, too.
///
/// # Errors
///
/// The file cannot be read, or is no such report.
pub(crate) fn read(path: &Path, partial: bool) -> Result<Artifact, ArtifactError> {
    let own = || path.to_owned();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    read.map_err(|source| ArtifactError::Unreadable { path: own(), source })?;
    if bytes.len() as u64 > LONGEST {
        return Err(ArtifactError::TooLong { path: own() });
    }
    if bytes.trim_ascii().is_empty() {
        return Err(ArtifactError::Empty { path: own() });
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| match error.is_eof() {
        true => ArtifactError::Truncated { path: own(), bytes: bytes.len() },
        false => ArtifactError::Malformed { path: own(), why: error.to_string() },
    })?;
    let Some(schema) = value["schema"].as_str() else {
        return Err(ArtifactError::Malformed { path: own(), why: "it has no field `schema`".into() });
    };
    let schema: String = schema.chars().filter(|char| !char.is_control()).take(40).collect();
    if schema.starts_with("kvrail-bench-") {
        return Err(ArtifactError::OtherCommand { path: own(), schema });
    }
    if !KNOWN.contains(&schema.as_str()) {
        return Err(ArtifactError::UnknownSchema { path: own(), schema });
    }
    let report: Report<Value> = serde_json::from_value(value)
        .map_err(|error| ArtifactError::Malformed { path: own(), why: error.to_string() })?;
    if report.partial && !partial {
        return Err(ArtifactError::Partial { path: own() });
    }
    let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(Artifact { name, report })
}
