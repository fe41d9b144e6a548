//! Credentials in the kernel's keyring of the user: never on a disk, gone with the next boot.

use std::ffi::CString;
use std::path::Path;

use rrun_sys::{Error, keys};

use super::helper::Secret;
use crate::failure::Failure;

/// Two configurations are two logins.
fn description(config: &Path, server: &str) -> Result<CString, Failure> {
    let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    let text = format!("rdocker credentials for {server} of {}", config.display());
    CString::new(text).map_err(|_| Failure::message(format!("{server:?} is no registry's name")))
}

fn told(err: &Error) -> Failure {
    Failure::message(err.to_string())
}

/// # Errors
/// When there is no keyring for us, or it is full.
pub fn store(config: &Path, server: &str, secret: &Secret) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(secret).expect("a struct of strings can always be written as JSON");
    keys::store_user_key(&description(config, server)?, &bytes).map_err(|err| told(&err))
}

/// # Errors
/// When what is there is not ours; that there is nothing, or no keyring, is `None`.
pub fn get(config: &Path, server: &str) -> Result<Option<Secret>, Failure> {
    let Ok(bytes) = keys::read_user_key(&description(config, server)?) else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|_| Failure::message(format!("the kernel's keyring holds no credentials for {server}, but something else")))
}

/// That there is nothing, or no keyring, is fine.
///
/// # Errors
/// For a server that is no name.
pub fn erase(config: &Path, server: &str) -> Result<(), Failure> {
    drop(keys::remove_user_key(&description(config, server)?));
    Ok(())
}
