//! Puts the functions that a run executes side by side in the static program: the kernel brings code into memory in pieces of 64 KiB,
//! and without this nearly every piece has something that is needed. hot/record.py makes the list; a name in it that the program does not
//! have (another compiler, other dependencies) costs memory, nothing else.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=hot/functions");
    let is = |name: &str, value: &str| var(name).is_ok_and(|v| v.split(',').any(|v| v == value));
    // Where the compiler's own linker is LLD. Others do not know the option.
    let lld = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu") && var("RUSTC_LINKER").is_err();
    if let Some(here) = var("CARGO_MANIFEST_DIR").ok().filter(|_| lld && is("CARGO_CFG_TARGET_FEATURE", "crt-static")) {
        println!("cargo:rustc-link-arg-bins=-Wl,--symbol-ordering-file={here}/hot/functions,--no-warn-symbol-ordering");
    }
    // For hot/record.py.
    println!("cargo:rerun-if-env-changed=RRUN_LINK_MAP");
    if let Ok(map) = var("RRUN_LINK_MAP") {
        println!("cargo:rustc-link-arg-bins=-Wl,-Map={map}");
    }
}
