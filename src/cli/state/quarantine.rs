//! What was set aside, written to a file for whoever wants to look at it, and then let go.

use crate::cli::{CliError, CliResult};
use crate::daemon::report::StateReport;
use crate::model::SysExit;
use crate::store::{Quarantined, Store};
use data_encoding::{BASE64, HEXLOWER};
use secrecy::SecretString;
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Exports first, so that nothing goes that is not on the disk elsewhere. Answers how many there were.
pub(super) fn settle(
    state_dir: &Path,
    agent_key: &SecretString,
    export_to: Option<&Path>,
    drop_them: bool,
) -> Result<usize, CliError> {
    let failed = |error: crate::store::StoreError| CliError::new(error.exit(), &error);
    let open = if drop_them {
        Store::open(state_dir, agent_key, crate::store::Options::default())
    } else {
        Store::open_read_only(state_dir, agent_key)
    };
    let (mut store, _) = open.map_err(failed)?;
    let records = store.quarantined().map_err(failed)?;
    if let Some(path) = export_to {
        export(path, &records, &store)?;
    }
    if drop_them && !records.is_empty() {
        store.drop_quarantine().map_err(failed)?;
    }
    Ok(records.len())
}

/// One line of JSON a record, in a new file of the owner's alone: a record may open under some key.
fn export(path: &Path, records: &[Quarantined], store: &Store) -> CliResult {
    let cannot = |exit: SysExit| {
        move |error: std::io::Error| CliError::new(exit, format_args!("{}: {error}", path.display()))
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(cannot(SysExit::CannotCreate))?;
    let mut writer = BufWriter::new(file);
    for record in records {
        let shown = StateReport::set_aside(record);
        let line = json!({
            "state_file": store.path(),
            "table": record.table,
            "key_hex": HEXLOWER.encode(&record.key),
            "name": shown.name,
            "kind": shown.kind,
            "seq": shown.seq,
            "at_ms": record.at_ms,
            "why": record.why,
            "value_base64": BASE64.encode(&record.value),
        });
        writeln!(writer, "{line}").map_err(cannot(SysExit::Io))?;
    }
    let synced = writer.into_inner().map_err(|error| error.into_error()).and_then(|file| file.sync_all());
    synced.map_err(cannot(SysExit::Io))
}
