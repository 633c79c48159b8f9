//! The flags of what a run is done with, ordered by a server or by `backup`.

/// Flags for the keys of [`RunSettings`](crate::settings::RunSettings), over the environment and the file.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct RunArgs {
    /// PEM file with the roots that certificates must lead to.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<String>,
    /// Allow http and ws, for development.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_insecure: Option<String>,
    /// HTTP proxy that takes CONNECT.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Hosts that are reached without the proxy, separated by commas.
    #[arg(long, value_name = "HOSTS")]
    no_proxy: Option<String>,
    /// Free space below which new work is refused, such as "64 MiB".
    #[arg(long, value_name = "SIZE")]
    min_free_bytes: Option<String>,
    /// Directory for encrypted objects on their way.
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<String>,
    /// Whether a whole object lies on the disk before it goes up: auto, always or never.
    #[arg(long, value_name = "USE")]
    spool: Option<String>,
    /// 1 (fast) to 22 (small), for zstd.
    #[arg(long, value_name = "LEVEL")]
    zstd_level: Option<String>,
    /// 1 (fast) to 9 (small), for gzip.
    #[arg(long, value_name = "LEVEL")]
    gzip_level: Option<String>,
    /// Compression threads.
    #[arg(long, value_name = "COUNT")]
    threads: Option<String>,
    /// Niceness of dump tools, 0 to 19.
    #[arg(long, value_name = "NUMBER")]
    nice: Option<String>,
    /// Dump tools read the disk only when nobody else does.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    idle_io: Option<String>,
    /// Read no faster from databases, such as "10 MiB"; 0 is no limit.
    #[arg(long, value_name = "SIZE")]
    max_read_bytes_per_sec: Option<String>,
    /// Upload no faster; 0 is no limit.
    #[arg(long, value_name = "SIZE")]
    max_upload_bytes_per_sec: Option<String>,
    /// Socket of the Docker engine.
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<String>,
}

impl RunArgs {
    /// Each key with what was typed for it.
    pub fn flags(self) -> [(&'static str, Option<String>); 15] {
        [
            ("server.ca_file", self.ca_file),
            ("server.allow_insecure", self.allow_insecure),
            ("server.proxy", self.proxy),
            ("server.no_proxy", self.no_proxy),
            ("state.min_free_bytes", self.min_free_bytes),
            ("backup.spool_dir", self.spool_dir),
            ("backup.spool", self.spool),
            ("backup.zstd_level", self.zstd_level),
            ("backup.gzip_level", self.gzip_level),
            ("backup.threads", self.threads),
            ("backup.nice", self.nice),
            ("backup.idle_io", self.idle_io),
            ("backup.max_read_bytes_per_sec", self.max_read_bytes_per_sec),
            ("backup.max_upload_bytes_per_sec", self.max_upload_bytes_per_sec),
            ("docker.socket", self.docker_socket),
        ]
    }
}
