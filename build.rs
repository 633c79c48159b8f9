//! Compiles `proto/` without a protoc on the machine, and records the commit the binary is built from.

use std::process::Command;

const PROTO_FILE: &str = "backupv1/envelope.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile([PROTO_FILE], ["proto"])?;
    prost_build::Config::new().compile_fds(descriptors)?;

    // Only a release must name its commit exactly; a debug build after each commit would be waste.
    if std::env::var("PROFILE").as_deref() == Ok("release")
        && let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
    {
        println!("cargo:rerun-if-changed={log}");
    }
    lay_out();
    // A build without a checkout (a container's build context) may be told.
    println!("cargo:rerun-if-env-changed=BACKUPY_COMMIT");
    let told = std::env::var("BACKUPY_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo:rustc-env=BACKUPY_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    Ok(())
}

/// What an idle agent never calls is laid apart from what it calls: less of the binary is resident. GNU ld and lld know
/// such scripts, gold and mold do not: for them, and for builds that are not for use, the order is the compiler's.
fn lay_out() {
    const LAYOUT: &str = "build/layout.ld";
    println!("cargo:rerun-if-changed={LAYOUT}");
    let is = |name: &str, value: &str| std::env::var(name).as_deref() == Ok(value);
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut linkers =
        flags.split('\u{1f}').filter_map(|flag| flag.split_once("-fuse-ld=").map(|(_, linker)| linker));
    if let Ok(root) = std::env::var("CARGO_MANIFEST_DIR")
        && is("PROFILE", "release")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && linkers.all(|linker| ["bfd", "lld"].contains(&linker))
    {
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{root}/{LAYOUT}");
    }
}

/// What git answers, where this is a git checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| answer.trim().to_owned())
}
