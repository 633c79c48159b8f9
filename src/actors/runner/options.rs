//! What the host's owner says about runs, as runs take it: the same for those that a server orders and for `backup`.

use crate::backup::{Options, Rate, hooks, upload};
use crate::channel::{DialError, Routes};
use crate::drivers;
use crate::process::Manners;
use crate::settings::{RunSettings, Stores};
use crate::spool::Room;
use std::sync::Arc;

/// Of the settings; hooks are only a server's.
pub fn run_options(settings: &RunSettings, hooks: hooks::Options) -> Options {
    let RunSettings { stores, min_free_bytes, backup, docker_socket } = settings;
    Options {
        spool_dir: backup.spool_dir.clone(),
        spool: backup.spool,
        zstd_level: backup.zstd_level,
        gzip_level: backup.gzip_level,
        threads: backup.threads,
        room: Room { min_free_bytes: *min_free_bytes, ..Room::default() },
        host: drivers::Host {
            tools: drivers::Tools::default(),
            manners: Manners { nice: backup.nice, idle_io: backup.idle_io },
            docker: drivers::Access { socket: docker_socket.clone(), ..drivers::Access::default() },
        },
        read_rate: Rate::new(backup.max_read_bytes_per_sec),
        upload: upload::Options {
            allow_insecure: stores.allow_insecure,
            ca_file: stores.ca_file.clone(),
            timing: upload::Timing::default(),
            rate: Rate::new(backup.max_upload_bytes_per_sec),
            connect: to_store(stores),
        },
        hooks,
    }
}

/// The way to object stores: through the proxy, but for the hosts that are reached without it.
fn to_store(stores: &Stores) -> Arc<upload::Connect> {
    let routes = Routes::new(stores.proxy.clone(), stores.no_proxy.clone());
    Arc::new(move |host, port| {
        let routes = routes.clone();
        Box::pin(async move {
            routes.connect(&host, port).await.map_err(|error| match error {
                DialError::Proxy { .. } => upload::Broken::Lasting(error.to_string()),
                DialError::Timeout { .. }
                | DialError::Resolve { .. }
                | DialError::Connect { .. }
                | DialError::Tls { .. }
                | DialError::Unauthorized { .. }
                | DialError::Status { .. }
                | DialError::Handshake { .. } => upload::Broken::Passing(error.to_string()),
            })
        })
    })
}
